"""The part of a rerun that is done in each of its processes: read objects, score, write rows.

Rows are collected over several objects, since most objects hold a few measurements only, and written by a thread, so
that scoring goes on while the database works. An object counts as done when all of its rows are committed.
"""

import io
import queue
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Literal, TypeVar

import msgspec

from core.crashpoints import crash_point
from core.objectstore import StoreError, StoreUnavailable
from fastpath.contents import Reader, Submission, Unreadable
from fastpath.document import Document
from fastpath.fetch import Fetcher
from fastpath.ledger import Finished
from fastpath.matcher import Matcher
from fastpath.process import Outcome, process
from fastpath.row import Row, Unidentifiable, fallback_row
from fastpath.sources import WorkObject
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

BATCH_ROWS = 2000
"""Most rows in one transaction."""

BATCH_BYTES = 8 * 1024 * 1024
"""Rows of one transaction, in bytes of their longest columns, beyond which it is written early."""

LOOK_EVERY = 64
"""Measurements after which a process looks whether it should stop, and says how far it is."""

RETRY_FOR_S = 600.0
"""Seconds for which rows are written again and again while the database does not answer."""

NOTES = 20
"""Most remarks on single measurements per task; the rest is only counted."""

WriteMode = Literal["none", "missing", "replace"]
"""What becomes of rows: nothing; written unless the measurement has one; written in place of the former one."""


T = TypeVar("T")


def patiently(action: Callable[[], T], stop: Callable[[], bool]) -> T:
    """Do something with the database, again and again while it does not answer, for RETRY_FOR_S at most.

    Raises Unavailable or Conflict, also when `stop` says that there is no sense in waiting.
    """
    deadline = time.monotonic() + RETRY_FOR_S
    pause = 0.1
    while True:
        try:
            return action()
        except (Unavailable, Conflict):
            if stop() or time.monotonic() > deadline:
                raise
        time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 jitter is no secret
        pause = min(2 * pause, 5.0)


class Stopping(Exception):
    """The rerun was asked to stop; what was not finished is left to the next one."""


class Enough(Stopping):
    """As many measurements as were asked for are scored; their rows are written."""


class Tally(msgspec.Struct):
    """What was done, by outcome, and remarks on single measurements."""

    counts: Counter[str] = msgspec.field(default_factory=Counter)
    bytes: int = 0
    notes: list[str] = msgspec.field(default_factory=list)

    def note(self, text: str) -> None:
        """Keep a remark, unless there are many."""
        if len(self.notes) < NOTES:
            self.notes.append(text)

    def take(self) -> "Tally":
        """Return what there is and begin anew."""
        taken = Tally(self.counts, self.bytes, self.notes)
        self.counts, self.bytes, self.notes = Counter(), 0, []
        return taken

    def add(self, other: "Tally") -> None:
        """Add what another tally has; remarks are not kept."""
        self.counts.update(other.counts)
        self.bytes += other.bytes


