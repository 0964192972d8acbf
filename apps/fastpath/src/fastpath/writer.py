"""Writes rows until the database has them; finds the rows that it refuses."""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import structlog

from fastpath import metrics
from fastpath.document import UNVERIFIED, Document
from fastpath.health import DatabaseHealth
from fastpath.row import Row, fallback_row
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

ROW_REFUSED = "row_refused"
"""The reason in the row of a measurement whose full row the database refused."""


def minimal_row(row: Row) -> Row:
    """Return the least row that stands for `row`: all but the network comes from the uid, and it is a failure."""
    network = Document({"probe_asn": f"AS{row.probe_asn}"}, UNVERIFIED)
    return fallback_row(row.measurement_uid, network, ROW_REFUSED, None)


class Stopping(Exception):
    """The batch was given up; it is still in the spool."""


@dataclass(slots=True)
class Written:
    """What became of the rows of one batch."""

    new: list[str] = field(default_factory=list)
    duplicates: list[str] = field(default_factory=list)
    fallbacks: list[str] = field(default_factory=list)
    refused: list[tuple[str, str]] = field(default_factory=list)


class Writer:
    """Writes rows until the database has them, whatever it takes."""

    def __init__(
        self, store: Store, health: DatabaseHealth, stop: threading.Event, *, retry_min_s: float, retry_max_s: float
    ) -> None:
        """Write by `store`; give up only when `stop` is set. Pauses grow from `retry_min_s` to `retry_max_s`."""
        self._store = store
        self._health = health
        self._stop = stop
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self.on_attempt: Callable[[], None] = lambda: None
        """Called before each attempt: waiting for the database, however long, is not being stuck."""

    def write(self, rows: Sequence[Row]) -> Written:
        """Write rows and counters; return what became of each.

        Rows that the database refuses are found by bisection, so that the others get in: such a row is replaced by a
        minimal one, and reported as refused when even that does not fit.

        Raises:
            Stopping: the daemon stops and the database does not answer. Some rows may be written.
        """
        written = Written()
        if rows:
            self._write(rows, written)
        return written

    def close(self) -> None:
        """Close the connection to the database."""
        self._store.close()

    def _write(self, rows: Sequence[Row], written: Written) -> None:
        try:
            new = self._insert(rows)
        except RowsRefused as refusal:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write(rows[:middle], written)
                self._write(rows[middle:], written)
            else:
                self._fall_back(rows[0], refusal, written)
            return
        for row in rows:
            uid = row.measurement_uid
            (written.new if uid in new else written.duplicates).append(uid)

    def _fall_back(self, row: Row, refusal: RowsRefused, written: Written) -> None:
        uid = row.measurement_uid
        log.warning("row refused, writing a minimal one", uid=uid, error=str(refusal))
        try:
            new = self._insert([minimal_row(row)])
        except RowsRefused as error:
            written.refused.append((uid, str(error)))
            return
        (written.fallbacks if uid in new else written.duplicates).append(uid)

    def _insert(self, rows: Sequence[Row]) -> set[str]:
        """Insert in one transaction, again and again until the database answers."""
        pause = self._retry_min_s
        while True:
            self.on_attempt()
            started = time.perf_counter()
            try:
                new = self._store.insert(rows)
            except RowsRefused:
                metrics.DATABASE_ERRORS.labels("refused").inc()
                self._health.answered()
                raise
            except Conflict:
                metrics.DATABASE_ERRORS.labels("conflict").inc()
            except Unavailable as error:
                metrics.DATABASE_ERRORS.labels("unavailable").inc()
                self._health.failed(str(error))
            else:
                metrics.WRITE_SECONDS.observe(time.perf_counter() - started)
                self._health.answered()
                return new
            if self._stop.wait(pause * random.uniform(0.5, 1.0)):  # noqa: S311 jitter is no secret
                raise Stopping
            pause = min(pause * 2, self._retry_max_s)
