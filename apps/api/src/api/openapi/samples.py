"""One request of each route that can be tried as it stands, as parameters and as a line for a shell."""

import json
from collections.abc import Mapping
from shlex import quote
from urllib.parse import quote as quote_url
from urllib.parse import urlencode

from api.openapi.accounts import LINK_TOKEN
from api.openapi.assets import version
from api.openapi.model import JSON, Operation
from api.openapi.schemas import REPORT_ID, UID, URL

_MONTH = {"since": "2024-01-01", "until": "2024-02-01"}

_OF_A_COUNTRY = (
    "country_overview",
    "im_networks",
    "network_stats",
    "test_coverage",
    "vanilla_tor_stats",
    "website_networks",
)

QUERIES: Mapping[str, Mapping[str, object]] = {
    "/api/v1/measurements": {"probe_cc": "IE", **_MONTH, "limit": 10},
    "/api/v1/measurement_meta": {"measurement_uid": UID},
    "/api/v1/raw_measurement": {"measurement_uid": UID},
    "/api/v1/aggregation": {"axis_x": "measurement_start_day", "probe_cc": "IE", **_MONTH, "time_grain": "day"},
    "/api/v1/torsf_stats": {"probe_cc": "IE", **_MONTH},
    **{f"/api/_/{name}": {"probe_cc": "IT"} for name in _OF_A_COUNTRY},
    "/api/_/website_stats": {"probe_cc": "IT", "probe_asn": "30722", "input": URL},
    "/api/_/website_urls": {"probe_cc": "IT", "probe_asn": "30722"},
    "/api/_/im_stats": {"probe_cc": "IT", "probe_asn": "30722", "test_name": "signal"},
    "/api/_/asnmeta": {"asn": "30722"},
    "/api/_/domain_metadata": {"domain": "example.org"},
    "/api/_/check_report_id": {"report_id": REPORT_ID},
    "/api/v1/test-list/urls": {"country_code": "IT", "category_codes": "NEWS", "limit": 10},
    "/api/_/debug_prioritization": {"probe_cc": "IT", "probe_asn": "AS30722", "limit": 10},
    "/api/v1/user_login": {"k": LINK_TOKEN},
    "/apidocs/assets/{name}": {"v": version("apidocs.js")},
}
"""The query of the sample request of each route; routes that are not here are asked without one."""


def query(operation: Operation) -> Mapping[str, object]:
    """Return the query of an operation's sample request."""
    return QUERIES.get(operation.path, {})


def address(base_url: str, operation: Operation) -> str:
    """Return the whole address of an operation's sample request."""
    path = operation.path
    for parameter in operation.parameters:
        if parameter.where == "path":
            path = path.replace(f"{{{parameter.name}}}", quote_url(str(parameter.example), safe=""))
    asked = urlencode(query(operation), safe=",:/")
    return f"{base_url}{path}{'?' if asked else ''}{asked}"


def curl(base_url: str, operation: Operation) -> str:
    """Return the sample request as a command line; `$TOKEN` in it stands for a token."""
    redirected = any(300 <= status < 400 for status in operation.replies)
    parts = ["curl", "-si" if redirected else "-s"]
    if operation.method not in {"get", "post"} or (operation.method == "post" and operation.body is None):
        parts += ["-X", operation.method.upper()]
    if operation.token or operation.account in {"user", "session", "admin"}:
        parts += ["-H", '"Authorization: Bearer $TOKEN"']
    if operation.body is not None:
        body = json.dumps(operation.body.example, separators=(",", ":"), ensure_ascii=False)
        parts += ["-H", quote(f"Content-Type: {JSON}"), "--data-binary", quote(body)]
    return " ".join([*parts, quote(address(base_url, operation))])
