"""The body of one measurement, from wherever it is: the spool of this host, or the object store.

From the moment a measurement is acknowledged there is always one of the two that has it. A spool file only moves
forward and is deleted after its row in the table `jsonl` is committed, so whoever looks in the spool first and in the
table next cannot fall in between.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import structlog

from core.archive import MAX_MEMBER_BYTES, ArchiveError, find_line, read_body, read_line
from core.db import Pool
from core.envelope import DocumentError, inner_document
from core.ids import IdentifierError, parse_measurement_uid
from core.objectstore import ObjectNotFound, ObjectStore
from core.spool import Spool, TornFile

log = structlog.get_logger(__name__)

_LEGACY_UID = re.compile(r"01\d{8}[0-9a-f]{30}", re.ASCII)
_CHUNK = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Body:
    """A measurement as it was sent.

    `document` is the JSON text inside the submission, byte for byte; it may hold line ends. When the submission holds
    no document at all (`decoded` is false), it is the submission itself, which need not be JSON.
    """

    document: bytes
    source: Literal["spool", "store"]
    decoded: bool = True


@dataclass(frozen=True, slots=True)
class _Place:
    """A row of the table `jsonl`."""

    s3path: str
    linenum: int
    member_offset: int | None
    member_length: int | None
    raw_s3path: str | None
    raw_offset: int | None
    raw_length: int | None


class BodyReader:
    """Reads bodies from the spool of this host and from the object store. Safe to share between threads."""

    def __init__(self, spool: Spool, store: ObjectStore, pool: Pool) -> None:
        """Wire up; nothing is opened before the first read."""
        self._spool = spool
        self._store = store
        self._pool = pool

    def read(self, uid: str) -> Body | None:
        """Return the body of a measurement, or None when neither this host nor the object store has it.

        None also stands for a text that is no measurement uid, current or legacy; nothing is looked up then. A body in
        the spool is returned without the database; one in the object store takes one row and one range read.

        Raises:
            DatabaseUnavailable: the spool does not have it, and whether the store does cannot be told now.
            StoreError: the store has it but does not give it (StoreUnavailable: try again later).
            ArchiveError: what the store gave is damaged.
        """
        if not _is_uid(uid):
            return None
        # Twice, for the one movement that goes backwards: an operator releases a file from quarantine.
        for _ in range(2):
            body = self.read_local(uid)
            if body is not None:
                return body
            place = self._find(uid)
            if place is not None:
                return self._fetch(uid, place)
        return None

    def read_local(self, uid: str) -> Body | None:
        """Return the body of a measurement if the spool of this host has it, else None; needs no database.

        A damaged spool file counts as absent here; the uploader sets it aside.
        """
        try:
            record = self._spool.read(uid)
        except IdentifierError:
            return None
        except TornFile as error:
            log.error("spool file damaged", uid=uid, error=str(error))
            return None
        return None if record is None else _body_of(record.body, "spool")

    def _find(self, uid: str) -> _Place | None:
        with self._pool.connection() as connection:
            row = connection.execute(
                "SELECT s3path, linenum, member_offset, member_length, raw_s3path, raw_offset, raw_length"
                " FROM jsonl WHERE measurement_uid = %s",
                [uid],
            ).fetchone()
        return None if row is None else _Place(*row)

    def _fetch(self, uid: str, place: _Place) -> Body:
        if place.raw_s3path and place.raw_offset is not None and place.raw_length is not None:
            packed = self._range(place.raw_s3path, place.raw_offset, place.raw_length)
            return _body_of(read_body(packed, uid), "store")
        if place.member_offset is not None and place.member_length is not None:
            return Body(read_line(self._range(place.s3path, place.member_offset, place.member_length)), "store")
        return Body(find_line(self._chunks(place.s3path), place.linenum), "store")

    def _range(self, key: str, offset: int, length: int) -> bytes:
        if not 0 < length <= 2 * MAX_MEMBER_BYTES:
            raise ArchiveError(f"The table says that a member of {key} has {length} bytes, which cannot be.")
        return self._store.get_range(key, offset, length)

    def _chunks(self, key: str) -> Iterator[bytes]:
        info = self._store.head(key)
        if info is None:
            raise ObjectNotFound(f"The object {key} is not in the store, although the table has it.")
        for offset in range(0, info.size, _CHUNK):
            yield self._store.get_range(key, offset, min(_CHUNK, info.size - offset))


def _is_uid(uid: str) -> bool:
    if _LEGACY_UID.fullmatch(uid):
        return True
    try:
        parse_measurement_uid(uid)
    except IdentifierError:
        return False
    return True


def _body_of(submission: bytes, source: Literal["spool", "store"]) -> Body:
    try:
        return Body(inner_document(submission), source)
    except DocumentError:
        return Body(submission, source, decoded=False)
