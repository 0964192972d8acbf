"""Access tokens: made, listed and revoked by people; what programs may do with them, and what they may not."""

import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from access_token_client import PATH, Headers, bearer, change, create, make_app
from flask import Flask
from flask.testing import FlaskClient
from people import account_id_of, signed_in_headers
from psycopg import sql
from werkzeug.test import TestResponse

from api.access_tokens import LENGTH, PREFIX, new_token


@pytest.fixture(scope="module")
def app(module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Flask]:
    made = make_app(module_dsn, tmp_path_factory.mktemp("app"))
    yield made
    made.extensions["api"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def user(app: Flask, module_dsn: str) -> Iterator[Headers]:
    """The session of a user without any tokens."""
    yield signed_in_headers(app, module_dsn, email="user@example.org")
    with psycopg.connect(module_dsn) as connection:
        connection.execute("DELETE FROM access_tokens")


def refused(response: TestResponse, status: int, text: str) -> Any:
    assert response.status_code == status, response.text
    assert response.json["error"] == text
    assert response.headers["Cache-Control"].startswith("no-cache")
    return response.json


# What people do.


def test_a_token_is_told_once(client: FlaskClient, user: Headers) -> None:
    response = client.post(PATH, json={"name": "  My thesis \n"}, headers=user)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "max-age=0, no-cache, no-store, private"
    made = response.json
    assert sorted(made) == ["created_at", "expires_at", "name", "scope", "token", "token_id"]
    assert made["token"].startswith(PREFIX)
    assert len(made["token"]) == LENGTH
    assert (made["name"], made["scope"]) == ("My thesis", "read")
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=90)
    listed = client.get(PATH, headers=user)
    assert listed.headers["Cache-Control"] == "max-age=0, no-cache, private"
    assert "Authorization" in listed.headers["Vary"]
    del made["token"]
    assert listed.json == {"access_tokens": [{**made, "last_used_on": None, "revoked_at": None}]}


def test_a_token_reads_for_its_account(app: Flask, client: FlaskClient, user: Headers) -> None:
    token = create(client, user)["token"]
    response = client.get("/test/read", headers=bearer(token))
    account_id = account_id_of(app, "user@example.org")
    assert response.json == {"account_id": account_id, "role": "user", "via": "token"}
    assert "private" in response.headers["Cache-Control"]


def test_a_token_of_scope_read_changes_nothing(client: FlaskClient, user: Headers) -> None:
    reads, writes = (create(client, user, scope=scope)["token"] for scope in ("read", "write"))
    body = refused(client.post("/test/write", headers=bearer(reads)), 401, "Role not authorized")
    assert "scope write" in body["hint"]
    assert client.post("/test/write", headers=bearer(writes)).status_code == 200


@pytest.mark.parametrize("role", ["user", "admin"])
@pytest.mark.parametrize("scope", ["read", "write"])
def test_a_token_is_never_an_admin_and_makes_no_tokens(
    app: Flask, client: FlaskClient, module_dsn: str, role: str, scope: str
) -> None:
    person = signed_in_headers(app, module_dsn, role=role, email=f"{role}-{scope}@example.org")
    made = create(client, person, scope=scope)
    token = bearer(made["token"])
    assert client.get("/test/admin", headers=person).status_code == (200 if role == "admin" else 401)
    for response in (
        client.get("/test/admin", headers=token),
        client.get("/api/v1/audit_log", headers=token),
        client.get("/api/_/quotas_summary", headers=token),
        client.post(PATH, json={"name": "another"}, headers=token),
        client.get(PATH, headers=token),
        client.delete(f"{PATH}/{made['token_id']}", headers=token),
    ):
        refused(response, 401, "Role not authorized")
    assert client.get("/test/read", headers=token).json["role"] == "user"


def test_nobody_else_gets_in(client: FlaskClient) -> None:
    for response in (client.post(PATH, json={"name": "x"}), client.get(PATH), client.delete(f"{PATH}/1")):
        body = refused(response, 401, "Authentication required")
        assert "Log in" in body["hint"]
        assert response.headers["WWW-Authenticate"] == "Bearer"


