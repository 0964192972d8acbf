"""What `uploader verify --repair` may do. Nothing here deletes the only copy of anything.

- An object is put again when its bytes can be made anew: the jsonl object from the postcan, both from the spool. The
  checksum in the manifest decides whether they are the right ones.
- A batch in the store without a line in the manifest gets one, with the rows that are missing. It is deleted when each
  of its bodies was read from another object and is the same there.
- Rows are written from what the objects hold.
- A row that points nowhere is deleted when the spool has the body, which is then archived again.
- A batch in the manifest is deleted when each of its bodies was read from another object and is the same there.
- What was taken down and came back is removed again; for that, too, no copy is spared.
- A spool file is deleted when the body that its row points to was read from the store and is the same.
"""

from collections.abc import Sequence
from pathlib import Path

import psycopg
import structlog

from core.archive import ArchiveError
from core.envelope import DocumentError
from core.objectstore import ObjectNotFound, ObjectStore, StoreError
from core.spool import SCORED, Spool, TornFile
from uploader.catalog import Catalog, Line
from uploader.objects import archive_of, fetch, put_checked, rebuild_jsonl, slots
from uploader.pack import Row, Targets, pack
from uploader.plan import JSONL, POSTCAN, BatchName, PackingDirectory, parse_key
from uploader.queries import Place
from uploader.returned import has_body
from uploader.takedown import Takedown, TakedownError

log = structlog.get_logger(__name__)


