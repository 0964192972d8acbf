-- no-transaction
-- In what order the list of measurements goes through its values when it is about one test, or sorted by test.
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_month_country_test_cc
    ON counters_month_country (left(test_name, 200), left(probe_cc, 200), measurement_start_month);
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_month_network_test_asn
    ON counters_month_network (left(test_name, 200), probe_asn, measurement_start_month);
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_month_url_test_input
    ON counters_month_url (left(test_name, 200), left(input, 200), measurement_start_month);
