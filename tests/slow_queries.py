"""What tests of slow queries need: a lock on the table makes any query that reads measurements wait."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg


@contextmanager
def locked(dsn: str) -> Iterator[None]:
    """Let every query that reads measurements wait."""
    with psycopg.connect(dsn) as connection:
        connection.execute("LOCK TABLE fastpath IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def waiting(dsn: str) -> int:
    """Return how many queries wait for a lock."""
    with psycopg.connect(dsn) as connection:
        (count,) = connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        ).fetchone() or (0,)
    return int(count)


def eventually(check: Callable[[], Any], what: str, seconds: float = 30) -> Any:
    """Return the first true value of `check`; `what` is said when there is none in time."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := check():
            return found
        time.sleep(0.02)
    raise AssertionError(what)
