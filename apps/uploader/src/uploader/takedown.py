"""`uploader takedown`: remove a report, or one measurement, from wherever it is kept.

In this order, each step safe to repeat, and the whole of it by the same command when it was interrupted:

1. a line in `takedown_audit`, with the uids and the reason and nothing else,
2. the spool of this host, in all states, and what the API keeps of bodies read lately,
3. the rows in fastpath with their counters, and observations,
4. per batch: what the manifest shall say, and the rows in jsonl, in one transaction; then the jsonl object and the
   postcan are put under their old keys, with blanks in the place of the measurements (see the module `objects`),
5. once more the rows in fastpath, `settle_s` after step 2, for what was being scored when its spool file went,
6. the line in the audit is finished.

Batches are found by looking through all postcans of the hour, country and test, so also those that no row points to.
"""

import gzip
import socket
import tarfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import structlog

from core import spool_scan
from core.archive import JsonlWriter
from core.body_cache import BodyCache
from core.crashpoints import crash_point
from core.ids import IdentifierError, parse_report_id, spool_directory
from core.objectstore import ObjectNotFound, ObjectStore
from core.spool import INCOMING, STATES, Spool
from uploader.catalog import Catalog, hour_of
from uploader.catalog import Takedown as Audit
from uploader.objects import archive_of, blot_entries, blot_lines, entries, fetch, put_checked
from uploader.pack import EMPTY_LINE
from uploader.plan import JSONL, POSTCAN, BatchName, PackingDirectory, parse_key, prefix_of
from uploader.queries import Place

SETTLE_S = 70.0
"""How long in seconds a measurement may be on its way through the scorer after its spool file went.

The scorer never looks for the file again, and with the settings of the fastpath it takes up to 30 s to score
(`document_limit_s`), as long for an attempt to write that fails (`statement_timeout_s`), and a pause of 10 s after it
(`retry_max_s`). While the database is away for longer, a takedown gets nowhere either; resumed, it waits in full. For a
row that comes still later, `uploader verify` has the kind `takedown_undone`.
"""

_LONGEST_HEADER = 512

log = structlog.get_logger(__name__)


class TakedownError(Exception):
    """The takedown is not complete; the text says what is left and what to do."""


@dataclass(frozen=True, slots=True)
class Found:
    """What there is of the measurements to be taken down."""

    report_id: str
    uids: list[str]
    spool: dict[str, str]
    """State by uid, for those in the spool of this host."""

    scored: int
    objects: list[str]
    """Keys of the jsonl objects that rows point to."""

    resumed: bool = False
    """An earlier takedown of the same was interrupted."""

    def __str__(self) -> str:
        what = f"report {self.report_id}" if self.report_id else "measurement"
        lines = [f"{what}: {len(self.uids)} measurements", *(f"  {uid}" for uid in self.uids)]
        lines.append(f"in the spool of this host: {len(self.spool)}")
        lines.append(f"rows in fastpath: {self.scored}")
        lines.append(f"objects to rewrite: {len(self.objects)}, each with its postcan")
        lines += [f"  {key}" for key in self.objects]
        if self.resumed:
            lines.append("an earlier takedown of it was interrupted and will be finished")
        return "\n".join(lines)


