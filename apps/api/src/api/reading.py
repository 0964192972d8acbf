"""Reads of the database for requests: each query has a bound, and what is too much is told how to ask for less.

Every query that a reader causes goes through `Reader.rows`; what is read for test lists and to find bodies has short
bounds of its own. Requests that make several queries share the time of a `Budget`:

    rows = services().reader.rows(statement, values, timeout_s=5, narrow="Narrow it with since and until.")

    budget = services().reader.budget(10)
    for month in months:
        rows += budget.rows(statement, [month])

A client that leaves ends its query, see `disconnects`. Why all this: docs/adr/0015-reads-are-bounded.md.
"""

import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

from flask import has_request_context, request
from psycopg import errors as pg_errors
from psycopg.rows import dict_row
from psycopg.sql import Composed

from api.disconnects import Disconnects
from api.errors import ApiError, too_slow
from api.metrics import DATABASE_FAILURES
from api.read_slots import ReadSlots
from core.db import Pool

Row = dict[str, Any]

NARROW = "Narrow it with since, until, probe_cc or probe_asn."
DEFAULT_TIMEOUT_S = 10.0

CLIENT_LEFT = 499
"""Status of a request whose client has left; nginx calls it the same in its log, and nobody else gets to see it."""


class Reader:
    """Runs queries for requests, in the slots for readers."""

    def __init__(self, pool: Pool, slots: ReadSlots, *, longest_s: float = 28.0) -> None:
        """Take the pool of this worker process, its slots for readers, and the bound of every query, in seconds."""
        self._pool = pool
        self._slots = slots
        self._longest_s = longest_s
        self._disconnects = Disconnects()

    def budget(self, timeout_s: float = DEFAULT_TIMEOUT_S, *, narrow: str = NARROW) -> "Budget":
        """Return the time that all queries of one request may take together, in seconds; it runs from now on."""
        return Budget(self, timeout_s, narrow)

    def rows(
        self,
        statement: str | Composed,
        values: Sequence[Any] | Mapping[str, Any] = (),
        *,
        timeout_s: float = DEFAULT_TIMEOUT_S,
        narrow: str = NARROW,
    ) -> list[Row]:
        """Return the rows of one statement as dictionaries.

        Args:
            statement: SQL with placeholders; text must consist of constants only.
            values: what the placeholders stand for.
            timeout_s: how long the database may work on it, in seconds; never longer than `longest_s`.
            narrow: one or more sentences that say how to ask for less; the error for a query that takes too long.

        Raises:
            ApiError: 504 when it takes longer than `timeout_s`, 503 when too many readers are at work, 499 when the
                client has left meanwhile.
            DatabaseUnavailable: the database is away.
            psycopg.Error: the query fails.
        """
        bound_ms = max(1, int(min(timeout_s, self._longest_s) * 1000))  # 0 would mean no bound at all
        query = statement.encode() if isinstance(statement, str) else statement
        with (
            self._slots.one(),
            self._pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            cursor.execute(f"SET LOCAL statement_timeout = {bound_ms}")
            with self._disconnects.watched(connection, _client()) as watched:
                try:
                    return cursor.execute(query, values).fetchall()
                except pg_errors.QueryCanceled:
                    if watched is not None and watched.client_left:
                        raise ApiError(CLIENT_LEFT, "The client has left.") from None
                    DATABASE_FAILURES.labels("timeout").inc()
                    raise too_slow(narrow) from None


class Budget:
    """The time that the queries of one request may take together."""

    def __init__(self, reader: Reader, timeout_s: float, narrow: str) -> None:
        """Begin now. Use `Reader.budget`."""
        self._reader = reader
        self._ends = time.monotonic() + timeout_s
        self._narrow = narrow

    @property
    def remaining_s(self) -> float:
        """Seconds left, 0 when it is used up."""
        return max(0.0, self._ends - time.monotonic())

    def rows(
        self, statement: str | Composed, values: Sequence[Any] | Mapping[str, Any] = (), *, narrow: str | None = None
    ) -> list[Row]:
        """Return the rows of one statement; it may take the time that is left. Raises what `Reader.rows` does."""
        told = self._narrow if narrow is None else narrow
        remaining_s = self.remaining_s
        if remaining_s == 0:
            DATABASE_FAILURES.labels("timeout").inc()
            raise too_slow(told)
        return self._reader.rows(statement, values, timeout_s=remaining_s, narrow=told)


def _client() -> socket.socket | None:
    """Return the connection to the client of the current request, None when there is none to look at."""
    if not has_request_context():
        return None
    client = request.environ.get("gunicorn.socket")
    return client if isinstance(client, socket.socket) else None
