"""Quotas of requests with access tokens: their account pays, and nobody is asked for each of them whose they are."""

import threading
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from people import account_id_of, signed_in_headers
from quota_client import METERED, ask, leave, was_charged

from api.access_tokens import hash_of, new_token
from api.app import create_app
from api.config import ApiSettings
from api.quotas import Subject, subject_of_account, subjects_of
from api.token_accounts import TokenAccounts
from core.db import open_pool

SUMMARY = "/api/_/quotas_summary"


def give_token(where: Any, dsn: str, email: str) -> str:
    """Return a token of an account, made if there is none yet."""
    signed_in_headers(where, dsn, email=email)
    token = new_token()
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """INSERT INTO access_tokens (account_id, token_hash, name, scope, expires_at)
                VALUES (%s, %s, 'x', 'read', now() + interval '1 day')""",
            [account_id_of(where, email), hash_of(token)],
        )
    return token


def subject(where: Any, email: str) -> Subject:
    return subject_of_account(account_id_of(where, email))


@pytest.fixture(scope="module")
def server(start_api: Callable[..., Any], module_dsn: str) -> Any:
    """An API with two workers that believes what its proxy on this host says of clients."""
    return start_api(module_dsn, workers=2, threads=4, trusted_proxies="127.0.0.0/8", quota_exempt="203.0.113.0/28")


def test_the_account_pays_and_the_address_does_not(server: Any, module_dsn: str) -> None:
    address, token = "192.0.2.1", give_token(server, module_dsn, "a@example.org")
    for _ in range(10):
        response = ask(server, address, token=token)
        assert response.status_code == 400, "of the route itself"
        assert response.headers["x-ratelimit-remaining"] == "19999"
    assert not was_charged(server, subjects_of(ip_address(address))[0])
    leave(server, subject(server, "a@example.org"), 5_000)
    assert ask(server, address, token=token).headers["x-ratelimit-remaining"] in {"4999", "5000", "5001"}
    assert ask(server, address).headers["x-ratelimit-remaining"] == "3999"


def test_an_account_that_used_up_its_quota_is_refused_with_all_its_tokens(server: Any, module_dsn: str) -> None:
    address = "192.0.2.2"
    first, second = (give_token(server, module_dsn, "b@example.org") for _ in range(2))
    ask(server, address, token=first)
    leave(server, subject(server, "b@example.org"), -100)
    for token, source in ((first, address), (second, address), (second, "198.51.100.9")):
        refused = ask(server, source, token=token)
        assert refused.status_code == 429
        assert "the account of this access token" in refused.json()["error"]
        assert refused.headers["x-ratelimit-remaining"] == "0"
        assert 1 <= int(refused.headers["retry-after"]) <= 101 * 86400 // 20000 + 1
    assert server.metric("api_quota_refusals_total", bucket="account_day") >= 3
    assert ask(server, address).status_code == 400, "the address has its own"
    other = give_token(server, module_dsn, "c@example.org")
    assert ask(server, address, token=other).headers["x-ratelimit-remaining"] == "19999"


def test_a_token_works_from_an_address_or_network_that_used_up_its_own(server: Any, module_dsn: str) -> None:
    address, token = "192.0.2.3", give_token(server, module_dsn, "d@example.org")
    ask(server, address)
    for used_up in subjects_of(ip_address(address)):
        leave(server, used_up, -100)
    assert ask(server, address).status_code == 429
    assert ask(server, address, token=token).status_code == 400
    leave(server, subjects_of(ip_address(address))[1], 40_000)  # others of this network are in the other tests


@pytest.mark.parametrize("how", ["made up", "revoked", "expired", "malformed", "a session", "basic"])
def test_what_is_no_good_token_is_charged_to_the_address(server: Any, module_dsn: str, how: str) -> None:
    number = ["made up", "revoked", "expired", "malformed", "a session", "basic"].index(how)
    address, email = f"192.0.2.{10 + number}", f"{number}@example.org"
    token = give_token(server, module_dsn, email)
    with psycopg.connect(module_dsn) as connection:
        if how == "revoked":
            connection.execute("UPDATE access_tokens SET revoked_at = now() WHERE token_hash = %s", [hash_of(token)])
        if how == "expired":
            connection.execute("UPDATE access_tokens SET expires_at = now() WHERE token_hash = %s", [hash_of(token)])
    header = f"Bearer {token}"
    if how == "made up":
        header = f"Bearer {new_token()}"
    elif how == "malformed":
        header = f"Bearer {token}x"
    elif how == "a session":
        header = signed_in_headers(server, module_dsn, email=email)["Authorization"]
    elif how == "basic":
        header = f"Basic {token}"
    for _ in range(4):
        response = httpx.get(server.url + METERED, headers={"X-Real-IP": address, "Authorization": header})
        assert response.headers["x-ratelimit-remaining"] == "3999"
    assert was_charged(server, subjects_of(ip_address(address))[0])
    assert not was_charged(server, subject(server, email))


