"""Keeps threads free for submissions: readers that wait for the database may use only part of a worker's threads.

Measurements must be taken in while the database is slow or away. Readers wait for it for seconds, and without a bound a
few of them per second would occupy every thread. Nor do more of them ask the database than there are connections for:
whoever found none would be told that the database is away, and the log would say so, though it is only busy.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import ApiError
from api.metrics import DATABASE_FAILURES

SHARE = 0.75
"""Part of the threads that may work for readers at the same time."""

RESERVED = 2
"""Connections of the pool that are for others than readers' queries: test lists of probes, and where bodies are."""

_WAIT_S = 0.1  # enough for a burst of ordinary queries to pass; long waits would themselves occupy threads
TURN_WAIT_S = 1.0
"""How long readers wait for a turn, in seconds; they occupy threads of readers alone meanwhile."""

_TOO_MANY = "Too many queries at the moment. Try again soon."


class ReadSlots:
    """A bounded number of readers at the same time in one worker."""

    def __init__(self, threads: int, connections: int) -> None:
        """Take the number of threads of the worker, and of connections of its pool."""
        places = max(1, int(threads * SHARE))
        self._places = threading.BoundedSemaphore(places)
        self._queries = threading.BoundedSemaphore(max(1, min(places, connections - RESERVED)))

    @contextmanager
    def place(self) -> Iterator[None]:
        """Hold a thread for a reader who waits for something else than a query. Raises ApiError 503 without one."""
        with taken(self._places, _WAIT_S, _TOO_MANY):
            yield

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a thread, and a connection's worth, for the duration of a query. Raises ApiError 503 without them."""
        with self.place(), taken(self._queries, TURN_WAIT_S, _TOO_MANY):
            yield


@contextmanager
def taken(slots: threading.BoundedSemaphore, wait_s: float, busy: str) -> Iterator[None]:
    """Hold one of the slots. Raises ApiError 503 with the text `busy` when there is none within `wait_s` seconds."""
    if not slots.acquire(timeout=wait_s):
        DATABASE_FAILURES.labels("busy").inc()
        raise ApiError(503, busy, headers={"Retry-After": "10"})
    try:
        yield
    finally:
        slots.release()
