"""What the web interface asks about findings and feedback, page by page, field by field.

It sends forms and bearers from another origin. Of a finding that was edited it sends back all that it was shown,
without `update_time` and `mine`; to publish or delete it sends the id alone. Its own server asks without a credential.
"""

from typing import Any

import pytest
from api_sample import samples
from explorer_client import ORIGIN, TIME, Explorer
from people import signed_in_headers

from api.openapi.schemas import UID

ADMIN, AUTHOR = "explorer-admin@example.org", "explorer-author@example.org"

FORM: dict[str, Any] = {
    "reported_by": "Example Observatory",
    "title": "Social media blocked in two countries",
    "short_description": "For a week.",
    "text": "# What happened\n\nIt was **blocked**.",
    "event_type": "incident",
    "published": False,
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": "2024-01-08T00:00:00Z",
    "CCs": ["IT", "FR"],
    "ASNs": [30722],
    "domains": ["www.example.org"],
    "tags": ["elections"],
    "links": ["https://www.example.org/report"],
    "test_names": ["web_connectivity"],
    "themes": ["social_media"],
}

CRASH = {
    "country": ("start_time",),
    "findings": ("CCs", "start_time"),
    "dashboard": ("start_time", "update_time"),
}
"""Fields of the list without which a page breaks down; each is there and never null."""

EDIT = ("ASNs", "CCs", "domains", "start_time", "tags", "test_names", "themes")
CHANGED_BY = ("published", "short_description", "themes", "title", "slug", "create_time", "id", "reported_by")


class Bearer(Explorer):
    """The interface of somebody who is signed in, or of nobody."""

    def __init__(self, api: Any, email: str = "", role: str = "user") -> None:
        super().__init__(api)
        self.email = email
        self.headers = signed_in_headers(api, api.dsn, role, email) if email else {}

    def ask(self, method: str, path: str, **options: Any) -> Any:
        """Send a request as the browser does; returns the JSON of a reply that must be good."""
        response = self.send(method, path, **options)
        assert response.status_code == 200, response.text
        return response.json()

    def send(self, method: str, path: str, **options: Any) -> Any:
        response = self.api.http.request(method, path, headers={"Origin": ORIGIN, **self.headers}, **options)
        assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}, "the page could not read it"
        return response

    def findings(self, **query: str) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = self.ask("GET", "/api/v1/incidents/search", params=query)["incidents"]
        assert isinstance(found, list)
        for each in found:
            for name in {name for names in CRASH.values() for name in names}:
                assert each[name] is not None
            for name in CHANGED_BY:
                assert each[name] is not None
            assert TIME.fullmatch(each["start_time"])
            assert TIME.fullmatch(each["update_time"])
            assert TIME.fullmatch(each["create_time"])
            assert isinstance(each["published"], bool)
            assert isinstance(each["id"], str)
        return found

    def finding(self, which: str) -> dict[str, Any]:
        found: dict[str, Any] = self.ask("GET", f"/api/v1/incidents/show/{which}")["incident"]
        for name in EDIT:
            assert found[name] is not None
        for name in ("text", "title", "reported_by", "create_time", "short_description", "published"):
            assert found[name] is not None
        return found


@pytest.fixture(scope="module")
def visitor(sampled_api: Any) -> Bearer:
    """Somebody who is not signed in; the server of the interface as well."""
    return Bearer(sampled_api)


@pytest.fixture(scope="module")
def author(sampled_api: Any) -> Bearer:
    return Bearer(sampled_api, AUTHOR)


@pytest.fixture(scope="module")
def admin(sampled_api: Any) -> Bearer:
    return Bearer(sampled_api, ADMIN, "admin")


@pytest.fixture
def number(author: Bearer) -> str:
    """A draft as the page to create one sends it."""
    reply = author.ask("POST", "/api/v1/incidents/create", json={**FORM, "email_address": author.email})
    assert set(reply) == {"id", "r"}
    return str(reply["id"])


@pytest.fixture
def published(admin: Bearer, number: str) -> str:
    """A finding as the dashboard publishes it."""
    assert admin.ask("POST", "/api/v1/incidents/publish", json={"id": number})["id"] == number
    return number


def test_created_finding_is_opened_by_its_id(author: Bearer, number: str) -> None:
    found = author.finding(number)
    assert {name: found[name] for name in FORM} == FORM


def test_page_of_a_finding_by_id_leads_to_its_slug(visitor: Bearer, published: str) -> None:
    found = visitor.finding(published)
    assert found["slug"].startswith("2024-social-media-blocked-in-two-countries")
    assert visitor.finding(found["slug"]) == found


def test_page_of_a_draft_is_not_there(visitor: Bearer, number: str) -> None:
    response = visitor.send("GET", f"/api/v1/incidents/show/{number}")
    assert response.status_code == 400, "any error makes it a page that is not there"
    assert response.json()["error"] == "Incident not found"


