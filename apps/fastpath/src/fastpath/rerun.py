"""The rerun: history out of the object store, scored again by all cores, its rows written as the form of it says.

The three documented forms differ in what they touch only:

    fastpath --noapi --start-day D1 --end-day D2 --no-write-msmt --no-write-to-db    neither disk nor database
    fastpath --noapi --start-day D1 --end-day D2 --no-write-msmt                     the database: rows that are missing
    fastpath --noapi --start-day D1 --end-day D2 --no-write-msmt --update            the same, and rows that are there

This process lists and hands out objects, keeps the ledger and shows the progress; `rerun_pool` has the processes that
read and score.
"""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from types import FrameType
from typing import TypeVar

import msgspec
import structlog

import core.metrics
from core.objectstore import ObjectStore, StoreError, open_store
from fastpath import metrics
from fastpath.config import FastpathSettings
from fastpath.fingerprints import FingerprintError, FingerprintSet, from_rows, load_files
from fastpath.ledger import (
    SIZE_UNKNOWN,
    AnotherRerun,
    DatabaseLedger,
    Finished,
    Ledger,
    LocalLedger,
    Parameters,
    digest_of,
)
from fastpath.matcher import Mode
from fastpath.progress import Display, Meter
from fastpath.rerun_pool import Allowance, Job, Pool, PoolFailed, Task, in_tasks
from fastpath.rerun_work import Tally, WriteMode, patiently
from fastpath.sources import Filters, Preference, WorkObject, days, list_day
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

DONE, FAILED, WRONG_USAGE, UNREADABLE, STOPPED = 0, 1, 2, 3, 4
"""Exit codes: all done; given up; wrong usage; done but for objects that cannot be read; stopped by a signal."""

LOOK_S = 2.0
"""Seconds between two looks into the ledger for the progress of all hosts."""

