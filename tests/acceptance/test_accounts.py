"""What people with accounts meet (10.3, items 9 and 10), over HTTP, mail and one command on the host: against a stack
of its own, or a deployment whose mails can be read (see README.md).
"""

import os
import secrets
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest

sys.path.insert(0, str(Path(__file__).parent))
from service_client import Server, envelope, measurement, open_report, post, submit
from signing_in import Deployed, Deployment, OwnStack, Person, claims_of, new_address, token_of

BEYOND_ANY_CLOCK_S = 600
"""Longer ago than two hosts' clocks may differ."""

FINDING = {
    "title": "Acceptance <script>alert(1)</script>",
    "short_description": "Written by the acceptance tests.",
    "text": "# Heading\n\n<img src=x onerror=alert(1)> and **markdown**, as written.",
    "event_type": "incident",
    "reported_by": "acceptance",
    "start_time": "2024-01-31T00:00:00Z",
    "end_time": None,
    "published": False,
    "CCs": ["IT"],
    "ASNs": [64512],
    "domains": ["www.example.org"],
    "tags": ["acceptance"],
    "test_names": ["web_connectivity"],
    "links": ["https://www.example.org/"],
    "themes": ["social_media"],
}
ADMINS_ONLY = [
    ("POST", "/api/v1/set_account_role", {"email_address": "x@example.org", "role": "admin"}),
    ("GET", "/api/v1/get_account_role/x@example.org", None),
    ("POST", "/api/v1/set_session_expunge", {"email_address": "x@example.org"}),
    ("POST", "/api/v1/incidents/publish", {"id": "1"}),
    ("POST", "/api/v1/incidents/unpublish", {"id": "1"}),
    ("POST", "/api/_/url-priorities/update", {"new_entry": {"priority": 1}}),
    ("GET", "/api/v1/audit_log", None),
    ("GET", "/api/_/quotas_summary", None),
]


@dataclass(frozen=True)
class Team:
    """Two users and an admin."""

    user: Person
    other: Person
    admin: Person

    def headers(self, who: str) -> dict[str, str]:
        """Return the header of one of them, none for anybody else."""
        person = {"user": self.user, "other": self.other, "admin": self.admin}.get(who)
        return person.headers if person else {}


@pytest.fixture(scope="module")
def place(server: Server) -> Iterator[Deployment]:
    """Where people sign in."""
    if server.run_dir is not None:
        yield OwnStack(server.http, server.run_dir, server.dsn)
        return
    host, maildir = os.environ.get("ACCEPTANCE_HOST", ""), os.environ.get("ACCEPTANCE_MAILDIR", "")
    if not (host and maildir):
        pytest.skip("nobody can read this deployment's mails: set ACCEPTANCE_HOST and ACCEPTANCE_MAILDIR")
    redirect_to = os.environ.get("ACCEPTANCE_REDIRECT", "https://explorer.ooni.org/findings")
    yield Deployed(server.http, host, maildir, redirect_to)


@pytest.fixture(scope="module")
def team(place: Deployment) -> Iterator[Team]:
    """People who have signed in; one was made an admin by the command on the host, in a session that ran already."""
    user, other, admin = (place.sign_in(new_address(name)) for name in ("user", "other", "admin"))
    assert metadata(place, admin.headers) == {"logged_in": True, "role": "user"}
    place.make_admin(admin.address)
    assert metadata(place, admin.headers) == {"logged_in": True, "role": "admin"}
    yield Team(user, other, admin)
    place.make_admin(admin.address, remove=True)


@pytest.fixture
def http(place: Deployment) -> httpx.Client:
    """A client of the deployment."""
    return place.http


def metadata(place: Deployment, headers: dict[str, str]) -> dict[str, Any]:
    """Return what the deployment says about who is signed in."""
    response = place.http.get("/api/_/account_metadata", headers=headers)
    assert response.status_code == (200 if response.json()["logged_in"] else 401)
    assert "no-cache" in response.headers["Cache-Control"]
    return dict(response.json())


