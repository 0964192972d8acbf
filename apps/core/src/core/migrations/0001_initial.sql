-- The measurement tables. PostgreSQL 15 or newer, no extension. All times without zone are UTC.
--
-- Text that probes choose can be longer than a B-tree entry may be (2704 bytes), so every index on such text is on
-- left(column, 200) (at most 800 bytes), and queries say  left(x, 200) = left(%s, 200) AND x = %s.
-- Keys of counters are hashes for the same reason.

CREATE TYPE ootest AS ENUM (
    'telegram',
    'facebook_messenger',
    'http_header_field_manipulation',
    'http_invalid_request_line',
    'whatsapp',
    'vanilla_tor',
    'web_connectivity',
    'ndt',
    'tcp_connect',
    'dash',
    'meek_fronted_requests_test',
    'psiphon',
    'tor',
    'http_requests',
    'dns_consistency',
    'signal',
    'stunreachability',
    'torsf',
    'riseupvpn',
    'openvpn',
    'browser_web',
    'bridge_reachability',
    'http_host',
    'multi_protocol_traceroute',
    'urlgetter',
    'dnscheck',
    'echcheck',
    'sni_blocking',
    'quicping',
    'tcpping',
    'tlsping',
    'simplequicping',
    'dnsping',
    'tlsmiddlebox',
    'portfiltering',
    'tls_handshake',
    'captive_portal',
    'dns_spoof',
    'dns_injection',
    'lantern_circumvention_tool_test',
    'http_url_list',
    'psiphon_test',
    'parasitic_traceroute',
    'http_filtering_bypass',
    'http_trix',
    'http_test',
    'netalyzr_wrapper',
    'http_host_header',
    'tlstool',
    'openvpn_client_test',
    'stun_reachability',
    'dns_n_http',
    'website_probe'
);

-- fastpath ------------------------------------------------------------------------------------------------------------

CREATE TABLE fastpath (
    measurement_uid text NOT NULL,
    report_id text NOT NULL DEFAULT '',
    input text NOT NULL DEFAULT '',
    domain text NOT NULL DEFAULT '',
    probe_cc text NOT NULL DEFAULT '',
    probe_asn bigint NOT NULL DEFAULT 0,
    test_name ootest,
    test_name_other text,
    test_start_time timestamp,
    measurement_start_time timestamp NOT NULL,
    scores json NOT NULL,
    anomaly boolean NOT NULL,
    confirmed boolean NOT NULL,
    msm_failure boolean NOT NULL,
    blocking_type text,
    platform text,
    architecture text,
    engine_name text,
    engine_version text,
    software_name text,
    software_version text,
    test_version text,
    test_runtime double precision,
    test_helper_address text,
    test_helper_type text,
    ooni_run_link_id numeric(20),
    is_verified text,
    reason text,
    update_time timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (measurement_uid, measurement_start_time)
) PARTITION BY RANGE (measurement_start_time);

COMMENT ON TABLE fastpath IS 'One row per scored measurement, partitioned by month of measurement_start_time.';
COMMENT ON COLUMN fastpath.test_name_other IS 'Test name as sent, when it is not a value of ootest (test_name is NULL then).';
COMMENT ON COLUMN fastpath.reason IS 'Why the scorer could not make sense of the document; NULL for ordinary rows.';

CREATE INDEX fastpath_report_id ON fastpath (left(report_id, 200));
CREATE INDEX fastpath_time ON fastpath (measurement_start_time);
CREATE INDEX fastpath_cc_time ON fastpath (left(probe_cc, 200), measurement_start_time);
CREATE INDEX fastpath_asn_time ON fastpath (probe_asn, measurement_start_time);
CREATE INDEX fastpath_test_time ON fastpath (test_name, measurement_start_time);
CREATE INDEX fastpath_domain_time ON fastpath (left(domain, 200), measurement_start_time);
CREATE INDEX fastpath_input_time ON fastpath (left(input, 200), measurement_start_time);
-- Few rows have an unknown test name or a run link, so these two cost ordinary rows nothing.
CREATE INDEX fastpath_test_other_time ON fastpath (left(test_name_other, 200), measurement_start_time)
    WHERE test_name IS NULL;