SHOWN_FAILURES = 20
"""Most unreadable objects that are named at the end."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Request:
    """What the command line asks for; `end` is the first day that is not done, None for today."""

    start: date
    end: date | None
    filters: Filters
    source: Preference
    write: WriteMode
    write_to_disk: bool
    keep_cache: bool
    stop_after: int | None
    workers: int
    restart: bool
    fingerprints: Path | None
    mode: Mode

    def parameters(self, settings: FastpathSettings) -> Parameters:
        """What tells this rerun from others: the same on every host that shares it."""
        return {
            "start": f"{self.start}",
            "end": f"{self.end}" if self.end else None,
            "ccs": sorted(self.filters.ccs),
            "testnames": sorted(self.filters.testnames),
            "source": self.source,
            "store": settings.store_url,
            "write": self.write,
        }


def run(settings: FastpathSettings, request: Request) -> int:
    """Do the rerun; return the exit code. Failures are logged as sentences."""
    try:
        return _Rerun(settings, request).run()
    except (PoolFailed, AnotherRerun, FingerprintError, StoreError, Unavailable, Conflict, RowsRefused) as error:
        log.error("rerun given up; the same command goes on where it ended", error=str(error))
    except OSError as error:
        log.error("rerun given up", error=f"{error.filename or 'The system'}: {error.strerror}. Make it usable.")
    return FAILED


class _Rerun:
    def __init__(self, settings: FastpathSettings, request: Request) -> None:
        self._settings = settings
        self._request = request
        self._store: ObjectStore = open_store(
            settings.store_url,
            endpoint=settings.store_endpoint,
            region=settings.store_region,
            access_key_id=settings.store_access_key_id,
            secret_access_key=settings.store_secret_access_key,
        )
        today = datetime.now(UTC).date()
        self._days = list(days(request.start, min(request.end or today, today)))
        self._meter = Meter(len(self._days))
        self._allowance = Allowance(request.stop_after)
        self._failed = 0
        self._objects = 0
        self._looked = 0.0
        self._signalled = False
        self._all_listed = False
        self._ledger = self._open_ledger()
        self._pool: Pool | None = None

    def _open_ledger(self) -> Ledger:
        request, settings = self._request, self._settings
        parameters = request.parameters(settings)
        # A sample begins at the beginning, whatever other reruns did, and leaves nothing to go on with.
        if request.stop_after is None and request.write != "none":
            return DatabaseLedger(
                settings.db_uri,
                parameters,
                restart=request.restart,
                statement_timeout_s=settings.statement_timeout_s,
            )
        path = None
        if request.stop_after is None and request.write_to_disk:
            path = Path(settings.state_directory) / f"rerun-{digest_of(parameters)[:16]}.jsonl"
        return LocalLedger(path, parameters, restart=request.restart)

    def run(self) -> int:
        request = self._request
        try:
            job = Job(
                self._settings, self._fingerprints(), request.mode, request.write, request.filters, request.keep_cache
            )
            self._serve_metrics()
            with Display(self._meter, sys.stderr) as display:
                self._pool = Pool(
                    job,
                    request.workers,
                    self._allowance,
                    on_progress=self._progress,
                    on_finished=self._finish,
                    tick=lambda: self._tick(display),
                )
                self._catch_signals()
                log.info(
                    "rerun resumed" if self._ledger.resumed else "rerun started",
                    days=len(self._days),
                    workers=request.workers,
                    write=request.write,
                )
                self._pool.run(self._tasks())
                self._look()
            return self._conclude()
        finally:
            self._ledger.close()

    def _fingerprints(self) -> FingerprintSet:
        if self._request.fingerprints is not None:
            loaded = load_files(self._request.fingerprints)
        else:
            store = Store(self._settings.db_uri, statement_timeout_s=self._settings.statement_timeout_s)
            try:
                loaded = from_rows(*store.fingerprints())
            finally:
                store.close()
        if min(len(loaded.dns), len(loaded.http)) < self._settings.fingerprints_minimum:
            raise FingerprintError(
                f"There are {len(loaded.dns)} DNS and {len(loaded.http)} HTTP fingerprints; at least "
                f"{self._settings.fingerprints_minimum} of each are needed. Import them with "
                "fastpath --import-fingerprints, or give --fingerprints DIR."
            )
        for refusal in loaded.refused:
            log.warning("fingerprint not used", name=refusal.name, reason=refusal.message)
        return loaded

    def _serve_metrics(self) -> None:
        port = self._settings.rerun_metrics_port
        if port:
            try:
                core.metrics.serve(port, self._settings.metrics_host)
            except core.metrics.MetricsUnavailable as error:  # another rerun of this host has it
                log.warning("rerun without metrics", reason=str(error))

    def _catch_signals(self) -> None:
        def stop(_number: int, _frame: FrameType | None) -> None:
            self._signalled = True
            if self._pool is not None:
                self._pool.stop()

        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, stop)

    # The objects -----------------------------------------------------------------------------------------------------

    def _tasks(self) -> Iterator[Task | None]:
        """Yield tasks day by day, then what other processes left; None while others are still at it."""
        for day in self._days:
            if self._patiently(lambda day=day: self._ledger.open_day(day, self._list)) == 0:  # type: ignore[misc]  # binds now
                log.warning("no objects", day=f"{day}")
            while works := self._patiently(lambda day=day: self._ledger.claim(day)):  # type: ignore[misc]  # binds now
                yield from self._in_tasks(works)
        self._all_listed = True
        waiting = False
        while True:
            if works := self._patiently(lambda: self._ledger.claim(None)):
                yield from self._in_tasks(works)
                continue
            elsewhere = self._patiently(self._ledger.elsewhere)
            if not elsewhere:
                return
            if not waiting:
                waiting = True
                log.info("waiting for objects that other processes work on", objects=elsewhere)
            yield None

    def _in_tasks(self, works: list[WorkObject]) -> Iterator[Task]:
        known = []
        for work in works:
            if work.size == SIZE_UNKNOWN:
                info = self._store.head(work.key)
                work = msgspec.structs.replace(work, size=info.size if info else 0)
            known.append(work)
        return in_tasks(known, self._request.workers)

    def _list(self, day: date) -> list[WorkObject]:
        return list_day(self._store, day, self._request.filters, self._request.source)

    def _finish(self, finished: list[Finished]) -> None:
        self._patiently(lambda: self._ledger.finish(finished))
        for one in finished:
            self._objects += 1
            if one.error:
                self._failed += 1
                metrics.RERUN_OBJECTS.labels("failed").inc()
                log.error("object not read", key=one.work.key, measurements=one.measurements, error=one.error)
            else:
                metrics.RERUN_OBJECTS.labels("done").inc()
                log.debug("object done", key=one.work.key, measurements=one.measurements)

    # The progress ----------------------------------------------------------------------------------------------------

    def _progress(self, tally: Tally) -> None:
        self._meter.add(tally)
        for text in tally.notes:
            log.warning("measurement", remark=text)

    def _tick(self, display: Display) -> None:
        if time.monotonic() - self._looked >= LOOK_S:
            self._look()
        display.show()

    def _look(self) -> None:
        self._looked = time.monotonic()
        try:
            self._meter.reached(self._ledger.days_done())
        except (Unavailable, Conflict) as error:  # the display can wait for the database
            log.warning("progress unknown", error=str(error))

    def _patiently(self, action: Callable[[], T]) -> T:
        """Do something with the ledger, again and again while the database does not answer. Raises Unavailable."""
        return patiently(action, lambda: self._signalled)

    # The end ---------------------------------------------------------------------------------------------------------

    def _conclude(self) -> int:
        self._patiently(self._ledger.release)
        sample = self._allowance.used_up
        complete = self._all_listed and not sample and self._patiently(self._ledger.complete)
        counts = {key: value for key, value in sorted(self._meter.counts.items()) if value}
        counts.pop("row", None)
        rows = self._meter.counts["row"]
        log.info(
            "rerun stopped" if self._signalled and not complete else "rerun finished",
            objects=self._objects,
            unreadable=self._failed,
            rows=rows,
            **counts,
            seconds=f"{self._meter.elapsed_s:.1f}",
            busy_seconds=f"{self._meter.busy_s:.2f}",
            per_second=f"{self._meter.rate:.0f}",
        )
        if complete or (sample and not self._failed):
            return DONE
        if self._signalled:
            log.warning("stopped before the end. Run the same command again to go on.")
            return STOPPED
        failures = self._patiently(self._ledger.failures)
        for key, error in failures[:SHOWN_FAILURES]:
            log.error("object unreadable", key=key, error=error)
        log.error(
            "some objects could not be read. Repair them, then run the same command again: it tries these only.",
            objects=len(failures),
        )
        return UNREADABLE


def default_workers() -> int:
    """How many processes a rerun uses: one per core that this process may use."""
    return len(os.sched_getaffinity(0))
