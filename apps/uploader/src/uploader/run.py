"""One run of the uploader: the order of steps that never deletes anything before its successor is durable.

Files that came back although their measurement was archived are no part of a batch: see the module `returned`. For
each batch:

1. pack both archives beside the spool and synchronise them to disk,
2. write the plan, which fixes the batch's name and measurements,
3. put both objects and read them back to compare their checksums,
4. commit the rows and the manifest's line in one transaction,
5. delete the spool files of measurements that have a row,
6. delete the archives, then the plan.

A run that dies before step 2 leaves garbage only. After it, the next run repeats the batch from step 3, with the same
name and the same bytes, or from step 5 when the manifest has it.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
import psycopg
import structlog

from core.crashpoints import crash_point
from core.db import DatabaseUnavailable
from core.ids import parse_measurement_uid
from core.objectstore import ObjectStore, StoreError, StoreUnavailable
from core.spool import Spool
from uploader.config import UploaderSettings
from uploader.metrics import Metrics
from uploader.objects import put_checked
from uploader.pack import Archive, Batch, Limits, Targets, pack, read_rows
from uploader.plan import JSONL, PLANNED_AT_ONCE, POSTCAN, ROWS, PackingDirectory, Plan
from uploader.queries import Manifest, ManifestConflict
from uploader.returned import sort_out

log = structlog.get_logger(__name__)

REMOVE_AT_ONCE = 100
"""Spool files deleted per synchronisation of their directory."""

ASKED_AT_ONCE = 1000
"""Measurements about which the database is asked in one statement before they are packed."""

_CLOCK_TOLERANCE = timedelta(minutes=5)

_UNAVAILABLE = (StoreUnavailable, DatabaseUnavailable, psycopg.OperationalError, psycopg.InterfaceError)
_BATCH_FAILURES = (StoreError, psycopg.Error, ManifestConflict, OSError)

T = TypeVar("T")


class Outage(Exception):
    """The object store or the database stayed unavailable for all attempts; the run cannot go on."""


@dataclass(slots=True)
class Summary:
    """What a run did, and what it left."""

    measurements: int = 0
    batches: int = 0
    uploaded_bytes: int = 0
    quarantined: int = 0
    returned: int = 0
    failures: int = 0
    backlog: int = 0

    def __str__(self) -> str:
        aside = f"{self.quarantined} set aside"
        if self.returned:
            aside = f"{self.returned} came back and were archived already, {aside}"
        return (
            f"{self.measurements} measurements archived in {self.batches} batches ({self.uploaded_bytes} bytes), "
            f"{aside}, {self.failures} failures, {self.backlog} measurements left in the spool."
        )


class Uploader:
    """Archives the scored measurements of one spool."""

    def __init__(
        self, settings: UploaderSettings, spool: Spool, store: ObjectStore, manifest: Manifest, metrics: Metrics
    ) -> None:
        """Wire up; nothing is touched before `run`."""
        self._settings = settings
        self._spool = spool
        self._store = store
        self._manifest = manifest
        self._metrics = metrics
        self._packing = PackingDirectory(spool.root)
        self._summary = Summary()
        self._step = "plan"

    def run(self, *, include_current: bool = False) -> Summary:
        """Finish what an earlier run left, then archive every hour that is over, and with `include_current` the others.

        Failures are counted in the summary; everything they concern stays in the spool.

        Raises:
            AnotherRun: another uploader is at work; nothing was done.
        """
        with self._packing.locked():
            try:
                self.finish_plans()
                self._archive_hours(include_current=include_current)
            except Outage as error:
                self._summary.failures += 1
                log.error("run given up", error=str(error))
            self._note_backlog()
        return self._summary

    def finish_plans(self) -> None:
        """Finish what an earlier run left; the caller holds the lock of the packing directory.

        Raises:
            Outage: the object store or the database stayed unavailable.
        """
        self._packing.sweep()
        for plan in self._packing.plans():
            with self._contained(plan.name):
                log.info("finishing what an earlier run left", batch=plan.name)
                self._finish(plan)

    def _archive_hours(self, *, include_current: bool) -> None:
        blocked = {plan.directory for plan in self._packing.plans()}  # their plan failed above
        for directory in self._spool.scored_directories():
            if directory not in blocked and (include_current or self._is_due(directory)):
                with self._contained(directory):
                    self._archive_directory(directory)

    def _is_due(self, directory: str) -> bool:
        """Whether nothing more is expected in the directory of an hour.

        That of an hour still to come is from before the clock was set back. It would wait for that hour, in silence
        and perhaps for days, so it is taken now; what is added later becomes another batch.
        """
        try:
            hour = datetime.strptime(directory[:10], "%Y%m%d%H").replace(tzinfo=UTC)
        except ValueError:
            log.warning("not the name of an hour, skipped", directory=directory)
            return False
        now = datetime.now(UTC)
        if hour > now + _CLOCK_TOLERANCE:
            log.warning("measurements of an hour still to come, archived now; was the clock set?", directory=directory)
            return True
        return now >= hour + timedelta(hours=1, seconds=self._settings.hours_margin_s)

    def _archive_directory(self, directory: str) -> None:
        limits = Limits(self._settings.postcan_bytes, self._settings.unpacked_bytes)
        last = ""
        while waiting := [uid for uid in self._spool.scored(directory, PLANNED_AT_ONCE) if uid > last]:
            last = waiting[-1]
            self._archive(directory, self._fresh(waiting), limits)

    def _archive(self, directory: str, waiting: list[str], limits: Limits) -> None:
        while waiting:
            self._step = "plan"
            draft = self._retry(lambda: self._new_plan(directory))
            self._step = "pack"
            batch = pack(self._spool, waiting, self._targets(draft), limits, self._set_aside)
            if not batch.uids:
                self._packing.drop(draft)
                return
            crash_point("uploader.after_pack")
            plan = msgspec.structs.replace(draft, uids=batch.uids)
            self._packing.write(plan)
            crash_point("uploader.after_plan")
            self._upload(plan, batch)
            waiting = waiting[waiting.index(batch.uids[-1]) + 1 :]

    def _fresh(self, uids: list[str]) -> list[str]:
        """Leave out what is in the store already, deleting it here, and what was taken down."""
        self._step = "compare"
        fresh: list[str] = []
        for start in range(0, len(uids), ASKED_AT_ONCE):
            some = uids[start : start + ASKED_AT_ONCE]
            found = self._retry(lambda some=some: sort_out(some, self._spool, self._store, self._manifest))  # type: ignore[misc]  # binds now
            fresh += found.fresh
            if found.copies:
                self._spool.remove_scored(found.copies)
                self._summary.returned += len(found.copies)
                self._metrics.returned.inc(len(found.copies))
                log.warning("spool files deleted, archived already", first=found.copies[0], files=len(found.copies))
            for uid, reason in found.kept.items():
                self._summary.failures += 1
                self._metrics.failures.labels(self._step).inc()
                log.error("spool file came back and stays, not archived again", uid=uid, reason=reason)
        return fresh

    def _new_plan(self, directory: str) -> Plan:
        """Return an empty plan with the next number that neither the manifest nor the object store has."""
        plan = Plan(
            directory=directory,
            collector_id=self._settings.collector_id,
            counter=self._manifest.next_counter(directory),
            uids=[],
        )
        while self._store.head(plan.postcan_key) or self._store.head(plan.jsonl_key):
            log.warning("object without a line in the manifest, its number is skipped", key=plan.jsonl_key)
            plan = msgspec.structs.replace(plan, counter=plan.counter + 1)
        return plan

    def _finish(self, plan: Plan) -> None:
        self._step = "plan"
        if self._retry(lambda: self._manifest.is_committed(plan)):
            self._clear(plan)
            return
        uids = self._fresh(plan.uids)
        self._step = "pack"
        batch = pack(self._spool, uids, self._targets(plan), None, self._set_aside)
        if not batch.uids:
            self._packing.drop(plan)
            return
        if batch.uids != plan.uids:
            plan = msgspec.structs.replace(plan, uids=batch.uids)
            self._packing.write(plan)
        self._upload(plan, batch)

    def _upload(self, plan: Plan, batch: Batch) -> None:
        targets = self._targets(plan)
        self._step = "put"
        self._retry(lambda: self._put(plan.postcan_key, targets.postcan, batch.postcan))
        crash_point("uploader.after_put_postcan")
        self._retry(lambda: self._put(plan.jsonl_key, targets.jsonl, batch.jsonl))
        crash_point("uploader.after_put")
        self._step = "commit"
        self._retry(lambda: self._manifest.commit(plan, batch, read_rows(targets.rows)))
        crash_point("uploader.after_commit")
        size = batch.postcan.size + batch.jsonl.size
        self._summary.measurements += len(batch.uids)
        self._summary.batches += 1
        self._summary.uploaded_bytes += size
        self._metrics.measurements.inc(len(batch.uids))
        self._metrics.postcans.inc()
        self._metrics.bytes.inc(size)
        self._metrics.undecodable.inc(batch.undecodable)
        log.info("batch archived", batch=plan.name, measurements=len(batch.uids), bytes=size)
        self._clear(plan)

    def _put(self, key: str, path: Path, archive: Archive) -> None:
        put_checked(self._store, key, path, archive, read_back=self._settings.read_back)

    def _clear(self, plan: Plan) -> None:
        """Delete what the object store has. A measurement without a row stays, whatever the plan says."""
        self._step = "remove"
        for start in range(0, len(plan.uids), REMOVE_AT_ONCE):
            some = plan.uids[start : start + REMOVE_AT_ONCE]
            archived = self._retry(lambda some=some: self._manifest.archived(some))  # type: ignore[misc]  # binds now
            self._spool.remove_scored([uid for uid in some if uid in archived])
            crash_point("uploader.during_remove")
        crash_point("uploader.after_remove")
        self._packing.drop(plan)
        crash_point("uploader.after_drop")

    def _targets(self, plan: Plan) -> Targets:
        return Targets(*(self._packing.path(plan, suffix) for suffix in (JSONL, POSTCAN, ROWS)))

    def _set_aside(self, uid: str, reason: str) -> None:
        log.error("spool file set aside", uid=uid, reason=reason)
        if not self._spool.quarantine(uid, reason):
            log.error("spool file left in its place: the quarantine is full", uid=uid)
            return
        self._summary.quarantined += 1
        self._metrics.quarantined.inc()

    def _retry(self, action: Callable[[], T]) -> T:
        """Do something that needs the store or the database, again while that is unavailable.

        Raises:
            Outage: it stayed so.
        """
        pause = self._settings.retry_min_s
        for attempt in range(1, self._settings.attempts + 1):
            try:
                return action()
            except _UNAVAILABLE as error:
                self._metrics.failures.labels(self._step).inc()
                if not isinstance(error, StoreUnavailable):
                    self._manifest.disconnect()
                reason = str(error).strip()
                if attempt == self._settings.attempts:
                    raise Outage(f"The step {self._step} failed {attempt} times, the last time so: {reason}") from error
                log.warning("step failed, trying again", step=self._step, attempt=attempt, pause_s=pause, error=reason)
            time.sleep(pause)
            pause = min(2 * pause, self._settings.retry_max_s)
        raise AssertionError("attempts is at least 1")

    @contextmanager
    def _contained(self, what: str) -> Iterator[None]:
        """Keep the failure of one batch from stopping the others."""
        try:
            yield
        except _BATCH_FAILURES as error:
            self._summary.failures += 1
            self._metrics.failures.labels(self._step).inc()
            log.error("batch failed, its measurements stay in the spool", batch=what, step=self._step, error=str(error))

    def _note_backlog(self) -> None:
        oldest_s = 0.0
        now = datetime.now(UTC)
        directories = self._spool.scored_directories()
        for directory in directories:
            if directory[:10] != directories[0][:10]:
                break
            for uid in self._spool.scored(directory, 1):
                oldest_s = max(oldest_s, (now - parse_measurement_uid(uid).received_at).total_seconds())
        self._summary.backlog = self._spool.counts().scored
        self._metrics.backlog_files.set(self._summary.backlog)
        self._metrics.backlog_oldest.set(oldest_s)