@pytest.mark.parametrize(
    "token",
    [
        *(PREFIX, PREFIX + "x" * 42, PREFIX + "x" * 43, PREFIX + "x" * 44, PREFIX.upper() + "x" * 43),
        *(PREFIX + "ä" * 43, PREFIX + " " * 43 + "x", PREFIX + "'" * 43, PREFIX + "x" * 100_000),
    ],
)
def test_what_is_no_token_is_nobodys(client: FlaskClient, user: Headers, token: str) -> None:
    create(client, user)
    assert client.get("/test/read", headers=bearer(token)).status_code == 401
    assert client.get("/test/anybody", headers=bearer(token)).json == {"account_id": None}


def test_what_is_kept_is_a_hash(client: FlaskClient, user: Headers, module_dsn: str) -> None:
    """No table, the audit log included, holds a token or a part of it that could be tried out."""
    token = create(client, user)["token"]
    assert client.get("/test/read", headers=bearer(token)).status_code == 200
    secret = token.removeprefix(PREFIX)
    with psycopg.connect(module_dsn) as connection:
        tables = connection.execute(
            """SELECT oid::regclass::text FROM pg_class WHERE relkind IN ('r', 'p') AND NOT relispartition
                AND relnamespace = 'public'::regnamespace"""
        ).fetchall()
        assert ("access_tokens",) in tables
        for (table,) in tables:
            rows = connection.execute(sql.SQL("SELECT t::text FROM {} t").format(sql.Identifier(table))).fetchall()
            written = "\n".join(row[0] for row in rows)
            for text in (secret, secret[:20], secret[-20:], secret.encode().hex()):
                assert text not in written, table


# When tokens end.


def test_a_revoked_token_ends_at_once(client: FlaskClient, user: Headers, module_dsn: str) -> None:
    made, other = create(client, user), create(client, user)
    assert client.get("/test/read", headers=bearer(made["token"])).status_code == 200
    response = client.delete(f"{PATH}/{made['token_id']}", headers=user)
    assert (response.status_code, response.json) == (200, {})
    refused(client.get("/test/read", headers=bearer(made["token"])), 401, "Authentication required")
    assert client.get("/test/anybody", headers=bearer(made["token"])).json == {"account_id": None}
    assert client.get("/test/read", headers=bearer(other["token"])).status_code == 200
    listed = {each["token_id"]: each for each in client.get(PATH, headers=user).json["access_tokens"]}
    assert listed[made["token_id"]]["revoked_at"] is not None
    assert listed[other["token_id"]]["revoked_at"] is None
    again = client.delete(f"{PATH}/{made['token_id']}", headers=user)
    assert (again.status_code, again.json) == (200, {})
    assert actions(module_dsn, made["token_id"]) == ["access_token.create", "access_token.revoke"]


def test_an_expired_token_ends_at_once(client: FlaskClient, user: Headers, module_dsn: str) -> None:
    made = create(client, user, expires_in_days=1)
    assert client.get("/test/read", headers=bearer(made["token"])).status_code == 200
    change(module_dsn, "UPDATE access_tokens SET expires_at = now() WHERE token_id = %s", made["token_id"])
    refused(client.get("/test/read", headers=bearer(made["token"])), 401, "Authentication required")


def test_the_tokens_of_others_are_as_if_there_were_none(
    app: Flask, client: FlaskClient, user: Headers, module_dsn: str
) -> None:
    made = create(client, user)
    stranger = signed_in_headers(app, module_dsn, email="stranger@example.org")
    foreign = client.delete(f"{PATH}/{made['token_id']}", headers=stranger)
    unknown = client.delete(f"{PATH}/{2**63 - 1}", headers=stranger)
    assert foreign.status_code == unknown.status_code == 404
    assert foreign.json == unknown.json
    assert client.get(PATH, headers=stranger).json == {"access_tokens": []}
    assert client.get("/test/read", headers=bearer(made["token"])).status_code == 200
    assert actions(module_dsn, made["token_id"]) == ["access_token.create"]


