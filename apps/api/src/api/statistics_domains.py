"""Statistics of domains: those of the test lists, their category, and how often websites of theirs were measured.

A domain can have several URLs on several lists. Its category is that of its shortest URL on the global list, or on any
list if it is not on the global one.
"""

from flask import Blueprint, Response, request

from api.errors import bad_request
from api.params import Params
from api.responses import json_response
from api.statistics_asked import WEB_CONNECTIVITY
from api.statistics_reading import read, read_kept
from api.statistics_replies import TWO_HOURS, list_reply, wants_csv
from core.testlists import GLOBAL

blueprint = Blueprint("statistics_domains", __name__)

UNKNOWN_CATEGORY = "MISC"

_WWW = "www."
_BEST_ENTRY = f"(cc = '{GLOBAL}') DESC, octet_length(url), url COLLATE \"C\", cc"

_DOMAINS = f"""
SELECT listed.domain AS domain_name, listed.category_code,
    coalesce(measured.count, 0) AS measurement_count
FROM (SELECT DISTINCT ON (domain) domain, category_code FROM citizenlab ORDER BY domain, {_BEST_ENTRY}) AS listed
LEFT JOIN (SELECT domain, sum(measurement_count)::bigint AS count FROM counters_month_url
    WHERE test_name = '{WEB_CONNECTIVITY}' GROUP BY domain) AS measured ON measured.domain = listed.domain
ORDER BY listed.domain COLLATE "C\""""  # noqa: S608 constants only

_METADATA = f"""
SELECT category_code, domain AS canonical_domain FROM citizenlab WHERE domain = ANY(%s)
ORDER BY {_BEST_ENTRY} LIMIT 1"""  # noqa: S608 constants only


@blueprint.get("/api/_/domains")
def domains() -> Response:
    """Return every domain of the test lists with its measurements of all time."""
    as_csv = wants_csv(Params(request))
    found = read_kept(_DOMAINS)
    columns = ("domain_name", "category_code", "measurement_count")
    return list_reply(found, columns, {"v": 0, "results": found}, as_csv=as_csv, cache=TWO_HOURS)


@blueprint.get("/api/_/domain_metadata")
def domain_metadata() -> Response:
    """Return the category of a domain, and under which name, with www or without, it is measured."""
    domain = Params(request).text("domain")
    if domain is None:
        raise bad_request("missing or incorrect domain", hint="Give a domain, such as www.example.org.")
    bare = domain.lower().removeprefix(_WWW)
    rows = read(_METADATA, [[bare, _WWW + bare]])
    found = rows[0] if rows else {"category_code": UNKNOWN_CATEGORY, "canonical_domain": bare}
    return json_response(found, cache=TWO_HOURS)
