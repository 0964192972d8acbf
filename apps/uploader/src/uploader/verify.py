"""`uploader verify`: compare what the spool, the manifest, the table jsonl and the object store say of each other.

It goes hour by hour, so memory holds what one hour has: names and sizes of objects, lines of the manifest, sums over
rows. Objects are read only where a row does not fit, or all of them with `deep`. Nothing is changed without `repair`,
and no repair ever deletes the only copy of anything that was not taken down: see the module `repair`.

With `all_recent`, hours outside the days asked for come too when something of them was archived in these days, or waits
in the spool: measurements of a clock that was wrong, or of a host that was away for long.

What a run in progress has half done is no difference: batches with a plan on this host, and objects younger than
`settle_s`, which may be those of another host.
"""

import itertools
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from core import spool_scan
from core.archive import ArchiveError
from core.bodies import Peers
from core.objectstore import ObjectInfo, ObjectNotFound, ObjectStore
from core.spool import SCORED, STATES, Spool
from uploader.catalog import Catalog, Line, ObjectRows, Takedown, hour_of
from uploader.objects import fetch, slots
from uploader.pack import Row
from uploader.plan import JSONL, POSTCAN, BatchName, PackingDirectory, parse_key
from uploader.queries import Place
from uploader.repair import Repair

KINDS: Mapping[str, str] = {
    "object_missing": "an object of the manifest is not in the store",
    "object_changed": "an object is not what the manifest says, by its size or, with --deep, its content",
    "object_unlisted": "an object in the store has no line in the manifest",
    "row_missing": "a measurement lies in the store and no row says where",
    "row_wrong": "a row points to another place of its object than that of its measurement",
    "row_stray": "a row points to an object, or a line, that is not there",
    "spool_archived": "a file is still in the spool although its measurement is archived",
    "body_missing": "a measurement was scored and its body is nowhere",
    "archived_twice": "a measurement lies in an object besides the one that its row points to",
    "takedown_unfinished": "a takedown was begun and not finished",
    "takedown_undone": "a measurement that was taken down is there again",
}
"""Every kind of difference."""

UIDS_AT_ONCE = 1000

TAKEDOWN_DAYS = 90
"""For how many days after a takedown it is looked whether anything of it came back; longer when `since` is earlier."""

T = TypeVar("T")

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Difference:
    """Something that does not fit: its kind, the object, measurement or takedown concerned, and in a sentence what."""

    kind: str
    subject: str
    detail: str
    repaired: bool = False


@dataclass(slots=True)
class Result:
    """What was looked at and found."""

    objects: int = 0
    measurements: int = 0
    found: Counter[str] = field(default_factory=Counter)
    repaired: Counter[str] = field(default_factory=Counter)
    undecided: int = 0
    """Measurements whose body no host that answered has, while one did not answer."""

    @property
    def left(self) -> int:
        """Number of differences that are still there."""
        return self.found.total() - self.repaired.total()

    def __str__(self) -> str:
        found = ", ".join(f"{count} {kind}" for kind, count in sorted(self.found.items())) or "none"
        undecided = f", {self.undecided} bodies undecided because a peer did not answer" if self.undecided else ""
        return (
            f"{self.objects} objects and {self.measurements} measurements compared; differences: {found}; "
            f"{self.repaired.total()} repaired, {self.left} left{undecided}."
        )


