"""Check-in: one request that tells a probe where it is, what to run, and which URLs to measure."""

import re
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address
from typing import Any

from flask import Blueprint, Response

from api.client_address import client_address
from api.geolocation import UNKNOWN_ASN, UNKNOWN_CC, Place
from api.json_fields import Fields, json_object
from api.metrics import CHECK_IN_URLS
from api.responses import NO_CACHE, json_response
from api.services import services
from api.url_selection import TestUrl
from core.ids import new_report_id

WEB_CONNECTIVITY = "web_connectivity"

TESTS = (
    "bridge_reachability",
    "dash",
    "dns_consistency",
    "dnscheck",
    "facebook_messenger",
    "http_header_field_manipulation",
    "http_host",
    "http_invalid_request_line",
    "http_requests",
    "meek_fronted_requests_test",
    "multi_protocol_traceroute",
    "ndt",
    "psiphon",
    "riseupvpn",
    "tcp_connect",
    "telegram",
    "tor",
    "urlgetter",
    "vanilla_tor",
    WEB_CONNECTIVITY,
    "whatsapp",
)
"""Tests that a check-in opens a report for."""

TESTS_V2 = tuple(
    sorted(
        (
            *TESTS,
            "dnsping",
            "echcheck",
            "portfiltering",
            "quicping",
            "signal",
            "simplequicping",
            "sniblocking",
            "stunreachability",
            "tcpping",
            "tlsmiddlebox",
            "tlsping",
            "torsf",
        )
    )
)
"""Tests of the experimental check-in."""

URLS_MANUAL = 9999
URLS_CHARGING = 100
URLS_ON_BATTERY = 20

_CC = re.compile(r"[A-Z]{2}", re.ASCII)
_SPECIAL_CC = re.compile(r"[A-Z][0-9]", re.ASCII)  # A1, A2 and O1: proxies and satellites in older country files
_ASN = re.compile(r"AS([0-9]{1,10})", re.ASCII)
_LARGEST_ASN = 2**32 - 1
_CATEGORY = re.compile(r"[A-Z]{1,30}", re.ASCII)
_MAX_CATEGORIES = 100
# Who takes part in the experiment with the newer engine of Web Connectivity, by the second octet of the address.
_EXPERIMENT_OCTETS = (34, 239)

