"""What others try at the login: tokens of another kind, forged ones, old ones, guessed accounts, strange redirects."""

import base64
import json
import time
from collections.abc import Callable
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
from mail_server import EXPLORER, MailServer, app_with_mail
from people import login_token, signed_in_headers

from api.key_file import LEEWAY_S

OTHER_KEY = "k" * 64
ADMIN_ROUTES = (
    ("GET", f"/api/v1/get_account_role/{JANE}"),
    ("POST", "/api/v1/set_account_role"),
    ("POST", "/api/v1/set_session_expunge"),
)


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


@pytest.fixture
def key(app: Flask) -> str:
    return str(app.extensions["api"].session_tokens._keys.keys()[0])


def encode(claims: dict[str, Any], key: str | None, algorithm: str = "HS256", **header: Any) -> str:
    return jwt.encode(claims, key, algorithm=algorithm, headers=header or None)


def with_header(token: str, **changes: Any) -> str:
    """A token whose header says something else than what was signed."""
    head, rest = token.split(".", 1)
    found = json.loads(base64.urlsafe_b64decode(head + "=="))
    text = json.dumps({**found, **changes}).encode()
    return f"{base64.urlsafe_b64encode(text).rstrip(b'=').decode()}.{rest}"


def damaged(token: str) -> str:
    """A token with another last character but one in its signature (the last one holds bits that do not count)."""
    return token[:-2] + ("A" if token[-2] != "A" else "B") + token[-1]


Forge = Callable[[dict[str, Any], str], str]
"""Makes a token of the claims of a good one and of the key that signs."""

FORGED: dict[str, Forge] = {
    "another key": lambda good, key: encode(good, OTHER_KEY),
    "no algorithm": lambda good, key: encode(good, None, "none"),
    "HS384": lambda good, key: encode(good, key, "HS384"),
    "HS512": lambda good, key: encode(good, key, "HS512"),
    "no signature": lambda good, key: encode(good, key).rpartition(".")[0] + ".",
    "two parts": lambda good, key: encode(good, key).rpartition(".")[0],
    "five parts": lambda good, key: encode(good, key) + ".a.b",
    "damaged": lambda good, key: damaged(encode(good, key)),
    "says it is not signed": lambda good, key: with_header(encode(good, key), alg="none"),
    "says so in capitals": lambda good, key: with_header(encode(good, key), alg="NONE"),
    "names a key": lambda good, key: with_header(encode(good, OTHER_KEY), kid="/dev/null"),
    "brings a key": lambda good, key: with_header(encode(good, OTHER_KEY), jwk={"kty": "oct", "k": "a2tr"}),
    "names where a key is": lambda good, key: with_header(encode(good, OTHER_KEY), jku="https://evil.example/"),
    "wants something critical": lambda good, key: encode(good, key, crit=["x"], x=1),
    "claims are not signed along": lambda good, key: encode(good, key, crit=["b64"], b64=False),
    "expired": lambda good, key: encode({**good, "exp": int(time.time()) - LEEWAY_S - 5}, key),
    "not valid yet": lambda good, key: encode({**good, "nbf": int(time.time()) + 2 * LEEWAY_S}, key),
    "made in the future": lambda good, key: encode({**good, "iat": int(time.time()) + 2 * LEEWAY_S}, key),
    "no end": lambda good, key: encode({**good, "exp": None}, key),
    "an end that is no number": lambda good, key: encode({**good, "exp": "x"}, key),
    "an endless end": lambda good, key: encode({**good, "exp": float("inf")}, key),
    "several audiences": lambda good, key: encode({**good, "aud": ["user_auth", "register"]}, key),
    "a list of one audience": lambda good, key: encode({**good, "aud": [good["aud"]]}, key),
    "a probe's audience": lambda good, key: encode({**good, "aud": "probe_token"}, key),
    "another probe's audience": lambda good, key: encode({**good, "aud": "probe_login"}, key),
    "no audience": lambda good, key: encode({**good, "aud": None}, key),
    "an audience in capitals": lambda good, key: encode({**good, "aud": good["aud"].upper()}, key),
}


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_session_is_none(client: FlaskClient, app: Flask, module_dsn: str, key: str, kind: str) -> None:
    good = claims(signed_in_headers(app, module_dsn, "admin", ADMIN)["Authorization"].partition(" ")[2])
    assert metadata(client, bearer(encode(good, key)))[0] == 200, "the claims would do"
    forged = bearer(FORGED[kind](good, key))
    check_nobody(client, forged)
    assert audit(module_dsn) == []