class TestLogin:
    """From an e-mail address to a session, and its end (10.3, 9)."""

    def test_address_link_session_metadata_refresh(self, place: Deployment) -> None:
        address = new_address("Jane.Doe+tag").upper()
        before = time.time()
        response = place.register(address)
        assert (response.status_code, response.json()) == (200, {"msg": "ok"})
        assert "no-cache" in response.headers["Cache-Control"]
        link = place.mailed_link(address.lower())
        assert link.startswith(f"{place.redirect_to.rpartition('/')[0]}/login?token=")
        asked = claims_of(token_of(link))
        assert asked["aud"] == "register"
        assert asked["redirect_to"] == place.redirect_to
        assert 86_400 - 5 <= asked["exp"] - asked["nbf"] <= 86_400 + 5

        response = place.follow(link)
        assert response.status_code == 200, response.text
        assert response.json().keys() == {"bearer", "redirect_to", "email_address"}
        assert response.json()["redirect_to"] == place.redirect_to
        assert response.json()["email_address"] == address.lower()
        assert "no-cache" in response.headers["Cache-Control"]
        person = Person(address.lower(), response.json()["bearer"])
        claims = person.claims
        assert (claims["aud"], claims["role"]) == ("user_auth", "user")
        assert len(claims["account_id"]) == 32
        assert claims["account_id"] == asked["account_id"]
        assert before - BEYOND_ANY_CLOCK_S < claims["login_time"] < claims["exp"]

        assert metadata(place, person.headers) == {"logged_in": True, "role": "user"}
        assert metadata(place, {}) == {"logged_in": False}

        response = place.http.get("/api/v1/user_refresh_token", headers=person.headers)
        assert response.status_code == 200, response.text
        assert response.json().keys() == {"bearer"}
        later = claims_of(response.json()["bearer"])
        for name in ("login_time", "role", "account_id", "aud"):
            assert later[name] == claims[name]
        assert later["exp"] >= claims["exp"]
        assert metadata(place, {"Authorization": f"Bearer {response.json()['bearer']}"})["logged_in"]

    def test_whether_an_account_exists_is_not_told(self, place: Deployment, team: Team) -> None:
        known, unknown = place.register(team.other.address), place.register(new_address("unknown"))
        assert (known.status_code, known.text) == (unknown.status_code, unknown.text)
        assert set(known.headers) == set(unknown.headers)

    @pytest.mark.parametrize(
        ("asked", "error"),
        [
            ({"email_address": ""}, "Invalid request"),
            ({"email_address": "nobody"}, "Invalid email address"),
            ({"email_address": "nobody@localhost"}, "Invalid email address"),
            ({"email_address": "a@example.org\r\nBcc: b@example.org"}, "Invalid email address"),
            ({"redirect_to": ""}, "Invalid request"),
            ({"redirect_to": "https://evil.example/"}, "Invalid request"),
            ({"redirect_to": "javascript:alert(1)"}, "Invalid request"),
            ({"redirect_to": "http://explorer.ooni.org/"}, "Invalid request"),
            ({"redirect_to": "https://explorer.ooni.org@evil.example/"}, "Invalid request"),
            ({"redirect_to": "https://explorer.ooni.org.evil.example/"}, "Invalid request"),
        ],
    )
    def test_what_is_no_address_or_leads_elsewhere_is_refused_and_nothing_is_mailed(
        self, place: Deployment, asked: dict[str, str], error: str
    ) -> None:
        address, before = new_address("refused"), len(place.links())
        response = place.register(address, **asked)
        assert (response.status_code, response.json()["error"]) == (400, error)
        assert response.headers["Cache-Control"] == "no-cache"
        assert len(place.links()) == before

    def test_link_that_is_none_says_what_it_is(self, place: Deployment, team: Team) -> None:
        token = token_of(place.mailed_link(new_address("links")))
        head, payload, signature = token.split(".")
        late = jwt.encode(
            {**claims_of(token), "exp": int(time.time()) - BEYOND_ANY_CLOCK_S}, place.session_key(), algorithm="HS256"
        )
        short = {name: value for name, value in claims_of(token).items() if name != "account_id"}
        swapped = signature[:-10] + ("A" * 10 if signature[-10:] != "A" * 10 else "B" * 10)
        for tried, error in (
            (f"{head}.{payload}.{swapped}", "Invalid credential signature"),
            (jwt.encode(claims_of(token), "x" * 64, algorithm="HS256"), "Invalid credential signature"),
            ("nonsense", "Invalid credentials"),
            ("", "Invalid credentials"),
            (late, "Expired token"),
            (jwt.encode(short, place.session_key(), algorithm="HS256"), "Invalid token type"),
            (team.user.bearer, "Invalid credentials"),
        ):
            response = place.http.get("/api/v1/user_login", params={"k": tried})
            assert (response.status_code, response.json()["error"]) == (401, error), tried
            assert response.headers["Cache-Control"] == "no-cache"
        assert place.http.get("/api/v1/user_login", params={"k": token}).status_code == 200, "the link itself works"

    def test_session_that_has_expired_or_is_none_is_nobodys(self, place: Deployment, team: Team) -> None:
        past = int(time.time()) - BEYOND_ANY_CLOCK_S
        none = jwt.encode(team.user.claims, None, algorithm="none")  # type: ignore[arg-type] # no key, on purpose
        link = token_of(place.mailed_link(new_address("confused")))
        for headers in (
            place.forged(team.user, exp=past),
            place.forged(team.user, aud="register"),
            place.forged(team.user, aud=["user_auth"]),
            place.forged(team.user, sid=None),
            place.forged(team.user, exp=None),
            place.forged(team.user, gen=team.user.claims["gen"] + 1),
            place.forged(team.user, account_id="0" * 32),
            {"Authorization": f"Bearer {jwt.encode(team.user.claims, 'x' * 64, algorithm='HS256')}"},
            {"Authorization": f"Bearer {none}"},
            {"Authorization": f"Bearer {link}"},
            {"Authorization": f"Basic {team.user.bearer}"},
            {"Cookie": f"ooni={team.user.bearer}"},
            {"Authorization": "Bearer"},
        ):
            assert metadata(place, headers) == {"logged_in": False}
            for path in ("/api/v1/user_refresh_token", "/api/v1/audit_log"):
                response = place.http.get(path, headers=headers)
                assert (response.status_code, response.json()["error"]) == (401, "Authentication required"), headers
        assert metadata(place, place.forged(team.user))["logged_in"], "forged with the right key and claims, it counts"

    def test_role_in_a_token_counts_for_nothing(self, place: Deployment, team: Team) -> None:
        headers = place.forged(team.user, role="admin")
        assert metadata(place, headers)["role"] == "user"
        assert place.http.get("/api/v1/audit_log", headers=headers).status_code == 401

    def test_logout_ends_the_session_on_the_server(self, place: Deployment) -> None:
        person = place.sign_in(new_address("leaving"))
        assert place.http.get("/api/v1/user_logout", headers=person.headers).json() == {}
        assert metadata(place, person.headers) == {"logged_in": False}
        assert place.http.get("/api/v1/user_refresh_token", headers=person.headers).status_code == 401


