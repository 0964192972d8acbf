"""Statistics of websites: what the test web_connectivity found in the last 31 days, by network, day and URL.

The counts of anomalies, confirmed blocking and failures exclude each other, as in aggregation.
"""

from flask import Blueprint, Response, request

from api.errors import bad_request
from api.params import Params
from api.statistics_asked import WEB_CONNECTIVITY, country, last_31_days, network, page
from api.statistics_reading import read
from api.statistics_replies import HOUR, MAX_AGE_0, list_reply, page_metadata, wants_csv

blueprint = Blueprint("statistics_websites", __name__)

_URLS_PATH = "/api/_/website_urls"
_COUNTS = ("anomaly_count", "confirmed_count", "failure_count", "total_count")

_SUMS = """sum(anomaly_count)::bigint AS anomaly_count, sum(confirmed_count)::bigint AS confirmed_count,
    sum(failure_count)::bigint AS failure_count, sum(measurement_count)::bigint AS total_count"""

# The name of the test stands in the statements, not beside them, so that the partial index on it is found.
_IN_COUNTRY = f"""test_name = '{WEB_CONNECTIVITY}' AND left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s
    AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s"""

_NETWORKS = f"""
SELECT probe_asn, sum(measurement_count)::bigint AS count FROM counters_network WHERE {_IN_COUNTRY}
GROUP BY probe_asn HAVING sum(measurement_count) > 0 ORDER BY count DESC, probe_asn"""  # noqa: S608 constants only

_BY_DAY = f"""
SELECT measurement_start_day AS test_day, {_SUMS} FROM counters_input
WHERE {_IN_COUNTRY} AND probe_asn = %(asn)s AND left(input, 200) = left(%(input)s, 200) AND input = %(input)s
GROUP BY 1 HAVING sum(measurement_count) > 0 ORDER BY 1"""  # noqa: S608 constants only

# One row with the number of URLs, also when the page is empty.
_URLS = f"""
WITH found AS MATERIALIZED (
    SELECT input, {_SUMS} FROM counters_input WHERE {_IN_COUNTRY} AND probe_asn = %(asn)s
    GROUP BY input HAVING sum(measurement_count) > 0)
SELECT everything.inputs, page.* FROM (SELECT count(*) AS inputs FROM found) AS everything
LEFT JOIN (SELECT * FROM found
    ORDER BY confirmed_count DESC, total_count DESC, anomaly_count DESC, input COLLATE "C"
    LIMIT %(limit)s OFFSET %(offset)s) AS page ON true
ORDER BY confirmed_count DESC, total_count DESC, anomaly_count DESC, input COLLATE "C\""""  # noqa: S608 constants only


@blueprint.get("/api/_/website_networks")
def website_networks() -> Response:
    """Return the networks of a country from which websites were measured."""
    params = Params(request)
    cc, as_csv = country(params), wants_csv(params)
    found = read(_NETWORKS, {"cc": cc, **last_31_days()._asdict()})
    return list_reply(found, ("count", "probe_asn"), {"results": found}, as_csv=as_csv, cache=MAX_AGE_0)


@blueprint.get("/api/_/website_stats")
def website_stats() -> Response:
    """Return the days on which a URL was measured from a network, with what was found."""
    params = Params(request)
    values = {
        "cc": country(params),
        "asn": network(params),
        # Any text: it may be whatever website_urls lists.
        "input": params.text("input"),
        **last_31_days()._asdict(),
    }
    if values["input"] is None:
        raise bad_request("missing or incorrect input", hint="Give the URL as it was measured.")
    as_csv = wants_csv(params)
    found = read(_BY_DAY, values)
    return list_reply(found, ("test_day", *_COUNTS), {"results": found}, as_csv=as_csv, cache=MAX_AGE_0)


@blueprint.get(_URLS_PATH)
def website_urls() -> Response:
    """Return the URLs that were measured from a network, those with confirmed blocking first."""
    params = Params(request)
    cc, asn, part, as_csv = country(params), network(params), page(params), wants_csv(params)
    rows = read(_URLS, {"cc": cc, "asn": asn, **last_31_days()._asdict(), **part._asdict()})
    columns = ("input", *_COUNTS)
    found = [{name: row[name] for name in columns} for row in rows if row["input"] is not None]
    metadata = page_metadata(_URLS_PATH, part, len(found), rows[0]["inputs"], probe_asn=asn, probe_cc=cc)
    return list_reply(found, columns, {"metadata": metadata, "results": found}, as_csv=as_csv, cache=HOUR)