@pytest.mark.parametrize("number", ["0", "-1", "x", "1.5", "9" * 40, str(2**63), "%00", "1%00", "'--"])
def test_what_is_no_number_is_not_found(client: FlaskClient, user: Headers, number: str) -> None:
    response = client.delete(f"{PATH}/{number}", headers=user)
    assert response.status_code == 404
    assert response.json["error"]


def test_admins_list_and_revoke_those_of_others(
    app: Flask, client: FlaskClient, user: Headers, module_dsn: str
) -> None:
    made = create(client, user)
    admin = signed_in_headers(app, module_dsn, role="admin", email="admin@example.org")
    account_id = account_id_of(app, "user@example.org")
    assert client.get(PATH, headers=admin).json == {"access_tokens": []}
    listed = client.get(f"{PATH}?account_id={account_id}", headers=admin).json["access_tokens"]
    assert [each["token_id"] for each in listed] == [made["token_id"]]
    path = f"{PATH}/{made['token_id']}"
    assert client.delete(path, headers=admin).status_code == 404, "an admin has to say whose token it is"
    assert client.delete(f"{path}?account_id={'0' * 32}", headers=admin).status_code == 404
    assert client.delete(f"{path}?account_id={account_id}", headers=admin).json == {}
    refused(client.get("/test/read", headers=bearer(made["token"])), 401, "Authentication required")
    with psycopg.connect(module_dsn) as connection:
        line = connection.execute(
            "SELECT account_id, role, via, subject, detail FROM audit_log ORDER BY audit_id DESC LIMIT 1"
        ).fetchone()
    assert line == (
        account_id_of(app, "admin@example.org"),
        "admin",
        "session",
        str(made["token_id"]),
        {"name": "thesis", "account_id": account_id},
    )


def test_users_name_no_account_but_their_own(app: Flask, client: FlaskClient, user: Headers, module_dsn: str) -> None:
    made = create(client, user)
    stranger = signed_in_headers(app, module_dsn, email="stranger@example.org")
    theirs = f"?account_id={account_id_of(app, 'user@example.org')}"
    assert client.get(PATH + theirs, headers=user).status_code == 200
    refused(client.get(PATH + theirs, headers=stranger), 401, "Role not authorized")
    refused(client.delete(f"{PATH}/{made['token_id']}{theirs}", headers=stranger), 401, "Role not authorized")
    admin = signed_in_headers(app, module_dsn, role="admin", email="admin@example.org")
    for wrong in ("x", "0" * 31, "0" * 33, "A" * 32, "user@example.org"):
        response = client.get(f"{PATH}?account_id={wrong}", headers=admin)
        assert response.status_code == 400
        assert "account_id" in response.json["error"]


# What may be in a request.


@pytest.mark.parametrize(
    "name",
    [
        *("x", "x" * 100, "Ελληνικά", "中文名称", "می‌خواهم", "👩‍🔬", "a" * 99 + "💩"),
        *("<script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "=HYPERLINK(1)", "'; DROP TABLE accounts; --"),
    ],
)
def test_names_are_kept_as_they_are(client: FlaskClient, user: Headers, name: str) -> None:
    assert create(client, user, name=name)["name"] == name
    response = client.get(PATH, headers=user)
    assert response.mimetype == "application/json"
    assert response.json["access_tokens"][0]["name"] == name


@pytest.mark.parametrize(
    ("body", "named"),
    [
        *(({}, "name"), ({"name": None}, "name"), ({"name": ""}, "name"), ({"name": " \n "}, "name")),
        *(({"name": "x" * 101}, "name"), ({"name": "💩" * 101}, "name"), ({"name": "x" * 500_000}, "name")),
        *(({"name": value}, "name") for value in ("a\0b", "a\x1bb", "a\nb", "a\u202eb", "a\u2066b", "\ud800", "\x85x")),
        *(({"name": value}, "name") for value in (1, True, [], {}, ["x"], 1.5)),
        *(({"name": value}, "name") for value in ("user@example.org", "thesis of user@example.org", "Ä@ä")),
        *(({"name": "x", "scope": value}, "scope") for value in ("", "admin", "READ", "read,write", 1, ["read"], {})),
        *(
            ({"name": "x", "expires_in_days": value}, "expires_in_days")
            for value in (0, -1, 366, 10**30, 1.5, "90", True, [], {})
        ),
    ],
)
def test_what_is_wrong_is_named(client: FlaskClient, user: Headers, module_dsn: str, body: Any, named: str) -> None:
    response = client.post(PATH, data=json.dumps(body), content_type="application/json", headers=user)
    assert response.status_code == 400, response.text
    assert f"parameter {named}: it " in response.json["error"]
    assert "example.org" not in response.text, "what was sent is not repeated"
    assert client.get(PATH, headers=user).json == {"access_tokens": []}


@pytest.mark.parametrize("days", [1, 365])
def test_the_longest_and_the_shortest_life(client: FlaskClient, user: Headers, days: int) -> None:
    made = create(client, user, expires_in_days=days)
    created, expires = (datetime.fromisoformat(made[name]) for name in ("created_at", "expires_at"))
    assert expires - created == timedelta(days=days)


# What is written down.


def actions(dsn: str, token_id: int) -> list[str]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT action FROM audit_log WHERE subject = %s ORDER BY audit_id", [str(token_id)]
        ).fetchall()
    return [row[0] for row in rows]


