"""A query for a client of the real server ends when the client leaves, or when its time is up.

A lock on the table makes any query slow.
"""

import json
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from tests.slow_queries import eventually, locked, waiting

LIST = "/api/v1/measurements?limit=1&since=2024-01-01&until=2024-01-02"
SOURCE = "127.0.0.77"


@contextmanager
def asked(server: Any, path: str = LIST) -> Iterator[socket.socket]:
    """A request from an address of its own that waits for its answer."""
    address = ("127.0.0.1", server.port)
    with socket.create_connection(address, timeout=60, source_address=(SOURCE, 0)) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        yield connection


def test_a_client_that_leaves_ends_its_query(api: Any, module_dsn: str) -> None:
    with locked(module_dsn):
        with asked(api):
            eventually(lambda: waiting(module_dsn) == 1, "the query does not wait")
        left_at = time.monotonic()
        eventually(lambda: waiting(module_dsn) == 0, "the query goes on for nobody")
        assert time.monotonic() - left_at < 8, "the time limit of the query ended it"
    assert api.metric("api_queries_cancelled_total") == 1
    assert api.metric("api_database_failures_total", kind="timeout") == 0
    log = api.log()
    assert "query cancelled" in log
    assert SOURCE not in log
    assert "Traceback" not in log
    assert api.http.get(LIST).status_code == 200


def test_many_clients_that_leave_keep_no_place_for_readers(api: Any, module_dsn: str) -> None:
    """More than there are places, one after the other, while nothing is answered."""
    before = api.metric("api_queries_cancelled_total")
    with locked(module_dsn):
        for _ in range(10):
            with asked(api):
                eventually(lambda: waiting(module_dsn) >= 1, "no place was left")
            eventually(lambda: waiting(module_dsn) == 0, "the query goes on for nobody")
    assert api.metric("api_queries_cancelled_total") == before + 10
    assert api.http.get(LIST).status_code == 200


def test_a_client_that_waits_gets_its_answer(api: Any, module_dsn: str) -> None:
    with asked(api) as connection:
        with locked(module_dsn):
            pass
        assert connection.recv(65536).startswith(b"HTTP/1.1 200")
    with locked(module_dsn), asked(api) as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")  # ahead of its turn; no sign of leaving
        eventually(lambda: waiting(module_dsn) == 1, "the query does not wait")
        time.sleep(1)
        assert waiting(module_dsn) == 1


def test_a_query_whose_time_is_up_is_a_504_in_json_and_the_next_is_answered(
    start_api: Callable[..., Any], module_dsn: str
) -> None:
    server = start_api(module_dsn, statement_timeout_ms=700, database_connections=1)
    with locked(module_dsn):
        started = time.monotonic()
        response = server.http.get(LIST)
        took_s = time.monotonic() - started
        assert waiting(module_dsn) == 0
    assert response.status_code == 504
    assert 0.7 <= took_s < 10, "no query may take longer than the operator allows"
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["access-control-allow-origin"] == "*"
    assert "took too long" in json.loads(response.text)["error"]
    assert server.http.get(LIST).status_code == 200
