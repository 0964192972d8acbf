"""What admins do to accounts: roles, and the end of everything that an account has open."""

import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from login_client import (
    ADMIN,
    JANE,
    JOHN,
    audit,
    change,
    forget_everybody,
    log_in,
    metadata,
    rows,
    signed_in,
)
from people import account_id_of, login_token, signed_in_headers


@pytest.fixture(scope="module")
def app(login_app: Flask) -> Flask:
    return login_app


@pytest.fixture(autouse=True)
def nobody(module_dsn: str) -> None:
    """Nobody has signed in yet."""
    forget_everybody(module_dsn)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


def test_roles_are_given_and_count_at_once(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    jane = signed_in(client, app)
    asked = {"email_address": " Jane@Example.ORG ", "role": "admin"}
    response = client.post("/api/v1/set_account_role", json=asked, headers=admin)
    assert (response.status_code, response.json) == (200, {})
    assert metadata(client, jane) == (200, {"logged_in": True, "role": "admin"})
    response = client.get(f"/api/v1/get_account_role/{JANE}", headers=jane)
    assert (response.status_code, response.json) == (200, {"role": "admin"})
    assert response.headers["Cache-Control"] == "max-age=0, no-cache, private"
    assert client.post("/api/v1/set_account_role", data={**asked, "role": "user"}, headers=admin).json == {}
    assert metadata(client, jane) == (200, {"logged_in": True, "role": "user"})
    response = client.get(f"/api/v1/get_account_role/{JANE}", headers=jane)
    assert (response.status_code, response.json["error"]) == (401, "Role not authorized")
    assert client.post("/api/v1/set_account_role", json={**asked, "role": "user"}, headers=admin).status_code == 200
    who, whom = account_id_of(app, ADMIN), account_id_of(app, JANE)
    assert [line for line in audit(module_dsn) if line[3] != "account.login"] == [
        (who, "admin", "session", "account.set_role", whom, {"role": "admin", "before": "user"}),
        (who, "admin", "session", "account.set_role", whom, {"role": "user", "before": "admin"}),
    ], "what changes nothing has no line"


def test_a_role_can_be_given_to_who_never_signed_in(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    response = client.get(f"/api/v1/get_account_role/{JOHN}", headers=admin)
    assert (response.status_code, response.json["error"]) == (400, "Account not found")
    client.post("/api/v1/set_account_role", json={"email_address": JOHN, "role": "admin"}, headers=admin)
    assert metadata(client, signed_in(client, app, JOHN)) == (200, {"logged_in": True, "role": "admin"})


@pytest.mark.parametrize(
    ("asked", "error"),
    [
        ({}, "Invalid request"),
        ({"email_address": "x", "role": "user"}, "Invalid email address"),
        ({"email_address": JANE}, "Invalid role"),
        ({"email_address": JANE, "role": "root"}, "Invalid role"),
        ({"email_address": JANE, "role": "ADMIN"}, "Invalid role"),
        ({"email_address": JANE, "role": ["user"]}, "Invalid role"),
    ],
)
def test_wrong_roles(client: FlaskClient, app: Flask, module_dsn: str, asked: dict[str, Any], error: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    response = client.post("/api/v1/set_account_role", json=asked, headers=admin)
    assert (response.status_code, response.json["error"]) == (400, error)
    response = client.get("/api/v1/get_account_role/x", headers=admin)
    assert (response.status_code, response.json["error"]) == (400, "Invalid email address")


def test_the_last_admin_stays(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    asked = {"email_address": ADMIN, "role": "user"}
    response = client.post("/api/v1/set_account_role", json=asked, headers=admin)
    assert response.status_code == 400
    assert "last admin" in response.json["error"]
    assert "set_account_role" in response.json["hint"]
    signed_in_headers(app, module_dsn, "admin", JANE)
    assert client.post("/api/v1/set_account_role", json=asked, headers=admin).status_code == 200
    response = client.post("/api/v1/set_account_role", json={**asked, "role": "admin"}, headers=admin)
    assert (response.status_code, response.json["error"]) == (401, "Role not authorized")


def test_two_admins_who_dismiss_each_other_do_not_leave_nobody(app: Flask, module_dsn: str) -> None:
    for _ in range(10):
        jane, john = (signed_in_headers(app, module_dsn, "admin", address) for address in (JANE, JOHN))

        def dismiss(who: tuple[dict[str, str], str]) -> int:
            asked = {"email_address": who[1], "role": "user"}
            response = app.test_client().post("/api/v1/set_account_role", json=asked, headers=who[0])
            return response.status_code

        with ThreadPoolExecutor(2) as pool:
            statuses = sorted(pool.map(dismiss, [(jane, JOHN), (john, JANE)]))
        assert statuses[0] == 200
        assert statuses[1] in {400, 401}
        assert rows(module_dsn, "SELECT count(*) FROM accounts WHERE role = 'admin'") == [(1,)]


def test_expunge_ends_everything(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    sessions = [signed_in(client, app), signed_in(client, app)]
    other, before = signed_in(client, app, JOHN), login_token(app, JANE)
    jane_id = account_id_of(app, JANE)
    change(
        module_dsn,
        f"""INSERT INTO access_tokens (account_id, token_hash, name, scope, expires_at, revoked_at) VALUES
            ('{jane_id}', sha256('a'), 'a', 'read', now() + interval '1 day', NULL),
            ('{jane_id}', sha256('b'), 'b', 'write', now() + interval '1 day', now() - interval '1 day'),
            ('{account_id_of(app, JOHN)}', sha256('c'), 'c', 'write', now() + interval '1 day', NULL)""",
    )
    response = client.post("/api/v1/set_session_expunge", json={"email_address": JANE}, headers=admin)
    assert (response.status_code, response.json) == (200, {})
    assert [metadata(client, each)[0] for each in (*sessions, other, admin)] == [401, 401, 200, 200]
    response = log_in(client, before)
    assert (response.status_code, response.json["error"]) == (401, "Expired token")
    assert "administrator" in response.json["hint"]
    assert rows(module_dsn, "SELECT name FROM access_tokens WHERE revoked_at IS NULL") == [("c",)]
    assert audit(module_dsn)[-1] == (
        account_id_of(app, ADMIN),
        "admin",
        "session",
        "account.expunge",
        jane_id,
        {"access_tokens": 1},
    )
    time.sleep(1.1)  # links know their time to the second
    assert metadata(client, signed_in(client, app))[0] == 200, "a link of afterwards works"
    assert log_in(client, before).status_code == 401


def test_expunge_ends_links_of_a_host_whose_clock_is_ahead_of_the_database(
    client: FlaskClient, app: Flask, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    clock = time.time
    monkeypatch.setattr(time, "time", lambda: clock() + 60)
    signed_in(client, app)
    link = login_token(app, JANE)
    client.post("/api/v1/set_session_expunge", json={"email_address": JANE}, headers=admin)
    assert log_in(client, link).status_code == 401


def test_expunge_of_an_address_that_is_written_wrong(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    response = client.post("/api/v1/set_session_expunge", json={"email_address": JANE}, headers=admin)
    assert (response.status_code, response.json["error"]) == (400, "Account not found")
    assert rows(module_dsn, "SELECT count(*) FROM accounts") == [(1,)]
