"""Statistics of networks, and their names.

A name is the one that was given last in table asnmeta. Lists show an empty name for a network that has none, never
null: readers turn names into lower case to search them.
"""

from flask import Blueprint, Response, request

from api.params import Params
from api.responses import json_response
from api.statistics_asked import country, last_31_days, network, page
from api.statistics_reading import read, read_kept
from api.statistics_replies import DAY, TWO_HOURS, list_reply, page_metadata, wants_csv

blueprint = Blueprint("statistics_networks", __name__)

_STATS_PATH = "/api/_/network_stats"
_STATS_COLUMNS = (
    "anomaly_count",
    "confirmed_count",
    "failure_count",
    "last_tested",
    "measurement_count",
    "ok_count",
    "org_name",
    "probe_asn",
)

NAMED = """coalesce((SELECT org_name FROM asnmeta WHERE asn = {0}.probe_asn ORDER BY changed DESC LIMIT 1), '')"""
"""SQL of the name of network `probe_asn` of the table whose name is filled in."""

_NAME = "SELECT org_name FROM asnmeta WHERE asn = %s ORDER BY changed DESC LIMIT 1"

_ALL = f"""
SELECT found.probe_asn, found.cnt, {NAMED.format("found")} AS org_name FROM (
    SELECT probe_asn, sum(measurement_count)::bigint AS cnt FROM counters_month_network
    GROUP BY probe_asn HAVING sum(measurement_count) > 0) AS found
ORDER BY probe_asn"""  # noqa: S608 constants only

_ORDER = "ORDER BY measurement_count DESC, probe_asn"

# One row with the number of networks, also when the page is empty; only those of the page get their names.
_OF_COUNTRY = f"""
WITH found AS MATERIALIZED (
    SELECT probe_asn, sum(ok_count)::bigint AS ok_count, sum(anomaly_count)::bigint AS anomaly_count,
        sum(confirmed_count)::bigint AS confirmed_count, sum(failure_count)::bigint AS failure_count,
        sum(measurement_count)::bigint AS measurement_count, max(measurement_start_day) AS last_tested
    FROM counters_network WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s
        AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s AND measurement_count > 0
    GROUP BY probe_asn)
SELECT everything.networks, page.*, {NAMED.format("page")} AS org_name
FROM (SELECT count(*) AS networks FROM found) AS everything
LEFT JOIN (SELECT * FROM found {_ORDER} LIMIT %(limit)s OFFSET %(offset)s) AS page ON true {_ORDER}"""  # noqa: S608 constants only


@blueprint.get("/api/_/networks")
def networks() -> Response:
    """Return every network that was ever measured from, by number."""
    as_csv = wants_csv(Params(request))
    found = read_kept(_ALL)
    whole = {"v": 0, "results": found}
    return list_reply(found, ("probe_asn", "cnt", "org_name"), whole, as_csv=as_csv, cache=TWO_HOURS)


@blueprint.get("/api/_/asnmeta")
def asnmeta() -> Response:
    """Return the name of a network."""
    rows = read(_NAME, [network(Params(request), "asn")])
    name = rows[0]["org_name"] if rows else ""
    return json_response({"org_name": name or "Unknown"}, cache=TWO_HOURS)


@blueprint.get(_STATS_PATH)
def network_stats() -> Response:
    """Return the networks of a country with what they measured in the last 31 days, the busiest first."""
    params = Params(request)
    cc, part, as_csv = country(params), page(params), wants_csv(params)
    rows = read(_OF_COUNTRY, {"cc": cc, **last_31_days()._asdict(), **part._asdict()})
    found = [{name: row[name] for name in _STATS_COLUMNS} for row in rows if row["probe_asn"] is not None]
    metadata = page_metadata(_STATS_PATH, part, len(found), rows[0]["networks"], probe_cc=cc)
    return list_reply(found, _STATS_COLUMNS, {"metadata": metadata, "results": found}, as_csv=as_csv, cache=DAY)
