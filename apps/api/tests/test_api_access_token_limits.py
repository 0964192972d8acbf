"""How many access tokens there may be, whatever happens at the same time."""

import threading
import time
from collections.abc import Iterator

import psycopg
import pytest
from access_token_client import PATH, Headers, bearer, change, create, make_app
from flask import Flask
from flask.testing import FlaskClient
from people import account_id_of, signed_in_headers

from api.access_token_routes import MOST_DEAD, MOST_LIVE


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


def test_twenty_of_an_account_count(app: Flask, client: FlaskClient, user: Headers, module_dsn: str) -> None:
    made = [create(client, user) for _ in range(MOST_LIVE)]
    response = client.post(PATH, json={"name": "one more"}, headers=user)
    assert response.status_code == 400
    assert "20 access tokens" in response.json["error"]
    assert "DELETE" in response.json["hint"]
    stranger = signed_in_headers(app, module_dsn, email="stranger@example.org")
    create(client, stranger)
    client.delete(f"{PATH}/{made[0]['token_id']}", headers=user)
    create(client, user)
    assert client.post(PATH, json={"name": "one more"}, headers=user).status_code == 400
    change(module_dsn, "UPDATE access_tokens SET expires_at = now() WHERE token_id = %s", made[1]["token_id"])
    create(client, user)


def test_many_at_once_are_not_more(app: Flask, client: FlaskClient, user: Headers, module_dsn: str) -> None:
    for _ in range(MOST_LIVE - 5):
        create(client, user)
    barrier, statuses = threading.Barrier(12), []

    def make() -> None:
        mine = app.test_client()
        barrier.wait(30)
        statuses.append(mine.post(PATH, json={"name": "x"}, headers=user).status_code)

    threads = [threading.Thread(target=make) for _ in range(barrier.parties)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(statuses) == [200] * 5 + [400] * 7
    with psycopg.connect(module_dsn) as connection:
        row = connection.execute("SELECT count(*), count(DISTINCT token_hash) FROM access_tokens").fetchone()
    assert row == (MOST_LIVE, MOST_LIVE)


def test_old_ones_that_do_not_count_are_forgotten(client: FlaskClient, user: Headers, module_dsn: str) -> None:
    kept = create(client, user)
    change(
        module_dsn,
        """INSERT INTO access_tokens (account_id, token_hash, name, scope, expires_at, revoked_at)
            SELECT account_id, sha256(number::text::bytea), 'old', 'read', now() + interval '1 day', now()
            FROM access_tokens, generate_series(1, 300) AS number""",
    )
    made = create(client, user)
    listed = [each["token_id"] for each in client.get(PATH, headers=user).json["access_tokens"]]
    assert len(listed) == MOST_DEAD - 1 + 2, "one that counts may be revoked before the next one is made"
    assert listed == sorted(listed, reverse=True)
    assert {kept["token_id"], made["token_id"]} <= set(listed)
    assert client.get("/test/read", headers=bearer(kept["token"])).status_code == 200


def test_no_token_outlives_the_end_of_the_session_that_asks_for_it(app: Flask, user: Headers, module_dsn: str) -> None:
    """Somebody ends the sessions and tokens of an account in the middle of a request for a new one."""
    answers: list[int] = []

    def make() -> None:
        answers.append(app.test_client().post(PATH, json={"name": "x"}, headers=user).status_code)

    account_id = account_id_of(app, "user@example.org")
    with psycopg.connect(module_dsn) as other, psycopg.connect(module_dsn, autocommit=True) as watcher:
        other.execute(
            "UPDATE accounts SET session_generation = session_generation + 1 WHERE account_id = %s", [account_id]
        )
        thread = threading.Thread(target=make)
        thread.start()
        deadline = time.monotonic() + 30
        while not watcher.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
            assert time.monotonic() < deadline, "the request does not wait for the account"
            time.sleep(0.02)
        other.execute("UPDATE access_tokens SET revoked_at = now() WHERE account_id = %s", [account_id])
        other.commit()
        thread.join(30)
        left = watcher.execute("SELECT count(*) FROM access_tokens WHERE revoked_at IS NULL").fetchone()
    assert answers == [401]
    assert left == (0,)


def test_an_expunge_leaves_no_token_whoever_asks_for_one_meanwhile(
    app: Flask, client: FlaskClient, user: Headers, module_dsn: str
) -> None:
    admin = signed_in_headers(app, module_dsn, role="admin", email="admin@example.org")
    made, stop = [create(client, user)["token"]], threading.Event()

    def make() -> None:
        mine = app.test_client()
        while not stop.is_set():
            response = mine.post(PATH, json={"name": "x"}, headers=user)
            if response.status_code == 200:
                made.append(response.json["token"])
                mine.delete(f"{PATH}/{response.json['token_id']}", headers=user)  # room for the next one

    threads = [threading.Thread(target=make) for _ in range(6)]
    for thread in threads:
        thread.start()
    try:
        while len(made) < 10:
            time.sleep(0.02)
        response = client.post("/api/v1/set_session_expunge", json={"email_address": "user@example.org"}, headers=admin)
        assert response.status_code == 200, response.text
        left = count_live(module_dsn)
        expunged = len(made)
        time.sleep(0.3)
    finally:
        stop.set()
        for thread in threads:
            thread.join(30)
    assert left == 0
    assert count_live(module_dsn) == 0
    assert len(made) - expunged <= len(threads), "answers that were on their way"
    assert all(client.get("/test/read", headers=bearer(token)).status_code == 401 for token in made)
    assert client.post(PATH, json={"name": "x"}, headers=user).status_code == 401


def count_live(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute("SELECT count(*) FROM access_tokens WHERE revoked_at IS NULL").fetchone()
    assert row is not None
    return int(row[0])


def test_tokens_of_a_day_are_bounded(
    client: FlaskClient, user: Headers, monkeypatch: pytest.MonkeyPatch, module_dsn: str
) -> None:
    """Each leaves a line in the audit log, also when it is revoked at once."""
    with psycopg.connect(module_dsn) as connection:
        connection.execute("DELETE FROM audit_log")
    monkeypatch.setattr("api.access_token_routes.MOST_A_DAY", 2)
    for _ in range(2):
        number = create(client, user)["token_id"]
        assert client.delete(f"{PATH}/{number}", headers=user).status_code == 200
    response = client.post(PATH, json={"name": "one more"}, headers=user)
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3600")
    assert client.get(PATH, headers=user).status_code == 200