@pytest.mark.parametrize("claim", ["aud", "exp", "iat", "sid", "gen", "account_id", "login_time", "role"])
@pytest.mark.parametrize("value", [None, [], {}, "x", -1, True, "\x00", 10**40])
def test_sessions_with_odd_claims(
    client: FlaskClient, app: Flask, module_dsn: str, key: str, claim: str, value: Any
) -> None:
    """Made with our own key; whatever they say, nobody is somebody else."""
    good = claims(signed_in_headers(app, module_dsn, "user", JANE)["Authorization"].partition(" ")[2])
    status, reply = metadata(client, bearer(encode({**good, claim: value}, key)))
    assert status in {200, 401}
    assert reply in ({"logged_in": False}, {"logged_in": True, "role": "user"})


def check_nobody(client: FlaskClient, headers: dict[str, str]) -> None:
    """A token is nobody's wherever one is wanted."""
    assert metadata(client, headers) == (401, {"logged_in": False})
    for method, path in (("GET", "/api/v1/user_refresh_token"), *ADMIN_ROUTES):
        response = client.open(path, method=method, headers=headers, json={"email_address": JANE, "role": "admin"})
        assert (response.status_code, response.json["error"]) == (401, "Authentication required")
    assert client.get("/api/v2/ooniauth/user-session", headers=headers).json["is_logged_in"] is False
    assert client.post("/api/v1/user_logout", headers=headers).json == {}


TEXTS = {
    "another key": "Invalid credential signature",
    "damaged": "Invalid credential signature",
    "no signature": "Invalid credential signature",
    "names a key": "Invalid credential signature",
    "brings a key": "Invalid credential signature",
    "names where a key is": "Invalid credential signature",
    "expired": "Expired token",
    "no end": "Invalid token type",
    "no audience": "Invalid token type",
}
"""Of links that are refused; all others are `Invalid credentials`."""


@pytest.mark.parametrize("kind", FORGED)
def test_a_forged_link_is_none(client: FlaskClient, app: Flask, module_dsn: str, key: str, kind: str) -> None:
    good = claims(login_token(app, JANE))
    response = log_in(client, FORGED[kind](good, key))
    assert (response.status_code, response.json["error"]) == (401, TEXTS.get(kind, "Invalid credentials"))
    assert response.json["hint"]
    assert response.headers["Cache-Control"] == "no-cache"
    response = client.post("/api/v2/ooniauth/user-session", json={"login_token": FORGED[kind](good, key)})
    assert response.status_code == 401
    assert rows(module_dsn, "SELECT * FROM accounts") == []
    assert log_in(client, encode(good, key)).status_code == 200, "the claims would do"


@pytest.mark.parametrize("claim", ["jti", "account_id", "email_address", "redirect_to"])
def test_links_with_odd_claims(client: FlaskClient, app: Flask, key: str, claim: str) -> None:
    good = claims(login_token(app, JANE))
    nothing = "Invalid credentials" if claim == "jti" else "Invalid token type"
    for value, error in ((None, nothing), ([], "Invalid credentials"), (1, "Invalid credentials")):
        response = log_in(client, encode({**good, claim: value}, key))
        assert (response.status_code, response.json["error"]) == (401, error)
    del good[claim]
    assert log_in(client, encode(good, key)).json["error"] == "Invalid token type"


@pytest.mark.parametrize(
    "token", ["", "x", "a.b.c", "..", "e30.e30.", "a" * 7000, "ey\u202e", "x y", "<script>", "'--"]
)
def test_what_is_no_token(client: FlaskClient, token: str) -> None:
    response = log_in(client, token)
    assert (response.status_code, response.json["error"]) == (401, "Invalid credentials")
    check_nobody(client, {"Authorization": f"Bearer {token}".encode().decode("latin-1")})