blueprint = Blueprint("check_in", __name__)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a probe says about itself: where it believes to be, and how much it can do now."""

    probe_cc: str
    probe_asn: int
    url_count: int
    categories: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """What a probe is told: where the server sees it, the URLs, and what report ids are made of."""

    place: Place
    probe_cc: str
    probe_asn: int
    now: datetime
    urls: list[TestUrl]

    def report_id(self, test_name: str) -> str:
        """Return a fresh report id."""
        collector = services().settings.collector_id
        return new_report_id(self.now, test_name, self.probe_cc, self.probe_asn, collector)

    def common(self, version: int) -> dict[str, Any]:
        """Return the part of the reply that both versions share."""
        return {
            "v": version,
            "probe_cc": self.place.probe_cc,
            "probe_asn": f"AS{self.place.probe_asn}",
            "probe_network_name": self.place.network_name,
            "utc_time": f"{self.now:%Y-%m-%dT%H:%M:%SZ}",
        }


@blueprint.post("/api/v1/check-in")
def check_in() -> Response:
    """Answer with features, helpers, a report id for each test, and URLs for Web Connectivity."""
    plan = _plan(_asked(json_object()))
    config = services().probe_config
    tests: dict[str, dict[str, Any]] = {name: {"report_id": plan.report_id(name)} for name in TESTS}
    tests[WEB_CONNECTIVITY]["urls"] = [
        {"category_code": each.category_code, "country_code": each.country_code, "url": each.url} for each in plan.urls
    ]
    reply = {
        **plan.common(1),
        "conf": {"features": config.features(), "test_helpers": config.test_helpers()},
        "tests": tests,
    }
    return json_response(reply, cache=NO_CACHE)


@blueprint.post("/api/_/check-in")
def check_in_v2() -> Response:
    """The experimental version: a list of tests, each with its targets."""
    plan = _plan(_asked(json_object()))
    config = services().probe_config
    targets = {name: [_target(each, {}) for each in inputs] for name, inputs in config.inputs().items()}
    targets[WEB_CONNECTIVITY] = [
        _target(each.url, {"category_code": each.category_code, "country_code": each.country_code})
        for each in plan.urls
    ]
    reply = {
        **plan.common(2),
        "conf": {"features": _experiment(), "test_helpers": config.test_helpers()},
        "nettests": [
            {"test_name": name, "report_id": plan.report_id(name), "targets": targets.get(name, [])}
            for name in TESTS_V2
        ],
    }
    return json_response(reply, cache=NO_CACHE)


def _plan(asked: Asked) -> Plan:
    parts = services()
    place = parts.geolocation.locate(client_address())
    cc, asn = asked.probe_cc, asked.probe_asn
    if (cc, asn) == (UNKNOWN_CC, UNKNOWN_ASN):
        cc, asn = place.probe_cc, place.probe_asn
    urls = parts.url_selection.select(cc, asn, asked.categories, asked.url_count)
    CHECK_IN_URLS.observe(len(urls))
    return Plan(place, cc, asn, datetime.now(UTC), urls)


def _asked(fields: Fields) -> Asked:
    """Read what is of use here. What else probes say (platform, software, on_wifi) is not looked at, whatever it is."""
    charging = fields.boolean("charging", default=True)
    if fields.text("run_type", "timed") == "manual":
        count = URLS_MANUAL
    else:  # every other kind of run is started by a clock
        count = URLS_CHARGING if charging else URLS_ON_BATTERY
    return Asked(_cc(fields), _asn(fields), count, _categories(fields.object(WEB_CONNECTIVITY)))


# A country or network that is not there, or a special one of older databases, is an unknown one: such probes exist and
# are to get their URLs. Anything else malformed is refused with the name of the parameter. This hurts no probe: all of
# them send the result of a lookup, in this form, and were always answered with a 500 otherwise. A guess would end in
# report ids of a wrong country, which are worse than none.


def _cc(fields: Fields) -> str:
    text = fields.text("probe_cc").strip().upper()
    if not text or _SPECIAL_CC.fullmatch(text):
        return UNKNOWN_CC
    if not _CC.fullmatch(text):
        raise fields.wrong("probe_cc", "must be two letters, such as IT, or ZZ when unknown")
    return text


def _asn(fields: Fields) -> int:
    text = fields.text("probe_asn").strip().upper()
    match = _ASN.fullmatch(text or f"AS{UNKNOWN_ASN}")
    if match is None or int(match[1]) > _LARGEST_ASN:
        raise fields.wrong("probe_asn", "must be AS and a number, such as AS30722, or AS0 when unknown")
    return int(match[1])


def _categories(fields: Fields) -> tuple[str, ...]:
    """Return the category codes asked for, a list (nulls count for nothing) or a text with commas; empty for all."""
    name = "category_codes"
    value = fields.raw(name)
    if isinstance(value, str):
        value = value.split(",")
    if value is None:
        return ()
    items = [item for item in value if item is not None] if isinstance(value, list) else [value]
    if not all(isinstance(item, str) for item in items):
        raise fields.wrong(name, "must be a list of codes, or codes with commas in between")
    codes = sorted({code for item in items if (code := item.strip().upper())})
    if len(codes) > _MAX_CATEGORIES:
        raise fields.wrong(name, f"holds more than {_MAX_CATEGORIES} codes")
    if not all(_CATEGORY.fullmatch(code) for code in codes):
        raise fields.wrong(name, "must hold codes of letters, such as NEWS")
    return tuple(codes)


def _target(address: str, attributes: dict[str, str]) -> dict[str, Any]:
    return {"attributes": attributes, "input": address, "options": {}}


def _experiment() -> dict[str, bool]:
    address = client_address()
    if isinstance(address, IPv4Address) and address.packed[1] in _EXPERIMENT_OCTETS:
        return {"webconnectivity_0.5": True}
    return {}
