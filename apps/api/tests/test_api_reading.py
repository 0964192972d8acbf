"""Queries of readers: bounded in time, told how to ask for less, and ended when nobody waits for them any more."""

import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg.conninfo import conninfo_to_dict
from tests.slow_queries import eventually

from api import disconnects
from api.errors import ApiError
from api.metrics import DATABASE_FAILURES, QUERIES_CANCELLED
from api.read_slots import ReadSlots
from api.reading import Reader
from core.db import Pool, open_pool

SLEEP = "SELECT pg_sleep(%s)"
FOREVER = [30]
NARROW = "Give fewer months."


@pytest.fixture
def pool(module_dsn: str) -> Iterator[Pool]:
    """One connection, so that whatever a query does to it meets the next one."""
    with closing(open_pool(module_dsn, max_size=1, application_name="reading")) as pool:
        yield pool


@pytest.fixture
def reader(pool: Pool) -> Reader:
    return Reader(pool, ReadSlots(8, 8))


def refused(ask: Callable[[], object]) -> ApiError:
    with pytest.raises(ApiError) as caught:
        ask()
    return caught.value


def at_work(dsn: str) -> int:
    """How many queries the server works on for the pool."""
    with psycopg.connect(dsn) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'reading' AND state = 'active'"
        ).fetchone() or (0,)
    return int(count)


def backend(reader: Reader) -> int:
    return int(reader.rows("SELECT pg_backend_pid() AS pid")[0]["pid"])


def test_rows_are_dictionaries(reader: Reader) -> None:
    assert reader.rows("SELECT 1 AS one, %s::text AS given", ["x"]) == [{"one": 1, "given": "x"}]
    assert reader.rows("SELECT %(named)s::int AS named", {"named": 2}) == [{"named": 2}]


def test_a_query_that_takes_too_long_is_ended_and_its_connection_goes_on(reader: Reader, module_dsn: str) -> None:
    before, process = DATABASE_FAILURES.labels("timeout")._value.get(), backend(reader)
    started = time.monotonic()
    error = refused(lambda: reader.rows(SLEEP, FOREVER, timeout_s=0.3, narrow=NARROW))
    assert time.monotonic() - started < 10
    assert error.status == 504
    assert error.body == {"error": f"Database query error: the query took too long. {NARROW}"}
    assert DATABASE_FAILURES.labels("timeout")._value.get() == before + 1
    assert at_work(module_dsn) == 0
    assert backend(reader) == process
    (setting,) = reader.rows("SELECT current_setting('statement_timeout') AS bound", timeout_s=7)
    assert setting["bound"] == "7s", "the bound of one query is not that of the next"


def test_no_query_may_take_longer_than_the_operator_allows(pool: Pool) -> None:
    reader = Reader(pool, ReadSlots(8, 8), longest_s=0.3)
    assert refused(lambda: reader.rows(SLEEP, FOREVER, timeout_s=600)).status == 504


def test_a_bound_next_to_nothing_is_one(reader: Reader) -> None:
    assert refused(lambda: reader.rows(SLEEP, FOREVER, timeout_s=0.000001)).status == 504


def test_the_queries_of_a_request_share_their_time(reader: Reader) -> None:
    budget = reader.budget(1.2, narrow=NARROW)
    assert 1 < budget.remaining_s <= 1.2
    assert budget.rows("SELECT 1 AS one") == [{"one": 1}]
    budget.rows(SLEEP, [0.5])
    assert budget.remaining_s < 0.7
    error = refused(lambda: budget.rows(SLEEP, FOREVER))
    assert error.status == 504
    assert NARROW in str(error)
    assert budget.remaining_s < 0.3
    time.sleep(budget.remaining_s)
    before = DATABASE_FAILURES.labels("timeout")._value.get()
    assert "Other words." in str(refused(lambda: budget.rows("SELECT 1", narrow="Other words.")))
    assert DATABASE_FAILURES.labels("timeout")._value.get() == before + 1


