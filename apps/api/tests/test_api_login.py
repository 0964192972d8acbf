"""How people sign in: a link by mail, the session that it begins, refresh and logout."""

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jwt
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from login_client import (
    ADMIN,
    JANE,
    JOHN,
    audit,
    bearer,
    change,
    claims,
    forget_everybody,
    log_in,
    metadata,
    register,
    rows,
    signed_in,
)
from mail_server import LOGIN_DAYS, REDIRECT, SESSION_DAYS, MailServer, app_with_mail
from people import account_id_of, login_token, signed_in_headers
from psycopg import sql

from api.login_store import MOST_MAILS, MOST_MAILS_TO_ALL, count_mail
from api.metrics import LOGIN_MAILS, LOGINS
from api.sessions import SessionTokens

DAY = 86_400
NO_CACHE = "max-age=0, no-cache"
NO_STORE = f"{NO_CACHE}, no-store"


@pytest.fixture(scope="module")
def app(login_app: Flask) -> Flask:
    return login_app


@pytest.fixture(autouse=True)
def nobody(module_dsn: str, smtp: MailServer) -> None:
    """Nobody has signed in yet."""
    smtp.mails.clear()
    forget_everybody(module_dsn)


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


# The whole way.


def test_from_the_mail_to_the_logout(client: FlaskClient, app: Flask, smtp: MailServer, module_dsn: str) -> None:
    response = register(client)
    assert (response.status_code, response.json, response.headers["Cache-Control"]) == (200, {"msg": "ok"}, NO_CACHE)
    assert rows(module_dsn, "SELECT * FROM accounts") == []
    response = log_in(client, smtp.token())
    assert (response.status_code, response.headers["Cache-Control"]) == (200, NO_STORE)
    assert set(response.json) == {"bearer", "redirect_to", "email_address"}
    assert (response.json["redirect_to"], response.json["email_address"]) == (REDIRECT, JANE)
    session = bearer(response.json["bearer"])
    account_id = account_id_of(app, JANE)
    assert rows(module_dsn, "SELECT account_id, role FROM accounts") == [(account_id, "user")]
    response = client.get("/api/_/account_metadata", headers=session)
    assert (response.status_code, response.json) == (200, {"logged_in": True, "role": "user"})
    assert response.headers["Cache-Control"] == f"{NO_CACHE}, private"
    assert "Authorization" in response.headers["Vary"]
    response = client.get("/api/v1/user_refresh_token", headers=session)
    assert (response.status_code, set(response.json)) == (200, {"bearer"})
    assert response.headers["Cache-Control"] == f"{NO_STORE}, private"
    later = bearer(response.json["bearer"])
    assert metadata(client, later) == (200, {"logged_in": True, "role": "user"})
    response = client.get("/api/v1/user_logout", headers=session)
    assert (response.status_code, response.json) == (200, {})
    for ended in (session, later):
        assert metadata(client, ended) == (401, {"logged_in": False})
        assert client.get("/api/v1/user_refresh_token", headers=ended).status_code == 401
    line = (account_id, "user", "session")
    assert audit(module_dsn) == [
        (*line, "account.login", account_id, {}),
        (*line, "account.logout", account_id, {}),
    ]


@pytest.mark.parametrize("content_type", ["application/x-www-form-urlencoded", "application/json", "text/plain"])
def test_the_body_is_json_or_a_form(client: FlaskClient, smtp: MailServer, content_type: str) -> None:
    """What calls itself a form and is JSON counts as such: that is how `curl -d` sends it."""
    body = f'{{"email_address": "{JANE}", "redirect_to": "{REDIRECT}"}}'
    assert client.post("/api/v1/user_register", data=body, content_type=content_type).status_code == 200
    assert len(smtp.mails) == 1


def test_a_form(client: FlaskClient, smtp: MailServer) -> None:
    form = {"email_address": "jane+tag@example.org", "redirect_to": REDIRECT}
    assert client.post("/api/v1/user_register", data=form).status_code == 200
    assert smtp.mails[0].rcpt_tos == ["jane+tag@example.org"]
    for body in (b"email_address=%ff", b"email_address=\xff", b"&".join([b"a=1"] * 1000)):
        response = client.post("/api/v1/user_register", data=body, content_type="application/x-www-form-urlencoded")
        assert (response.status_code, response.json["error"]) == (400, "Form expected")
    twice = f"email_address={JANE}&email_address={JOHN}&redirect_to={REDIRECT.replace('&', '%26')}"
    client.post("/api/v1/user_register", data=twice, content_type="application/x-www-form-urlencoded")
    assert smtp.mails[-1].rcpt_tos == [JANE]


