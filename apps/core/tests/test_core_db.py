"""Connections: session settings, unavailability in sentences, forks."""

import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from core import db
from core.db import DatabaseUnavailable, Pool, connect, open_pool
from devstack.postgres import PostgresCluster


@pytest.fixture
def pool(empty_dsn: str) -> Iterator[Pool]:
    pool = open_pool(empty_dsn, application_name="tester", statement_timeout_ms=700, max_size=2)
    yield pool
    pool.close()


def test_sessions_have_the_settings(pool: Pool) -> None:
    with pool.connection() as connection:
        row = connection.execute(
            "SELECT current_setting('timezone'), current_setting('statement_timeout'),"
            " current_setting('application_name'), current_setting('plan_cache_mode')"
        ).fetchone()
        assert connection.autocommit is False
    assert row == ("UTC", "700ms", "tester", "force_custom_plan")


def test_the_block_commits_and_an_exception_rolls_back(pool: Pool) -> None:
    with pool.connection() as connection:
        connection.execute("CREATE TABLE a (x int)")
        connection.execute("INSERT INTO a VALUES (1)")

    def fail() -> None:
        with pool.connection() as connection:
            connection.execute("INSERT INTO a VALUES (2)")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    with pool.connection() as connection:
        assert connection.execute("SELECT x FROM a").fetchall() == [(1,)]


def test_a_statement_timeout_is_not_unavailability(pool: Pool) -> None:
    with pytest.raises(psycopg.errors.QueryCanceled), pool.connection() as connection:
        connection.execute("SELECT pg_sleep(5)")
    with pool.connection() as connection:  # and the connection is still good
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_wrong_statement_is_not_unavailability(pool: Pool) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable), pool.connection() as connection:
        connection.execute("SELECT * FROM nothing")


def test_what_the_address_says_wins(empty_dsn: str) -> None:
    with connect(f"{empty_dsn} application_name=mine options='-c statement_timeout=5s'", application_name="x") as own:
        row = own.execute(
            "SELECT current_setting('application_name'), current_setting('statement_timeout'),"
            " current_setting('timezone')"
        ).fetchone()
    assert row == ("mine", "5s", "UTC")


def test_a_connection_that_the_server_closed_is_not_handed_out(pool: Pool, empty_dsn: str) -> None:
    with pool.connection() as connection:
        first = connection.info.backend_pid
    with connect(empty_dsn, autocommit=True) as killer:
        killer.execute("SELECT pg_terminate_backend(%s)", [first])
    with pool.connection() as connection:
        assert connection.info.backend_pid != first


def test_a_connection_that_breaks_inside_the_block_is_unavailable(pool: Pool, empty_dsn: str) -> None:
    def lose_it() -> None:
        with pool.connection() as connection:
            with connect(empty_dsn, autocommit=True) as killer:
                killer.execute("SELECT pg_terminate_backend(%s)", [connection.info.backend_pid])
            connection.execute("SELECT 1")

    with pytest.raises(DatabaseUnavailable, match="is not available"):
        lose_it()


def test_an_exhausted_pool_is_unavailable_in_time(empty_dsn: str) -> None:
    pool = open_pool(empty_dsn, max_size=1, checkout_timeout_s=0.3)
    try:
        with pool.connection():
            started = time.monotonic()
            with pytest.raises(DatabaseUnavailable), pool.connection():
                pass
            assert time.monotonic() - started < 5
    finally:
        pool.close()


def test_an_outage_is_a_sentence_and_the_pool_recovers(empty_dsn: str, pg_cluster: PostgresCluster) -> None:
    pool = open_pool(empty_dsn, checkout_timeout_s=1.0)
    try:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        pg_cluster.stop()
        with pytest.raises(DatabaseUnavailable, match="Check that it runs"), pool.connection() as connection:
            connection.execute("SELECT 1")
        pg_cluster.start()
        deadline = time.monotonic() + 30
        while True:
            try:
                with pool.connection() as connection:
                    assert connection.execute("SELECT 1").fetchone() == (1,)
                break
            except DatabaseUnavailable:
                assert time.monotonic() < deadline
    finally:
        pool.close()
        if pg_cluster.pid is None:
            pg_cluster.start()