CREATE INDEX fastpath_run_link_time ON fastpath (ooni_run_link_id, measurement_start_time)
    WHERE ooni_run_link_id IS NOT NULL;

-- Probes choose measurement_start_time; rows whose month has no partition land here.
CREATE TABLE fastpath_default PARTITION OF fastpath DEFAULT;

-- Makes the monthly partitions of [since, until), moves rows of these months out of the default partition and returns
-- how many partitions are new. Only operators and servers call it: a probe never makes a partition. Safe to call twice,
-- and by two servers at once. The new table is filled first and attached then, so that readers of the other partitions go
-- on. Writers wait: one that had already chosen the default partition for its row would fail instead.
CREATE FUNCTION fastpath_ensure_partitions(since date, until date) RETURNS integer
LANGUAGE plpgsql AS $$
DECLARE
    first_day date := date_trunc('month', since)::date;
    next_month date;
    partition_name text;
    made integer := 0;
BEGIN
    IF since < date '1990-01-01' OR until > date '2200-01-01' THEN
        RAISE EXCEPTION 'partitions are made for 1990 to 2199 only, not for % to %', since, until
            USING HINT = 'Rows with impossible dates belong in fastpath_default.';
    END IF;
    PERFORM pg_advisory_xact_lock(hashtext('fastpath_ensure_partitions'));
    WHILE first_day < until LOOP
        next_month := (first_day + interval '1 month')::date;
        partition_name := 'fastpath_' || to_char(first_day, 'YYYYMM');
        IF to_regclass(partition_name) IS NULL THEN
            EXECUTE format('CREATE TABLE %I (LIKE fastpath INCLUDING ALL)', partition_name);
            LOCK TABLE ONLY fastpath IN SHARE ROW EXCLUSIVE MODE;
            LOCK TABLE fastpath_default IN ACCESS EXCLUSIVE MODE;
            EXECUTE format(
                'WITH moved AS (DELETE FROM fastpath_default
                     WHERE measurement_start_time >= %L AND measurement_start_time < %L RETURNING *)
                 INSERT INTO %I SELECT * FROM moved', first_day, next_month, partition_name);
            EXECUTE format('ALTER TABLE fastpath ATTACH PARTITION %I FOR VALUES FROM (%L) TO (%L)',
                partition_name, first_day, next_month);
            made := made + 1;
        ELSIF NOT EXISTS (SELECT FROM pg_inherits
                          WHERE inhparent = 'fastpath'::regclass AND inhrelid = to_regclass(partition_name)) THEN
            RAISE EXCEPTION 'table % exists but is not a partition of fastpath', partition_name
                USING HINT = 'Attach it, or rename it if it was set aside.';
        END IF;
        first_day := next_month;
    END LOOP;
    RETURN made;
END $$;

-- Lookups by identifier. An identifier names a day (uids: reception; report ids: opening of the report), and nearly all
-- measurements start from 31 days before it to 2 days after it, so three partitions are enough. Rows for which that is
-- not so are listed in fastpath_misdated by a trigger. Hence no lookup ever visits (and locks) all partitions.
CREATE TABLE fastpath_misdated (
    measurement_uid text NOT NULL,
    measurement_start_time timestamp NOT NULL,
    report_id text NOT NULL,
    PRIMARY KEY (measurement_uid, measurement_start_time)
);
COMMENT ON TABLE fastpath_misdated IS 'Rows of fastpath whose start time is far from the day in their uid or report id.';
CREATE INDEX fastpath_misdated_report_id ON fastpath_misdated (left(report_id, 200));

-- Day of a uid (20210208220710.181572_…, or 01 + day + hash) or of a report id, as YYYYMMDD; any text when it has none.
CREATE FUNCTION fastpath_id_day(id text) RETURNS text
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN left(id, 2) = '01' THEN substr(id, 3, 8) ELSE left(id, 8) END COLLATE "C"
$$;

-- First day of the window in which the row of this identifier is looked for; NULL when the identifier names no day.
CREATE FUNCTION fastpath_window_start(id text) RETURNS timestamp
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS $$
    SELECT CASE WHEN fastpath_id_day(id) ~ '^[12][0-9]{3}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])$'
        THEN make_date(left(fastpath_id_day(id), 4)::integer, substr(fastpath_id_day(id), 5, 2)::integer, 1)::timestamp
             + make_interval(days => substr(fastpath_id_day(id), 7, 2)::integer - 32)
    END
