"""Decoding only what scoring reads of a web_connectivity submission.

These are most of the measurements, and most of each is never looked at: network events, handshakes, certificates. The
decoder skips what is not declared here, which takes a third of the time. The values that are declared come out as the
plain objects that the general decoder would give, so scoring cannot tell the difference; anything unusual makes `skim`
give up, and the general decoder is used.
"""

from typing import Any, TypedDict

import msgspec

from fastpath.automaton import byte_search
from fastpath.shape import JsonObject

TEST_NAME = "web_connectivity"


class _Answer(TypedDict, total=False):
    ipv4: Any
    hostname: Any
    ipv6: Any


class _Query(TypedDict, total=False):
    answers: list[_Answer] | None


class _Response(TypedDict, total=False):
    body: Any
    headers: Any


class _Request(TypedDict, total=False):
    response: _Response | None


class _TestKeys(TypedDict, total=False):
    accessible: Any
    blocking: Any
    title_match: Any
    queries: list[_Query] | None
    requests: list[_Request] | None
    control_failure: Any
    dns_experiment_failure: Any
    http_experiment_failure: Any


class _Annotations(TypedDict, total=False):
    platform: Any
    architecture: Any
    engine_name: Any
    engine_version: Any
    ooni_run_link_id: Any


class _Measurement(TypedDict, total=False):
    annotations: _Annotations | None
    input: Any
    measurement_start_time: Any
    probe_asn: Any
    probe_cc: Any
    report_id: Any
    software_name: Any
    software_version: Any
    test_helpers: Any
    test_keys: _TestKeys | None
    test_name: Any
    test_runtime: Any
    test_start_time: Any
    test_version: Any


class _Envelope(TypedDict, total=False):
    content: _Measurement
    format: Any
    is_verified: Any


_decoder = msgspec.json.Decoder(_Envelope)

# A value under a key that ends with `_failure` other than null and text that starts with another letter.
_notable_failure = byte_search(r"""_failure"\s*:\s*("u|[^n"\s])""")


def skim(body: bytes) -> JsonObject | None:
    """Return the envelope of a web_connectivity submission with all that scoring reads; None to decode it in full.

    Scoring looks at the value of every key that ends with `_failure`, not only those declared, so a body with such a
    value that matters is decoded in full.
    """
    if _notable_failure(body):
        return None
    try:
        envelope: JsonObject = _decoder.decode(body)  # type: ignore[assignment] # as plain objects from here on
    except (msgspec.DecodeError, UnicodeError, RecursionError, OverflowError):
        return None
    if envelope.get("format") != "json" or envelope.get("content", {}).get("test_name") != TEST_NAME:
        return None
    return envelope