def test_an_exempt_address_stays_exempt(server: Any, module_dsn: str) -> None:
    token = give_token(server, module_dsn, "e@example.org")
    assert "x-ratelimit-remaining" not in ask(server, "203.0.113.5", token=token).headers
    assert not was_charged(server, subject(server, "e@example.org"))


def test_free_paths_stay_free(server: Any, module_dsn: str) -> None:
    token = give_token(server, module_dsn, "f@example.org")
    assert "x-ratelimit-remaining" not in ask(server, "192.0.2.30", "/health", token=token).headers
    assert not was_charged(server, subject(server, "f@example.org"))


def test_admins_see_who_used_most(server: Any, module_dsn: str) -> None:
    email = "g@example.org"
    ask(server, "192.0.2.40")
    ask(server, "2001:db8:40::1")
    ask(server, "192.0.2.41", token=give_token(server, module_dsn, email))
    leave(server, subjects_of(ip_address("192.0.2.40"))[0], 100)
    leave(server, subjects_of(ip_address("2001:db8:40::"))[0], 200)
    leave(server, subject(server, email), 300)
    admin = signed_in_headers(server, module_dsn, role="admin", email="admin@example.org")
    response = httpx.get(server.url + SUMMARY, headers=admin)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache, private"
    listed = response.json()
    assert len(listed) <= 20
    seconds = [left for _, left in listed]
    assert seconds == sorted(seconds)
    found = dict(listed)
    assert found["192.0.2.40"] in {100, 101}
    assert found["2001:db8:40::/64"] in {200, 201}
    assert 300 <= found[account_id_of(server, email)] <= 305
    for headers in ({}, signed_in_headers(server, module_dsn, email="g@example.org")):
        refused = httpx.get(server.url + SUMMARY, headers=headers)
        assert refused.status_code == 401
        assert list(refused.json()) == ["error", "hint"]


def test_no_address_is_written_anywhere(server: Any) -> None:
    written = server.log() + "".join(
        path.read_bytes().decode("latin-1") for path in server.directory.rglob("*") if path.is_file()
    )
    for text in ("192.0.2.", "203.0.113.5", "198.51.100.", "2001:db8", "@example.org"):
        assert text not in written


# One worker without gunicorn.


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    made = []

    def make(dsn: str, **settings: Any) -> Flask:
        app = create_app(
            ApiSettings(
                db_uri=dsn,
                spool_directory=str(tmp_path / "spool"),
                state_directory=str(tmp_path / "state"),
                store_url=f"file://{tmp_path}",
                **settings,
            )
        )
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["api"].close()


def remaining(client: FlaskClient, token: str, address: str = "192.0.2.1") -> str | None:
    response = client.get(METERED, environ_base={"REMOTE_ADDR": address}, headers={"Authorization": f"Bearer {token}"})
    return response.headers.get("X-RateLimit-Remaining")


def test_the_factor_is_a_setting(application: Callable[..., Flask], dsn: str) -> None:
    app = application(dsn, quota_token_factor=2)
    assert remaining(app.test_client(), give_token(app, dsn, "a@example.org")) == "7999"


def test_the_database_is_asked_once_about_each_token(application: Callable[..., Flask], dsn: str) -> None:
    """Then it may be as slow as it likes, for tokens and for what is none."""
    app = application(dsn)
    client, token, none = app.test_client(), give_token(app, dsn, "a@example.org"), new_token()
    assert (remaining(client, token), remaining(client, none)) == ("19999", "3999")
    with psycopg.connect(dsn) as other:
        other.execute("LOCK TABLE access_tokens IN ACCESS EXCLUSIVE MODE")
        for _ in range(50):
            assert (remaining(client, token), remaining(client, none)) == ("19999", "3999")
        assert remaining(client, new_token()) == "3999", "nobody can tell, so the address pays"
        started = time.monotonic()
        for _ in range(50):
            assert remaining(client, new_token()) in {"3999", "3998"}
        # Each waiting for the table would take longer than a minute.
        assert time.monotonic() - started < 30


