"""The routes that probes, the web interface, researchers and operators cannot do without, and those good to have."""

import re

import pytest
from flask import Flask
from flask.testing import FlaskClient

PROBES = {
    "GET /api/v1/test-helpers",
    "POST /api/v1/check-in",
    "POST /report",
    "POST /report/{}",
    "POST /report/{}/close",
    "POST /api/v1/submit_measurement",
    "GET /api/v1/manifest",
    "POST /api/v1/sign_credential",
    "POST /api/v1/register",
    "POST /api/v1/login",
    "PUT /api/v1/update/{}",
    "GET /api/v1/test-list/tor-targets",
    "GET /api/v1/test-list/psiphon-config",
    "GET /api/v1/test-list/urls",
    "GET /api/v2/ooniprobe/vpn-config/{}",
    "GET /api/v1/collectors",
    "POST /bouncer/net-tests",
    "POST /api/v1/geolookup",
    "POST /api/_/check-in",
    "GET /api/_/check_report_id",
}
READERS = {
    "GET /api/v1/measurements",
    "GET /api/v1/measurement_meta",
    "GET /api/v1/raw_measurement",
    "GET /api/v1/measurement/{}",
    "GET /api/v1/aggregation",
    "GET /api/v1/aggregation/analysis",
    "GET /api/v1/aggregation/observations",
    "GET /api/v1/torsf_stats",
    "GET /api/v1/files",
}
STATISTICS = {
    f"GET /api/_/{name}"
    for name in (
        *("global_overview", "global_overview_by_month", "countries", "country_overview", "networks", "domains"),
        *("domain_metadata", "asnmeta", "asn_by_month", "countries_by_month", "test_coverage", "website_networks"),
        *("website_stats", "website_urls", "vanilla_tor_stats", "im_networks", "im_stats", "network_stats"),
        *("circumvention_stats_by_country", "circumvention_runtime_stats", "test_names"),
    )
}
PEOPLE = {
    "GET /",
    "GET /robots.txt",
    "GET /stats",
    "GET /files",
    "GET /files/by_date",
    "GET /files/by_country",
    "GET /files/by_date/{}",
    "GET /files/by_country/{}",
    "GET /files/download/{}",
    "GET /{}",
    "GET /{}/{}.json",
    "GET /api/",
}
ACCOUNTS = {
    "POST /api/v1/user_register",
    "GET /api/v1/user_login",
    "GET /api/v1/user_refresh_token",
    "GET /api/v1/user_logout",
    "POST /api/v1/user_logout",
    "GET /api/_/account_metadata",
    "POST /api/v1/set_account_role",
    "GET /api/v1/get_account_role/{}",
    "POST /api/v1/set_session_expunge",
    "POST /api/v2/ooniauth/user-login",
    "POST /api/v2/ooniauth/user-session",
    "GET /api/v2/ooniauth/user-session",
}
RUN_LINKS = {
    "POST /api/_/ooni_run/create",
    "POST /api/_/ooni_run/archive/{}",
    "GET /api/_/ooni_run/fetch/{}",
    "GET /api/_/ooni_run/list",
    "POST /api/v2/oonirun/links",
    "PUT /api/v2/oonirun/links/{}",
    "GET /api/v2/oonirun/links",
    "GET /api/v2/oonirun/links/{}",
    "GET /api/v2/oonirun/links/{}/full-descriptor/{}",
    "GET /api/v2/oonirun/links/{}/revisions",
    "POST /api/v2/oonirun/links/{}/engine-descriptor/{}",
}
LIST_EDITING = {
    "GET /api/_/url-submission/test-list/{}",
    "POST /api/v1/url-submission/update-url",
    "POST /api/v1/url-submission/submit",
    "POST /api/_/url-priorities/update",
}
FINDINGS = {
    "GET /api/v1/incidents/search",
    "GET /api/v1/incidents/show/{}",
    "POST /api/v1/incidents/{}",
    "GET /api/_/measurement_feedback/{}",
    "POST /api/_/measurement_feedback",
}
PROGRAMS = {
    "POST /api/v1/access_tokens",
    "GET /api/v1/access_tokens",
    "DELETE /api/v1/access_tokens/{}",
}
OPERATORS = {
    "GET /api/_/debug_prioritization",
    "GET /api/_/show_countries_prioritization",
    "GET /api/_/url-priorities/list",
    "GET /api/_/quotas_summary",
    "GET /api/v1/audit_log",
    "GET /health",
    "GET /apidocs",
    "GET /apidocs/",
    "GET /apispec_1.json",
    "GET /openapi.json",
}
"""What metrics are is no route: they have a port of their own."""


@pytest.fixture(scope="module")
def routes(module_app: Flask) -> set[str]:
    return {
        f"{method} {re.sub('<[^>]+>', '{}', rule.rule)}"
        for rule in module_app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


@pytest.mark.parametrize(
    "route",
    sorted(
        PROBES | READERS | STATISTICS | PEOPLE | ACCOUNTS | RUN_LINKS | LIST_EDITING | FINDINGS | PROGRAMS | OPERATORS
    ),
)
def test_the_route_is_there(routes: set[str], route: str) -> None:
    assert route in routes


@pytest.mark.parametrize("route", sorted(READERS | STATISTICS))
def test_what_can_be_read_can_be_asked_about(module_app: Flask, route: str) -> None:
    """HEAD is answered like GET without a body; other methods are refused as themselves, and say which are allowed."""
    client: FlaskClient = module_app.test_client()
    path = route.removeprefix("GET ").replace("{}", "20240101000102.123456_IE_webconnectivity_0123456789abcdef")
    get, head, post = client.get(path), client.head(path), client.post(path)
    assert head.status_code == get.status_code
    assert head.data == b""
    assert post.status_code == 405
    assert "GET" in post.headers["Allow"]
    assert post.json["error"]
