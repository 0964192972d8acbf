"""From the spool to the database: take, score, write, mark.

Every step can be repeated: a row that exists is left alone, a file that was moved is left alone. So a batch that was
interrupted anywhere is simply done again, and a measurement leaves `incoming` only when its row is committed.
"""

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime
from typing import Protocol

import structlog

from core.crashpoints import crash_point
from core.ids import parse_measurement_uid
from core.spool import Spool
from fastpath import metrics
from fastpath.config import FastpathSettings
from fastpath.intake import IntakeQueue
from fastpath.score import SCORERS
from fastpath.scorer import QUARANTINED, Kind, Scored
from fastpath.slot import Finished
from fastpath.writer import ROW_REFUSED, Stopping, Writer, Written

log = structlog.get_logger(__name__)

__all__ = ["ROW_REFUSED", "Kind", "Scored", "Stopping", "Worker", "Writer"]

IDLE_S = 0.5
"""Seconds after which an idle worker looks whether it should stop."""


class Scorer(Protocol):
    """What scores; see `Slot`."""

    on_wait: Callable[[], None]

    @property
    def ready(self) -> bool:
        """Whether measurements may be scored at all."""

    def arrange(self, uids: Sequence[str]) -> list[list[str]]:
        """Return the uids in groups that are scored one after the other."""

    def begin(self, uids: Sequence[str]) -> None:
        """Ask for the results of a group."""

    def finish(self) -> Finished:
        """Return the results that were asked for."""

    def idle(self) -> None:
        """Use the time when there is nothing to score."""

    def settled(self, uid: str) -> None:
        """Note that a measurement of kind POISON was set aside."""

    def close(self) -> None:
        """Let go of everything; it may be used again afterwards."""


class Worker(threading.Thread):
    """A thread that takes batches from the queue until it is asked to stop: it writes one while the next is scored."""

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
        self._groups: deque[list[str]] = deque()
        """Groups of uids that were taken and wait to be scored."""
        self._scored: list[Scored] = []
        self._held: set[str] = set()
        self._began = 0.0
        self._writer.on_attempt = self._show_life
        self._scorer.on_wait = self._show_life
        self.beat = time.monotonic()
        """When this worker last showed that it is alive, on the monotonic clock."""

    def run(self) -> None:
        """Work until asked to stop; what is in hand is finished, or given up when the database is away."""
        try:
            while not self._stop_event.is_set():
                self._show_life()
                self._round()
            self._last_round()
        finally:
            self._scorer.close()
            self._writer.close()

    def process_batch(self, uids: Sequence[str]) -> None:
        """Score, write and mark the given measurements. Raises Stopping."""
        self._hold(uids)
        while self._groups or self._scored:
            self._step()

    def _show_life(self) -> None:
        self.beat = time.monotonic()

    def _round(self) -> None:
        try:
            if not self._groups and self._scorer.ready:
                self._hold(self._take())
            if self._groups or self._scored:
                self._step()
            else:
                self._scorer.idle()
                if not self._scorer.ready:
                    self._stop_event.wait(IDLE_S)
        except Stopping:
            pass
        except Exception:
            metrics.UNHANDLED.labels("worker").inc()
            log.exception("batch failed, the next sweep tries it again", measurements=len(self._held))
            self._give_up()
            self._stop_event.wait(1.0)

    def _last_round(self) -> None:
        """Write what is scored already."""
        self._groups.clear()
        try:
            if self._scored:
                self._step()
        except Stopping:
            pass
        except Exception:
            metrics.UNHANDLED.labels("worker").inc()
            log.exception("batch failed, the next start tries it again", measurements=len(self._held))

    def _take(self) -> list[str]:
        if self._scored and len(self._queue) < self._settings.batch_rows:
            return []  # there is no backlog: what is scored goes first, then a batch of what has come by then
        return self._queue.take(self._settings.batch_rows, self._settings.batch_linger_s, IDLE_S)

    def _hold(self, uids: Sequence[str]) -> None:
        if uids:
            self._held.update(uids)
            self._groups.extend(self._scorer.arrange(uids))

    def _release(self, uids: Iterable[str]) -> None:
        uids = list(uids)
        self._queue.done(uids)
        self._held.difference_update(uids)

    def _give_up(self) -> None:
        """Leave everything in hand to the next sweep."""
        self._scorer.close()
        self._groups.clear()
        self._scored = []
        self._release(self._held)

    def _step(self) -> None:
        """Have one group scored, and write in the meantime what was scored before. Raises Stopping."""
        group = self._groups.popleft() if self._groups else []
        began = time.perf_counter()
        if group:
            self._scorer.begin(group)
        if self._scored:
            self._keep(self._scored)
            self._scored = []
        if group:
            finished = self._scorer.finish()
            self._groups.extendleft(reversed(finished.left))
            self._scored, self._began = finished.results, began
            crash_point("fastpath.after_score")

    def _keep(self, results: Sequence[Scored]) -> None:
        _observe(results)
        if self._settings.write_to_db:
            self._write(results)
        else:
            metrics.MEASUREMENTS.labels("not_written").inc(len(results))
        self._release(scored.uid for scored in results)
        metrics.BATCH_ROWS.observe(len(results))
        metrics.BATCH_SECONDS.observe(time.perf_counter() - self._began)

    def _write(self, results: Sequence[Scored]) -> None:
        written = self._writer.write([scored.row for scored in results if scored.row is not None])
        crash_point("fastpath.after_commit")
        discarded = [scored.uid for scored in results if scored.kind is Kind.DISCARDED]
        self._mark([*written.new, *written.fallbacks, *written.duplicates, *discarded])
        crash_point("fastpath.after_mark")
        for uid, reason in written.refused:
            self._quarantine(uid, "refused", reason)
        for scored in results:
            if scored.kind in QUARANTINED:
                moved = self._quarantine(scored.uid, scored.kind.value, scored.reason)
                if moved and scored.kind is Kind.POISON:
                    self._scorer.settled(scored.uid)
        _count(results, written, discarded)

    def _mark(self, uids: Sequence[str]) -> None:
        try:
            self._spool.mark_scored(uids)
        except OSError as error:  # their rows are committed; the next sweep finds the files and tries again
            log.error("measurements not marked as scored", measurements=len(uids), error=str(error))

    def _quarantine(self, uid: str, reason_class: str, reason: str) -> bool:
        """Set a measurement aside; return whether it is. If not it stays where it is, and a later sweep tries again."""
        try:
            moved = self._spool.quarantine(uid, reason)
        except OSError as error:
            log.error("measurement not quarantined", uid=uid, reason=reason, error=str(error))
            return False
        if not moved:
            log.error("measurement not quarantined: the quarantine is full", uid=uid, reason=reason)
            return False
        metrics.QUARANTINED.labels(reason_class).inc()
        metrics.MEASUREMENTS.labels("quarantined").inc()
        log.warning("measurement quarantined", uid=uid, reason=reason)
        return True


