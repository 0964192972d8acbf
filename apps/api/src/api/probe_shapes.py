"""The form of each file of the probe configuration, as types and JSON Schema; rules beyond it are in `probe_files`."""

from typing import Annotated, Any, Literal

import msgspec

COLLECTORS = "collectors.json"
TEST_HELPERS = "test-helpers.json"
FEATURES = "features.json"
TOR_TARGETS = "tor-targets.json"
PSIPHON_CONFIG = "psiphon-config.json"
BOUNCER = "bouncer.json"
INPUTS = "nettest-inputs.json"

Text = Annotated[str, msgspec.Meta(min_length=1, max_length=2000)]

INPUT_TESTS = ("dnscheck", "stunreachability")
"""Tests whose inputs the experimental check-in hands out, beside web_connectivity."""


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where something is reached: an address, the way to it, and the front of a content delivery network."""

    address: Text
    type: Literal["legacy", "https", "cloudfront", "onion"]
    front: Text | None = None


class TestHelpers(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={
        "http_return_json_headers": "http-return-json-headers",
        "tcp_echo": "tcp-echo",
        "web_connectivity": "web-connectivity",
    },
):
    """The six kinds of helpers; probes of every generation look for all six names."""

    __test__ = False  # not a test, whatever its name says to pytest

    dns: list[Entry]
    http_return_json_headers: list[Entry]
    ssl: list[Entry]
    tcp_echo: list[Entry]
    traceroute: list[Entry]
    web_connectivity: list[Entry]


class Bouncer(
    msgspec.Struct,
    frozen=True,
    forbid_unknown_fields=True,
    rename={
        "collector_alternate": "collector-alternate",
        "test_helpers": "test-helpers",
        "test_helpers_alternate": "test-helpers-alternate",
    },
):
    """What probes of the oldest generations are told instead of collectors and helpers."""

    collector: Text
    collector_alternate: list[Entry]
    test_helpers: dict[str, Text]
    test_helpers_alternate: dict[str, list[Entry]]


class TorTarget(msgspec.Struct, frozen=True):
    """What a probe needs to know of a Tor target; further keys, such as `source`, are passed on unseen."""

    address: Text
    fingerprint: str
    protocol: Text
    name: str | None = None
    params: dict[str, list[str]] | None = None


SCHEMA_TYPES: dict[str, Any] = {
    COLLECTORS: Annotated[list[Entry], msgspec.Meta(min_length=1)],
    TEST_HELPERS: TestHelpers,
    FEATURES: dict[str, bool],
    TOR_TARGETS: dict[str, TorTarget],
    PSIPHON_CONFIG: Annotated[dict[str, Any], msgspec.Meta(min_length=1)],
    BOUNCER: Bouncer,
    INPUTS: dict[Literal["dnscheck", "stunreachability"], list[Text]],
}


def schema(name: str) -> dict[str, Any]:
    """Return the JSON Schema of one file; rules about the order of entries are beyond it."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": name,
        **msgspec.json.schema(SCHEMA_TYPES[name]),
    }
