"""What a probe gets that runs a link: the tests of one of its revisions, with the URLs that are chosen for this probe.

Probes say who they are in the body, and send no token. The browser-like user agent that they send here is looked at by
nobody.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Response

from api import run_link_store as store
from api.check_in import URLS_CHARGING, URLS_MANUAL, URLS_ON_BATTERY
from api.client_address import client_address
from api.geolocation import UNKNOWN_ASN, UNKNOWN_CC
from api.json_fields import json_members
from api.responses import NO_CACHE, json_response
from api.run_link_errors import FieldError, refused_v2, wrong
from api.run_link_fields import WEBSITES, Content
from api.run_link_paths import know_numbers
from api.run_link_views import nettest_for_probe, time_v2
from api.run_links_v2 import LINKS, found
from api.services import services

NETWORK_TYPES = ("vpn", "wifi", "mobile", "wired_ethernet", "no_internet", "bluetooth", "usb", "unknown")
RUN_TYPES = ("timed", "manual")
MOST_CATEGORIES = 100

_ASN = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII)
_LARGEST_ASN = 2**32 - 1
_CC = re.compile(r"[A-Za-z][A-Za-z0-9]", re.ASCII)  # also A1 and the like, of older country files
_CATEGORY = re.compile(r"[A-Za-z]{1,30}", re.ASCII)

blueprint = Blueprint("engine_descriptor", __name__)
blueprint.record_once(know_numbers)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a probe says about itself."""

    probe_cc: str
    probe_asn: int
    url_count: int
    categories: tuple[str, ...]


@blueprint.post(f"{LINKS}/<link:oonirun_link_id>/engine-descriptor/<revision:revision>")
def engine_descriptor(oonirun_link_id: int, revision: int | None) -> Response:
    """Return what to run; no tests when there is no such revision."""
    try:
        asked = asked_in(json_members())
    except FieldError as error:
        raise refused_v2(error) from None
    latest, then = store.for_probe(oonirun_link_id, revision)
    link = found(latest)
    if then is None:
        empty = {"date_created": time_v2(link.created_at), "nettests": [], "revision": str(revision)}
        return json_response(empty, cache=NO_CACHE)
    reply = {
        "date_created": time_v2(then.revised_at),
        "nettests": _for_probe(then.content["nettests"], asked),
        "revision": str(then.revision),
    }
    return json_response(reply, cache=NO_CACHE)


def asked_in(body: Mapping[str, Any]) -> Asked:
    """Read what a probe says; null is the same as absent. Raises FieldError."""
    run_type = _one_of(body.get("run_type"), "run_type", RUN_TYPES)
    _one_of(body.get("network_type"), "network_type", NETWORK_TYPES)
    charging = body.get("is_charging")
    if not isinstance(charging, bool):
        raise wrong(charging, ("is_charging",), "must be true or false")
    timed = URLS_CHARGING if charging else URLS_ON_BATTERY
    count = URLS_MANUAL if run_type == "manual" else timed
    categories = _categories(body.get("website_category_codes"))
    return Asked(_cc(body.get("probe_cc")), _asn(body.get("probe_asn")), count, categories)


def _for_probe(nettests: list[Content], asked: Asked) -> list[Content]:
    replies = [nettest_for_probe(each) for each in nettests]
    dynamic = [each for each in replies if each["targets_name"] == WEBSITES]
    if dynamic:
        chosen = _websites(asked)
        for each in dynamic:
            each.update(chosen)
    return replies


def _websites(asked: Asked) -> Content:
    """Choose URLs as a check-in does, once for all tests of a link."""
    cc, asn = asked.probe_cc, asked.probe_asn
    if (cc, asn) == (UNKNOWN_CC, UNKNOWN_ASN):
        place = services().geolocation.locate(client_address())
        cc, asn = place.probe_cc, place.probe_asn
    urls = services().url_selection.select(cc, asn, asked.categories, asked.url_count)
    return {
        "inputs": [each.url for each in urls],
        "inputs_extra": [{"category_code": each.category_code, "country_code": each.country_code} for each in urls],
    }


def _one_of(value: object, name: str, allowed: tuple[str, ...]) -> str:
    if not isinstance(value, str) or value not in allowed:
        raise wrong(value, (name,), f"must be one of {', '.join(allowed)}")
    return value


def _cc(value: object) -> str:
    if not isinstance(value, str) or not _CC.fullmatch(value):
        raise wrong(value, ("probe_cc",), "must be two letters, such as IT, or ZZ when unknown")
    return value.upper() if value.isalpha() else UNKNOWN_CC


def _asn(value: object) -> int:
    match = _ASN.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match[1]) > _LARGEST_ASN:
        raise wrong(value, ("probe_asn",), "must be AS and a number, such as AS30722, or AS0 when unknown")
    return int(match[1])


def _categories(value: object) -> tuple[str, ...]:
    name = "website_category_codes"
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > MOST_CATEGORIES:
        raise FieldError((name,), f"must be a list of at most {MOST_CATEGORIES} codes")
    if not all(isinstance(code, str) and _CATEGORY.fullmatch(code) for code in value):
        raise FieldError((name,), "must hold codes of letters, such as NEWS")
    return tuple(sorted({code.upper() for code in value}))
