-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_input_cc_asn_day
    ON counters_input (left(probe_cc, 200), probe_asn, measurement_start_day) WHERE test_name = 'web_connectivity';
