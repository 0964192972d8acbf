"""Who may do what: every route is asked by everybody, and answers as `role_table` says."""

import itertools
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from api_sample import load
from flask import Flask
from flask.testing import FlaskClient
from people import account_id_of, signed_in_headers
from role_table import ASKERS, OF_PEOPLE, TABLE, Row
from werkzeug.test import TestResponse

from api.app import create_app
from api.config import ApiSettings

USER, OTHER, ADMIN = "user@example.org", "other@example.org", "admin@example.org"
THIRD = "third.person@example.org"
MADE_BY_ROWS = (
    *("audit_log", "access_tokens", "incidents", "oonirun_revisions", "oonirun_links", "login_mails"),
    *("test_list_changes", "test_list_proposals"),
)
_NUMBERS = itertools.count(1)
_COUNTRIES = (f"{first}{second}" for first, second in itertools.product("QWXYZ", "ABCDEFGHIJKLMNOPQRSTUVWXYZ"))


class World:
    """The application with people in it, who make objects."""

    def __init__(self, app: Flask, dsn: str) -> None:
        self.app = app
        self.dsn = dsn
        self._database = psycopg.connect(dsn, autocommit=True)
        self.client: FlaskClient = app.test_client()
        self._made: dict[str, Callable[[], str]] = {
            "user_address": lambda: USER,
            "user_id": lambda: account_id_of(app, USER),
            "link_token": self._link_token,
            "token_id": lambda: str(self._token("read")["token_id"]),
            "draft": self._draft,
            "published": lambda: self._changed("publish", self._draft(), ADMIN),
            "deleted": lambda: self._changed("delete", self._draft(), USER),
            "run_link": self._run_link,
            "fresh_address": lambda: f"person{next(_NUMBERS)}@example.org",
            "free_cc": lambda: next(_COUNTRIES),
            "rule_cc": self._rule,
            "fresh_url": lambda: f"https://{next(_NUMBERS)}.example.org/",
            "list_change": self._list_change,
            "fresh_uid": lambda: f"20240101000102.{next(_NUMBERS):06}_IE_webconnectivity_0123456789abcdef",
        }

    def close(self) -> None:
        """Close the application."""
        self._database.close()
        self.app.extensions["api"].close()

    def session(self, address: str) -> dict[str, str]:
        """Return the header of a session that has just begun."""
        return signed_in_headers(self.app, self.dsn, "admin" if address == ADMIN else "user", address)

    def headers(self, asker: str) -> dict[str, str]:
        """Return the headers of one of those who ask."""
        match asker:
            case "anonymous":
                return {}
            case "ended":
                session = self.session(USER)
                assert self.client.post("/api/v1/user_logout", headers=session).status_code == 200
                return session
            case "read" | "write":
                return {"Authorization": f"Bearer {self._token(asker)['token']}"}
        return self.session({"user": USER, "other": OTHER, "admin": ADMIN}[asker])

    def ask(self, row: Row, asker: str, method: str = "") -> tuple[TestResponse, int]:
        """Ask a row anew, on objects that are made for it; return the answer, and how many lines the audit log got."""
        self._begin_anew()
        made = {name: self._made[name]() for name in row.needs}
        headers = self.headers(asker)
        body = None if row.body is None else filled(row.body, made)
        before = self._audited()
        response = self.client.open(
            row.path.format(**made) if made else row.path, method=method or row.method, json=body, headers=headers
        )
        return response, self._audited() - before

    def _begin_anew(self) -> None:
        """Take away what earlier requests left: of most things people may only have so many, or make so many a day."""
        for table in MADE_BY_ROWS:
            self._database.execute(f"DELETE FROM {table}".encode())
        for address in (USER, OTHER, ADMIN):
            self.session(address)

    def _audited(self) -> int:
        (count,) = self._database.execute("SELECT count(*) FROM audit_log").fetchone() or (0,)
        return int(count)

    def done(self, method: str, path: str, address: str, body: Any) -> Any:
        """Let somebody do something that works; return the answer."""
        response = self.client.open(path, method=method, json=body, headers=self.session(address))
        assert response.status_code == 200, response.text
        return response.json

    def _link_token(self) -> str:
        tokens = self.app.extensions["api"].session_tokens
        return str(tokens.new_link(account_id_of(self.app, THIRD), THIRD, "https://explorer.example.org/login"))

    def _token(self, scope: str) -> Any:
        return self.done("POST", "/api/v1/access_tokens", USER, {"name": "role table", "scope": scope})

    def _draft(self) -> str:
        return str(self.done("POST", "/api/v1/incidents/create", USER, body_of("create"))["id"])

    def _changed(self, action: str, number: str, address: str) -> str:
        self.done("POST", f"/api/v1/incidents/{action}", address, {"id": number})
        return number

    def _run_link(self) -> str:
        created = self.done("POST", "/api/_/ooni_run/create", USER, body_of("", "POST /api/_/ooni_run/create"))
        return str(created["ooni_run_link_id"])

    def _rule(self) -> str:
        row = next(row for row in TABLE if row.needs == ("free_cc",))
        cc = next(_COUNTRIES)
        self.done("POST", row.path, ADMIN, filled(row.body, {"free_cc": cc}))
        return cc

    def _list_change(self) -> str:
        row = next(row for row in TABLE if row.needs == ("fresh_url",))
        url = self._made["fresh_url"]()
        self.done("POST", row.path, USER, filled(row.body, {"fresh_url": url}))
        return url