def test_pages_of_themes_and_countries(visitor: Bearer, published: str, number: str) -> None:
    assert published in {each["id"] for each in visitor.findings(theme="social_media")}
    assert published not in {each["id"] for each in visitor.findings(theme="im")}
    assert published in {each["id"] for each in visitor.findings(country_code="FR")}
    assert published not in {each["id"] for each in visitor.findings(country_code="DE")}
    assert published in {each["id"] for each in visitor.findings()}
    assert all(each["published"] for each in visitor.findings())


def test_dashboard_publishes_and_takes_back(admin: Bearer, visitor: Bearer, number: str) -> None:
    for action, state in (("publish", True), ("unpublish", False)):
        assert admin.ask("POST", f"/api/v1/incidents/{action}", json={"id": number}) == {"id": number, "r": 1}
        (found,) = [each for each in admin.findings() if each["id"] == number]
        assert found["published"] is state
        assert (number in {each["id"] for each in visitor.findings()}) is state


@pytest.mark.parametrize("who", ["author", "admin"])
def test_edited_finding_is_sent_back_as_it_was_shown(
    request: pytest.FixtureRequest, who: str, author: Bearer, number: str
) -> None:
    editor: Bearer = request.getfixturevalue(who)
    shown = editor.finding(number)
    sent = _back(shown)
    sent |= {"title": "Better title", "ASNs": [30722, 3320], "email_address": editor.email}
    assert editor.ask("POST", "/api/v1/incidents/update", json=sent)["id"] == number
    after = author.finding(number)
    assert (after["title"], after["ASNs"], after["mine"]) == ("Better title", [30722, 3320], 1)
    assert (after["create_time"], after["slug"]) == (shown["create_time"], shown["slug"])


def test_finding_that_was_sent_back_without_an_address(author: Bearer, number: str) -> None:
    """The address in what is shown is null."""
    shown = author.finding(number)
    sent = _back(shown)
    assert sent["email_address"] is None
    author.ask("POST", "/api/v1/incidents/update", json={**sent, "text": "Edited"})
    assert author.finding(number)["text"] == "Edited"


def test_two_editors_of_what_was_shown_do_not_overwrite_each_other(author: Bearer, admin: Bearer, number: str) -> None:
    first, second = author.finding(number), admin.finding(number)
    admin.ask("POST", "/api/v1/incidents/update", json={**_back(second), "title": "By the admin"})
    response = author.send("POST", "/api/v1/incidents/update", json={**_back(first), "title": "By the author"})
    assert response.status_code == 400
    assert "Reload" in response.json()["error"], "the page shows this text"
    assert author.finding(number)["title"] == "By the admin"


def test_dashboard_deletes(author: Bearer, admin: Bearer, visitor: Bearer, published: str) -> None:
    assert admin.ask("POST", "/api/v1/incidents/delete", json={"id": published}) == {}
    assert published not in {each["id"] for each in admin.findings()}
    assert visitor.send("GET", f"/api/v1/incidents/show/{published}").status_code == 400


def test_preflights_of_what_is_written(visitor: Bearer) -> None:
    for path in ("/api/v1/incidents/create", "/api/_/measurement_feedback"):
        headers = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "POST",
            "Access-Control-Request-Headers": "authorization,content-type",
        }
        response = visitor.api.http.options(path, headers=headers)
        assert response.status_code == 200
        assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}
        assert {"authorization", "content-type"} <= set(
            _items(response.headers["access-control-allow-headers"].lower())
        )
        assert "POST" in response.headers["access-control-allow-methods"]


def test_feedback_of_a_measurement(visitor: Bearer, author: Bearer) -> None:
    uid = samples()[-1].uid
    path = f"/api/_/measurement_feedback/{uid}"
    assert visitor.ask("GET", path) == {"summary": {}}
    sent = {"measurement_uid": uid, "status": "blocked.blockpage.http"}
    assert author.ask("POST", "/api/_/measurement_feedback", json=sent) == {}
    assert visitor.ask("GET", path) == {"summary": {"blocked.blockpage.http": 1}}
    assert author.ask("GET", path)["user_feedback"] == "blocked.blockpage.http"
    response = visitor.send("POST", "/api/_/measurement_feedback", json=sent)
    assert (response.status_code, response.json()["error"]) == (401, "Authentication required")


def test_addresses_stay_out_of_the_log(sampled_api: Any, author: Bearer, number: str) -> None:
    response = author.send("POST", "/api/v1/incidents/delete", json={"id": number, "email_address": ADMIN})
    assert response.json()["err_str"] == "err_ownership"
    assert AUTHOR not in sampled_api.log()
    assert ADMIN not in sampled_api.log()


def test_each_route_is_counted_by_its_name(sampled_api: Any, visitor: Bearer, author: Bearer, number: str) -> None:
    visitor.findings()
    visitor.ask("GET", f"/api/_/measurement_feedback/{UID}")
    author.finding(number)
    for name in ("search_list_incidents", "show_incident", "post_update_incident", "get_msmt_feedback"):
        assert sampled_api.metric("api_requests_total", endpoint=name, status="2xx") > 0


def _back(shown: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in shown.items() if key not in {"update_time", "mine"}}


def _items(text: str) -> list[str]:
    return [part.strip() for part in text.split(",")]