class Verifier:
    """One comparison; `note` gets each difference as it is found."""

    def __init__(
        self,
        spool: Spool,
        store: ObjectStore,
        catalog: Catalog,
        *,
        note: Callable[[Difference], None],
        peers: Peers | None = None,
        peer_failed: Callable[[], bool] = lambda: False,
        repair: Repair | None = None,
        deep: bool = False,
        settle_s: float = 3600.0,
    ) -> None:
        """Wire up. With `repair` the caller holds the lock of the packing directory."""
        self._spool = spool
        self._store = store
        self._catalog = catalog
        self._note = note
        self._peers = peers
        self._peer_failed = peer_failed
        self._repair = repair
        self._deep = deep
        self._young = datetime.now(UTC) - timedelta(seconds=settle_s)
        self._packing = PackingDirectory(spool.root)
        self._result = Result()
        self._undone: set[str] = set()
        """Measurements that were taken down and are there again."""

    def run(self, since: date, until: date, *, all_recent: bool = False) -> Result:
        """Compare the days from `since` to `until`, both included, with `all_recent` also what was archived in them.

        Raises:
            StoreError, DatabaseUnavailable, psycopg.Error, OSError: the comparison could not be finished.
        """
        # Takedowns first: what of them is there again would show up as other differences, too.
        for takedown in self._catalog.unfinished_takedowns():
            subject = takedown.report_id or " ".join(takedown.measurement_uids)
            self._differs("takedown_unfinished", subject, "Run `uploader takedown` for it again, with --go.")
        recent_takedowns = min(since, datetime.now(UTC).date() - timedelta(days=TAKEDOWN_DAYS))
        for takedown in self._catalog.finished_takedowns(recent_takedowns):
            self._taken_down(takedown)
        days = range(since.toordinal(), until.toordinal() + 1)
        hours = [f"{date.fromordinal(day):%Y%m%d}{hour:02}" for day in days for hour in range(24)]
        if all_recent:
            recent = self._catalog.hours_committed(since, until)
            recent |= {directory[:10] for directory in self._spool.scored_directories()}
            further = sorted(recent.difference(hours))
            if further:
                log.info("hours outside the days asked for", first=further[0], last=further[-1], hours=len(further))
            hours += further
        for hour in hours:
            self._hour(hour)
        return self._result

    def _differs(self, kind: str, subject: str, detail: str, *, repaired: bool = False) -> None:
        self._result.found[kind] += 1
        self._result.repaired[kind] += repaired
        self._note(Difference(kind, subject, detail, repaired))

    def _hour(self, hour: str) -> None:
        planned = self._planned_names()  # first: a plan that ends meanwhile leaves its line in the manifest
        found = {info.key: info for info in self._store.list(f"raw/{hour[:8]}/{hour[8:]}")}
        lines = self._catalog.lines(hour)
        rows = self._catalog.object_rows(hour)
        for line in lines:
            self._result.objects += 2
            self._result.measurements += line.measurements
            sizes = {key: found.pop(key, None) for key in (line.jsonl_s3path, line.postcan_s3path)}
            self._line(line, sizes, rows.pop(line.jsonl_s3path, None))
        self._unlisted(found, rows, planned | self._planned_names())
        for s3path in rows:
            if self._store.head(s3path) is None:
                self._stray(self._catalog.places_in(s3path), f"The object {s3path} is not in the store.")
        self._spool_files(hour)
        self._bodies(hour)

    def _planned_names(self) -> set[str]:
        return {key for plan in self._packing.plans() for key in (plan.jsonl_key, plan.postcan_key)}

    # One line of the manifest.

    def _line(self, line: Line, found: Mapping[str, ObjectInfo | None], rows: ObjectRows | None) -> None:
        whole = True
        wanted = {line.jsonl_s3path: line.jsonl, line.postcan_s3path: line.postcan}
        damaged: list[tuple[str, str, str]] = []
        for key, info in found.items():
            archive = wanted[key]
            if info is None:
                damaged.append(("object_missing", key, "It is in the manifest and not in the store."))
            elif info.size != archive.size:
                damaged.append(("object_changed", key, f"It has {info.size} bytes instead of {archive.size}."))
            elif self._deep and self._store.content(key).sha256 != archive.sha256:
                damaged.append(("object_changed", key, "Its checksum is not that of the manifest."))
        for kind, key, detail in damaged:
            repaired = self._repair is not None and self._repair.restore(line, key)
            whole &= repaired
            self._differs(kind, key, detail, repaired=repaired)
        count = rows.rows if rows else 0
        outside = rows is not None and (
            rows.end > line.jsonl_bytes
            or rows.raw_end > line.postcan_bytes
            or rows.raw_s3path not in ("", line.postcan_s3path)
        )
        if whole and (self._deep or outside or count != line.measurements):
            self._compare(line)
        elif count < line.measurements:
            detail = f"{count} of {line.measurements} measurements have a row."
            self._differs("row_missing", line.jsonl_s3path, detail)
        elif outside:
            self._differs("row_wrong", line.jsonl_s3path, "A row points behind the end of the object.")

    def _compare(self, line: Line) -> None:
        """Compare each row of an object with what the object holds."""
        places = {place.measurement_uid: place for place in self._catalog.places_in(line.jsonl_s3path)}
        missing: list[Row] = []
        wrong: list[Row] = []
        with self._packing.scratch("verify") as directory:
            try:
                for row in self._rows_in(line, directory):
                    place = places.pop(row.measurement_uid, None)
                    if place is None:
                        missing.append(row)
                    elif not _fits(place, row, line):
                        wrong.append(row)
            except (ArchiveError, ObjectNotFound) as error:
                self._differs("object_changed", line.jsonl_s3path, str(error))
                return
        twice = {uid for chunk in _chunked(missing) for uid in self._elsewhere(chunk)}
        missing = [row for row in missing if row.measurement_uid not in twice]
        for kind, some, detail in (
            ("row_missing", missing, f"It lies in {line.jsonl_s3path}."),
            ("row_wrong", wrong, f"Its row does not say where it lies in {line.jsonl_s3path}."),
        ):
            repaired = bool(some) and self._repair is not None and self._repair.rows(line, some)
            for row in some:
                self._differs(kind, row.measurement_uid, detail, repaired=repaired)
        if twice:
            # A batch with other measurements stays as it is: the second copies in it take space and do no harm.
            spare = self._repair is not None and len(twice) == line.measurements and self._repair.drop_spare(line)
            for uid in sorted(twice):
                self._differs("archived_twice", uid, f"It lies in {line.jsonl_s3path}, too.", repaired=spare)
        self._stray(places.values(), f"The object {line.jsonl_s3path} does not have it.")

    def _rows_in(self, line: Line, directory: Path) -> Iterator[Row]:
        fetch(self._store, line.jsonl_s3path, directory / "jsonl")
        fetch(self._store, line.postcan_s3path, directory / "postcan")
        for slot in slots(directory / "jsonl", directory / "postcan"):
            yield slot.row

    def _elsewhere(self, rows: list[Row]) -> set[str]:
        """Return those that have a row for another object, since they were archived twice."""
        return {place.measurement_uid for place in self._catalog.places([row.measurement_uid for row in rows])}

    # What has no line.

    def _unlisted(self, found: Mapping[str, ObjectInfo], rows: dict[str, ObjectRows], planned: set[str]) -> None:
        batches: dict[BatchName, set[str]] = {}
        for key, info in found.items():
            if key in planned or info.modified > self._young:
                rows.pop(key, None)
                continue
            name = parse_key(key)
            if name is None:
                self._differs("object_unlisted", key, "It does not have the name of an object of ours.")
                continue
            whole = BatchName(name.directory, name.collector_id, name.counter, JSONL)
            batches.setdefault(whole, set()).add(name.suffix)
        for name, suffixes in batches.items():
            rows.pop(name.key(JSONL), None)
            self._result.objects += len(suffixes)
            repaired, detail = (
                (False, "It is not in the manifest.") if self._repair is None else self._repair.adopt(name, suffixes)
            )
            for suffix in sorted(suffixes):
                self._differs("object_unlisted", name.key(suffix), detail, repaired=repaired)
            if POSTCAN not in suffixes:
                log.warning("a jsonl object without its postcan", key=name.key(JSONL))

    def _stray(self, places: Iterable[Place], detail: str) -> None:
        for place in places:
            repaired = self._repair is not None and self._repair.drop_row(place)
            self._differs("row_stray", place.measurement_uid, detail, repaired=repaired)

    # The spool.

    def _spool_files(self, hour: str) -> None:
        for directory in self._spool.scored_directories():
            if not directory.startswith(hour):
                continue
            for uids in _chunked(spool_scan.uids(self._spool.root / SCORED / directory)):
                planned = {uid for plan in self._packing.plans() for uid in plan.uids}
                for place in self._catalog.places(uids):
                    uid = place.measurement_uid
                    if uid in planned or not self._spool.path("scored", uid).exists():
                        continue
                    repaired = self._repair is not None and self._repair.remove_file(place)
                    detail = f"Its body lies in {place.raw_s3path or place.s3path}."
                    self._differs("spool_archived", uid, detail, repaired=repaired)

    def _bodies(self, hour: str) -> None:
        for uids in self._catalog.without_place(hour):
            for uid in self._nobody_has([uid for uid in uids if not self._has_body(uid)]):
                self._differs("body_missing", uid, "No spool and no object has it.")

    def _has_body(self, uid: str) -> bool:
        if hour_of(uid) is None:  # of before 2020: no spool ever had it, and the archives of then are not ours
            return True
        if any(self._spool.path(state, uid).exists() for state in STATES):
            return True
        return self._peers is not None and self._peers.read(uid) is not None

    def _nobody_has(self, uids: list[str]) -> list[str]:
        """Leave out what moved while we looked; the database is asked once, since after an accident they are many."""
        if not uids:
            return []
        archived = {place.measurement_uid for place in self._catalog.places(uids)}
        missing = [uid for uid in uids if uid not in archived]
        if self._peer_failed():
            self._result.undecided += len(missing)
            return []
        still = self._catalog.scored(missing)  # those taken down meanwhile are not
        return [uid for uid in missing if uid in still and uid not in self._undone]

    # Takedowns.

    def _taken_down(self, takedown: Takedown) -> None:
        for uids in _chunked(takedown.measurement_uids):
            there: dict[str, list[str]] = {}
            for uid in sorted(self._catalog.scored(uids)):
                there.setdefault(uid, []).append("a row in fastpath")
            for place in self._catalog.places(uids):
                there.setdefault(place.measurement_uid, []).append(f"a row for {place.s3path}")
            for uid in uids:
                if hour_of(uid) is not None and any(self._spool.path(state, uid).exists() for state in STATES):
                    there.setdefault(uid, []).append("a file in the spool")
            self._undone.update(there)
            repaired = bool(there) and self._repair is not None and self._repair.take_down_again(sorted(there))
            for uid, found in sorted(there.items()):
                detail = f"Takedown {takedown.takedown_id} removed it; there is {' and '.join(found)}."
                self._differs("takedown_undone", uid, detail, repaired=repaired)


def _fits(place: Place, row: Row, line: Line) -> bool:
    return (
        place.linenum,
        place.member_offset,
        place.member_length,
        place.raw_s3path,
        place.raw_offset,
        place.raw_length,
    ) == (
        row.linenum,
        row.member_offset,
        row.member_length,
        None if row.raw_offset is None else line.postcan_s3path,
        row.raw_offset,
        row.raw_length,
    )


def _chunked(items: Iterable[T]) -> Iterator[list[T]]:
    iterator = iter(items)
    while chunk := list(itertools.islice(iterator, UIDS_AT_ONCE)):
        yield chunk
