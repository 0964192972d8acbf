"""Keeps threads free for submissions: readers that wait for the database may use only part of a worker's threads.

Measurements must be taken in while the database is slow or away. Readers wait for it for seconds, and without a bound a
few of them per second would occupy every thread.
"""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api.errors import ApiError
from api.metrics import DATABASE_FAILURES

SHARE = 0.75
"""Part of the threads that may work for readers at the same time."""

_WAIT_S = 0.1  # enough for a burst of ordinary queries to pass; long waits would themselves occupy threads


class ReadSlots:
    """A bounded number of readers at the same time in one worker."""

    def __init__(self, threads: int) -> None:
        """Take the number of threads of the worker."""
        self._slots = threading.BoundedSemaphore(max(1, int(threads * SHARE)))

    @contextmanager
    def one(self) -> Iterator[None]:
        """Hold a slot for the duration of a query. Raises ApiError 503 when all are taken."""
        if not self._slots.acquire(timeout=_WAIT_S):
            DATABASE_FAILURES.labels("busy").inc()
            raise ApiError(503, "Too many queries at the moment. Try again soon.", headers={"Retry-After": "10"})
        try:
            yield
        finally:
            self._slots.release()
