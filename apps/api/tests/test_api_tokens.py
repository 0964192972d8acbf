"""The token that some lists want: who gets in, who does not, and what they are told."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jwt
import pytest

from api.key_file import LEEWAY_S, KeysUnavailable
from api.signing import AUDIENCE_TOKEN, LIFETIME_S, ProbeTokens

KEY, OLD_KEY, OTHER_KEY = "k" * 64, "o" * 64, "x" * 64
PATHS = ["/api/v1/test-list/tor-targets", "/api/v1/test-list/psiphon-config"]


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An API whose keys are known to the test."""
    keys = tmp_path_factory.mktemp("keys") / "keys"
    keys.write_text(f"{KEY}\n{OLD_KEY}\n")
    return start_api("host=/nonexistent", probe_token_keys=keys)


def token(key: str | None = KEY, algorithm: str = "HS256", **changes: object) -> str:
    claims = {"aud": AUDIENCE_TOKEN, "registration_time": None, "exp": int(time.time()) + 1000, **changes}
    return jwt.encode({name: value for name, value in claims.items() if value != "absent"}, key, algorithm=algorithm)


def ask(api: Any, authorization: str | bytes | None, path: str = PATHS[0]) -> Any:
    return api.http.get(path, headers={} if authorization is None else {"authorization": authorization})


def test_a_token_from_login_opens_the_lists(api: Any) -> None:
    client_id = api.http.post("/api/v1/register", json={}).json()["client_id"]
    given = api.http.post("/api/v1/login", json={"username": client_id, "password": "x"}).json()["token"]
    assert ask(api, f"Bearer {given}").status_code == 200
    assert ask(api, f"bearer  {given}").status_code == 200
    assert ask(api, f"Bearer {token(OLD_KEY)}").status_code == 200


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize(
    ("authorization", "status", "text"),
    [
        (None, 401, "Invalid credentials"),
        ("", 401, "Invalid credentials"),
        ("Basic dTpw", 400, "Invalid token format"),
        (f"Token {token()}", 400, "Invalid token format"),
        (token(), 400, "Invalid token format"),
        ("Bearer", 401, "Invalid credentials"),
        ("Bearer x", 401, "Invalid credentials"),
        ("Bearer a.b.c", 401, "Invalid credentials"),
        (b"Bearer \xff\xfe", 401, "Invalid credentials"),
        ("Bearer é".encode(), 401, "Invalid credentials"),
        (f"Bearer {'x' * 7000}", 401, "Invalid credentials"),
        (f"Bearer {token()[:-3]}abc", 401, "Invalid JWT signature"),
        (f"Bearer {token(OTHER_KEY)}", 401, "Invalid JWT signature"),
        (f"Bearer {token(None, 'none')}", 401, "Invalid credentials"),
        (f"Bearer {token(KEY, 'HS384')}", 401, "Invalid credentials"),
        (f"Bearer {token(exp='absent')}", 401, "Invalid credentials"),
        (f"Bearer {token(exp=int(time.time()) - LEEWAY_S - 60)}", 401, "Invalid credentials"),
        (f"Bearer {token(exp='tomorrow')}", 401, "Invalid credentials"),
        (f"Bearer {token(exp=None)}", 401, "Invalid credentials"),
        (f"Bearer {token(aud='absent')}", 401, "Invalid credentials"),
        (f"Bearer {token(aud='probe_login')}", 401, "Invalid credentials"),
        (f"Bearer {token(aud='user_auth')}", 401, "Invalid credentials"),
        (f"Bearer {token(aud=[AUDIENCE_TOKEN])}", 401, "Invalid credentials"),
        (f"Bearer {token(nbf=int(time.time()) + 10 * LEEWAY_S)}", 401, "Invalid credentials"),
        (f"Bearer {token(iat=int(time.time()) + 10 * LEEWAY_S)}", 401, "Invalid credentials"),
    ],
)
def test_who_is_refused(api: Any, path: str, authorization: str | bytes | None, status: int, text: str) -> None:
    response = ask(api, authorization, path)
    assert (response.status_code, response.json()["error"]) == (status, text)
    assert response.json()["hint"]
    assert response.headers["cache-control"] == "no-cache"
    assert ("www-authenticate" in response.headers) == (status == 401)


def test_clocks_may_differ_a_little(api: Any) -> None:
    now = int(time.time())
    assert ask(api, f"Bearer {token(iat=now + LEEWAY_S - 60, nbf=now + LEEWAY_S - 60)}").status_code == 200
    assert ask(api, f"Bearer {token(exp=now - LEEWAY_S + 60)}").status_code == 200


def test_a_client_id_is_no_token(api: Any) -> None:
    client_id = api.http.post("/api/v1/register", json={}).json()["client_id"]
    assert ask(api, f"Bearer {client_id}").status_code == 401


def test_a_token_is_good_for_seven_days(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text(KEY)
    tokens = ProbeTokens(keys, create=False)
    now = int(time.time())
    assert tokens.check(tokens.new_token(5, now - LIFETIME_S + 60), AUDIENCE_TOKEN)["registration_time"] == 5
    with pytest.raises(jwt.ExpiredSignatureError):
        tokens.check(tokens.new_token(5, now - LIFETIME_S - LEEWAY_S - 60), AUDIENCE_TOKEN)


def test_no_host_without_keys_lets_anybody_in(tmp_path: Path) -> None:
    tokens = ProbeTokens(tmp_path / "absent", create=False)
    with pytest.raises(KeysUnavailable):
        tokens.check(token(), AUDIENCE_TOKEN)
    with pytest.raises(KeysUnavailable):
        tokens.new_client_id()


def test_a_key_that_is_deleted_stays_until_the_restart(tmp_path: Path) -> None:
    tokens = ProbeTokens(tmp_path / "state" / "keys", create=True)
    client_id = tokens.new_client_id()
    (tmp_path / "state" / "keys").unlink()
    assert tokens.check(client_id, "probe_login")["aud"] == "probe_login"


def test_tokens_are_not_logged(api: Any) -> None:
    given = token()
    ask(api, f"Bearer {given}")
    ask(api, f"Bearer {given[:-4]}")
    assert given[:40] not in api.log()
    assert KEY not in api.log()
