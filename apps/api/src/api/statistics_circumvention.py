"""Statistics of circumvention tools: where they are measured, whether Tor works there, and how long tests take.

Where six months leave out yesterday and today, it is because measurements of yesterday still arrive today.
"""

from datetime import date, timedelta
from typing import Any

from dateutil.relativedelta import relativedelta
from flask import Blueprint, Response, request

from api.params import Params
from api.services import services
from api.statistics_asked import Days, country, six_months_ago, today
from api.statistics_reading import read
from api.statistics_replies import DAY, MAX_AGE_0, csv_reply, list_reply, wants_csv
from api.statistics_runtimes import RUNTIME_COLUMNS, TESTS
from api.statistics_success import is_not_ok

blueprint = Blueprint("statistics_circumvention", __name__)

_NETWORK_COLUMNS = (
    "probe_asn",
    "failure_count",
    "success_count",
    "total_count",
    "last_tested",
    "test_runtime_avg",
    "test_runtime_max",
    "test_runtime_min",
)

# The name of the test stands in the statement, so that the partial index on it is found.
_TOR = """
SELECT probe_asn, sum(measurement_count)::bigint AS total_count,
    sum(anomaly_count + confirmed_count)::bigint AS failure_count, max(measurement_start_day) AS last_tested
FROM counters_network
WHERE test_name = 'vanilla_tor' AND left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s
    AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s AND measurement_count > 0
GROUP BY probe_asn ORDER BY total_count DESC, probe_asn"""

# Whole months from the monthly counters, the days before and after them from the daily ones.
_BY_COUNTRY = """
SELECT probe_cc, sum(measurement_count)::bigint AS cnt FROM (
    SELECT probe_cc, measurement_count FROM counters_month_country
    WHERE test_name = ANY(%(tests)s) AND measurement_start_month >= %(first_month)s
        AND measurement_start_month < %(after_months)s
    UNION ALL
    SELECT probe_cc, measurement_count FROM counters_country
    WHERE test_name = ANY(%(tests)s) AND measurement_start_day >= %(since)s AND measurement_start_day < %(first_month)s
    UNION ALL
    SELECT probe_cc, measurement_count FROM counters_country
    WHERE test_name = ANY(%(tests)s) AND measurement_start_day >= %(after_months)s
        AND measurement_start_day < %(until)s) AS found
GROUP BY probe_cc HAVING sum(measurement_count) > 0 ORDER BY probe_cc COLLATE "C\""""


@blueprint.get("/api/_/vanilla_tor_stats")
def vanilla_tor_stats() -> Response:
    """Return the networks of a country with how often Tor worked there in the last six months."""
    params = Params(request)
    as_csv = wants_csv(params)
    values = {"cc": country(params), "since": six_months_ago(), "until": today() + timedelta(days=1)}
    rows = read(_TOR, values)
    found = [_tor_network(row) for row in rows]
    whole = {
        "networks": found,
        "notok_networks": sum(is_not_ok(row["failure_count"], row["total_count"]) for row in rows),
        "last_tested": max((row["last_tested"] for row in rows), default=None),
    }
    return list_reply(found, _NETWORK_COLUMNS, whole, as_csv=as_csv, cache=MAX_AGE_0)


@blueprint.get("/api/_/circumvention_stats_by_country")
def circumvention_stats_by_country() -> Response:
    """Return how often circumvention tools were tested in each country in the last six months."""
    as_csv = wants_csv(Params(request))
    days = _six_months()
    values = {"tests": list(TESTS), **days._asdict(), **_months_inside(days)}
    found = read(_BY_COUNTRY, values)
    return list_reply(found, ("probe_cc", "cnt"), {"v": 0, "results": found}, as_csv=as_csv, cache=DAY)


@blueprint.get("/api/_/circumvention_runtime_stats")
def circumvention_runtime_stats() -> Response:
    """Return how long tests of circumvention tools took, by test, country and day of the last six months."""
    runtimes = services().runtimes
    if wants_csv(Params(request)):
        return csv_reply(runtimes.rows(_six_months()), RUNTIME_COLUMNS, cache=DAY)
    response = Response(runtimes.reply(_six_months()), mimetype="application/json")
    response.headers["Cache-Control"] = DAY
    return response


def _tor_network(row: dict[str, Any]) -> dict[str, Any]:
    nothing = {"test_runtime_avg": None, "test_runtime_max": None, "test_runtime_min": None}
    return {**row, "success_count": row["total_count"] - row["failure_count"], **nothing}


def _six_months() -> Days:
    return Days(six_months_ago(), today() - timedelta(days=1))


def _months_inside(days: Days) -> dict[str, date]:
    """The first whole month in `days`, and the first that is not wholly in it any more."""
    first = days.since if days.since.day == 1 else days.since.replace(day=1) + relativedelta(months=1)
    return {"first_month": first, "after_months": days.until.replace(day=1)}