$$;

CREATE FUNCTION fastpath_note_misdated() RETURNS trigger
LANGUAGE plpgsql AS $$
BEGIN
    INSERT INTO fastpath_misdated (measurement_uid, measurement_start_time, report_id)
        VALUES (NEW.measurement_uid, NEW.measurement_start_time, NEW.report_id)
        ON CONFLICT DO NOTHING;
    RETURN NULL;
END $$;

CREATE TRIGGER fastpath_note_misdated AFTER INSERT ON fastpath FOR EACH ROW
WHEN ((
    NEW.measurement_start_time >= fastpath_window_start(NEW.measurement_uid)
    AND NEW.measurement_start_time < fastpath_window_start(NEW.measurement_uid) + interval '34 days'
    AND NEW.measurement_start_time >= fastpath_window_start(NEW.report_id)
    AND NEW.measurement_start_time < fastpath_window_start(NEW.report_id) + interval '34 days'
) IS NOT TRUE)
EXECUTE FUNCTION fastpath_note_misdated();

-- EXECUTE in the next two functions is there for its plan: it is made for the very values, so it touches three partitions.

-- The rows of a measurement uid (normally one).
CREATE FUNCTION fastpath_by_uid(uid text) RETURNS SETOF fastpath
LANGUAGE plpgsql STABLE ROWS 1 AS $$
DECLARE
    since timestamp := fastpath_window_start(uid);
    started timestamp;
BEGIN
    IF since IS NOT NULL THEN
        RETURN QUERY EXECUTE 'SELECT * FROM fastpath WHERE measurement_uid = $1
            AND measurement_start_time >= $2 AND measurement_start_time < $3' USING uid, since, since + interval '34 days';
        IF FOUND THEN
            RETURN;
        END IF;
    END IF;
    FOR started IN SELECT m.measurement_start_time FROM fastpath_misdated m WHERE m.measurement_uid = uid LIMIT 100 LOOP
        RETURN QUERY EXECUTE 'SELECT * FROM fastpath WHERE measurement_uid = $1 AND measurement_start_time = $2'
            USING uid, started;
    END LOOP;
END $$;

-- The rows of a report id, in no particular order. A report with start times in more than 1000 odd months is cut there.
CREATE FUNCTION fastpath_by_report_id(rid text) RETURNS SETOF fastpath
LANGUAGE plpgsql STABLE ROWS 100 AS $$
DECLARE
    since timestamp := coalesce(fastpath_window_start(rid), timestamp '-infinity');
    until timestamp := since + interval '34 days';
    month timestamp;
BEGIN
    RETURN QUERY EXECUTE 'SELECT * FROM fastpath WHERE left(report_id, 200) = left($1, 200) AND report_id = $1
        AND measurement_start_time >= $2 AND measurement_start_time < $3' USING rid, since, until;
    FOR month IN
        SELECT DISTINCT date_trunc('month', m.measurement_start_time) FROM fastpath_misdated m
        WHERE left(m.report_id, 200) = left(rid, 200) AND m.report_id = rid LIMIT 1000
    LOOP
        RETURN QUERY EXECUTE 'SELECT * FROM fastpath WHERE left(report_id, 200) = left($1, 200) AND report_id = $1
            AND measurement_start_time >= $2 AND measurement_start_time < $3
            AND (measurement_start_time < $4 OR measurement_start_time >= $5)'
            USING rid, month, month + interval '1 month', since, until;
    END LOOP;
END $$;

-- Historic months, and a year ahead; `database_upgrade_schema` keeps the months ahead coming.
SELECT fastpath_ensure_partitions(date '2012-12-01', ((now() AT TIME ZONE 'UTC')::date + interval '12 months')::date);

-- Bodies --------------------------------------------------------------------------------------------------------------