@pytest.mark.parametrize(
    ("body", "error"),
    [
        (b"", "Invalid request"),
        (b"{}", "Invalid request"),
        (b'{"email_address": ""}', "Invalid request"),
        (b'{"email_address": null, "redirect_to": "https://explorer.example.org/"}', "Invalid request"),
        (b'{"email_address": "x", "redirect_to": "https://explorer.example.org/"}', "Invalid email address"),
        (b'{"email_address": 1, "redirect_to": "https://explorer.example.org/"}', "Invalid email address"),
        (b'{"email_address": ["a@example.org"]}', "Invalid email address"),
        (b'{"email_address": "a@example.org"}', "Invalid request"),
        (b'{"email_address": "a@example.org", "redirect_to": "https://evil.example/"}', "Invalid request"),
        (b"[]", "JSON expected"),
        (b"{", "JSON expected"),
    ],
)
def test_bodies_of_register_that_are_refused(client: FlaskClient, smtp: MailServer, body: bytes, error: str) -> None:
    for path in ("/api/v1/user_register", "/api/v2/ooniauth/user-login"):
        response = client.post(path, data=body)
        assert (response.status_code, response.json["error"]) == (400, error)
        assert response.headers["Cache-Control"] == "no-cache"
    assert smtp.mails == []


def test_nobody_signed_in(client: FlaskClient) -> None:
    for headers in ({}, {"Authorization": ""}, {"Authorization": "Basic eDp5"}, bearer("x"), bearer("a.b.c")):
        response = client.get("/api/_/account_metadata", headers=headers)
        assert (response.status_code, response.json) == (401, {"logged_in": False})
        assert response.headers["Cache-Control"] == "no-cache"
        assert response.headers["Access-Control-Allow-Origin"] == "*"
        response = client.get("/api/v1/user_refresh_token", headers=headers)
        assert (response.status_code, response.json["error"]) == (401, "Authentication required")
        for method in ("GET", "POST"):
            response = client.open("/api/v1/user_logout", method=method, headers=headers)
            assert (response.status_code, response.json) == (200, {})


def test_no_address_is_kept_anywhere(client: FlaskClient, app: Flask, smtp: MailServer, module_dsn: str) -> None:
    admin = signed_in_headers(app, module_dsn, "admin", ADMIN)
    register(client)
    session = bearer(log_in(client, smtp.token()).json["bearer"])
    client.post("/api/v1/set_account_role", json={"email_address": JANE, "role": "admin"}, headers=admin)
    client.post("/api/v1/set_session_expunge", json={"email_address": JANE}, headers=admin)
    client.get("/api/v1/user_logout", headers=session)
    tables = rows(module_dsn, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'public'")
    assert ("login_mails",) in tables
    for (table,) in tables:
        with psycopg.connect(module_dsn) as connection:
            query = sql.SQL("SELECT count(*) FROM {} AS t WHERE t::text ~* 'jane|@example'").format(
                sql.Identifier(table)
            )
            assert connection.execute(query).fetchone() == (0,), table


def test_an_account_is_known_by_the_same_id_however_its_address_is_written(
    client: FlaskClient, app: Flask, smtp: MailServer, module_dsn: str
) -> None:
    for address in (JANE, JANE.upper(), f" {JANE}\n"):
        assert register(client, address).status_code == 200
        assert log_in(client, smtp.token()).json["email_address"] == JANE
    assert rows(module_dsn, "SELECT account_id FROM accounts") == [(account_id_of(app, JANE),)]


# Links.


def test_a_link_works_again_for_ten_minutes(client: FlaskClient, smtp: MailServer, module_dsn: str) -> None:
    """Pages are loaded again, and the web interface asks twice."""
    register(client)
    first, again = (log_in(client, smtp.token()) for _ in range(2))
    assert (first.status_code, again.status_code) == (200, 200)
    assert claims(first.json["bearer"])["sid"] != claims(again.json["bearer"])["sid"]
    change(module_dsn, "UPDATE used_login_links SET used_at = now() - interval '599 seconds'")
    assert log_in(client, smtp.token()).status_code == 200
    change(module_dsn, "UPDATE used_login_links SET used_at = now() - interval '601 seconds'")
    before = LOGINS.labels("refused")._value.get()
    response = log_in(client, smtp.token())
    assert (response.status_code, response.json["error"]) == (401, "Expired token")
    assert "once" in response.json["hint"]
    assert response.headers["Cache-Control"] == "no-cache"
    assert LOGINS.labels("refused")._value.get() == before + 1
    assert len(audit(module_dsn)) == 1, "one line for one link"
    register(client)
    assert log_in(client, smtp.token()).status_code == 200, "a new one works"


def test_a_link_followed_by_many_at_once(app: Flask, module_dsn: str) -> None:
    token = login_token(app, JANE)
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda _: log_in(app.test_client(), token), range(6)))
    assert [reply.status_code for reply in replies] == [200] * 6
    assert rows(module_dsn, "SELECT count(*) FROM used_login_links") == [(1,)]
    assert rows(module_dsn, "SELECT count(*) FROM accounts") == [(1,)]