def test_a_refused_request_leaves_no_line(client: FlaskClient, user: Headers, module_dsn: str) -> None:
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        before = connection.execute("SELECT count(*) FROM audit_log").fetchone()
        client.post(PATH, json={"name": ""}, headers=user)
        client.delete(f"{PATH}/{2**62}", headers=user)
        client.post(PATH, json={"name": "x"})
        assert connection.execute("SELECT count(*) FROM audit_log").fetchone() == before


def used(dsn: str) -> list[tuple[Any, ...]]:
    """The days of last use; and the versions of the rows, which change with every write."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT last_used_on = current_date AT TIME ZONE 'UTC', xmin::text FROM access_tokens"
        ).fetchall()


def test_the_day_of_the_last_use_is_written_once_a_day(
    client: FlaskClient, user: Headers, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.token_accounts.REMEMBERED_S", 0.0)  # each request is like the first one of a minute
    token = bearer(create(client, user)["token"])
    assert used(module_dsn)[0][0] is None
    client.get("/health", headers=token)
    first = used(module_dsn)
    assert first[0][0] is True
    for _ in range(5):
        client.get("/test/read", headers=token)
    assert used(module_dsn) == first, "not more than one write a day"
    change(module_dsn, "UPDATE access_tokens SET last_used_on = last_used_on - 1")
    client.get("/test/read", headers=token)
    assert used(module_dsn)[0][0] is True


def test_the_day_of_the_last_use_waits_for_nobody(
    client: FlaskClient, user: Headers, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While somebody holds the row it is left out, which is no reason to ask less often; then it is made up for."""
    monkeypatch.setattr("api.token_accounts.REMEMBERED_S", 0.0)
    token = bearer(create(client, user)["token"])
    with psycopg.connect(module_dsn) as other:
        other.execute("SELECT FROM access_tokens FOR UPDATE")
        assert client.get("/test/read", headers=token).status_code == 200
        assert used(module_dsn)[0][0] is None
    assert client.get("/test/read", headers=token).status_code == 200
    assert used(module_dsn)[0][0] is True


def test_without_the_database_nothing_is_promised(lone_app: Flask) -> None:
    parts = lone_app.extensions["api"]
    session = bearer(parts.session_tokens.begin("0" * 32, "user@example.org", "user", 0))
    client = lone_app.test_client()
    for response in (
        client.post(PATH, json={"name": "x"}, headers=session),
        client.get(PATH, headers=session),
        client.get(PATH, headers=bearer(new_token())),
    ):
        assert response.status_code == 503
        assert int(response.headers["Retry-After"]) > 0


def test_no_token_is_logged(client: FlaskClient, capfd: pytest.CaptureFixture[str]) -> None:
    token = new_token()
    client.get("/test/read", headers=bearer(token))
    client.post(PATH, data=b"{", headers=bearer(token))
    client.get("/api/v1/measurements?limit=x", headers=bearer(token))
    written = "".join(capfd.readouterr())
    assert token.removeprefix(PREFIX)[:10] not in written
