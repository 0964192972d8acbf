"""Whether the database answers: one state for all threads, and one log line per change."""

import threading

import structlog

from fastpath import metrics

log = structlog.get_logger(__name__)


class DatabaseHealth:
    """The last known state of the database. Safe to share between threads."""

    def __init__(self) -> None:
        """Begin as unknown, which counts as not up."""
        self._lock = threading.Lock()
        self._up: bool | None = None

    @property
    def up(self) -> bool:
        """Whether the database answered the last time it was asked."""
        return self._up is True

    def answered(self) -> None:
        """Note that the database answered."""
        with self._lock:
            if self._up is False:
                log.info("database answers again")
            self._up = True
            metrics.DATABASE_UP.set(1)

    def failed(self, error: str) -> None:
        """Note that the database did not answer, and why."""
        with self._lock:
            if self._up is not False:
                log.error("database does not answer, measurements wait in the spool", error=error)
            self._up = False
            metrics.DATABASE_UP.set(0)