def test_an_answer_is_forgotten_after_a_while(
    application: Callable[..., Flask], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.token_accounts.REMEMBERED_S", 0.5)
    app = application(dsn)
    client, token = app.test_client(), give_token(app, dsn, "a@example.org")
    assert remaining(client, token) == "19999"
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE access_tokens SET revoked_at = now()")
    time.sleep(0.6)
    assert remaining(client, token) == "3999"
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE access_tokens SET revoked_at = NULL")
    time.sleep(0.6)
    assert remaining(client, token) == "19999"


def test_an_expiry_is_not_remembered_away(application: Callable[..., Flask], dsn: str) -> None:
    app = application(dsn)
    client, token = app.test_client(), give_token(app, dsn, "a@example.org")
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE access_tokens SET expires_at = now() + interval '2 seconds'")
    assert remaining(client, token) == "19999"
    time.sleep(2.1)
    assert remaining(client, token) == "3999"


def test_without_the_database_the_address_pays(application: Callable[..., Flask]) -> None:
    client = application("host=/nonexistent dbname=ooni").test_client()
    assert {remaining(client, new_token()) for _ in range(20)} == {"3999"}


def test_without_quotas_nothing_is_said(application: Callable[..., Flask], dsn: str) -> None:
    app = application(dsn, quotas_enabled=False)
    client = app.test_client()
    assert remaining(client, give_token(app, dsn, "a@example.org")) is None
    admin = signed_in_headers(app, dsn, role="admin", email="admin@example.org")
    response = client.get(SUMMARY, headers=admin)
    assert response.status_code == 404
    assert "quotas_enabled" in response.json["error"]


def test_made_up_tokens_neither_fill_the_memory_nor_drive_out_real_ones(
    application: Callable[..., Flask], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.token_accounts.MOST_REMEMBERED", 8)
    app = application(dsn)
    tokens = [give_token(app, dsn, "a@example.org") for _ in range(8)]
    pool = open_pool(dsn)
    accounts = TokenAccounts(pool)
    expected = account_id_of(app, "a@example.org")
    assert [accounts.account_of(token) for token in tokens] == [expected] * 8
    for _ in range(100):
        assert accounts.account_of(new_token()) is None
    assert len(accounts._others) == 8
    with psycopg.connect(dsn) as other:
        other.execute("LOCK TABLE access_tokens IN ACCESS EXCLUSIVE MODE")
        assert [accounts.account_of(token) for token in tokens] == [expected] * 8
    pool.close()


def test_an_answer_ends_with_the_day(
    application: Callable[..., Flask], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So that the first use on the next day is written down, too."""
    monkeypatch.setattr("api.token_accounts._DAY_S", 1)
    app = application(dsn)
    client, token = app.test_client(), give_token(app, dsn, "a@example.org")
    assert remaining(client, token) == "19999"
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE access_tokens SET revoked_at = now()")
    time.sleep(1.1)
    assert remaining(client, token) == "3999"


def test_who_cannot_ask_soon_does_not_wait(application: Callable[..., Flask], dsn: str) -> None:
    """Threads are for submissions as well: while one question hangs, other unknown tokens are let through."""
    app = application(dsn)
    token = give_token(app, dsn, "a@example.org")
    accounts = TokenAccounts(app.extensions["api"].pool)
    assert accounts.account_of(token) is not None
    with accounts._asking:  # as while somebody asks
        started = time.monotonic()
        assert [accounts.account_of(new_token()) for _ in range(20)] == [None] * 20
        assert accounts.account_of(token) is not None, "what is known needs no asking"
        assert time.monotonic() - started < 15
    assert accounts._others == {}, "nobody said that these are none"


def test_many_threads_ask_one_question(
    application: Callable[..., Flask], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All of them get the answer, though there is one connection and only the first one asks."""
    monkeypatch.setattr("api.token_accounts._WAIT_S", 20.0)
    app = application(dsn)
    token, expected = give_token(app, dsn, "a@example.org"), account_id_of(app, "a@example.org")
    pool = open_pool(dsn, max_size=1)
    accounts = TokenAccounts(pool)
    barrier, found = threading.Barrier(16), []

    def ask_it() -> None:
        barrier.wait(30)
        found.append(accounts.account_of(token))

    threads = [threading.Thread(target=ask_it) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert set(found) == {expected}
    assert pool.get_stats()["requests_num"] == 1
    pool.close()