def make_test_lists(directory: Path) -> Path:
    """Make a repository with test lists."""
    lists = directory / "test-lists"
    (lists / "lists").mkdir(parents=True)
    for name, url in (("global", "https://www.example.com/"), ("it", "https://www.example.it/")):
        (lists / "lists" / f"{name}.csv").write_text(
            f"url,category_code,category_description,date_added,source,notes\n{url},NEWS,News Media,2024-01-01,x,\n"
        )
    for arguments in (
        ("init", "-q", "-b", "master"),
        ("add", "."),
        ("-c", "user.name=x", "-c", "user.email=x@example.org", "commit", "-q", "-m", "Lists"),
    ):
        subprocess.run(["git", "-C", str(lists), *arguments], check=True)
    return lists


def filled(value: Any, made: dict[str, str]) -> Any:
    """Put what was made into the places of a body."""
    if isinstance(value, dict):
        return {name: filled(inner, made) for name, inner in value.items()}
    if isinstance(value, str) and value.startswith("{") and value[1:-1] in made:
        return made[value[1:-1]]
    return value


def body_of(label: str, route: str = "POST /api/v1/incidents/<action>") -> Any:
    """Return the body of a row."""
    return next(row.body for row in TABLE if (row.route, row.label) == (route, label))


@pytest.fixture(scope="module")
def world(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    directory: Path = tmp_path_factory.mktemp("roles")
    (directory / "objects").mkdir()
    app = create_app(
        ApiSettings(
            db_uri=module_dsn,
            spool_directory=str(directory / "spool"),
            spool_min_free_bytes=1024,
            state_directory=str(directory / "state"),
            store_url=f"file://{directory}/objects",
            fastpath_url="http://127.0.0.1:1",
            fastpath_timeout_s=0.5,
            mail_transport="log",
            test_lists_repository=str(make_test_lists(directory)),
            login_redirect_hosts=("explorer.example.org",),
        )
    )
    load(module_dsn, app.extensions["api"].intake.spool)
    found = World(app, module_dsn)
    yield found
    found.close()


def test_the_table_has_every_route_and_method_and_no_other(world: World) -> None:
    routes = {
        f"{method} {rule.rule}"
        for rule in world.app.url_map.iter_rules()
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }
    told = {row.route for row in TABLE}
    assert routes - told == set()
    assert told - routes == set()


def test_every_row_says_what_everybody_gets() -> None:
    for row in TABLE:
        assert set(row.expected) == set(ASKERS), row.route


@pytest.mark.parametrize("row", [pytest.param(row, id=f"{row.route} {row.label}".strip()) for row in TABLE])
def test_everybody_gets_what_the_table_says(world: World, row: Row) -> None:
    found = {asker: world.ask(row, asker) for asker in ASKERS}
    assert {asker: response.status_code for asker, (response, _) in found.items()} == dict(row.expected)
    for asker, (response, lines) in found.items():
        if response.status_code == 401 and row.route != "POST /api/v1/login":
            assert response.headers["WWW-Authenticate"] == "Bearer"
        if "Authorization" in response.vary and asker not in ("anonymous", "ended"):
            assert response.cache_control.private or response.status_code >= 400, f"{asker}: others may keep it"
        if response.status_code >= 400:
            assert lines == 0, f"{asker}: refused, and something was done"
        elif row.method != "GET" and row.expected["anonymous"] == 401:
            assert lines > 0 or asker in row.unrecorded, f"{asker}: done, and nobody can tell who did it"


@pytest.mark.parametrize(
    "row", [pytest.param(row, id=f"{row.route} {row.label}".strip()) for row in OF_PEOPLE if row.method == "GET"]
)
def test_heads_are_for_the_same_people(world: World, row: Row) -> None:
    for asker in ("anonymous", "read", "other", "admin"):
        response, _ = world.ask(row, asker, "HEAD")
        assert response.status_code == row.expected[asker]
        assert response.data == b""
