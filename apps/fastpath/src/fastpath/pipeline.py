"""From the spool to the database: take, score, write, mark.

Every step can be repeated: a row that exists is left alone, a file that was moved is left alone. So a batch that was
interrupted anywhere is simply done again, and a measurement leaves `incoming` only when its row is committed.
"""

import random
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum

import structlog

from core.crashpoints import crash_point
from core.ids import parse_measurement_uid
from core.spool import Spool, TornFile
from fastpath import metrics
from fastpath.config import FastpathSettings
from fastpath.document import UNVERIFIED, Document
from fastpath.fingerprint_source import FingerprintSource
from fastpath.health import DatabaseHealth
from fastpath.intake import IntakeQueue
from fastpath.process import process
from fastpath.row import Row, fallback_row
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

ROW_REFUSED = "row_refused"
"""The reason in the row of a measurement whose full row the database refused."""

IDLE_S = 0.5
"""Seconds after which an idle worker looks whether it should stop."""


class Kind(StrEnum):
    """What became of one measurement when it was read and scored."""

    ROW = "row"
    DISCARDED = "discarded"
    REJECTED = "rejected"
    TORN = "torn"
    MISSING = "missing"
    UNREADABLE = "unreadable"


QUARANTINED = (Kind.REJECTED, Kind.TORN)
"""The kinds that are set aside; their values are the reason classes of the metric."""


@dataclass(frozen=True, slots=True)
class Scored:
    """One measurement after scoring: `row` for kind ROW, `reason` (a sentence or a code) for the others."""

    uid: str
    kind: Kind
    reason: str = ""
    row: Row | None = None


class Scorer:
    """Reads measurements from the spool and scores them; the part that moves into a process per core."""

    def __init__(self, spool: Spool, fingerprints: FingerprintSource) -> None:
        """Score what lies in `spool` with the newest matcher of `fingerprints`."""
        self._spool = spool
        self._fingerprints = fingerprints

    @property
    def ready(self) -> bool:
        """Whether fingerprints are loaded; without them nothing may be scored."""
        return self._fingerprints.loaded

    def score_batch(self, uids: Sequence[str]) -> list[Scored]:
        """Return one result per uid, in order. Never raises for what a measurement contains."""
        return [self._timed(uid) for uid in uids]

    def _timed(self, uid: str) -> Scored:
        started = time.perf_counter()
        scored = self._score(uid)
        metrics.SCORE_SECONDS.observe(time.perf_counter() - started)
        return scored

    def _score(self, uid: str) -> Scored:
        try:
            record = self._spool.read(uid)
        except TornFile as error:
            return Scored(uid, Kind.TORN, str(error))
        except OSError as error:
            log.error("measurement not readable", uid=uid, error=str(error))
            return Scored(uid, Kind.UNREADABLE, str(error))
        if record is None:
            return Scored(uid, Kind.MISSING)
        outcome = process(uid, record.body, self._fingerprints.matcher, report_id=record.report_id or None)
        reason = outcome.reason or ""
        if reason.startswith("internal_error:"):
            metrics.UNHANDLED.labels("scorer").inc()
            log.error("scorer failed", uid=uid, reason=reason)
        return Scored(uid, Kind(outcome.kind), reason, outcome.row)


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


class Worker(threading.Thread):
    """A thread that takes batches from the queue until it is asked to stop."""

    def __init__(
        self,
        name: str,
        scorer: Scorer,
        writer: Writer,
        spool: Spool,
        queue: IntakeQueue,
        stop: threading.Event,
        settings: FastpathSettings,
    ) -> None:
        """Prepare the thread; every worker has a scorer and a writer of its own."""
        super().__init__(name=name, daemon=True)
        self._scorer = scorer
        self._writer = writer
        self._spool = spool
        self._queue = queue
        self._stop_event = stop
        self._settings = settings
        self._writer.on_attempt = self._show_life
        self.beat = time.monotonic()
        """When this worker last showed that it is alive, on the monotonic clock."""

    def run(self) -> None:
        """Work until asked to stop; the batch in hand is finished, or given up when the database is away."""
        try:
            self._work_until_stopped()
        finally:
            self._writer.close()

    def _work_until_stopped(self) -> None:
        while not self._stop_event.is_set():
            self._show_life()
            if not self._scorer.ready:
                self._stop_event.wait(IDLE_S)
                continue
            uids = self._queue.take(self._settings.batch_rows, self._settings.batch_linger_s, IDLE_S)
            if uids:
                self._work(uids)

    def _show_life(self) -> None:
        self.beat = time.monotonic()

    def _work(self, uids: list[str]) -> None:
        try:
            self.process_batch(uids)
        except Stopping:
            pass
        except Exception:
            metrics.UNHANDLED.labels("worker").inc()
            log.exception("batch failed, the next sweep tries it again", measurements=len(uids))
            self._stop_event.wait(1.0)
        finally:
            self._queue.done(uids)

    def process_batch(self, uids: Sequence[str]) -> None:
        """Score, write and mark the given measurements. Raises Stopping."""
        started = time.perf_counter()
        results = self._scorer.score_batch(uids)
        crash_point("fastpath.after_score")
        if self._settings.write_to_db:
            self._keep(results)
        else:
            metrics.MEASUREMENTS.labels("not_written").inc(len(results))
        metrics.BATCH_ROWS.observe(len(uids))
        metrics.BATCH_SECONDS.observe(time.perf_counter() - started)

    def _keep(self, results: Sequence[Scored]) -> None:
        written = self._writer.write([scored.row for scored in results if scored.row is not None])
        crash_point("fastpath.after_commit")
        discarded = [scored.uid for scored in results if scored.kind is Kind.DISCARDED]
        self._mark([*written.new, *written.fallbacks, *written.duplicates, *discarded])
        crash_point("fastpath.after_mark")
        for uid, reason in written.refused:
            self._quarantine(uid, "refused", reason)
        for scored in results:
            if scored.kind in QUARANTINED:
                self._quarantine(scored.uid, scored.kind.value, scored.reason)
        _count(results, written, discarded)

    def _mark(self, uids: Sequence[str]) -> None:
        try:
            self._spool.mark_scored(uids)
        except OSError as error:  # their rows are committed; the next sweep finds the files and tries again
            log.error("measurements not marked as scored", measurements=len(uids), error=str(error))

    def _quarantine(self, uid: str, reason_class: str, reason: str) -> None:
        try:
            self._spool.quarantine(uid, reason)
        except OSError as error:
            log.error("measurement not quarantined", uid=uid, reason=reason, error=str(error))
            return
        metrics.QUARANTINED.labels(reason_class).inc()
        metrics.MEASUREMENTS.labels("quarantined").inc()
        log.warning("measurement quarantined", uid=uid, reason=reason)


def _count(results: Sequence[Scored], written: Written, discarded: Sequence[str]) -> None:
    metrics.MEASUREMENTS.labels("row").inc(len(written.new))
    metrics.MEASUREMENTS.labels("fallback").inc(len(written.fallbacks))
    metrics.MEASUREMENTS.labels("duplicate").inc(len(written.duplicates))
    metrics.MEASUREMENTS.labels("discarded").inc(len(discarded))
    metrics.MEASUREMENTS.labels("missing").inc(sum(scored.kind is Kind.MISSING for scored in results))
    now = datetime.now(UTC)
    for uid in (*written.new, *written.fallbacks):
        seconds = (now - parse_measurement_uid(uid).received_at).total_seconds()
        metrics.SUBMIT_TO_ROW.observe(max(0.0, seconds))
