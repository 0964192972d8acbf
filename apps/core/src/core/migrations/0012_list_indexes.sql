-- no-transaction
-- Every filter of the list of measurements has an index that also gives the order of time.
CREATE INDEX CONCURRENTLY IF NOT EXISTS fastpath_software_version_time
    ON fastpath (left(software_version, 200), measurement_start_time);
CREATE INDEX CONCURRENTLY IF NOT EXISTS fastpath_engine_version_time
    ON fastpath (left(engine_version, 200), measurement_start_time);
CREATE INDEX CONCURRENTLY IF NOT EXISTS fastpath_test_version_time
    ON fastpath (left(test_version, 200), measurement_start_time);
-- Confirmed rows are few among the flagged ones, and flagged ones are few among all.
CREATE INDEX CONCURRENTLY IF NOT EXISTS fastpath_confirmed_time
    ON fastpath (measurement_start_time) WHERE confirmed;
CREATE INDEX CONCURRENTLY IF NOT EXISTS fastpath_flagged_time
    ON fastpath (measurement_start_time) WHERE anomaly OR confirmed OR msm_failure;
CREATE INDEX CONCURRENTLY IF NOT EXISTS fastpath_flagged_cc_time
    ON fastpath (left(probe_cc, 200), measurement_start_time) WHERE anomaly OR confirmed OR msm_failure;