class TestRoles:
    """Admins, and what only they may do (10.3, 9)."""

    @pytest.mark.parametrize(("method", "path", "body"), ADMINS_ONLY, ids=lambda value: str(value)[:40])
    def test_what_is_for_admins_is_401_for_others(
        self, place: Deployment, team: Team, method: str, path: str, body: Any
    ) -> None:
        for who, error in (("anonymous", "Authentication required"), ("user", "Role not authorized")):
            response = place.http.request(method, path, json=body, headers=team.headers(who))
            assert (response.status_code, response.json()["error"]) == (401, error)
            assert response.headers["WWW-Authenticate"] == "Bearer"

    def test_admin_gives_and_takes_roles_and_they_count_at_once(self, place: Deployment, team: Team) -> None:
        path = f"/api/v1/get_account_role/{team.other.address}"
        role = {"email_address": team.other.address}
        assert place.http.get(path, headers=team.admin.headers).json() == {"role": "user"}
        for given in ("admin", "user"):
            response = post(place.http, "/api/v1/set_account_role", {**role, "role": given}, **team.admin.headers)
            assert (response.status_code, response.json()) == (200, {})
            assert place.http.get(path, headers=team.admin.headers).json() == {"role": given}
            assert metadata(place, team.other.headers)["role"] == given
            status = place.http.get("/api/v1/audit_log?limit=1", headers=team.other.headers).status_code
            assert status == (200 if given == "admin" else 401)

    @pytest.mark.parametrize(
        ("asked", "error"),
        [
            ({"email_address": "nobody", "role": "user"}, "Invalid email address"),
            ({"email_address": "x@example.org", "role": "root"}, "Invalid role"),
        ],
    )
    def test_role_that_is_none_is_refused(
        self, place: Deployment, team: Team, asked: dict[str, str], error: str
    ) -> None:
        response = post(place.http, "/api/v1/set_account_role", asked, **team.admin.headers)
        assert (response.status_code, response.json()["error"]) == (400, error)

    def test_account_that_is_not_there_is_told(self, place: Deployment, team: Team) -> None:
        for address, error in ((new_address("nobody"), "Account not found"), ("nobody", "Invalid email address")):
            response = place.http.get(f"/api/v1/get_account_role/{address}", headers=team.admin.headers)
            assert (response.status_code, response.json()["error"]) == (400, error)

    def test_expunge_ends_sessions_tokens_and_links(self, place: Deployment, team: Team) -> None:
        person = place.sign_in(new_address("expunged"))
        made = post(place.http, "/api/v1/access_tokens", {"name": "x", "scope": "write"}, **person.headers).json()
        token = {"Authorization": f"Bearer {made['token']}"}
        link = place.mailed_link(person.address)
        assert metadata(place, token)["logged_in"]
        asked = {"email_address": person.address}
        assert post(place.http, "/api/v1/set_session_expunge", asked, **team.admin.headers).json() == {}
        assert metadata(place, person.headers) == metadata(place, token) == {"logged_in": False}
        assert place.follow(link).status_code == 401
        time.sleep(1.1)  # links know the second that they were made in
        assert metadata(place, place.sign_in(person.address).headers)["logged_in"]

    def test_what_was_done_is_written_down_without_an_address(self, place: Deployment, team: Team) -> None:
        asked = {"account_id": team.admin.claims["account_id"], "action": "account.set_role"}
        response = place.http.get("/api/v1/audit_log", params=asked, headers=team.admin.headers)
        assert response.status_code == 200, response.text
        subjects = {line["subject"] for line in response.json()["results"]}
        assert team.other.claims["account_id"] in subjects
        everything = place.http.get("/api/v1/audit_log?limit=1000", headers=team.admin.headers).text
        assert "@example.org" not in everything


