"""How long replies may be kept, and how to ask whether they changed."""

from collections.abc import Mapping

from api.openapi.model import Operation, Schema

NO_CACHE = "max-age=0, no-cache"
NO_STORE = f"{NO_CACHE}, no-store"
SIGNED_IN = "max-age=0, no-cache, private"
"""Of replies to who is signed in, whatever the route."""

_DAY, _TWO_HOURS, _HOUR, _MINUTE, _SECOND, _NOW = (f"max-age={seconds}" for seconds in (86400, 7200, 3600, 60, 1, 0))

_STATISTICS_OF_A_DAY = (
    "asn_by_month",
    "circumvention_runtime_stats",
    "circumvention_stats_by_country",
    "countries",
    "countries_by_month",
    "country_overview",
    "global_overview",
    "global_overview_by_month",
    "network_stats",
)

CACHE_CONTROL: Mapping[str, str] = {
    **{f"/api/_/{name}": _DAY for name in _STATISTICS_OF_A_DAY},
    **{f"/api/_/{name}": _TWO_HOURS for name in ("asnmeta", "domain_metadata", "domains", "networks")},
    **{f"/api/_/{name}": _HOUR for name in ("im_networks", "im_stats", "test_coverage", "test_names", "website_urls")},
    **{f"/api/_/{name}": _NOW for name in ("vanilla_tor_stats", "website_networks", "website_stats")},
    **dict.fromkeys(("/api/v1/files",), _DAY),
    **dict.fromkeys(("/api/v1/raw_measurement", "/api/v1/torsf_stats", "/robots.txt", "/apidocs/assets/{name}"), _DAY),
    **dict.fromkeys(
        ("/api/v1/measurement/{uid}", "/api/v1/collectors", "/api/_/ooni_run/fetch/{ooni_run_link_id}"), _HOUR
    ),
    **dict.fromkeys(("/openapi.json", "/apispec_1.json", "/apidocs/"), "max-age=300"),
    **dict.fromkeys(("/api/v1/measurements", "/api/v1/measurement_meta"), _MINUTE),
    **dict.fromkeys(
        (
            "/api/_/check_report_id",
            "/api/_/show_countries_prioritization",
            "/api/_/url-priorities/list",
            "/api/v1/test-list/urls",
        ),
        _SECOND,
    ),
    **dict.fromkeys(("/api/v1/test-helpers", "/api/_/debug_prioritization", "/api/_/measurement_feedback/{uid}"), _NOW),
    **dict.fromkeys(
        (
            "/api/_/ooni_run/list",
            "/api/_/quotas_summary",
            "/api/_/url-submission/test-list/{cc}",
            "/api/v1/access_tokens",
            "/api/v1/audit_log",
            "/api/v1/incidents/search",
            "/api/v1/incidents/show/{incident}",
            "/api/v1/test-list/psiphon-config",
            "/api/v1/test-list/tor-targets",
            "/api/v1/user_logout",
            "/api/v2/oonirun/links",
            "/api/v2/oonirun/links/{oonirun_link_id}",
            "/api/v2/oonirun/links/{oonirun_link_id}/full-descriptor/{revision}",
            "/api/v2/oonirun/links/{oonirun_link_id}/revisions",
        ),
        NO_CACHE,
    ),
    **dict.fromkeys(("/api/v1/user_login", "/api/v2/ooniauth/user-session"), NO_STORE),
}
"""The Cache-Control of the usual reply to each GET that has one."""

NOT_MODIFIED = "The same as the reply whose ETag was named in If-None-Match."


def usual(operation: Operation) -> str | None:
    """Return the Cache-Control of the usual reply to a GET, None when it has none."""
    if operation.path == "/api/v1/user_refresh_token":
        return f"{NO_STORE}, private"
    if operation.account in {"user", "session", "admin"}:
        return SIGNED_IN
    return CACHE_CONTROL.get(operation.path)


def headers(operation: Operation) -> dict[str, Schema]:
    """Return the headers of an operation's usual reply that tell how long it may be kept."""
    if operation.method != "get":
        return {}
    found: dict[str, Schema] = {}
    cache = usual(operation)
    if cache is not None:
        found["Cache-Control"] = {
            "description": "How long the reply may be kept.",
            "schema": {"type": "string"},
            "example": cache,
        }
    if tagged(operation):
        found["ETag"] = {
            "description": "Names this content; send it in If-None-Match to be told whether there is other content.",
            "schema": {"type": "string"},
        }
    return found


def tagged(operation: Operation) -> bool:
    """Return whether the usual reply has an ETag."""
    return operation.method == "get" and 200 in operation.replies and "no-cache" not in (usual(operation) or "")
