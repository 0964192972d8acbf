"""Statistics of instant messengers: from which networks they work, and how often that was tested."""

from collections import defaultdict
from datetime import timedelta
from typing import Any

from flask import Blueprint, Response, request

from api.errors import bad_request
from api.params import Params
from api.responses import json_response
from api.statistics_asked import Days, country, last_31_days, network, today
from api.statistics_coverage import TEST_GROUPS
from api.statistics_networks import NAMED
from api.statistics_reading import read
from api.statistics_replies import HOUR, list_reply, wants_csv
from api.statistics_success import is_not_ok

blueprint = Blueprint("statistics_messaging", __name__)

_TESTS = list(TEST_GROUPS["im"])

_NETWORKS = f"""
SELECT found.*, {NAMED.format("found")} AS name FROM (
    SELECT test_name, probe_asn, sum(measurement_count)::bigint AS total_count,
        sum(anomaly_count + confirmed_count)::bigint AS anomaly_count, max(measurement_start_day) AS last_tested
    FROM counters_network
    WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s AND test_name = ANY(%(tests)s)
        AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s AND measurement_count > 0
    GROUP BY test_name, probe_asn) AS found
ORDER BY test_name, total_count DESC, probe_asn"""  # noqa: S608 constants only

_BY_DAY = """
SELECT measurement_start_day AS day, sum(measurement_count)::bigint AS count FROM counters_network
WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s AND probe_asn = %(asn)s AND test_name = %(test)s
    AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s
GROUP BY 1"""


@blueprint.get("/api/_/im_networks")
def im_networks() -> Response:
    """Return for each messenger the networks of a country where it works and where it does not, in the last 31 days."""
    values = {"cc": country(Params(request)), "tests": _TESTS, **last_31_days()._asdict()}
    by_test: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for row in read(_NETWORKS, values):
        by_test[row["test_name"]].append(row)
    return json_response({test: _of_messenger(rows) for test, rows in by_test.items()}, cache=HOUR)


@blueprint.get("/api/_/im_stats")
def im_stats() -> Response:
    """Return how often a messenger was tested from a network on each of the last 31 days, and today."""
    params = Params(request)
    cc, asn, test = country(params), network(params), params.text("test_name")
    if test not in _TESTS:
        raise bad_request("invalid test_name", hint=f"Give one of {', '.join(_TESTS)}.")
    as_csv = wants_csv(params)
    days = Days(today() - timedelta(days=31), today() + timedelta(days=1))
    values = {"cc": cc, "asn": asn, "test": test, **days._asdict()}
    counts = {row["day"]: row["count"] for row in read(_BY_DAY, values)}
    found = [
        {"test_day": f"{day}T00:00:00+00:00", "total_count": counts.get(day, 0), "anomaly_count": None}
        for day in days.each()
    ]
    columns = ("test_day", "total_count", "anomaly_count")
    return list_reply(found, columns, {"results": found}, as_csv=as_csv, cache=HOUR)


def _of_messenger(rows: list[dict[str, Any]]) -> dict[str, Any]:
    reply: dict[str, Any] = {"anomaly_networks": [], "ok_networks": []}
    for row in rows:
        kind = "anomaly_networks" if is_not_ok(row["anomaly_count"], row["total_count"]) else "ok_networks"
        shown = {"asn": row["probe_asn"], **{key: row[key] for key in ("name", "total_count", "last_tested")}}
        reply[kind].append(shown)
    reply["last_tested"] = max(row["last_tested"] for row in rows)
    return reply