def test_what_is_over_is_forgotten(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    """And what is not, is not."""
    change(
        module_dsn,
        """INSERT INTO used_login_links (link_id, forget_at) VALUES
           ('old', now() - interval '1 second'), ('new', now() + interval '1 hour')""",
    )
    change(
        module_dsn,
        """INSERT INTO ended_sessions VALUES
           ('old', 'x', now() - interval '1 second'), ('new', 'x', now() + interval '1 hour')""",
    )
    token = login_token(app, JANE)
    log_in(client, token)
    links = {link for (link,) in rows(module_dsn, "SELECT link_id FROM used_login_links")}
    assert links == {"new", claims(token)["jti"]}
    assert rows(module_dsn, "SELECT session_id FROM ended_sessions") == [("new",)]
    ((seconds,),) = rows(
        module_dsn, "SELECT extract(epoch FROM forget_at)::bigint FROM used_login_links WHERE link_id <> 'new'"
    )
    assert seconds > claims(token)["exp"], "a used link is remembered for as long as it could work"


def test_who_logs_in_waits_for_nobody_who_forgets(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    change(module_dsn, "INSERT INTO used_login_links VALUES ('old', now(), now() - interval '1 second')")
    change(module_dsn, "INSERT INTO ended_sessions VALUES ('old', 'x', now() - interval '1 second')")
    with psycopg.connect(module_dsn) as other:
        other.execute("SELECT FROM used_login_links FOR UPDATE")
        other.execute("SELECT FROM ended_sessions FOR UPDATE")
        assert log_in(client, login_token(app, JANE)).status_code == 200


# How many mails.


def test_one_account_gets_five_mails_an_hour(app: Flask, smtp: MailServer, module_dsn: str) -> None:
    held_back = LOGIN_MAILS.labels("held_back")._value.get()
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _: register(app.test_client()), range(12)))
    assert {(reply.status_code, reply.text) for reply in replies} == {(200, '{"msg":"ok"}\n')}
    assert len(smtp.mails) == MOST_MAILS
    assert LOGIN_MAILS.labels("held_back")._value.get() == held_back + 12 - MOST_MAILS
    assert register(app.test_client(), JOHN).status_code == 200
    assert len(smtp.mails) == MOST_MAILS + 1, "others are not held back"
    change(module_dsn, "UPDATE login_mails SET sent_at = sent_at - interval '61 minutes'")
    register(app.test_client(), "JANE@Example.org")
    assert len(smtp.mails) == MOST_MAILS + 2
    assert rows(module_dsn, "SELECT account_id FROM login_mails") == [(account_id_of(app, JANE),)]


def test_everybody_together_gets_a_thousand_mails_an_hour(
    client: FlaskClient, app: Flask, smtp: MailServer, module_dsn: str
) -> None:
    """Whoever finds a thousand addresses may not have all of them written to."""
    before = LOGIN_MAILS.labels("too_many")._value.get()
    change(
        module_dsn,
        "INSERT INTO login_mails (account_id) SELECT lpad(to_hex(n), 32, '0')"
        f" FROM generate_series(1, {MOST_MAILS_TO_ALL - 1}) n",
    )
    assert register(client).status_code == 200
    for address in (JANE, JOHN):
        response = register(client, address)
        assert (response.status_code, response.json["error"]) == (400, "Unable to send the email")
    assert len(smtp.mails) == 1
    assert LOGIN_MAILS.labels("too_many")._value.get() == before + 2
    change(module_dsn, "UPDATE login_mails SET sent_at = sent_at - interval '61 minutes'")
    assert register(client, JOHN).status_code == 200


@pytest.mark.parametrize("path", ["/api/v1/user_register", "/api/v2/ooniauth/user-login"])
def test_a_mail_costs_who_asks_for_it(tmp_path: Path, module_dsn: str, smtp: MailServer, path: str) -> None:
    app = app_with_mail(tmp_path, module_dsn, smtp, quota_exempt=())
    try:
        asked = {"email_address": JANE, "redirect_to": REDIRECT}
        response = app.test_client().post(path, json=asked)
        assert (response.status_code, response.headers["X-RateLimit-Remaining"]) == (200, "3970")
        response = app.test_client().post(path, json={**asked, "redirect_to": "http://evil.example"})
        assert response.status_code == 400
        assert int(response.headers["X-RateLimit-Remaining"]) >= 3969, "what is refused costs no more than others"
    finally:
        app.extensions["api"].close()


