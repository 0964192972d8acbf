-- no-transaction
-- Charts of one test over all countries, for a year and more by day.
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_country_test_day
    ON counters_country (left(test_name, 200), measurement_start_day);
-- What probes of one country measured of one URL: some URLs have another category in the list of a country.
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_input_input_cc_day
    ON counters_input (left(input, 200), left(probe_cc, 200), measurement_start_day);
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_month_input_input_cc
    ON counters_month_input (left(input, 200), left(probe_cc, 200), measurement_start_month);
