"""What real probes demand of an answer, as named rules, and the shapes they decode answers into.

The rules are those of the Go engine's HTTP client and of its callers (the wire contract, 2.15). An answer that breaks
one makes a real probe fail, stop, or show its user something useless.
"""

import re
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

import msgspec

MAX_REPLY_BYTES = 16 * 1024 * 1024
"""Longest answer that a probe reads, after decompression."""

MAX_REDIRECTS = 10

RULES = {
    "answered": "Every call is answered before the probe's patience ends.",
    "status-200": "The final status is exactly 200.",
    "post-stays-post": "A POST is not redirected with 301, 302 or 303, which would repeat it as a GET without body.",
    "few-redirects": f"There are at most {MAX_REDIRECTS} redirects.",
    "encoding-gzip": "An answer is compressed with gzip or not at all, and can be decompressed.",
    "at-most-16-mib": "An answer has at most 16 MiB after decompression.",
    "json": "An answer is JSON text.",
    "not-null": "An answer is not the JSON value null.",
    "shape": "Fields have the types that the probe decodes them into.",
    "features-are-booleans": "Every value of conf.features is a boolean; one other value breaks the whole answer.",
    "rfc-3339": "Times are in RFC 3339.",
    "json-supported": "supported_formats contains json.",
    "report-id": "A report id is given, and not empty.",
    "measurement-uid": "A submission is acknowledged with a uid; without one the link shown to the user is useless.",
    "urls-not-empty": "Check-in and test-list/urls give at least one URL of the asked categories.",
    "helper-web-connectivity": "There is a web-connectivity helper of type https or cloudfront.",
    "helper-legacy-first": "The first tcp-echo and http-return-json-headers helpers have the type legacy.",
    "collector": "There is a collector with an address and a type.",
    "credentials": "Registration gives a client id, login gives a token.",
    "tor-targets": "There is at least one Tor target, each with address, fingerprint and protocol.",
    "manifest-is-404": "The manifest is answered with 404; where it is published and not verified, all is sent twice.",
    "closed": "A closed report is acknowledged with an object.",
    "dummy-list": "A list asked for with an okhttp user agent has exactly one entry, with an empty measurement_url.",
}
"""Every rule by its name."""

_T = TypeVar("_T")

_RFC_3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)


class Broken(Exception):
    """An answer breaks a rule; `rule` is its name in RULES."""

    def __init__(self, rule: str, detail: str) -> None:
        super().__init__(detail)
        self.rule = rule
        self.detail = detail


@dataclass(frozen=True, slots=True)
class Violation:
    """A rule that an answer broke: in which session and call, and how."""

    session: int
    generation: str
    call: str
    rule: str
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON line."""
        return {
            "session": self.session,
            "generation": self.generation,
            "call": self.call,
            "rule": self.rule,
            "demands": RULES[self.rule],
            "detail": self.detail,
        }


class Helper(msgspec.Struct):
    """A test helper or collector."""

    address: str
    type: str
    front: str | None = None


class TestUrl(msgspec.Struct):
    """A URL to test."""

    url: str
    category_code: str = ""
    country_code: str = ""


class WebConnectivityTests(msgspec.Struct):
    """What check-in says about web_connectivity."""

    report_id: str = ""
    urls: list[TestUrl] | None = None


class CheckInTests(msgspec.Struct):
    """The part of check-in's `tests` that probes read."""

    web_connectivity: WebConnectivityTests | None = None


class CheckInConf(msgspec.Struct):
    """Check-in's `conf`."""

    features: dict[str, bool] = msgspec.field(default_factory=dict)
    test_helpers: dict[str, list[Helper] | None] | None = None


class CheckIn(msgspec.Struct):
    """The answer to check-in."""

    v: int
    probe_cc: str
    probe_asn: str
    utc_time: str
    conf: CheckInConf
    tests: CheckInTests


class OpenedReport(msgspec.Struct):
    """The answer to POST /report."""

    report_id: str = ""
    supported_formats: list[str] = msgspec.field(default_factory=list)


class Acknowledgement(msgspec.Struct):
    """The answer to a submission; the CLI's route names the report too."""

    measurement_uid: str | None = None
    report_id: str | None = None


class Registered(msgspec.Struct):
    """The answer to register."""

    client_id: str = ""


class LoggedIn(msgspec.Struct):
    """The answer to login."""

    token: str = ""
    expire: str = ""


class TorTarget(msgspec.Struct):
    """A Tor bridge or directory authority."""

    address: str
    fingerprint: str
    protocol: str
    name: str | None = None
    params: dict[str, list[str]] | None = None
    source: str | None = None


class UrlList(msgspec.Struct):
    """The answer to test-list/urls."""

    metadata: dict[str, Any]
    results: list[TestUrl]


class Discovery(msgspec.Struct, rename="kebab"):
    """What the bouncer says about one test."""

    name: str
    version: str
    collector: str
    collector_alternate: list[Helper] | None = None
    test_helpers: dict[str, str] | None = None
    test_helpers_alternate: dict[str, list[Helper]] | None = None
    input_hashes: list[str] | None = None


class Bounced(msgspec.Struct, rename="kebab"):
    """The bouncer's answer."""

    net_tests: list[Discovery]


class Row(msgspec.Struct):
    """An entry of a list of measurements."""

    measurement_url: str


class Listing(msgspec.Struct):
    """A list of measurements."""

    results: list[Row]


def demand(holds: bool, rule: str, detail: str) -> None:
    """Raise Broken unless the rule holds."""
    if not holds:
        raise Broken(rule, detail)


def demand_rfc_3339(text: str, name: str) -> None:
    """Raise Broken unless the text is a time in RFC 3339."""
    good = _RFC_3339.fullmatch(text) is not None
    if good:
        try:
            datetime.fromisoformat(text.upper())
        except ValueError:
            good = False
    demand(good, "rfc-3339", f"{name} is {text[:60]!r}")


def decode(raw: bytes, shape: type[_T]) -> _T:
    """Decode an answer as a Go program does: other keys are ignored, but each known one has its type.

    Raises:
        Broken: `json`, `not-null`, `features-are-booleans` or `shape`.
    """
    try:
        value = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Broken("json", f"{error}: {raw[:80]!r}") from None
    demand(value is not None, "not-null", "the answer is null")
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        rule = "features-are-booleans" if "$.conf.features" in str(error) else "shape"
        raise Broken(rule, str(error)) from None