def test_mails_are_counted_one_at_a_time(app: Flask) -> None:
    for number in range(10):
        account_id, all_ready = f"{number:032x}", threading.Barrier(6)

        def count(_: int, account_id: str = account_id, all_ready: threading.Barrier = all_ready) -> bool:
            with app.app_context():
                all_ready.wait(30)
                return count_mail(account_id)

        with ThreadPoolExecutor(6) as pool:
            first = list(pool.map(count, range(6)))
            assert (sum(first), sum(pool.map(count, range(6)))) == (MOST_MAILS, 0)


# Sessions.


def test_a_session_lasts_as_long_as_the_settings_say(client: FlaskClient, app: Flask) -> None:
    before = int(time.time())
    token = log_in(client, login_token(app, JANE)).json["bearer"]
    found = claims(token)
    assert before <= found["login_time"] == found["iat"] == found["nbf"] <= time.time()
    assert found["exp"] == found["login_time"] + SESSION_DAYS * DAY
    assert (found["aud"], found["role"], found["account_id"]) == ("user_auth", "user", account_id_of(app, JANE))
    assert jwt.get_unverified_header(token)["alg"] == "HS256"


def test_settings_that_are_lowered_count_at_once(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    """Logouts are remembered for as long as sessions last now, so older tokens have to have ended by then."""
    tokens = app.extensions["api"].session_tokens
    longer = SessionTokens(tokens._keys, session_expiry_days=180, login_expiry_days=365)
    signed_in_headers(app, module_dsn, "user", JANE)
    account_id = account_id_of(app, JANE)
    ((generation,),) = rows(module_dsn, "SELECT session_generation FROM accounts")
    for age_days, status in ((0, 200), (SESSION_DAYS - 0.01, 200), (SESSION_DAYS + 0.01, 401), (30, 401)):
        now = int(time.time() - age_days * DAY)
        token = longer._session("s", account_id, JANE, "user", generation, login_time=now)
        found = {**claims(token), "iat": now, "nbf": now}
        old = jwt.encode(found, tokens._keys.keys()[0], algorithm="HS256")
        assert metadata(client, bearer(old))[0] == status, age_days


@pytest.mark.parametrize(
    ("age_days", "lasts_until_day"), [(0, SESSION_DAYS), (4, 4 + SESSION_DAYS), (6, LOGIN_DAYS), (6.9, LOGIN_DAYS)]
)
def test_a_refresh_never_goes_beyond_the_age_that_is_allowed(
    client: FlaskClient, app: Flask, module_dsn: str, age_days: float, lasts_until_day: float
) -> None:
    login_time = int(time.time() - age_days * DAY)
    headers = of_age(app, module_dsn, login_time)
    response = client.get("/api/v1/user_refresh_token", headers=headers)
    found, old = claims(response.json["bearer"]), claims(headers["Authorization"].partition(" ")[2])
    assert (found["login_time"], found["sid"]) == (login_time, old["sid"])
    assert abs(found["exp"] - (login_time + lasts_until_day * DAY)) <= 5


def of_age(app: Flask, dsn: str, login_time: int) -> dict[str, str]:
    """The header of a session that began some time ago, and was refreshed since."""
    signed_in_headers(app, dsn, "user", JANE)
    tokens = app.extensions["api"].session_tokens
    token = tokens._session("0" * 32, account_id_of(app, JANE), JANE, "user", 0, login_time=login_time)
    return bearer(token)


def test_a_session_that_is_over(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    over = of_age(app, module_dsn, int(time.time()) - LOGIN_DAYS * DAY - 600)
    assert metadata(client, over) == (401, {"logged_in": False})
    response = client.get("/api/v1/user_refresh_token", headers=over)
    assert (response.status_code, response.json["error"]) == (401, "Authentication required")


def test_a_refresh_has_the_role_of_now(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    session = signed_in(client, app)
    change(module_dsn, "UPDATE accounts SET role = 'admin'")
    token = client.get("/api/v1/user_refresh_token", headers=session).json["bearer"]
    assert claims(token)["role"] == "admin"


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_a_logout_ends_one_session_and_its_link(client: FlaskClient, app: Flask, module_dsn: str, method: str) -> None:
    other = signed_in(client, app)
    link = login_token(app, JANE)
    session = bearer(log_in(client, link).json["bearer"])
    assert client.open("/api/v1/user_logout", method=method, headers=session).json == {}
    assert metadata(client, session)[0] == 401
    assert metadata(client, other)[0] == 200
    response = log_in(client, link)
    assert (response.status_code, response.json["error"]) == (401, "Expired token")
    assert "logout" in response.json["hint"]
    assert client.open("/api/v1/user_logout", method=method, headers=session).json == {}, "twice"
    ((forget_at,),) = rows(module_dsn, "SELECT extract(epoch FROM forget_at)::float FROM ended_sessions")
    assert forget_at > time.time() + LOGIN_DAYS * DAY, "remembered for as long as a token of it could be good"


# The newer form.


def test_newer_interfaces_sign_in_likewise(client: FlaskClient, app: Flask, smtp: MailServer) -> None:
    asked = {"email_address": "Jane@example.org", "redirect_to": REDIRECT}
    response = client.post("/api/v2/ooniauth/user-login", json=asked)
    assert (response.status_code, response.headers["Cache-Control"]) == (200, NO_CACHE)
    assert response.json["email_address"] == JANE
    assert response.json["login_token_expiration"].endswith("Z")
    response = client.post("/api/v2/ooniauth/user-session", json={"login_token": smtp.token()})
    expected = {
        "redirect_to": REDIRECT,
        "email_address": JANE,
        "account_id": account_id_of(app, JANE),
        "role": "user",
        "is_logged_in": True,
    }
    assert response.status_code == 200
    session = bearer(response.json["session_token"])
    login_time = response.json["login_time"]
    assert response.json == {**expected, "session_token": response.json["session_token"], "login_time": login_time}
    assert metadata(client, session)[0] == 200
    for again in (
        client.get("/api/v2/ooniauth/user-session", headers=session),
        client.post("/api/v2/ooniauth/user-session", headers=session),
        client.post("/api/v2/ooniauth/user-session", headers=session, json={"login_token": None}),
        client.post("/api/v2/ooniauth/user-session", headers=session, json={"login_token": "bad"}),
    ):
        later = claims(again.json["session_token"])
        assert later["sid"] == claims(session["Authorization"].partition(" ")[2])["sid"]
        assert {**again.json, "session_token": ""} == {
            **expected,
            "redirect_to": "",
            "login_time": login_time,
            "session_token": "",
        }


def test_newer_interfaces_without_a_session(client: FlaskClient) -> None:
    response = client.get("/api/v2/ooniauth/user-session")
    assert response.status_code == 200
    assert response.json["is_logged_in"] is False
    assert not any(response.json.values())
    for body, error in (({}, "Authentication required"), ({"login_token": "x"}, "Invalid credentials")):
        response = client.post("/api/v2/ooniauth/user-session", json=body)
        assert (response.status_code, response.json["error"]) == (401, error)
    response = client.post("/api/v2/ooniauth/user-session", json={"login_token": 1})
    assert response.status_code == 400
    assert "login_token" in response.json["error"]


# Without what it needs.


def test_without_a_database(smtp: MailServer, tmp_path: Any, app: Flask) -> None:
    alone = app_with_mail(tmp_path, "host=/nonexistent dbname=ooni", smtp)
    client = alone.test_client()
    tokens, account_id = alone.extensions["api"].session_tokens, account_id_of(alone, JANE)
    session = bearer(tokens.begin(account_id, JANE, "user", 0))
    assert register(client).status_code == 503
    assert log_in(client, login_token(alone, JANE)).status_code == 503
    for path in ("/api/v1/user_logout", "/api/_/account_metadata", "/api/v1/user_refresh_token"):
        assert client.get(path, headers=session).status_code == 503
    assert metadata(client, {}) == (401, {"logged_in": False})
    assert smtp.mails == []
    alone.extensions["api"].close()


def test_without_keys(smtp: MailServer, tmp_path: Any, module_dsn: str) -> None:
    """They come while it runs."""
    keys, salt = tmp_path / "keys", tmp_path / "salt"
    alone = app_with_mail(tmp_path, module_dsn, smtp, session_keys=str(keys), account_id_key=str(salt))
    client = alone.test_client()
    for response in (register(client), log_in(client, "a.b.c")):
        assert response.status_code == 503
        assert response.headers["Retry-After"] == "300"
    keys.write_text("k" * 64)
    salt.write_text("s" * 32)
    deadline = time.monotonic() + 30
    while register(client).status_code != 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert log_in(client, smtp.token()).status_code == 200
    alone.extensions["api"].close()
