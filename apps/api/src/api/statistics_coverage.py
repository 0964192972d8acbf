"""Statistics of tests: their names, and how much of each kind was measured in a country lately."""

from datetime import timedelta

from flask import Blueprint, Response, request

from api.errors import bad_request
from api.params import Params
from api.responses import json_response
from api.statistics_asked import Days, country, today
from api.statistics_reading import read
from api.statistics_replies import HOUR, list_reply, wants_csv

blueprint = Blueprint("statistics_coverage", __name__)

TEST_GROUPS: dict[str, tuple[str, ...]] = {
    "circumvention": (
        "bridge_reachability",
        "meek_fronted_requests_test",
        "psiphon",
        "riseupvpn",
        "tcp_connect",
        "tor",
        "torsf",
        "vanilla_tor",
    ),
    "experimental": ("dnscheck", "stunreachability", "urlgetter"),
    "im": ("facebook_messenger", "signal", "telegram", "whatsapp"),
    "legacy": ("dns_consistency", "http_host", "http_requests", "multi_protocol_traceroute"),
    "middlebox": ("http_header_field_manipulation", "http_invalid_request_line"),
    "performance": ("dash", "ndt"),
    "websites": ("web_connectivity",),
}
"""The tests of each group; groups in alphabetical order."""

TEST_NAMES: dict[str, str] = {
    "bridge_reachability": "Bridge Reachability",
    "dash": "DASH",
    "dns_consistency": "DNS Consistency",
    "dnscheck": "DNS Check",
    "facebook_messenger": "Facebook Messenger",
    "http_header_field_manipulation": "HTTP Header Field Manipulation",
    "http_host": "HTTP Host",
    "http_invalid_request_line": "HTTP Invalid Request Line",
    "http_requests": "HTTP Requests",
    "meek_fronted_requests_test": "Meek Fronted Requests",
    "multi_protocol_traceroute": "Multi Protocol Traceroute",
    "ndt": "NDT",
    "psiphon": "Psiphon",
    "riseupvpn": "RiseupVPN",
    "signal": "Signal",
    "stunreachability": "STUN Reachability",
    "tcp_connect": "TCP Connect",
    "telegram": "Telegram",
    "tor": "Tor",
    "torsf": "Tor Snowflake",
    "urlgetter": "URL Getter",
    "vanilla_tor": "Vanilla Tor",
    "web_connectivity": "Web Connectivity",
    "whatsapp": "WhatsApp",
}
"""What people call the tests, by name; in alphabetical order."""

_GROUP_OF = {test: group for group, tests in TEST_GROUPS.items() for test in tests}
_NEWEST_DAYS_LEFT_OUT = 1
_DAYS = 30

_NETWORKS = """
SELECT measurement_start_day AS day, count(DISTINCT probe_asn) AS count FROM counters_network
WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s
    AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s
    AND measurement_count > 0 AND (%(tests)s::text[] IS NULL OR test_name = ANY(%(tests)s))
GROUP BY 1"""

_TESTS = """
SELECT measurement_start_day AS day, test_name, sum(measurement_count)::bigint AS count FROM counters_country
WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s
    AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s
GROUP BY 1, 2"""


@blueprint.get("/api/_/test_names")
def test_names() -> Response:
    """Return the names of tests for people."""
    found = [{"id": test, "name": name} for test, name in TEST_NAMES.items()]
    return list_reply(found, ("id", "name"), {"test_names": found}, as_csv=wants_csv(Params(request)), cache=HOUR)


@blueprint.get("/api/_/test_coverage")
def test_coverage() -> Response:
    """Return by day how many networks of a country measured, and how often each group of tests was run there."""
    params = Params(request)
    cc, tests = country(params), _tests(params)
    until = today() - timedelta(days=_NEWEST_DAYS_LEFT_OUT)
    days = Days(until - timedelta(days=_DAYS), until)
    values = {"cc": cc, "since": days.since, "until": days.until, "tests": tests}
    networks = {row["day"]: row["count"] for row in read(_NETWORKS, values)}
    counts = {(group, day): 0 for group in TEST_GROUPS for day in days.each()}
    for row in read(_TESTS, values):
        if row["test_name"] in _GROUP_OF:
            counts[_GROUP_OF[row["test_name"]], row["day"]] += row["count"]
    reply = {
        "network_coverage": [{"test_day": day, "count": networks.get(day, 0)} for day in days.each()],
        "test_coverage": [
            {"test_day": day, "test_group": group, "count": count} for (group, day), count in counts.items()
        ],
    }
    return json_response(reply, cache=HOUR)


def _tests(params: Params) -> list[str] | None:
    """Return the tests of the groups that are asked for, None for all tests."""
    groups = params.texts("test_groups")
    unknown = [group for group in groups if group not in TEST_GROUPS]
    if unknown:
        raise bad_request(f"Invalid value in parameter test_groups; give some of {', '.join(TEST_GROUPS)}.")
    return [test for group in groups for test in TEST_GROUPS[group]] if groups else None