def test_no_token_counts_as_one_of_another_kind(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    client_id = client.post("/api/v1/register", json={}).json["client_id"]
    probe = client.post("/api/v1/login", json={"username": client_id, "password": "x"}).json["token"]
    session = signed_in_headers(app, module_dsn, "admin", ADMIN)
    link = login_token(app, JANE)
    for token in (client_id, probe):
        check_nobody(client, bearer(token))
        assert log_in(client, token).json["error"] == "Invalid credential signature"
    check_nobody(client, bearer(link))
    response = log_in(client, session["Authorization"].partition(" ")[2])
    assert (response.status_code, response.json["error"]) == (401, "Invalid credentials")
    for headers in (session, bearer(link)):
        assert client.get("/api/v1/test-list/tor-targets", headers=headers).status_code == 401
        username = headers["Authorization"].partition(" ")[2]
        assert client.post("/api/v1/login", json={"username": username, "password": "x"}).status_code == 401


def test_keys_are_replaced_without_ending_sessions(smtp: MailServer, tmp_path: Any, module_dsn: str) -> None:
    keys = tmp_path / "keys"
    keys.write_text(f"{'a' * 64}\n")
    other = app_with_mail(tmp_path, module_dsn, smtp, session_keys=str(keys))
    client = other.test_client()
    session, link = signed_in(client, other), login_token(other, JOHN)
    keys.write_text(f"{'b' * 64}\n{'a' * 64}\n")
    deadline = time.monotonic() + 30
    while jwt_key(login_token(other, JOHN)) != "b" * 64:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert metadata(client, session)[0] == 200
    assert log_in(client, link).status_code == 200
    later = client.get("/api/v1/user_refresh_token", headers=session).json["bearer"]
    assert jwt_key(later) == "b" * 64
    keys.write_text(f"{'b' * 64}\n")
    while metadata(client, session)[0] == 200:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert metadata(client, bearer(later))[0] == 200
    other.extensions["api"].close()


def jwt_key(token: str) -> str:
    """Which of the keys of the test signed a token."""
    for key in ("a" * 64, "b" * 64):
        try:
            jwt.decode(token, key, algorithms=["HS256"], options={"verify_aud": False})
        except jwt.InvalidSignatureError:
            continue
        return key
    raise AssertionError("signed by no key of the test")


def test_clocks_may_differ_a_little(client: FlaskClient, app: Flask, module_dsn: str, key: str) -> None:
    ahead = int(time.time()) + LEEWAY_S - 60
    link = encode({**claims(login_token(app, JANE)), "iat": ahead, "nbf": ahead}, key)
    assert log_in(client, link).status_code == 200
    good = claims(signed_in_headers(app, module_dsn, "user", JANE)["Authorization"].partition(" ")[2])
    assert metadata(client, bearer(encode({**good, "iat": ahead, "nbf": ahead}, key)))[0] == 200
    just_over = int(time.time()) - LEEWAY_S + 60
    assert metadata(client, bearer(encode({**good, "exp": just_over}, key)))[0] == 200


@pytest.mark.parametrize(
    ("header", "is_somebody"),
    [
        ("Bearer {}", True),
        ("bearer {}", True),
        ("BEARER  {} ", True),
        ("{}", False),
        ("Token {}", False),
        ("Bearer{}", False),
        ("Bearer\t{}", False),
        ("Bearer {},{}", False),
        ("Bearer {} {}", False),
        ('Bearer "{}"', False),
        ("Basic {}", False),
    ],
)
def test_forms_of_the_header(client: FlaskClient, app: Flask, module_dsn: str, header: str, is_somebody: bool) -> None:
    token = signed_in_headers(app, module_dsn)["Authorization"].partition(" ")[2]
    status, _ = metadata(client, {"Authorization": header.replace("{}", token)})
    assert status == (200 if is_somebody else 401)


def test_a_session_is_taken_from_nowhere_else(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    token = signed_in_headers(app, module_dsn)["Authorization"].partition(" ")[2]
    client.set_cookie("ooni", token)
    client.set_cookie("Authorization", f"Bearer {token}")
    response = client.get("/api/_/account_metadata", query_string={"bearer": token, "access_token": token})
    assert response.status_code == 401


# What is in the database counts, and not what a token says.


def test_a_role_in_a_token_means_nothing(client: FlaskClient, app: Flask, module_dsn: str, key: str) -> None:
    good = claims(signed_in_headers(app, module_dsn, "user", JANE)["Authorization"].partition(" ")[2])
    boasting = bearer(encode({**good, "role": "admin"}, key))
    assert metadata(client, boasting) == (200, {"logged_in": True, "role": "user"})
    for method, path in ADMIN_ROUTES:
        response = client.open(path, method=method, headers=boasting, json={"email_address": JANE, "role": "admin"})
        assert (response.status_code, response.json["error"]) == (401, "Role not authorized")
    later = client.get("/api/v1/user_refresh_token", headers=boasting).json["bearer"]
    assert claims(later)["role"] == "user"


def test_sessions_of_before_an_expunge_and_of_nobody(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    session = signed_in(client, app)
    change(module_dsn, "UPDATE accounts SET session_generation = session_generation + 1")
    check_nobody(client, session)
    now = signed_in(client, app)
    assert metadata(client, now)[0] == 200
    change(module_dsn, "TRUNCATE accounts CASCADE")
    check_nobody(client, now)


def test_a_session_of_another_deployment_is_nobodys(client: FlaskClient, app: Flask, module_dsn: str) -> None:
    """Accounts have other names there, and tokens another key."""
    session = signed_in_headers(app, module_dsn, "admin", ADMIN)
    assert metadata(client, session)[0] == 200
    ids = app.extensions["api"].account_ids
    assert ids.of(JANE) != ids.of(JOHN)
    assert len({len(ids.of(address)) for address in (JANE, JOHN, ADMIN)}) == 1
    foreign = encode(claims(session["Authorization"].partition(" ")[2]), "f" * 64)
    check_nobody(client, bearer(foreign))


# Whether an address has an account is told to nobody.


def test_the_reply_is_the_same_for_known_and_unknown_addresses(client: FlaskClient, app: Flask) -> None:
    signed_in(client, app, JANE)
    for path in ("/api/v1/user_register", "/api/v2/ooniauth/user-login"):
        replies = []
        for address in (JANE, JOHN):
            asked = {"email_address": address, "redirect_to": f"https://{EXPLORER}/"}
            response = client.post(path, json=asked)
            body = response.text.replace(address, "ADDRESS").partition('"login_token_expiration"')[0]
            headers = {name: value for name, value in response.headers if name != "Content-Length"}
            replies.append((response.status_code, body, headers))
        assert replies[0] == replies[1]


def test_the_work_is_the_same_for_known_and_unknown_addresses(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Compared by the statements that are run, since clocks of busy machines tell nothing."""
    signed_in(client, app, JANE)
    run: list[str] = []
    execute = psycopg.Cursor.execute

    def watched(cursor: Any, query: Any, *args: Any, **options: Any) -> Any:
        run.append(query.decode() if isinstance(query, bytes) else str(query))
        return execute(cursor, query, *args, **options)

    monkeypatch.setattr(psycopg.Cursor, "execute", watched)
    work = []
    for address in (JANE, JOHN):
        run.clear()
        assert register(client, address).status_code == 200
        work.append([statement for statement in run if statement])
    assert work[0] == work[1]
    assert any("login_mails" in statement for statement in work[0])
    assert not any("accounts" in statement for statement in work[0])


def test_too_many_mails_look_like_enough(client: FlaskClient, app: Flask, smtp: MailServer) -> None:
    signed_in(client, app, JANE)
    for address in (JANE, JOHN):
        replies = {(reply.status_code, reply.text) for reply in (register(client, address) for _ in range(8))}
        assert replies == {(200, '{"msg":"ok"}\n')}
    assert len(smtp.mails) == 10