def _observe(results: Sequence[Scored]) -> None:
    """Take note of what scoring took and of what went wrong in it."""
    for scored in results:
        if scored.row is not None:
            name = scored.row.test_name
            metrics.SCORE_SECONDS.labels(name if name in SCORERS else "other").observe(scored.seconds)
        elif scored.kind is Kind.UNREADABLE:
            log.error("measurement not readable", uid=scored.uid, error=scored.reason)
        if scored.match_seconds:
            metrics.MATCH_SECONDS.observe(scored.match_seconds)
        metrics.SCORED_BYTES.inc(scored.size)
        if scored.reason.startswith("internal_error:"):
            metrics.UNHANDLED.labels("scorer").inc()
            log.error("scorer failed", uid=scored.uid, reason=scored.reason)


def _count(results: Sequence[Scored], written: Written, discarded: Sequence[str]) -> None:
    metrics.MEASUREMENTS.labels("row").inc(len(written.new))
    metrics.MEASUREMENTS.labels("fallback").inc(len(written.fallbacks))
    metrics.MEASUREMENTS.labels("duplicate").inc(len(written.duplicates))
    metrics.MEASUREMENTS.labels("discarded").inc(len(discarded))
    metrics.MEASUREMENTS.labels("missing").inc(sum(scored.kind is Kind.MISSING for scored in results))
    new = set(written.new)
    observed = sum(scored.uid in new for scored in results if scored.row is not None and scored.row.observation)
    metrics.OPENVPN_OBSERVATIONS.inc(observed)
    now = datetime.now(UTC)
    for uid in (*written.new, *written.fallbacks):
        seconds = (now - parse_measurement_uid(uid).received_at).total_seconds()
        metrics.SUBMIT_TO_ROW.observe(max(0.0, seconds))