class TestFeedback:
    """One answer of each person about a measurement, the last one (10.3, 10)."""

    def test_later_feedback_replaces_the_earlier_of_the_same_person(self, http: httpx.Client, team: Team) -> None:
        report_id = open_report(http)
        uid = submit(http, report_id, envelope(measurement(report_id)))["measurement_uid"]

        def shown(who: str) -> Any:
            path = f"/api/_/measurement_feedback/{uid}?asked={secrets.token_hex(4)}"
            response = http.get(path, headers=team.headers(who))
            assert response.status_code == 200
            return response.json()

        def say(who: str, status: str) -> httpx.Response:
            asked = {"measurement_uid": f" {uid} ", "status": f" {status} "}
            return post(http, "/api/_/measurement_feedback", asked, **team.headers(who))

        assert shown("anonymous") == shown("user") == {"summary": {}}
        refused = say("anonymous", "ok")
        assert (refused.status_code, refused.json()["error"]) == (401, "Authentication required")
        refused = say("user", "fine")
        assert (refused.status_code, refused.json()["error"]) == (400, "Invalid status")
        assert shown("anonymous") == {"summary": {}}

        for who, status in (("user", "ok"), ("other", "blocked.dns.nxdomain"), ("user", "down.unreachable")):
            response = say(who, status)
            assert (response.status_code, response.json()) == (200, {})
        summary = {"down.unreachable": 1, "blocked.dns.nxdomain": 1}
        assert shown("anonymous") == shown("admin") == {"summary": summary}
        assert shown("user") == {"summary": summary, "user_feedback": "down.unreachable"}
        assert shown("other") == {"summary": summary, "user_feedback": "blocked.dns.nxdomain"}
        assert say("other", "down.unreachable").status_code == 200
        assert shown("anonymous") == {"summary": {"down.unreachable": 2}}


