-- no-transaction
-- Few measurements are of this test, and statistics of it go back six months in countries with millions of others.
CREATE INDEX CONCURRENTLY IF NOT EXISTS counters_network_vanilla_tor
    ON counters_network (left(probe_cc, 200), measurement_start_day) WHERE test_name = 'vanilla_tor';
-- What category a domain is in.
CREATE INDEX CONCURRENTLY IF NOT EXISTS citizenlab_domain ON citizenlab (domain);