class Takedown:
    """Takes measurements down. For `carry_out` the caller holds the lock of the packing directory."""

    def __init__(
        self,
        spool: Spool,
        store: ObjectStore,
        catalog: Catalog,
        *,
        read_back: bool = True,
        settle_s: float = SETTLE_S,
    ) -> None:
        """Wire up; nothing is touched before `carry_out`, which waits `settle_s` seconds where something was scored."""
        self._spool = spool
        self._store = store
        self._catalog = catalog
        self._packing = PackingDirectory(spool.root)
        self._read_back = read_back
        self._settle_s = settle_s

    def find(self, *, report_id: str = "", uid: str = "") -> Found:
        """Look for a report or a measurement, changing nothing."""
        uids = {uid} if uid else {*self._catalog.report(report_id), *self._spooled(report_id)}
        begun = self._catalog.unfinished_takedown(report_id, sorted(uids))
        if begun is not None:
            uids |= set(begun.measurement_uids)
        known = sorted(uids)
        places = self._catalog.places(known)
        states = self.states(known)
        if uid and not (states or places or begun or self._catalog.scored(known)):
            known = []
        return Found(
            report_id,
            known,
            states,
            len(self._catalog.scored(known)),
            sorted({place.s3path for place in places}),
            begun is not None,
        )

    def carry_out(self, found: Found, reason: str) -> Audit:
        """Remove what was found.

        Raises:
            TakedownError: something is still there.
            AnotherRun: an uploader of one of the batches' collectors is at work; run it again later.
            StoreError, ArchiveError, DatabaseUnavailable, psycopg.Error, OSError: interrupted; run it again.
        """
        audit = self._catalog.begin_takedown(found.report_id, found.uids, reason, socket.gethostname())
        log.warning(
            "takedown begun",
            takedown=audit.takedown_id,
            report_id=audit.report_id,
            measurements=len(audit.measurement_uids),
            reason=audit.reason,
        )
        crash_point("takedown.after_audit")
        uids = audit.measurement_uids
        modern = [uid for uid in uids if hour_of(uid) is not None]
        # The interrupted one may have deleted a file that was being scored.
        scoring = found.resumed or any(self._spool.path(INCOMING, uid).exists() for uid in modern)
        self._erase(modern)
        settled = time.monotonic() + self._settle_s
        self._catalog.take_out(uids)
        crash_point("takedown.after_rows")
        self._archived(uids)
        if scoring:
            left = max(0.0, settled - time.monotonic())
            log.warning("waiting for rows of what was being scored", seconds=round(left))
            time.sleep(left)
            self._catalog.take_out(uids)
        self._check(uids)
        crash_point("takedown.before_finish")
        self._catalog.finish_takedown(audit.takedown_id)
        log.warning("takedown finished", takedown=audit.takedown_id, measurements=len(uids))
        return audit

    def again(self, uids: Sequence[str]) -> None:
        """Remove what came back of measurements that were taken down; their line in the audit is finished.

        Rows in fastpath can be removed by the owner of the database only.

        Raises:
            As `carry_out`; psycopg.errors.InsufficientPrivilege: the rows in fastpath are still there.
        """
        self._erase([uid for uid in uids if hour_of(uid) is not None])
        self._archived(uids)
        if self._catalog.scored(uids):
            self._catalog.take_out(uids)
        self._check(uids)
        log.warning("removed again what was taken down", measurements=len(uids))

    def states(self, uids: Sequence[str]) -> dict[str, str]:
        """Return for each of the measurements that the spool of this host has in which state it is."""
        return {
            uid: state
            for uid in uids
            if hour_of(uid) is not None
            for state in STATES
            if self._spool.path(state, uid).exists()
        }

    def _erase(self, uids: Sequence[str]) -> None:
        for uid in uids:
            self._spool.erase(uid)
            crash_point("takedown.during_spool")
        BodyCache(self._spool.root / "cache", 1).clear()

    def _archived(self, uids: Sequence[str]) -> None:
        for directory in sorted({spool_directory(uid) for uid in uids if hour_of(uid) is not None}):
            self._directory(directory, uids)
        self._others(uids)

    def _spooled(self, report_id: str) -> list[str]:
        """Return the measurements of a report in the spool, looking only where its country and test may lie."""
        try:
            parsed = parse_report_id(report_id)
            ending = f"_{parsed.cc}_{parsed.test_name}".lower()
        except IdentifierError:
            ending = ""
        mark = f" report_id={report_id}\n".encode()
        found = set()
        for state in (*STATES, STATES[-2]):  # once more, for what moves while we look
            for name in spool_scan.directories(self._spool.root / state):
                if name.lower().endswith(ending):
                    for uid in spool_scan.uids(self._spool.root / state / name):
                        if _first_line(self._spool.path(state, uid)).endswith(mark):
                            found.add(uid)
        return sorted(found)

    # The object store.

    def _directory(self, directory: str, uids: Sequence[str]) -> None:
        names = {parse_key(info.key) for info in self._store.list(prefix_of(directory))} - {None}
        batches = {BatchName(name.directory, name.collector_id, name.counter, JSONL) for name in names if name}
        self._catalog.lock(name.collector_id for name in batches)
        for name in sorted(batches, key=lambda name: (name.collector_id, name.counter)):
            self._batch(name, uids)

    def _batch(self, name: BatchName, uids: Sequence[str]) -> None:
        keys = jsonl_key, postcan_key = name.key(JSONL), name.key(POSTCAN)
        wanted = set(uids)
        numbers = {place.linenum for place in self._catalog.places(uids) if place.s3path == jsonl_key}
        with self._packing.scratch("takedown") as scratch:
            jsonl, postcan = scratch / "jsonl", scratch / "postcan"
            there = [key for key, path in zip(keys, (jsonl, postcan), strict=True) if self._fetched(key, path)]
            members, kept = [], 0
            if postcan_key in there:
                for entry in entries(postcan):
                    if entry.uid in wanted:
                        members.append(entry.member)
                        numbers.add(entry.number)
                    else:
                        kept += entry.uid is not None
                blot_entries(postcan, members)
            if not numbers:
                return
            if jsonl_key in there:
                blot_lines(jsonl, numbers)
            line = self._catalog.line(jsonl_key)
            if line is not None and len(there) == len(keys):
                self._catalog.rewrite(line, uids, archive_of(jsonl), archive_of(postcan), kept)
            crash_point("takedown.after_rewrite")
            # The postcan last: as long as it has the measurement, a repeated takedown comes by here again.
            for key, path in ((jsonl_key, jsonl), (postcan_key, postcan)):
                if key in there:
                    put_checked(self._store, key, path, archive_of(path), read_back=self._read_back)
                crash_point("takedown.after_put")
            self._catalog.drop_rows(uids, jsonl_key)  # those of a batch that is not whole, or not in the manifest
        log.info("measurements blotted out", key=jsonl_key, lines=len(numbers))

    def _fetched(self, key: str, path: Path) -> bool:
        try:
            fetch(self._store, key, path)
        except ObjectNotFound:
            return False
        return True

    def _others(self, uids: Sequence[str]) -> None:
        """Take care of rows that are left: those of objects that are not named like ours, or gone."""
        left: dict[str, list[Place]] = {}
        for place in self._catalog.places(uids):
            left.setdefault(place.s3path, []).append(place)
        for key, places in left.items():
            with self._packing.scratch("takedown") as scratch:
                if self._fetched(key, scratch / "old"):
                    self._blot_old_lines(key, scratch, places)
                postcan = key.removesuffix(JSONL) + POSTCAN
                if key.endswith(JSONL) and self._fetched(postcan, scratch / "cans"):
                    self._blot_old_entries(postcan, scratch, {place.measurement_uid for place in places})
            crash_point("takedown.after_put")
            self._catalog.drop_rows([place.measurement_uid for place in places], key)

    def _blot_old_lines(self, key: str, scratch: Path, places: Sequence[Place]) -> None:
        """Rewrite an object without positions; the numbers of its lines stay."""
        numbers = {place.linenum for place in places}
        if all(place.member_offset is not None for place in places):
            blot_lines(scratch / "old", numbers)
            put_checked(self._store, key, scratch / "old", archive_of(scratch / "old"), read_back=self._read_back)
            return
        with gzip.open(scratch / "old") as old, open(scratch / "new", "wb") as new:
            writer = JsonlWriter(new)
            for number, text in enumerate(old):
                writer.add(EMPTY_LINE if number in numbers else text.rstrip(b"\n"))
        put_checked(self._store, key, scratch / "new", archive_of(scratch / "new"), read_back=self._read_back)

    def _blot_old_entries(self, key: str, scratch: Path, uids: set[str]) -> None:
        with (
            tarfile.open(scratch / "cans", "r:*") as old,
            open(scratch / "packed", "wb") as file,
            gzip.GzipFile("", "wb", fileobj=file, mtime=0) as packed,
            tarfile.open(fileobj=packed, mode="w", format=tarfile.USTAR_FORMAT) as new,
        ):
            for entry in old:
                if Path(entry.name).name.removesuffix(".post") not in uids:
                    new.addfile(entry, old.extractfile(entry))
        put_checked(self._store, key, scratch / "packed", archive_of(scratch / "packed"), read_back=self._read_back)

    def _check(self, uids: Sequence[str]) -> None:
        places = self._catalog.places(uids)
        scored = self._catalog.scored(uids)
        spooled = self.states(uids)
        if places or scored or spooled:
            raise TakedownError(
                f"Still there: {len(spooled)} files in the spool, {len(scored)} rows in fastpath, {len(places)} in "
                "jsonl. Another host, or a rerun, is writing them. Run the same command again."
            )


def _first_line(path: Path) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.readline(_LONGEST_HEADER)
    except FileNotFoundError:
        return b""