class Client:
    """A client with a connection to the server, for which a thread runs a query."""

    def __init__(self, reader: Reader) -> None:
        with socket.create_server(("127.0.0.1", 0)) as listening:
            self.end = socket.create_connection(listening.getsockname())
            self._server_end, _ = listening.accept()
        self._reader = reader
        self.result: Any = None
        self._thread: threading.Thread | None = None

    def ask(self, statement: str = SLEEP, values: list[Any] = FOREVER) -> "Client":
        self._thread = threading.Thread(target=self._run, args=(statement, values))
        self._thread.start()
        return self

    def wait(self) -> Any:
        """What came of it: rows or the error."""
        assert self._thread is not None
        self._thread.join(60)
        assert not self._thread.is_alive()
        self._server_end.close()
        return self.result

    def _run(self, statement: str, values: list[Any]) -> None:
        with Flask("asked").test_request_context(environ_overrides={"gunicorn.socket": self._server_end}):
            try:
                self.result = self._reader.rows(statement, values, timeout_s=20, narrow=NARROW)
            except (ApiError, psycopg.Error) as error:
                self.result = error


def closed(end: socket.socket) -> None:
    end.close()


def reset(end: socket.socket) -> None:
    end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    end.close()


def closed_after_another_request(end: socket.socket) -> None:
    end.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    end.close()


def no_more_written(end: socket.socket) -> None:
    end.shutdown(socket.SHUT_WR)


@pytest.mark.parametrize("leave", [closed, reset, closed_after_another_request, no_more_written])
def test_a_client_that_leaves_ends_its_query(
    reader: Reader, module_dsn: str, leave: Callable[[socket.socket], None]
) -> None:
    process, before = backend(reader), QUERIES_CANCELLED._value.get()
    client = Client(reader).ask()
    eventually(lambda: at_work(module_dsn) == 1, "the query did not begin")
    left_at = time.monotonic()
    leave(client.end)
    eventually(lambda: at_work(module_dsn) == 0, "the query went on")
    assert time.monotonic() - left_at < 10, "without a look at the client it takes 20 s"
    error = client.wait()
    client.end.close()
    assert isinstance(error, ApiError)
    assert error.status == 499
    assert QUERIES_CANCELLED._value.get() == before + 1
    assert backend(reader) == process, "the connection is as good as before"


def test_a_client_that_waits_gets_its_answer(reader: Reader) -> None:
    client = Client(reader)
    client.end.sendall(b"GET /next HTTP/1.1\r\nHost: x\r\n\r\n")
    with client.end:
        assert client.ask("SELECT 1 AS one FROM pg_sleep(%s)", [1.0]).wait() == [{"one": 1}]


def test_a_query_that_is_cancelled_by_others_took_too_long(reader: Reader, module_dsn: str) -> None:
    process = backend(reader)
    client = Client(reader).ask()
    eventually(lambda: at_work(module_dsn) == 1, "the query did not begin")
    with client.end, psycopg.connect(module_dsn) as administrator:
        administrator.execute("SELECT pg_cancel_backend(%s)", [process])
        error = client.wait()
    assert isinstance(error, ApiError)
    assert error.status == 504