class Repair:
    """The repairs, for a caller that holds the lock of the packing directory."""

    def __init__(self, spool: Spool, store: ObjectStore, catalog: Catalog) -> None:
        """Wire up; runs of other collectors are locked out when one of their objects is touched."""
        self._spool = spool
        self._store = store
        self._catalog = catalog
        self._packing = PackingDirectory(spool.root)
        self._takedown = Takedown(spool, store, catalog)

    def restore(self, line: Line, key: str) -> bool:
        """Put an object of the manifest again; return whether that could be done."""
        self._lock(line.jsonl_s3path)
        with self._packing.scratch("restore") as directory:
            targets = Targets(directory / "jsonl", directory / "postcan", directory / "rows")
            wanted, path = (line.jsonl, targets.jsonl) if key == line.jsonl_s3path else (line.postcan, targets.postcan)
            made = (key == line.jsonl_s3path and self._from_postcan(line, targets)) or self._from_spool(line, targets)
            if not made or archive_of(path) != wanted:
                return False
            put_checked(self._store, key, path, wanted)
        log.warning("object put again", key=key)
        return True

    def _from_postcan(self, line: Line, targets: Targets) -> bool:
        try:
            if fetch(self._store, line.postcan_s3path, targets.postcan) != line.postcan:
                return False
            return rebuild_jsonl(targets.postcan, targets.jsonl) == line.jsonl
        except (ObjectNotFound, ArchiveError) as error:
            log.warning("jsonl object cannot be made from its postcan", key=line.jsonl_s3path, reason=str(error))
            return False

    def _from_spool(self, line: Line, targets: Targets) -> bool:
        uids = [place.measurement_uid for place in self._catalog.places_in(line.jsonl_s3path)]
        return len(uids) == line.measurements and pack(self._spool, uids, targets, None, _leave).uids == uids

    def adopt(self, name: BatchName, suffixes: set[str]) -> tuple[bool, str]:
        """Give a batch without a line in the manifest one; return whether that was done, and what to say of it."""
        if POSTCAN not in suffixes:
            return False, "It is not in the manifest, and without its postcan it cannot be checked."
        self._catalog.lock([name.collector_id])
        with self._packing.scratch("adopt") as directory:
            jsonl, postcan = directory / "jsonl", directory / "postcan"
            try:
                cans = fetch(self._store, name.key(POSTCAN), postcan)
                if JSONL in suffixes:
                    lines = fetch(self._store, name.key(JSONL), jsonl)
                else:
                    lines = rebuild_jsonl(postcan, jsonl)
                rows = [slot.row for slot in slots(jsonl, postcan)]
                if self._is_spare(name.key(JSONL), rows, jsonl, postcan):
                    for suffix in suffixes:
                        self._store.delete(name.key(suffix))
                    return True, "It was not in the manifest, and all that it held lies in other objects, too."
            except (ArchiveError, ObjectNotFound) as error:
                return False, f"It is not in the manifest and damaged: {error}"
            if JSONL not in suffixes:
                put_checked(self._store, name.key(JSONL), jsonl, lines)
            self._catalog.adopt(name, lines, cans, rows)
        log.warning("batch entered into the manifest", key=name.key(JSONL), measurements=len(rows))
        return True, "It was not in the manifest."

    def drop_spare(self, line: Line) -> bool:
        """Delete a batch of the manifest when all that it holds lies in other objects, too; return whether it did."""
        self._lock(line.jsonl_s3path)
        with self._packing.scratch("spare") as directory:
            jsonl, postcan = directory / "jsonl", directory / "postcan"
            try:
                fetch(self._store, line.jsonl_s3path, jsonl)
                fetch(self._store, line.postcan_s3path, postcan)
                rows = [slot.row for slot in slots(jsonl, postcan)]
                if not self._is_spare(line.jsonl_s3path, rows, jsonl, postcan) or not self._catalog.forget(line):
                    return False
            except (ArchiveError, DocumentError, StoreError) as error:
                log.warning("second copy kept, it cannot be compared", key=line.jsonl_s3path, reason=str(error))
                return False
        # Killed here, the objects have no line, and the next repair deletes them after the same comparison.
        for key in (line.jsonl_s3path, line.postcan_s3path):
            self._store.delete(key)
        log.warning("second copy of a batch deleted", key=line.jsonl_s3path, measurements=len(rows))
        return True

    def _is_spare(self, key: str, rows: Sequence[Row], jsonl: Path, postcan: Path) -> bool:
        """Whether every body of a batch was read from another object just now, and is the same."""
        known = {place.measurement_uid: place for place in self._catalog.places([row.measurement_uid for row in rows])}
        if len(known) < len(rows) or any(place.s3path == key for place in known.values()):
            return False
        return all(has_body(self._store, known[slot.row.measurement_uid], slot.body) for slot in slots(jsonl, postcan))

    def rows(self, line: Line, rows: Sequence[Row]) -> bool:
        """Write rows of an object as they should be; return whether all are right now."""
        self._lock(line.jsonl_s3path)
        return self._catalog.add_rows(line.jsonl_s3path, line.postcan_s3path, rows, replace=True) == len(rows)

    def drop_row(self, place: Place) -> bool:
        """Delete a row that points nowhere, if the spool has the body to be archived again; return whether it did."""
        if not self._spool.path(SCORED, place.measurement_uid).exists():
            return False
        self._lock(place.s3path)
        return self._catalog.drop_rows([place.measurement_uid], place.s3path) == 1

    def remove_file(self, place: Place) -> bool:
        """Delete a spool file whose body the store gives back; return whether it did."""
        uid = place.measurement_uid
        try:
            record = self._spool.read(uid)
            if record is None:
                return True
            if not has_body(self._store, place, record.body):
                return False
        except (TornFile, ArchiveError, DocumentError, StoreError) as error:
            log.warning("spool file kept, its archived body cannot be compared", uid=uid, reason=str(error))
            return False
        self._spool.remove_scored([uid])
        return True

    def take_down_again(self, uids: Sequence[str]) -> bool:
        """Remove what came back of measurements that were taken down; return whether all of it is gone."""
        try:
            self._takedown.again(uids)
        except (TakedownError, psycopg.errors.InsufficientPrivilege) as error:
            log.warning("measurements taken down are still there", measurements=len(uids), reason=str(error).strip())
            return False
        return True

    def _lock(self, key: str) -> None:
        name = parse_key(key)
        if name is not None:
            self._catalog.lock([name.collector_id])


def _leave(uid: str, reason: str) -> None:
    log.warning("spool file of no use for a repair", uid=uid, reason=reason)
