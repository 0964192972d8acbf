-- Coarser counters: what charts over months, years and all time read, so that no chart adds up what is nearly as much as
-- the rows. Like the others they are written in the transaction that writes the rows (see core.counters).
--
-- They are filled here from those that exist, which takes some 21 s per million rows of counters_input and holds up nobody:
-- no lock is taken on what others write. A release before this one does not write these tables, neither meanwhile nor
-- afterwards. Until it is gone from all hosts and `analysis update-counters --full` has run, they may lack what it wrote:
-- charts show less, and lists leave out months older than the last two.

CREATE TABLE counters_domain (
    measurement_start_day date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    domain text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || length(probe_cc)::text || ':' || probe_cc
        || domain)::uuid) STORED,
    PRIMARY KEY (measurement_start_day, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_domain IS 'Charts of a domain by country.';

CREATE TABLE counters_url (
    measurement_start_day date NOT NULL,
    test_name text NOT NULL,
    domain text NOT NULL,
    input text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || length(domain)::text || ':' || domain
        || input)::uuid) STORED,
    PRIMARY KEY (measurement_start_day, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_url IS 'Charts of a domain, an input or a category over all countries.';

CREATE TABLE counters_blocking (
    measurement_start_day date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    blocking_type text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || length(probe_cc)::text || ':' || probe_cc
        || blocking_type)::uuid) STORED,
    PRIMARY KEY (measurement_start_day, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_blocking IS 'Only rows that have a blocking type; those without are the rest of counters_country.';

CREATE TABLE counters_month_input (
    measurement_start_month date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    domain text NOT NULL,
    input text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || length(probe_cc)::text || ':' || probe_cc
        || length(domain)::text || ':' || domain
        || input)::uuid) STORED,
    PRIMARY KEY (measurement_start_month, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_month_input IS 'Whole months of counters_input over all networks.';

CREATE TABLE counters_month_network (
    measurement_start_month date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    probe_asn bigint NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || length(probe_cc)::text || ':' || probe_cc
        || probe_asn::text)::uuid) STORED,
    PRIMARY KEY (measurement_start_month, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_month_network IS 'Whole months of counters_network.';

CREATE TABLE counters_month_url (
    measurement_start_month date NOT NULL,
    test_name text NOT NULL,
    domain text NOT NULL,
    input text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || length(domain)::text || ':' || domain
        || input)::uuid) STORED,
    PRIMARY KEY (measurement_start_month, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_month_url IS 'Whole months of counters_url.';

CREATE TABLE counters_month_country (
    measurement_start_month date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name
        || probe_cc)::uuid) STORED,
    PRIMARY KEY (measurement_start_month, key)
) WITH (fillfactor = 80);
COMMENT ON TABLE counters_month_country IS 'Whole months of counters_country.';

INSERT INTO counters_domain (measurement_start_day, test_name, probe_cc, domain,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT measurement_start_day, test_name, probe_cc, domain,
    sum(ok_count), sum(anomaly_count), sum(confirmed_count), sum(failure_count), sum(measurement_count)
FROM counters_input GROUP BY 1, test_name, probe_cc, domain;

INSERT INTO counters_url (measurement_start_day, test_name, domain, input,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT measurement_start_day, test_name, domain, input,
    sum(ok_count), sum(anomaly_count), sum(confirmed_count), sum(failure_count), sum(measurement_count)
FROM counters_input GROUP BY 1, test_name, domain, input;

INSERT INTO counters_month_input (measurement_start_month, test_name, probe_cc, domain, input,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT date_trunc('month', measurement_start_day)::date, test_name, probe_cc, domain, input,
    sum(ok_count), sum(anomaly_count), sum(confirmed_count), sum(failure_count), sum(measurement_count)
FROM counters_input GROUP BY 1, test_name, probe_cc, domain, input;

INSERT INTO counters_month_network (measurement_start_month, test_name, probe_cc, probe_asn,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT date_trunc('month', measurement_start_day)::date, test_name, probe_cc, probe_asn,
    sum(ok_count), sum(anomaly_count), sum(confirmed_count), sum(failure_count), sum(measurement_count)
FROM counters_network GROUP BY 1, test_name, probe_cc, probe_asn;

INSERT INTO counters_month_url (measurement_start_month, test_name, domain, input,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT date_trunc('month', measurement_start_day)::date, test_name, domain, input,
    sum(ok_count), sum(anomaly_count), sum(confirmed_count), sum(failure_count), sum(measurement_count)
FROM counters_url GROUP BY 1, test_name, domain, input;

INSERT INTO counters_month_country (measurement_start_month, test_name, probe_cc,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT date_trunc('month', measurement_start_day)::date, test_name, probe_cc,
    sum(ok_count), sum(anomaly_count), sum(confirmed_count), sum(failure_count), sum(measurement_count)
FROM counters_country GROUP BY 1, test_name, probe_cc;

INSERT INTO counters_blocking (measurement_start_day, test_name, probe_cc, blocking_type,
    ok_count, anomaly_count, confirmed_count, failure_count, measurement_count)
SELECT measurement_start_time::date, coalesce(test_name::text, test_name_other, ''), probe_cc, blocking_type,
    count(*) FILTER (WHERE NOT (anomaly OR confirmed OR msm_failure)),
    count(*) FILTER (WHERE anomaly AND NOT confirmed AND NOT msm_failure),
    count(*) FILTER (WHERE confirmed AND NOT msm_failure), count(*) FILTER (WHERE msm_failure), count(*)
FROM fastpath WHERE blocking_type <> '' GROUP BY 1, 2, probe_cc, blocking_type;

CREATE INDEX counters_domain_domain_cc_day
    ON counters_domain (left(domain, 200), left(probe_cc, 200), measurement_start_day);
CREATE INDEX counters_domain_cc_day ON counters_domain (left(probe_cc, 200), measurement_start_day);
CREATE INDEX counters_url_domain_day ON counters_url (left(domain, 200), measurement_start_day);
CREATE INDEX counters_url_input_day ON counters_url (left(input, 200), measurement_start_day);
CREATE INDEX counters_blocking_cc_day ON counters_blocking (left(probe_cc, 200), measurement_start_day);
CREATE INDEX counters_month_input_cc_month ON counters_month_input (left(probe_cc, 200), measurement_start_month);
CREATE INDEX counters_month_input_domain_month ON counters_month_input (left(domain, 200), measurement_start_month);
CREATE INDEX counters_month_input_input_month ON counters_month_input (left(input, 200), measurement_start_month);
CREATE INDEX counters_month_network_cc_month ON counters_month_network (left(probe_cc, 200), measurement_start_month);
CREATE INDEX counters_month_network_asn_month ON counters_month_network (probe_asn, measurement_start_month);
CREATE INDEX counters_month_url_domain_month ON counters_month_url (left(domain, 200), measurement_start_month);
CREATE INDEX counters_month_url_input_month ON counters_month_url (left(input, 200), measurement_start_month);
CREATE INDEX counters_month_country_cc_month ON counters_month_country (left(probe_cc, 200), measurement_start_month);