class TestIncidents:
    """Who sees, changes and publishes what somebody wrote (10.3, 10)."""

    @staticmethod
    def act(http: httpx.Client, action: str, body: dict[str, Any], headers: dict[str, str]) -> httpx.Response:
        return post(http, f"/api/v1/incidents/{action}", body, **headers)

    def seen_by(self, http: httpx.Client, team: Team, number: str) -> set[str]:
        """Return who is shown a finding, and lists it."""
        found = set()
        for who in ("anonymous", "user", "other", "admin"):
            asked = {"asked": secrets.token_hex(4)}
            shown = http.get(f"/api/v1/incidents/show/{number}", params=asked, headers=team.headers(who))
            listed = http.get("/api/v1/incidents/search", params=asked, headers=team.headers(who))
            assert listed.status_code == 200
            assert listed.json()["v"] == 1
            is_listed = number in {incident["id"] for incident in listed.json()["incidents"]}
            assert is_listed == (shown.status_code == 200), who
            if is_listed:
                found.add(who)
                assert shown.json()["incident"]["mine"] == int(who == "user")
                assert shown.json()["incident"]["email_address"] in (None, "")
            else:
                assert (shown.status_code, shown.json()["error"]) == (400, "Incident not found")
        return found

    def test_draft_published_taken_back_and_deleted(self, http: httpx.Client, team: Team) -> None:
        created = self.act(http, "create", {**FINDING, "email_address": team.user.address}, team.user.headers)
        assert created.status_code == 200, created.text
        assert created.json()["r"] == 1
        number = created.json()["id"]
        assert self.seen_by(http, team, number) == {"user", "admin"}

        for who in ("anonymous", "user", "other"):
            assert self.act(http, "publish", {"id": number}, team.headers(who)).status_code == 401
        published = self.act(http, "publish", {"id": number}, team.admin.headers)
        assert published.json() == {"id": number, "r": 1}
        everybody = {"anonymous", "user", "other", "admin"}
        assert self.seen_by(http, team, number) == everybody

        incident = http.get(f"/api/v1/incidents/show/{number}", headers=team.user.headers).json()["incident"]
        for name, value in {**FINDING, "published": True}.items():
            assert incident[name] == value, name
        assert http.get(f"/api/v1/incidents/show/{incident['slug']}").json()["incident"]["id"] == number

        assert self.act(http, "unpublish", {"id": number}, team.admin.headers).status_code == 200
        assert self.seen_by(http, team, number) == {"user", "admin"}
        assert self.act(http, "publish", {"id": number}, team.admin.headers).status_code == 200
        for who, status in (("anonymous", 401), ("other", 400), ("user", 200)):
            response = self.act(http, "delete", {"id": number}, team.headers(who))
            assert response.status_code == status
        assert self.seen_by(http, team, number) == set()
        assert self.act(http, "publish", {"id": number}, team.admin.headers).status_code == 400

    def test_only_its_author_and_admins_change_a_finding_and_it_stays_the_authors(
        self, http: httpx.Client, team: Team
    ) -> None:
        number = self.act(http, "create", FINDING, team.user.headers).json()["id"]
        changed = {**FINDING, "id": number, "title": "Changed"}
        refused = self.act(http, "update", changed, team.other.headers)
        assert (refused.status_code, refused.json()["err_str"]) == (400, "err_ownership")
        assert self.act(http, "update", changed, {}).status_code == 401
        for person in (team.user, team.admin):
            answer = self.act(http, "update", {**changed, "title": person.address[:4]}, person.headers)
            assert answer.json() == {"id": number, "r": 1}
            shown = http.get(f"/api/v1/incidents/show/{number}", headers=team.user.headers).json()["incident"]
            assert (shown["title"], shown["mine"]) == (person.address[:4], 1)
        assert self.act(http, "delete", {"id": number}, team.admin.headers).json() == {}

    def test_users_neither_publish_nor_write_as_somebody_else(self, http: httpx.Client, team: Team) -> None:
        for wrong, code in (
            ({"published": True}, "err_request_params"),
            ({"email_address": team.other.address}, "err_ownership"),
            ({"title": ""}, "err_request_params"),
            ({"end_time": "2023-01-01T00:00:00Z"}, "err_request_params"),
            ({"ASNs": ["AS64512"]}, "err_request_params"),
        ):
            response = self.act(http, "create", {**FINDING, **wrong}, team.user.headers)
            assert (response.status_code, response.json()["err_str"]) == (400, code), wrong

    def test_own_findings_alone(self, http: httpx.Client, team: Team) -> None:
        number = self.act(http, "create", FINDING, team.user.headers).json()["id"]
        for who, wanted in (("user", {number}), ("other", set()), ("anonymous", set())):
            reply = http.get("/api/v1/incidents/search?only_mine=true", headers=team.headers(who)).json()
            assert wanted <= {incident["id"] for incident in reply["incidents"]}
            assert all(incident["mine"] for incident in reply["incidents"])
            assert bool(reply["incidents"]) == bool(wanted)
        assert self.act(http, "delete", {"id": number}, team.user.headers).status_code == 200