def test_a_restart_breaks_every_connection_and_delays_nobody(empty_dsn: str, pg_cluster: PostgresCluster) -> None:
    pool = open_pool(empty_dsn, max_size=8, checkout_timeout_s=3.0)
    try:
        with contextlib.ExitStack() as held:
            backends = {held.enter_context(pool.connection()).info.backend_pid for _ in range(8)}
        assert len(backends) == 8
        pg_cluster.stop()
        pg_cluster.start()
        with pool.connection() as connection:
            assert connection.info.backend_pid not in backends
    finally:
        pool.close()
        if pg_cluster.pid is None:
            pg_cluster.start()


def test_the_pool_recovers_soon_after_a_longer_outage(empty_dsn: str, pg_cluster: PostgresCluster) -> None:
    """Attempts that wait twice as long after each failure would go on waiting for a quarter of a minute here."""
    pool = open_pool(empty_dsn, checkout_timeout_s=1.0)
    try:
        with pool.connection() as connection:
            connection.execute("SELECT 1")
        pg_cluster.stop()
        until = time.monotonic() + 17
        while time.monotonic() < until:
            with pytest.raises(DatabaseUnavailable), pool.connection():
                pass
        pg_cluster.start()
        back = time.monotonic()
        while True:
            try:
                with pool.connection() as connection:
                    assert connection.execute("SELECT 1").fetchone() == (1,)
                break
            except DatabaseUnavailable:
                assert time.monotonic() - back < 8
    finally:
        pool.close()
        if pg_cluster.pid is None:
            pg_cluster.start()


def test_a_pool_can_be_made_while_the_database_is_away() -> None:
    pool = open_pool("host=/nonexistent dbname=x user=someone password=hunter2", checkout_timeout_s=0.5)
    try:
        with (
            pytest.raises(DatabaseUnavailable, match=r"x at /nonexistent \(user someone\)") as caught,
            pool.connection(),
        ):
            pass
        assert "hunter2" not in str(caught.value)
    finally:
        pool.close()


def test_connect_says_why_it_cannot_without_the_password() -> None:
    with pytest.raises(DatabaseUnavailable, match=r"x at 127\.0\.0\.1:1") as caught:
        connect("postgresql://someone:hunter2@127.0.0.1:1/x")
    assert "hunter2" not in str(caught.value)


def test_a_text_that_is_no_address() -> None:
    for use in (connect, open_pool):
        with pytest.raises(DatabaseUnavailable, match="not a PostgreSQL connection string"):
            use("certainly not")
    assert db.describe("certainly not") == "(unreadable address)"


def test_a_missing_database_is_unavailable(pg_cluster: PostgresCluster) -> None:
    with pytest.raises(DatabaseUnavailable, match="does not exist"):
        connect(pg_cluster.dsn("no_such_database"))


def test_threads_share_the_pool(pool: Pool) -> None:
    results: list[object] = []

    def work() -> None:
        for _ in range(20):
            with pool.connection() as connection:
                results.append(connection.execute("SELECT 1").fetchone())

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert results == [(1,)] * 80


def test_a_pool_is_made_before_and_used_after_the_fork(empty_dsn: str) -> None:
    program = f"""
import os
from core.db import open_pool
pool = open_pool({empty_dsn!r})
def use():
    with pool.connection() as connection:
        return connection.execute("SELECT 1").fetchone() == (1,)
for _ in range(2):
    if os.fork() == 0:
        good = use()
        pool.close()
        os._exit(0 if good else 1)
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)])
assert use()
if os.fork() == 0:
    try:
        use()
    except RuntimeError as error:
        os._exit(7 if "before the fork" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.wait()[1]))
pool.close()
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split("\n")[:2] == ["[0, 0]", "7"]


def test_shared_dir_names_the_documents(shared_dir: Path) -> None:
    assert shared_dir.is_dir()
    assert os.access(shared_dir, os.R_OK)
