"""Clients that leave while the database works for them: their queries are cancelled.

People close pages and scripts run into their own time limits; without this their queries would go on, to the end or to
the time limit, for nobody, and several that follow each other would occupy every place for readers. One background
thread per worker process looks at the connections of those whose query has run for a while.

A client has left when its connection is closed or reset, also for writing alone: HTTP has no use for a client that
will not write any more but waits for a long time. Requests that it has sent ahead are no sign of that.
"""

import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import structlog
from psycopg import Connection

from api.metrics import QUERIES_CANCELLED

PATIENCE_S = 0.2
"""How long a query runs before its client is looked at, in seconds; most are through by then."""

_EVERY_S = 0.25
_CANCEL_TIMEOUT_S = 2.0
_LEFT = select.POLLRDHUP | select.POLLHUP | select.POLLERR | select.POLLNVAL

log = structlog.get_logger(__name__)


class Watched:
    """One query and the connection of the client that waits for it."""

    def __init__(self, connection: Connection[Any], client: socket.socket) -> None:
        """Take the database connection that works for the client on the other."""
        self._connection = connection
        self._client = client
        self._since = time.monotonic()
        self._lock = threading.Lock()
        self._finished = False
        self._in_doubt = False
        self._cancelled = False
        self.client_left = False

    @property
    def is_due(self) -> bool:
        """Whether the query has run long enough to look at its client."""
        return time.monotonic() - self._since >= PATIENCE_S

    @property
    def has_left(self) -> bool:
        """Whether the client has closed its connection."""
        poll = select.poll()
        try:
            poll.register(self._client, select.POLLRDHUP)
        except ValueError:  # closed on our side: the request ended this moment
            return False
        return any(event & _LEFT for _, event in poll.poll(0))

    def cancel(self) -> None:
        """Ask the database to stop the query, unless it has finished; the lock keeps the next one from being hit.

        The server has given the signal by the time this returns. If it lies between two statements then it is ignored,
        hence this is called again for as long as the query runs.
        """
        with self._lock:
            if self._finished:
                return
            self.client_left = True  # before the query ends, whose thread looks at it then
            try:
                self._connection.cancel_safe(timeout=_CANCEL_TIMEOUT_S)
            except psycopg.Error as error:
                self._in_doubt = True
                log.warning("query not cancelled", error=type(error).__name__)
                return
            if not self._cancelled:
                self._cancelled = True
                QUERIES_CANCELLED.inc()
                log.info("query cancelled", reason="client left", seconds=round(time.monotonic() - self._since, 1))

    def finish(self) -> None:
        """Note that the query ended. Waits for a cancellation that is being sent."""
        with self._lock:
            self._finished = True
            if self._in_doubt:
                # A cancellation may still be on its way; whoever used the connection next would be hit by it.
                self._connection.close()


class Disconnects:
    """Watches the clients of one worker process."""

    def __init__(self) -> None:
        """Start nothing yet: the thread begins with the first query, after the fork."""
        self._running: set[Watched] = set()
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    @contextmanager
    def watched(self, connection: Connection[Any], client: socket.socket | None) -> Iterator[Watched | None]:
        """Cancel what `connection` runs in the block when `client` leaves; yields None when there is no client."""
        if client is None:
            yield None
            return
        query = Watched(connection, client)
        with self._changed:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="disconnects", daemon=True)
                self._thread.start()
            self._running.add(query)
            self._changed.notify()
        try:
            yield query
        finally:
            with self._changed:
                self._running.discard(query)
            query.finish()

    def _watch(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._running)
            time.sleep(_EVERY_S)
            with self._changed:
                due = [query for query in self._running if query.is_due]
            for query in due:
                try:
                    if query.has_left:
                        query.cancel()
                except Exception:  # the thread must outlive a defect: without it no query ever ends with its client
                    log.exception("client not looked at; its query goes on")