CREATE TABLE jsonl (
    measurement_uid text PRIMARY KEY,
    report_id text NOT NULL,
    input text NOT NULL,
    s3path text NOT NULL,
    linenum integer NOT NULL,
    member_offset bigint,
    member_length bigint,
    raw_s3path text,
    raw_offset bigint,
    raw_length bigint,
    date date,
    source text,
    update_time timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE jsonl IS 'Where the body of a measurement is in the object store.';
COMMENT ON COLUMN jsonl.linenum IS 'Zero-based line in the decompressed object.';
COMMENT ON COLUMN jsonl.member_offset IS 'First byte of the gzip member that holds the line; one range read is enough.';
COMMENT ON COLUMN jsonl.raw_s3path IS 'Only when the line is not byte for byte what was sent: where the sent bytes are.';

CREATE TABLE upload_manifest (
    jsonl_s3path text PRIMARY KEY,
    postcan_s3path text NOT NULL,
    directory text NOT NULL,
    counter integer NOT NULL,
    measurements integer NOT NULL,
    jsonl_bytes bigint NOT NULL,
    jsonl_sha256 text NOT NULL,
    postcan_bytes bigint NOT NULL,
    postcan_sha256 text NOT NULL,
    committed_at timestamptz NOT NULL DEFAULT now(),
    UNIQUE (directory, counter)
);
COMMENT ON TABLE upload_manifest IS 'One row per pair of objects that the uploader has stored durably.';

-- Counters ------------------------------------------------------------------------------------------------------------

-- The four first counts exclude each other: ok is none of the flags, anomaly is A and not C and not F, confirmed is C and
-- not F, failure is F. They are maintained in the transaction that writes the rows. `key` stands for the fields of the row and is computed by the database; the lengths in it keep different fields from giving the same text.
CREATE TABLE counters_input (
    measurement_start_day date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    probe_asn bigint NOT NULL,
    domain text NOT NULL,
    input text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name || length(probe_cc)::text || ':' || probe_cc
        || probe_asn::text || ':' || length(domain)::text || ':' || domain || input)::uuid) STORED,
    PRIMARY KEY (measurement_start_day, key)
) WITH (fillfactor = 80);
CREATE INDEX counters_input_cc_day ON counters_input (left(probe_cc, 200), measurement_start_day);
CREATE INDEX counters_input_domain_day ON counters_input (left(domain, 200), measurement_start_day);
CREATE INDEX counters_input_input_day ON counters_input (left(input, 200), measurement_start_day);

CREATE TABLE counters_network (
    measurement_start_day date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    probe_asn bigint NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name || length(probe_cc)::text || ':' || probe_cc
        || probe_asn::text)::uuid) STORED,
    PRIMARY KEY (measurement_start_day, key)
) WITH (fillfactor = 80);
CREATE INDEX counters_network_cc_day ON counters_network (left(probe_cc, 200), measurement_start_day);
CREATE INDEX counters_network_asn_day ON counters_network (probe_asn, measurement_start_day);

CREATE TABLE counters_country (
    measurement_start_day date NOT NULL,
    test_name text NOT NULL,
    probe_cc text NOT NULL,
    ok_count bigint NOT NULL DEFAULT 0,
    anomaly_count bigint NOT NULL DEFAULT 0,
    confirmed_count bigint NOT NULL DEFAULT 0,
    failure_count bigint NOT NULL DEFAULT 0,
    measurement_count bigint NOT NULL DEFAULT 0,
    key uuid NOT NULL GENERATED ALWAYS AS (md5(
        length(test_name)::text || ':' || test_name || probe_cc)::uuid) STORED,
    PRIMARY KEY (measurement_start_day, key)
) WITH (fillfactor = 80);
CREATE INDEX counters_country_cc_day ON counters_country (left(probe_cc, 200), measurement_start_day);

-- Fingerprints --------------------------------------------------------------------------------------------------------

CREATE TABLE fingerprints_dns (
    name text PRIMARY KEY,
    scope text NOT NULL,
    other_names text NOT NULL DEFAULT '',
    location_found text NOT NULL DEFAULT '',
    pattern_type text NOT NULL,
    pattern text NOT NULL,
    confidence_no_fp integer NOT NULL,
    expected_countries text NOT NULL DEFAULT ''
);
COMMENT ON TABLE fingerprints_dns IS 'Answers of censoring resolvers.';

CREATE TABLE fingerprints_http (LIKE fingerprints_dns INCLUDING ALL);
COMMENT ON TABLE fingerprints_http IS 'Bodies and headers of block pages.';
