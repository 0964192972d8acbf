"""One table of every route and method: who asks, and the status that they get.

A row is tried once for each of `ASKERS`, with objects that are made anew for it: what `needs` names belongs to the
account of `user`, and its numbers are put into path and body where they hold {names}. `other` is the account of
somebody else; `read` and `write` are access tokens of `user`, `ended` is a session of `user` that was logged out.

To add a route: a row, in the part where it belongs; `test_api_roles` says which are missing.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from http_routes import ROUTES

from api.openapi.document import document

ASKERS = ("anonymous", "ended", "read", "write", "user", "other", "admin")
RUN_LINKS = "/api/v2/oonirun/links"

Expected = Mapping[str, int]


def everybody(status: int, **but: int) -> Expected:
    """It makes no difference who asks."""
    return {**dict.fromkeys(ASKERS, status), **but}


def people(status: int, **but: int) -> Expected:
    """For who is signed in; access tokens of either scope are."""
    return everybody(status, **{"anonymous": 401, "ended": 401, **but})


def writers(status: int, **but: int) -> Expected:
    """For who is signed in; access tokens need the scope `write`."""
    return people(status, **{"read": 401, **but})


def sessions(status: int, **but: int) -> Expected:
    """For who is signed in, by a session."""
    return writers(status, **{"write": 401, **but})


def admins(status: int, **but: int) -> Expected:
    """For admins, in a session."""
    return sessions(status, **{"user": 401, "other": 401, **but})


@dataclass(frozen=True)
class Row:
    """A request and what each of `ASKERS` gets; `route` is the method and the rule as the application knows it."""

    route: str
    path: str
    expected: Expected
    body: Any = None
    needs: tuple[str, ...] = ()
    unrecorded: tuple[str, ...] = ()
    """Who writes nothing into the audit log though the request succeeds."""
    label: str = field(default="", compare=False)

    @property
    def method(self) -> str:
        """GET, POST, …."""
        return self.route.split()[0]


def _public() -> list[Row]:
    """Return the rows of what `http_routes` asks: answered to everybody alike."""
    return [Row(f"GET {rule}", path, everybody(status)) for rule, (path, status, _) in ROUTES.items()]


def _example(path: str) -> Any:
    """Return the body that the description gives as an example."""
    ((media),) = [document("")["paths"][path]["post"]["requestBody"]["content"]]
    return media["application/json"]["example"]


_FINDING = {
    "title": "Role table",
    "short_description": "One of a table.",
    "text": "Body.",
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": None,
    "event_type": "incident",
    "reported_by": "us",
    "published": False,
    "CCs": ["IT"],
    "ASNs": [30722],
    "domains": ["www.example.org"],
    "tags": [],
    "test_names": ["web_connectivity"],
    "links": [],
    "themes": [],
}
_UID = "20240101000102.123456_IE_webconnectivity_0123456789abcdef"
_TESTS = [{"test_name": "web_connectivity", "inputs": ["https://www.example.org/"], "options": {}}]
_RUN_LINK = {"name": "Role table", "short_description": "One of a table.", "description": "", "nettests": _TESTS}
_V1 = {**_RUN_LINK, "author": "", "icon": "", "nettests": _TESTS}
_RULE = {"category_code": "NEWS", "cc": "IT", "domain": "*", "url": "*", "priority": 7}
_ENTRY = {"category_code": "NEWS", "date_added": "2024-01-01", "source": "role table", "notes": ""}
_ADDRESS = {"email_address": "third.person@example.org"}
_LOGIN = {**_ADDRESS, "redirect_to": "https://explorer.example.org/login"}
_PROBE = {
    "run_type": "manual",
    "is_charging": True,
    "probe_asn": "AS30722",
    "probe_cc": "IT",
    "network_type": "wifi",
    "website_category_codes": [],
}

LOGIN = [
    Row("POST /api/v1/user_register", "/api/v1/user_register", everybody(200), _LOGIN, unrecorded=ASKERS),
    Row("GET /api/v1/user_login", "/api/v1/user_login?k={link_token}", everybody(200), needs=("link_token",)),
    Row("GET /api/v1/user_refresh_token", "/api/v1/user_refresh_token", sessions(200)),
    Row("GET /api/v1/user_logout", "/api/v1/user_logout", everybody(200)),
    Row("POST /api/v1/user_logout", "/api/v1/user_logout", everybody(200), unrecorded=("read", "write")),
    Row("GET /api/_/account_metadata", "/api/_/account_metadata", people(200)),
    Row("POST /api/v2/ooniauth/user-login", "/api/v2/ooniauth/user-login", everybody(200), _LOGIN, unrecorded=ASKERS),
    Row(
        "POST /api/v2/ooniauth/user-session",
        "/api/v2/ooniauth/user-session",
        everybody(200),
        {"login_token": "{link_token}"},
        ("link_token",),
        unrecorded=ASKERS,
        label="with a link",
    ),
    Row("POST /api/v2/ooniauth/user-session", "/api/v2/ooniauth/user-session", sessions(200), {}, unrecorded=ASKERS),
    Row("GET /api/v2/ooniauth/user-session", "/api/v2/ooniauth/user-session", everybody(200)),
]
ADMINISTRATION = [
    Row(
        "POST /api/v1/set_account_role",
        "/api/v1/set_account_role",
        admins(200),
        {"email_address": "{fresh_address}", "role": "user"},
        ("fresh_address",),
    ),
    Row(
        "GET /api/v1/get_account_role/<email>",
        "/api/v1/get_account_role/{user_address}",
        admins(200),
        needs=("user_address",),
    ),
    Row(
        "POST /api/v1/set_session_expunge",
        "/api/v1/set_session_expunge",
        admins(200),
        {"email_address": "{user_address}"},
        ("user_address",),
    ),
    Row("GET /api/v1/audit_log", "/api/v1/audit_log", admins(200)),
    Row("GET /api/_/quotas_summary", "/api/_/quotas_summary", admins(200)),
]
_TOKEN = "DELETE /api/v1/access_tokens/<int(max=9223372036854775807):token_id>"
TOKENS = [
    Row("GET /api/v1/access_tokens", "/api/v1/access_tokens", sessions(200)),
    Row(
        "GET /api/v1/access_tokens",
        "/api/v1/access_tokens?account_id={user_id}",
        sessions(200, other=401),
        needs=("user_id",),
        label="of user",
    ),
    Row("POST /api/v1/access_tokens", "/api/v1/access_tokens", sessions(200), {"name": "x", "scope": "read"}),
    Row(_TOKEN, "/api/v1/access_tokens/{token_id}", sessions(200, other=404, admin=404), needs=("token_id",)),
    Row(
        _TOKEN,
        "/api/v1/access_tokens/{token_id}?account_id={user_id}",
        sessions(200, other=401),
        needs=("token_id", "user_id"),
        label="of user",
    ),
]
_ACT = "POST /api/v1/incidents/<action>"
_SHOW = "GET /api/v1/incidents/show/<incident>"
FINDINGS = [
    Row("GET /api/v1/incidents/search", "/api/v1/incidents/search", everybody(200)),
    Row("GET /api/v1/incidents/search", "/api/v1/incidents/search?only_mine=true", everybody(200), label="only_mine"),
    Row(
        _SHOW,
        "/api/v1/incidents/show/{draft}",
        everybody(200, anonymous=400, ended=400, other=400),
        needs=("draft",),
        label="draft",
    ),
    Row(_SHOW, "/api/v1/incidents/show/{published}", everybody(200), needs=("published",), label="published"),
    Row(_SHOW, "/api/v1/incidents/show/{deleted}", everybody(400), needs=("deleted",), label="deleted"),
    Row(_ACT, "/api/v1/incidents/create", writers(200), _FINDING, label="create"),
    Row(
        _ACT,
        "/api/v1/incidents/create",
        writers(400, admin=200),
        {**_FINDING, "published": True},
        label="create published",
    ),
    Row(
        _ACT,
        "/api/v1/incidents/update",
        writers(200, other=400),
        {**_FINDING, "id": "{draft}", "title": "Changed"},
        ("draft",),
        label="update",
    ),
    Row(
        _ACT,
        "/api/v1/incidents/update",
        writers(200, other=400),
        {**_FINDING, "id": "{published}", "title": "Changed"},
        ("published",),
        label="update published",
    ),
    Row(_ACT, "/api/v1/incidents/publish", admins(200), {"id": "{draft}"}, ("draft",), label="publish"),
    Row(_ACT, "/api/v1/incidents/unpublish", admins(200), {"id": "{published}"}, ("published",), label="unpublish"),
    Row(_ACT, "/api/v1/incidents/delete", writers(200, other=400), {"id": "{draft}"}, ("draft",), label="delete"),
    Row(_ACT, "/api/v1/incidents/adopt", writers(400), {"id": "1"}, label="unknown action"),
    Row(
        "GET /api/_/measurement_feedback/<uid>", f"/api/_/measurement_feedback/{_UID}", everybody(200), label="feedback"
    ),
    Row(
        "POST /api/_/measurement_feedback",
        "/api/_/measurement_feedback",
        writers(200),
        {"measurement_uid": "{fresh_uid}", "status": "ok"},
        ("fresh_uid",),
    ),
]
_LINK = f"{RUN_LINKS}/<link:oonirun_link_id>"
RUN_LINKS_OF_PEOPLE = [
    Row("POST /api/_/ooni_run/create", "/api/_/ooni_run/create", writers(200), _V1),
    Row(
        "POST /api/_/ooni_run/create",
        "/api/_/ooni_run/create?ooni_run_link_id={run_link}",
        writers(200, other=400, admin=400),
        {**_V1, "name": "Changed"},
        ("run_link",),
        label="edit",
    ),
    Row(
        "POST /api/_/ooni_run/archive/<link:ooni_run_link_id>",
        "/api/_/ooni_run/archive/{run_link}",
        writers(200),
        {},
        ("run_link",),
        unrecorded=("other",),
    ),
    Row(
        "GET /api/_/ooni_run/fetch/<link:ooni_run_link_id>",
        "/api/_/ooni_run/fetch/{run_link}",
        everybody(200),
        needs=("run_link",),
    ),
    Row("GET /api/_/ooni_run/list", "/api/_/ooni_run/list", everybody(200)),
    Row("GET /api/_/ooni_run/list", "/api/_/ooni_run/list?only_mine=true", everybody(200), label="only_mine"),
    Row(f"POST {RUN_LINKS}", RUN_LINKS, writers(200), _RUN_LINK),
    Row(f"GET {RUN_LINKS}", RUN_LINKS, everybody(200)),
    Row(f"GET {RUN_LINKS}", f"{RUN_LINKS}?is_mine=true", everybody(200), label="is_mine"),
    Row(f"GET {_LINK}", f"{RUN_LINKS}/{{run_link}}", everybody(200), needs=("run_link",)),
    Row(
        f"PUT {_LINK}",
        f"{RUN_LINKS}/{{run_link}}",
        writers(200, other=403),
        {**_RUN_LINK, "name": "Changed"},
        ("run_link",),
    ),
    Row(
        f"GET {_LINK}/full-descriptor/<revision:revision>",
        f"{RUN_LINKS}/{{run_link}}/full-descriptor/latest",
        everybody(200),
        needs=("run_link",),
    ),
    Row(f"GET {_LINK}/revisions", f"{RUN_LINKS}/{{run_link}}/revisions", everybody(200), needs=("run_link",)),
    Row(
        f"POST {_LINK}/engine-descriptor/<revision:revision>",
        f"{RUN_LINKS}/{{run_link}}/engine-descriptor/latest",
        everybody(200),
        _PROBE,
        ("run_link",),
        unrecorded=ASKERS,
    ),
]
TEST_LISTS = [
    Row(
        "POST /api/_/url-priorities/update",
        "/api/_/url-priorities/update",
        admins(200),
        {"new_entry": {**_RULE, "cc": "{free_cc}"}},
        ("free_cc",),
    ),
    Row(
        "POST /api/_/url-priorities/update",
        "/api/_/url-priorities/update",
        admins(200),
        {"old_entry": {**_RULE, "cc": "{rule_cc}"}},
        ("rule_cc",),
        label="delete",
    ),
    Row("GET /api/_/url-submission/test-list/<cc>", "/api/_/url-submission/test-list/it", people(200)),
    Row(
        "POST /api/v1/url-submission/update-url",
        "/api/v1/url-submission/update-url",
        writers(200),
        {"country_code": "it", "comment": "", "old_entry": {}, "new_entry": {**_ENTRY, "url": "{fresh_url}"}},
        ("fresh_url",),
    ),
    Row(
        "POST /api/v1/url-submission/submit",
        "/api/v1/url-submission/submit",
        writers(200, other=400, admin=400),  # who changed nothing has nothing to submit
        {},
        ("list_change",),
    ),
]
_RID = "20240101T000000Z_webconnectivity_IE_34245_n1_abcdefghijklmnop"
PROBES = [
    Row("POST /report", "/report", everybody(200), _example("/report")),
    Row("POST /report/<rid>", f"/report/{_RID}", everybody(200), _example("/report/{rid}")),
    Row("POST /report/<rid>/close", f"/report/{_RID}/close", everybody(200), {}),
    Row("POST /api/v1/check-in", "/api/v1/check-in", everybody(200), {}),
    Row("POST /api/_/check-in", "/api/_/check-in", everybody(200), {}),
    Row("POST /api/v1/register", "/api/v1/register", everybody(200), {"password": "x"}),
    # The client id of a probe counts there, and no session of a person.
    Row("POST /api/v1/login", "/api/v1/login", everybody(401), {"username": "{link_token}"}, ("link_token",)),
    Row("PUT /api/v1/update/<client_id>", "/api/v1/update/x", everybody(200), {}),
    Row("POST /bouncer/net-tests", "/bouncer/net-tests", everybody(200), _example("/bouncer/net-tests")),
    Row("POST /api/v1/geolookup", "/api/v1/geolookup", everybody(200), {"addresses": ["192.0.2.1"]}),
    Row("POST /api/v1/sign_credential", "/api/v1/sign_credential", everybody(404), {}),
    Row(
        "POST /api/v1/submit_measurement",
        "/api/v1/submit_measurement",
        everybody(200),
        _example("/api/v1/submit_measurement"),
    ),
]

OF_PEOPLE: tuple[Row, ...] = (*LOGIN, *ADMINISTRATION, *TOKENS, *FINDINGS, *RUN_LINKS_OF_PEOPLE, *TEST_LISTS)
"""Where it makes a difference who asks."""

_TOLD = {row.route for row in OF_PEOPLE}
TABLE: tuple[Row, ...] = (*(row for row in _public() if row.route not in _TOLD), *PROBES, *OF_PEOPLE)
"""Every route and method, HEAD and OPTIONS aside: the former are answered like GET, the latter to everybody."""