def test_a_cancellation_never_hits_the_next_query(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients are gone before their queries begin, which end at about the time when they are cancelled."""
    monkeypatch.setattr(disconnects, "PATIENCE_S", 0.0)
    monkeypatch.setattr(disconnects, "_EVERY_S", 0.0005)
    before = QUERIES_CANCELLED._value.get()
    finished = 0
    for number in range(400):
        client = Client(reader)
        client.end.close()
        result = client.ask("SELECT 1 AS one FROM pg_sleep(%s)", [number % 20 / 5000]).wait()
        finished += result == [{"one": 1}]
        assert reader.rows("SELECT 1 AS one FROM pg_sleep(0.001)") == [{"one": 1}]
    cancelled = QUERIES_CANCELLED._value.get() - before
    assert finished > 20, "no query ended by itself: nothing was tried"
    assert cancelled > 20, "no query was cancelled: nothing was tried"


def test_a_defect_while_clients_are_looked_at_does_not_end_the_watch(
    reader: Reader, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked = threading.Event()

    def defective(_query: object) -> bool:
        looked.set()
        raise RuntimeError("odd")

    with monkeypatch.context() as patch:
        patch.setattr(disconnects.Watched, "has_left", property(defective))
        client = Client(reader).ask(SLEEP, [2])
        assert looked.wait(20)
        assert client.wait() == [{"pg_sleep": ""}], "its query goes on"
        client.end.close()
    client = Client(reader).ask()
    eventually(lambda: at_work(module_dsn) == 1, "the query does not run")
    client.end.close()
    assert client.wait().status == 499
    assert at_work(module_dsn) == 0


@pytest.mark.parametrize(
    ("threads", "connections", "at_once"), [(16, 8, 6), (16, 100, 12), (4, 8, 3), (16, 3, 1), (16, 1, 1), (1, 8, 1)]
)
def test_no_more_readers_ask_than_there_are_connections_for(threads: int, connections: int, at_once: int) -> None:
    slots = ReadSlots(threads, connections)
    before = DATABASE_FAILURES.labels("busy")._value.get()
    with ExitStack() as held:
        for _ in range(at_once):
            held.enter_context(slots.one())
        error = refused(lambda: held.enter_context(slots.one()))
        assert (error.status, "Too many queries" in str(error)) == (503, True)
        assert DATABASE_FAILURES.labels("busy")._value.get() == before + 1
    with slots.one():
        pass


def test_too_many_readers_are_never_told_that_the_database_is_away(module_dsn: str) -> None:
    with closing(open_pool(module_dsn, max_size=3, checkout_timeout_s=0.5, application_name="reading")) as pool:
        reader = Reader(pool, ReadSlots(16, 3))
        clients = [Client(reader).ask(SLEEP, [4]) for _ in range(4)]
        found = [client.wait() for client in clients]
    for client in clients:
        client.end.close()
    refusals = [each for each in found if isinstance(each, ApiError)]
    assert [error.status for error in refusals] == [503] * 3
    assert all("Too many queries" in str(error) for error in refusals)


def test_a_connection_whose_cancellation_is_in_doubt_is_not_used_again(reader: Reader, module_dsn: str) -> None:
    process = backend(reader)
    where = Path(str(conninfo_to_dict(module_dsn)["host"])) / ".s.PGSQL.5432"
    client = Client(reader).ask(SLEEP, [1.5])
    eventually(lambda: at_work(module_dsn) == 1, "the query did not begin")
    aside = where.rename(where.with_name("aside"))
    try:
        client.end.close()
        client.wait()
    finally:
        aside.rename(where)
    assert backend(reader) != process


@pytest.mark.parametrize(
    ("setting", "statement"),
    [
        ("lock_timeout", "SELECT 1 FROM fastpath LIMIT 1"),
        ("temp_file_limit", "SELECT g FROM generate_series(1, 1000000) AS g ORDER BY -g"),
    ],
)
def test_what_the_server_refuses_for_the_moment_is_a_503(
    module_dsn: str, module_app: Flask, setting: str, statement: str
) -> None:
    """These are bounds of the server, which an operator may set."""
    settings = f"{module_dsn} options='-c {setting}=100'"
    with closing(open_pool(settings, max_size=1)) as pool, psycopg.connect(module_dsn) as other:
        other.execute("LOCK TABLE fastpath IN ACCESS EXCLUSIVE MODE")
        with module_app.test_request_context():
            with pytest.raises(psycopg.OperationalError) as caught:
                Reader(pool, ReadSlots(8, 8)).rows(statement)
            response = module_app.make_response(module_app.handle_user_exception(caught.value))
    assert response.status_code == 503
    assert int(response.headers["Retry-After"]) > 0
    assert "Ask for less" in response.get_data(as_text=True)