class TestPriorities:
    """Rules of which URLs are wanted most (10.3, 10)."""

    PATH = "/api/_/url-priorities/update"

    @staticmethod
    def rules(http: httpx.Client, domain: str) -> list[dict[str, Any]]:
        reply = http.get("/api/_/url-priorities/list", params={"asked": time.monotonic_ns()})
        assert reply.status_code == 200
        return [rule for rule in reply.json()["rules"] if rule["domain"] == domain]

    def test_created_refused_twice_changed_and_deleted(self, http: httpx.Client, team: Team) -> None:
        domain = f"{secrets.token_hex(6)}.example.org"
        rule = {"category_code": "NEWS", "cc": "IT", "domain": domain, "url": "*", "priority": 100}
        changed = {**rule, "priority": 50}

        def update(**entries: Any) -> httpx.Response:
            return post(http, self.PATH, entries, **team.admin.headers)

        added = update(new_entry={name: value for name, value in rule.items() if name != "url"})
        assert (added.status_code, added.json()) == (200, 1)
        assert self.rules(http, domain) == [rule]
        for again in (rule, changed):
            refused = update(new_entry=again)
            assert (refused.status_code, refused.json()["err_str"]) == (400, "err_duplicate_rule")
            assert refused.json()["err_args"] == again
        assert self.rules(http, domain) == [rule]

        assert update(old_entry=rule, new_entry=changed).json() == 1
        assert self.rules(http, domain) == [changed]
        missing = update(old_entry=rule, new_entry={**rule, "priority": 1})
        assert (missing.status_code, missing.json()["err_str"]) == (404, "err_rule_not_found")
        assert self.rules(http, domain) == [changed]

        assert update(old_entry=changed).json() == 1
        assert self.rules(http, domain) == []
        nothing = update()
        assert (nothing.status_code, nothing.json()["err_str"]) == (400, "err_no_proposed_changes")
