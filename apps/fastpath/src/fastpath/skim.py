"""Decoding only what scoring reads of the tests that make up most of the measurements.

Most of each measurement is never looked at: network events, handshakes, certificates. The decoder skips what is not
declared here, which takes half the time. The values that are declared come out as the plain objects that the
general decoder would give, so scoring cannot tell the difference; anything unusual makes `skim` give up, and the
general decoder is used. A test whose scorer reads another key must declare it here; a test compares both ways.
"""

from collections.abc import Callable
from typing import Any, Generic, TypedDict, TypeVar

import msgspec

from fastpath.automaton import byte_search
from fastpath.shape import JsonObject

TestKeys = TypeVar("TestKeys")
Content = TypeVar("Content")


class _Annotations(TypedDict, total=False):
    platform: Any
    architecture: Any
    engine_name: Any
    engine_version: Any
    ooni_run_link_id: Any


class _Measurement(TypedDict, Generic[TestKeys], total=False):
    annotations: _Annotations | None
    input: Any
    measurement_start_time: Any
    probe_asn: Any
    probe_cc: Any
    report_id: Any
    resolver_ip: Any
    software_name: Any
    software_version: Any
    test_helpers: Any
    test_keys: TestKeys | None
    test_name: Any
    test_runtime: Any
    test_start_time: Any
    test_version: Any


class _Envelope(TypedDict, Generic[Content], total=False):
    content: Content
    format: Any
    is_verified: Any


class _Answer(TypedDict, total=False):
    ipv4: Any
    hostname: Any
    ipv6: Any


class _Query(TypedDict, total=False):
    answers: list[_Answer] | None


class _Response(TypedDict, total=False):
    body: Any
    headers: Any


class _Page(TypedDict, total=False):
    response: _Response | None


class _WebConnectivity(TypedDict, total=False):
    accessible: Any
    blocking: Any
    title_match: Any
    queries: list[_Query] | None
    requests: list[_Page] | None
    control_failure: Any
    dns_experiment_failure: Any
    http_experiment_failure: Any


class _Status(TypedDict, total=False):
    success: Any


class _Connection(TypedDict, total=False):
    status: _Status | None


class _Url(TypedDict, total=False):
    url: Any


class _Attempt(TypedDict, total=False):
    failure: Any
    request: _Url


class _Telegram(TypedDict, total=False):
    requests: list[_Attempt] | None
    tcp_connect: list[_Connection] | None
    telegram_web_status: Any


class _Whatsapp(TypedDict, total=False):
    requests: list[_Attempt] | None
    tcp_connect: list[_Connection] | None
    registration_server_failure: Any
    whatsapp_web_failure: Any


class _FacebookMessenger(TypedDict, total=False):
    facebook_b_api_dns_consistent: Any
    facebook_b_api_reachable: Any
    facebook_b_graph_dns_consistent: Any
    facebook_b_graph_reachable: Any
    facebook_edge_dns_consistent: Any
    facebook_edge_reachable: Any
    facebook_external_cdn_dns_consistent: Any
    facebook_external_cdn_reachable: Any
    facebook_scontent_cdn_dns_consistent: Any
    facebook_scontent_cdn_reachable: Any
    facebook_star_dns_consistent: Any
    facebook_star_reachable: Any
    facebook_stun_dns_consistent: Any
    facebook_tcp_blocking: Any
    facebook_dns_blocking: Any


class _Signal(TypedDict, total=False):
    failed_operation: Any
    failure: Any
    signal_backend_failure: Any
    signal_backend_status: Any


class _Target(TypedDict, total=False):
    failure: Any
    network_events: msgspec.Raw
    """Only whether it is there counts."""


class _Tor(TypedDict, total=False):
    targets: dict[str, _Target] | None


class _Tunnel(TypedDict, total=False):
    """Of psiphon and torsf."""

    bootstrap_time: Any
    failure: Any


class _InvalidRequestLine(TypedDict, total=False):
    sent: Any
    received: Any


class _Nothing(TypedDict, total=False):
    """Of tests that are not scored."""


# Scoring looks at the value of every key that ends with `_failure`, not only those declared, so a body with such a
# value other than null and text that starts with another letter is decoded in full.
_notable_failure = byte_search(r"""_failure"\s*:\s*("u|[^n"\s])""")

_Decoder = msgspec.json.Decoder[Any]
_DECODERS: dict[str, tuple[str, _Decoder, Callable[[bytes], bool] | None]] = {
    name.replace("_", ""): (name, msgspec.json.Decoder(_Envelope[content]), guard)  # type: ignore[valid-type]
    for name, content, guard in (
        ("web_connectivity", _Measurement[_WebConnectivity], _notable_failure),
        ("telegram", _Measurement[_Telegram], None),
        ("whatsapp", _Measurement[_Whatsapp], _notable_failure),
        ("facebook_messenger", _Measurement[_FacebookMessenger], None),
        ("signal", _Measurement[_Signal], None),
        ("tor", _Measurement[_Tor], None),
        ("psiphon", _Measurement[_Tunnel], None),
        ("torsf", _Measurement[_Tunnel], None),
        ("http_invalid_request_line", _Measurement[_InvalidRequestLine], None),
        ("ndt", _Measurement[_Nothing], None),
        ("riseupvpn", _Measurement[_Nothing], None),
    )
}
"""By name without underscores, as uids have it: the name, the decoder, and what rules out its use."""

SKIMMED_TEST_NAMES = frozenset(name for name, _, _ in _DECODERS.values())
"""The tests whose measurements are decoded in part."""


def skim(body: bytes, short_name: str) -> JsonObject | None:
    """Return the envelope of a submission with all that scoring reads; None to decode it in full.

    `short_name` is the test's name without underscores, as the uid tells it; the document must agree.
    """
    known = _DECODERS.get(short_name)
    if known is None:
        return None
    name, decoder, rules_out = known
    if rules_out is not None and rules_out(body):
        return None
    try:
        envelope: JsonObject = decoder.decode(body)
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
        return None
    if envelope.get("format") != "json" or envelope.get("content", {}).get("test_name") != name:
        return None
    return envelope
