-- Names of networks, for people who read charts.
CREATE TABLE asnmeta (
    asn bigint NOT NULL,
    changed date NOT NULL,
    org_name text NOT NULL,
    cc text NOT NULL DEFAULT '',
    aut_name text NOT NULL DEFAULT '',
    source text NOT NULL DEFAULT '',
    PRIMARY KEY (asn, changed)
);
COMMENT ON TABLE asnmeta IS 'Names of networks over time; the one with the latest `changed` is the current one.';
