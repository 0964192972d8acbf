"""Test names that the database knows: the values of type `ootest`; a test compares the two.

Names that are not here are stored as text in `fastpath.test_name_other`. `make new-test NAME=…` adds one, with its
migration and its scorer.
"""

# Names with a scoring rule: those of the wire contract in its order, then those that came later.
SCORED_TEST_NAMES: tuple[str, ...] = (
    "telegram",
    "facebook_messenger",
    "http_header_field_manipulation",
    "http_invalid_request_line",
    "whatsapp",
    "vanilla_tor",
    "web_connectivity",
    "ndt",
    "tcp_connect",
    "dash",
    "meek_fronted_requests_test",
    "psiphon",
    "tor",
    "http_requests",
    "dns_consistency",
    "signal",
    "stunreachability",
    "torsf",
    "riseupvpn",
    "openvpn",
    "browser_web",
)

# Names of experiments that are stored but not scored (anomaly false, failure true).
UNSCORED_TEST_NAMES: tuple[str, ...] = (
    "bridge_reachability",
    "http_host",
    "multi_protocol_traceroute",
    "urlgetter",
    "dnscheck",
    "echcheck",
    "sni_blocking",
    "quicping",
    "tcpping",
    "tlsping",
    "simplequicping",
    "dnsping",
    "tlsmiddlebox",
    "portfiltering",
    "tls_handshake",
    "captive_portal",
    "dns_spoof",
    "dns_injection",
    "lantern_circumvention_tool_test",
    "http_url_list",
    "psiphon_test",
    "parasitic_traceroute",
    "http_filtering_bypass",
    "http_trix",
    "http_test",
    "netalyzr_wrapper",
    "http_host_header",
    "tlstool",
    "openvpn_client_test",
    "stun_reachability",
    "dns_n_http",
    "website_probe",
)

KNOWN_TEST_NAMES: tuple[str, ...] = SCORED_TEST_NAMES + UNSCORED_TEST_NAMES