class RowWriter:
    """Writes rows from a thread of its own. `add` and `flush` raise what went wrong in it."""

    def __init__(self, store: Store, mode: WriteMode, stop: Callable[[], bool]) -> None:
        """Write by `store`, which belongs to the thread from now on; `stop` says that waiting has no sense any more."""
        self._store = store
        self._mode = mode
        self._stop = stop
        self._rows: list[Row] = []
        self._size = 0
        self._verified = True
        self._queue: queue.Queue[tuple[list[Row], bool] | None] = queue.Queue(1)
        self._error: BaseException | None = None
        self._done: queue.SimpleQueue[Tally] = queue.SimpleQueue()
        self.seconds = 0.0
        """Time spent in transactions."""
        self._thread = threading.Thread(target=self._work, name="writer", daemon=True)
        self._thread.start()

    def written(self) -> Tally:
        """Return what was written since this was last asked."""
        tally = Tally()
        while not self._done.empty():
            part = self._done.get()
            tally.add(part)
            tally.notes.extend(part.notes)
        return tally

    def add(self, row: Row, *, verified: bool) -> None:
        """Have a row written; without `verified` its source does not tell `is_verified`."""
        if verified is not self._verified:
            self._send()
            self._verified = verified
        self._rows.append(row)
        self._size += len(row.scores) + len(row.input) + 500
        if len(self._rows) >= BATCH_ROWS or self._size >= BATCH_BYTES:
            self._send()

    def flush(self) -> None:
        """Return when everything is committed."""
        self._send()
        self._queue.join()
        self._check()

    def drop(self) -> None:
        """Forget what is not being written yet."""
        self._rows, self._size = [], 0

    def close(self) -> None:
        """End the thread and its connection."""
        self._queue.put(None)
        self._thread.join()

    def _send(self) -> None:
        self._check()
        if self._rows:
            self._queue.put((self._rows, self._verified))
            self._rows, self._size = [], 0

    def _check(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        try:
            while (item := self._queue.get()) is not None:
                rows, verified = item
                started = time.perf_counter()
                try:
                    if self._error is None:
                        self._write(rows, verified=verified)
                except BaseException as error:  # noqa: BLE001 raised again in the thread that adds rows
                    self._error = error
                finally:
                    self.seconds += time.perf_counter() - started
                    self._queue.task_done()
        finally:
            self._store.close()

    def _write(self, rows: Sequence[Row], *, verified: bool) -> None:
        """Write rows; those that the database refuses are found by bisection and replaced by minimal ones."""
        try:
            self._attempt(rows, verified=verified)
        except RowsRefused as refusal:
            if len(rows) > 1:
                middle = len(rows) // 2
                self._write(rows[:middle], verified=verified)
                self._write(rows[middle:], verified=verified)
                return
            self._fall_back(rows[0], str(refusal), verified=verified)

    def _fall_back(self, row: Row, refusal: str, *, verified: bool) -> None:
        uid = row.measurement_uid
        try:
            self._attempt([minimal_row(row)], verified=verified)
        except (RowsRefused, Unidentifiable) as error:
            self._done.put(Tally(Counter(refused=1), 0, [f"{uid}: the database takes no row: {error}"]))
        else:
            text = f"{uid}: the database refused its row, a minimal one stands for it: {refusal}"
            self._done.put(Tally(Counter(fallback=1), 0, [text]))

    def _attempt(self, rows: Sequence[Row], *, verified: bool) -> None:
        """Write in one transaction, again and again until the database answers."""
        if self._mode == "replace":
            replaced = len(patiently(lambda: self._store.replace(rows, keep_verified=not verified), self._stop))
            counts = {"replaced": replaced, "new": len(rows) - replaced}
        else:
            new = len(patiently(lambda: self._store.insert_missing(rows), self._stop))
            counts = {"new": new, "existing": len(rows) - new}
        self._done.put(Tally(Counter(counts)))


def minimal_row(row: Row) -> Row:
    """Return the least row that stands for `row`: what the database checks for itself, and nothing as sent.

    Raises Unidentifiable.
    """
    facts = {
        "probe_cc": row.probe_cc,
        "probe_asn": f"AS{row.probe_asn}",
        "test_name": row.test_name[:100],
        "measurement_start_time": f"{row.measurement_start_time:%Y-%m-%d %H:%M:%S}",
        "test_start_time": f"{row.test_start_time:%Y-%m-%d %H:%M:%S}",
    }
    return fallback_row(row.measurement_uid, Document(facts, row.is_verified), "row_refused", None)


class Work:
    """Works through tasks: lists of objects."""

    def __init__(
        self,
        reader: Reader,
        fetcher: Fetcher,
        matcher: Matcher,
        writer: RowWriter | None,
        stop: Callable[[], bool],
        *,
        allowance: Callable[[], bool] = lambda: True,
        progress: Callable[[Tally], None] = lambda _: None,
    ) -> None:
        """Score with `matcher` what `reader` reads, write by `writer` if there is one.

        `stop` says whether to stop. `allowance` is asked before each measurement whether it may be scored still;
        `progress` is given what was done since it was last called.
        """
        self._reader = reader
        self._fetcher = fetcher
        self._matcher = matcher
        self._writer = writer
        self._stop = stop
        self._allowance = allowance
        self._progress = progress
        self._tally = Tally()

    def do(self, works: Sequence[WorkObject]) -> list[Finished]:
        """Return what became of the objects, when all rows are committed.

        Raises:
            Stopping: some rows may be written; none of the objects counts as finished.
            StoreUnavailable: the store does not answer; likewise.
            Unavailable, Conflict: the database did not answer for long; likewise.
        """
        finished = []
        try:
            for work, stream in self._fetcher.objects(works):
                finished.append(self._object(work, stream))
            crash_point("fastpath.rerun_before_flush")
            if self._writer is not None:
                self._writer.flush()
            crash_point("fastpath.rerun_after_flush")
        except BaseException as error:
            if self._writer is not None:
                if isinstance(error, Enough):
                    self._writer.flush()
                self._writer.drop()
            raise
        finally:
            self._report()
        return finished

    def _object(self, work: WorkObject, stream: io.BufferedReader) -> Finished:
        measurements, error = 0, None
        try:
            for submission in self._reader.read(work, stream):
                if not self._allowance():
                    raise Enough
                measurements += 1
                self._score(submission)
                if measurements % LOOK_EVERY == 0:
                    if self._stop():
                        raise Stopping
                    self._report()
        except (Unreadable, StoreError) as failure:
            if isinstance(failure, StoreUnavailable):
                raise
            error = str(failure)
        if self._stop():
            raise Stopping
        self._tally.bytes += work.size
        return Finished(work, measurements, error)

    def _score(self, submission: Submission) -> None:
        outcome = process(submission.uid, submission.body, self._matcher)
        self._count(submission.uid, outcome)
        if outcome.row is not None and self._writer is not None:
            self._writer.add(outcome.row, verified=submission.verified)

    def _count(self, uid: str, outcome: Outcome) -> None:
        counts = self._tally.counts
        counts["measurements"] += 1
        counts[outcome.kind] += 1
        if outcome.kind == "rejected":
            self._tally.note(f"{uid}: no row is possible: {outcome.reason}")
        elif outcome.flags is not None:
            counts["anomaly"] += outcome.flags.anomaly
            counts["confirmed"] += outcome.flags.confirmed
            counts["msm_failure"] += outcome.flags.msm_failure
        if outcome.reason is not None and outcome.reason.startswith("internal_error:"):
            counts["internal_error"] += 1
            self._tally.note(f"{uid}: the scorer failed, which is a defect: {outcome.reason}")

    def _report(self) -> None:
        for reason, count in self._reader.left_out.items():
            self._tally.counts[f"left_out_{reason}"] += count
        self._reader.left_out.clear()
        if self._writer is not None:
            written = self._writer.written()
            self._tally.add(written)
            for text in written.notes:
                self._tally.note(text)
        self._progress(self._tally.take())
