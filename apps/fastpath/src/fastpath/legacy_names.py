"""What tests were called in old reports (the wire contract, 12.4)."""

_SPELLINGS: dict[str, tuple[str, ...]] = {
    "http_host": ("HTTP Host",),
    "http_requests": ("http_requests_test", "HTTP Requests Test"),
    "bridge_reachability": ("bridgereachability",),
    "tcp_connect": ("TCP Connect",),
    "dns_consistency": ("DNS tamper", "dnstamper"),
    "http_invalid_request_line": (
        "HTTP Invalid Request Line",
        "test_random_big_request_method",
        "test_random_invalid_field_count",
    ),
    "http_header_field_manipulation": (
        "HTTP Header Field Manipulation",
        "test_get_random_capitalization",
        "test_put_random_capitalization",
        "test_post_random_capitalization",
    ),
    "multi_protocol_traceroute": (
        "Multi Protocol Traceroute Test",
        "multi_protocol_traceroute_test",
        "traceroute",
    ),
    "parasitic_traceroute": ("parasitic_traceroute_test", "parasitic_tcp_traceroute_test"),
    "tls_handshake": ("tls-handshake",),
    "captive_portal": ("captivep", "captiveportal"),
    "http_filtering_bypass": ("HTTPFilteringBypass", "httpfilteringbypass"),
    "http_trix": ("HTTPTrix", "httptrix"),
    "netalyzr_wrapper": ("netalyzrwrapper",),
    "invalid": ("summary", "test_get", "test_post", "test_put", "test_send_host_header"),
}
_CANONICAL = {spelling: name for name, spellings in _SPELLINGS.items() for spelling in spellings}


def canonical_name(name: str) -> str:
    """Return today's name of a test: of a known spelling, else the same in lower case."""
    return _CANONICAL.get(name) or name.lower()
