"""Country and network of addresses that somebody asks about; they are looked up and forgotten."""

from typing import Any

from flask import Blueprint, Response

from api.geolocation import UNKNOWN_ASN, UNKNOWN_CC, Place
from api.json_fields import json_object
from api.proxies import parse_bare_address
from api.responses import NO_CACHE, json_response
from api.services import services

MAX_ADDRESSES = 1000
"""Number of addresses in one request; looking them up takes a few milliseconds."""

blueprint = Blueprint("geolookup", __name__)


@blueprint.post("/api/v1/geolookup")
def geolookup() -> Response:
    """Answer what the databases know about each address; null stands for what they do not know."""
    asked = json_object()
    addresses = asked.raw("addresses")
    if not isinstance(addresses, list):
        raise asked.wrong("addresses", "must be a list of IP addresses")
    if len(addresses) > MAX_ADDRESSES:
        raise asked.wrong("addresses", f"has more than {MAX_ADDRESSES} items")
    locate = services().geolocation.locate
    found = {}
    for position, text in enumerate(addresses):
        address = parse_bare_address(text) if isinstance(text, str) else None
        if address is None:
            raise asked.wrong(f"addresses[{position}]", "is no IP address, such as 192.0.2.1 or 2001:db8::1")
        found[text] = _shown(locate(address))
    return json_response({"v": 1, "geolocation": found}, cache=NO_CACHE)


def _shown(place: Place) -> dict[str, Any]:
    return {
        "cc": None if place.probe_cc == UNKNOWN_CC else place.probe_cc,
        "asn": None if place.probe_asn == UNKNOWN_ASN else place.probe_asn,
        "as_name": place.network_name,
    }
