-- Observations of the test openvpn, one row per measurement, written with the measurement's own row.

CREATE TABLE obs_openvpn (
    measurement_uid text PRIMARY KEY,
    report_id text NOT NULL DEFAULT '',
    input text NOT NULL DEFAULT '',
    probe_cc text NOT NULL,
    probe_asn bigint NOT NULL,
    probe_network_name text NOT NULL DEFAULT '',
    resolver_ip text NOT NULL DEFAULT '',
    resolver_asn bigint NOT NULL DEFAULT 0,
    resolver_network_name text NOT NULL DEFAULT '',
    test_start_time timestamp NOT NULL,
    measurement_start_time timestamp NOT NULL,
    test_runtime double precision NOT NULL DEFAULT 0,
    software_name text NOT NULL DEFAULT '',
    software_version text NOT NULL DEFAULT '',
    platform text NOT NULL DEFAULT '',
    anomaly boolean NOT NULL,
    confirmed boolean NOT NULL,
    provider text NOT NULL DEFAULT '',
    remote text NOT NULL DEFAULT '',
    transport text NOT NULL DEFAULT '',
    obfuscation text NOT NULL DEFAULT '',
    minivpn_version text NOT NULL DEFAULT '',
    obfs4_version text NOT NULL DEFAULT '',
    bootstrap_time double precision NOT NULL DEFAULT 0,
    last_handshake_transaction_id bigint NOT NULL DEFAULT 0,
    failure text NOT NULL DEFAULT '',
    success boolean NOT NULL,
    success_handshake boolean NOT NULL,
    success_icmp boolean NOT NULL,
    success_urlgrab boolean NOT NULL,
    update_time timestamptz NOT NULL DEFAULT now()
);
COMMENT ON TABLE obs_openvpn IS 'What a measurement of the test openvpn observed; its verdict is in table fastpath.';
COMMENT ON COLUMN obs_openvpn.anomaly IS
    'True when the document has a top-level key success that is true, which no probe sends. The verdict is in fastpath.';
COMMENT ON COLUMN obs_openvpn.platform IS
    'A top-level key of the document, which no probe sends; the platform of the probe is in fastpath.';
CREATE INDEX obs_openvpn_start ON obs_openvpn (measurement_start_time);
