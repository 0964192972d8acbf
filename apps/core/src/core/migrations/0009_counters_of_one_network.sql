-- no-transaction
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_input_asn_day ON counters_input (probe_asn, measurement_start_day);
