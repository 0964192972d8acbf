"""Statistics of everything: how many networks, countries and measurements there are, by month and by country.

All come from the monthly counters. A month without measurements is there with 0: charts want the month before this one.
"""

from datetime import date

from flask import Blueprint, Response, request

from api.country_names import COUNTRY_NAMES
from api.params import Params
from api.reading import Row
from api.responses import json_response
from api.statistics_asked import country, last_months, today
from api.statistics_reading import read, read_kept
from api.statistics_replies import DAY, list_reply, wants_csv

blueprint = Blueprint("statistics_overview", __name__)

MONTHS = 24
"""Months in charts of the last two years, the current one included."""

_FIRST_DAY = date(2012, 12, 1)
"""Older measurements have wrong dates: there were no probes yet."""

_NETWORKS_BY_MONTH = """
SELECT measurement_start_month AS month, count(*) AS value FROM (
    SELECT DISTINCT measurement_start_month, probe_asn FROM counters_month_network
    WHERE measurement_start_month BETWEEN %(first)s AND %(last)s AND measurement_count > 0) AS found
GROUP BY 1"""

_COUNTRIES_BY_MONTH = """
SELECT month, count(*) AS value, sum(measurements)::bigint AS measurements FROM (
    SELECT measurement_start_month AS month, probe_cc, sum(measurement_count) AS measurements
    FROM counters_month_country
    WHERE measurement_start_month BETWEEN %(first)s AND %(last)s AND measurement_count > 0
    GROUP BY 1, 2) AS found
GROUP BY 1"""

# Networks are counted from one to the next in the index, so their number matters and not that of their counters.
_OVERVIEW = """
WITH RECURSIVE found AS (
    (SELECT probe_asn FROM counters_month_network WHERE measurement_count > 0 ORDER BY probe_asn LIMIT 1)
    UNION ALL
    SELECT (SELECT c.probe_asn FROM counters_month_network AS c
        WHERE c.probe_asn > found.probe_asn AND c.measurement_count > 0 ORDER BY c.probe_asn LIMIT 1)
    FROM found WHERE found.probe_asn IS NOT NULL)
SELECT count(DISTINCT probe_cc) AS country_count, coalesce(sum(measurement_count), 0)::bigint AS measurement_count,
    (SELECT count(probe_asn) FROM found) AS network_count
FROM counters_month_country WHERE measurement_count > 0"""

_COUNTRIES = """
SELECT probe_cc, sum(measurement_count)::bigint AS count FROM counters_month_country
GROUP BY probe_cc HAVING sum(measurement_count) > 0 ORDER BY probe_cc COLLATE "C\""""

# The months begin where the days do.
_COUNTRY = """
SELECT
    (SELECT measurement_start_day FROM counters_country
     WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s AND measurement_start_day >= %(first)s
        AND measurement_count > 0 ORDER BY measurement_start_day LIMIT 1) AS first_bucket_date,
    (SELECT coalesce(sum(measurement_count), 0)::bigint FROM counters_month_country
     WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s AND measurement_start_month >= %(first)s)
        AS measurement_count,
    (SELECT count(DISTINCT probe_asn) FROM counters_month_network
     WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s AND measurement_start_month >= %(first)s
        AND measurement_count > 0) AS network_count"""


@blueprint.get("/api/_/asn_by_month")
def asn_by_month() -> Response:
    """Return how many networks were measured from, by month."""
    return _chart(_NETWORKS_BY_MONTH)


@blueprint.get("/api/_/countries_by_month")
def countries_by_month() -> Response:
    """Return from how many countries there are measurements, by month."""
    return _chart(_COUNTRIES_BY_MONTH)


@blueprint.get("/api/_/global_overview")
def global_overview() -> Response:
    """Return the numbers of networks, countries and measurements of all time."""
    (row,) = read_kept(_OVERVIEW)
    return json_response(row, cache=DAY)


@blueprint.get("/api/_/global_overview_by_month")
def global_overview_by_month() -> Response:
    """Return the numbers of networks, countries and measurements by month."""
    of_countries = _by_month(_COUNTRIES_BY_MONTH)
    months = {
        "networks_by_month": _series(_by_month(_NETWORKS_BY_MONTH)),
        "countries_by_month": _series(of_countries),
        "measurements_by_month": _series(of_countries, "measurements"),
    }
    return json_response(months, cache=DAY)


@blueprint.get("/api/_/countries")
def countries() -> Response:
    """Return the countries that have a name, with their measurements of all time."""
    as_csv = wants_csv(Params(request))
    found = [
        {"alpha_2": row["probe_cc"], "name": COUNTRY_NAMES[row["probe_cc"]], "count": row["count"]}
        for row in read_kept(_COUNTRIES)
        if row["probe_cc"] in COUNTRY_NAMES
    ]
    return list_reply(found, ("alpha_2", "name", "count"), {"countries": found}, as_csv=as_csv, cache=DAY)


@blueprint.get("/api/_/country_overview")
def country_overview() -> Response:
    """Return the numbers of one country; for one without measurements zeros, and today as the first day."""
    cc = country(Params(request))
    (row,) = read(_COUNTRY, {"cc": cc, "first": _FIRST_DAY})
    return json_response({**row, "first_bucket_date": row["first_bucket_date"] or today()}, cache=DAY)


def _by_month(statement: str) -> dict[date, Row]:
    months = last_months(MONTHS)
    return {row["month"]: row for row in read_kept(statement, (("first", months[0]), ("last", months[-1])))}


def _series(rows: dict[date, Row], value: str = "value") -> list[Row]:
    return [
        {"date": f"{month}T00:00:00+00:00", "value": rows[month][value] if month in rows else 0}
        for month in last_months(MONTHS)
    ]


def _chart(statement: str) -> Response:
    as_csv = wants_csv(Params(request))
    found = _series(_by_month(statement))
    return list_reply(found, ("date", "value"), found, as_csv=as_csv, cache=DAY)
