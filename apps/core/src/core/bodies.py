"""The body of one measurement, from wherever it is: the spool of this host or of another one, or the object store.

From the moment a measurement is acknowledged there is always one of them that has it. A spool file only moves forward
and is deleted after its row in the table `jsonl` is committed, so whoever looks in the spool first and in the table
next cannot fall in between.

Out of the store comes one gzip member, by one ranged request. Objects of old have no positions of their lines; they are
read from their start, piece by piece, no further than needed. What was read is kept in a bounded cache.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Literal, Protocol

import structlog

from core.archive import MAX_MEMBER_BYTES, ArchiveError, find_line, read_body, read_line
from core.body_cache import BodyCache
from core.db import DatabaseUnavailable, Pool
from core.envelope import DocumentError, inner_document
from core.ids import IdentifierError, parse_measurement_uid
from core.objectstore import ObjectNotFound, ObjectStore, StoreError
from core.spool import Spool, TornFile

log = structlog.get_logger(__name__)

_LEGACY_UID = re.compile(r"01\d{8}[0-9a-f]{30}", re.ASCII)
_CHUNK = 1024 * 1024

FRESH = timedelta(hours=2)
"""Younger measurements are more likely in the spool of another host than in the store, which is asked after it."""

Source = Literal["spool", "peer", "store"]


class Peers(Protocol):
    """Where else a body may lie: see `core.peers`."""

    def read(self, uid: str) -> bytes | None:
        """Return a body as received, None when nobody has it (or answers)."""


@dataclass(frozen=True, slots=True)
class Body:
    """A measurement as it was sent.

    `document` is the JSON text inside the submission, byte for byte; it may hold line ends. When the submission holds
    no document at all (`decoded` is false), it is the submission itself, which need not be JSON.
    """

    document: bytes
    source: Source
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
    """Reads bodies from the spools and from the object store. Safe to share between threads."""

    def __init__(
        self,
        spool: Spool,
        store: ObjectStore,
        pool: Pool,
        *,
        cache: BodyCache | None = None,
        peers: Peers | None = None,
    ) -> None:
        """Wire up; nothing is opened before the first read."""
        self._spool = spool
        self._store = store
        self._pool = pool
        self._cache = cache
        self._peers = peers

    def read(self, uid: str) -> Body | None:
        """Return the body of a measurement, or None when no host that answers has it and the object store neither.

        None also stands for a text that is no measurement uid, current or legacy; nothing is looked up then. A body in
        the spool is returned without the database; one in the object store takes one row and one range read. Other
        hosts are asked before the store for what came in lately, and after it for the rest.

        Raises:
            DatabaseUnavailable: no spool has it, and whether the store does cannot be told now.
            StoreError: the store has it but does not give it (StoreUnavailable: try again later).
            ArchiveError: what the store gave is damaged.
        """
        if not _is_uid(uid):
            return None
        # Twice, for what moves on while it is looked for: from a spool into the store, or, when an operator releases
        # it from quarantine, backwards.
        for _ in range(2):
            body = self.read_local(uid) or self._read_elsewhere(uid)
            if body is not None:
                return body
        return None

    def _read_elsewhere(self, uid: str) -> Body | None:
        fresh = _is_fresh(uid)
        body = self._ask_peers(uid) if fresh else None
        if body is not None:
            return body
        try:
            place = self._find(uid)
            body = None if place is None else self._fetch(uid, place)
        except (DatabaseUnavailable, StoreError, ArchiveError):
            body = None if fresh else self._ask_peers(uid)
            if body is None:
                raise
        if body is None and not fresh:
            body = self._ask_peers(uid)
        return body

    def _ask_peers(self, uid: str) -> Body | None:
        if self._peers is None or _LEGACY_UID.fullmatch(uid):
            return None
        body = self._peers.read(uid)
        return None if body is None else _body_of(body, "peer")

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
            key, offset, length = place.raw_s3path, place.raw_offset, place.raw_length
            return self._unpack(uid, key, offset, length, lambda data: _body_of(read_body(data, uid), "store"))
        if place.member_offset is not None and place.member_length is not None:
            key, offset, length = place.s3path, place.member_offset, place.member_length
            return self._unpack(uid, key, offset, length, lambda data: Body(read_line(data), "store"))
        try:
            return Body(find_line(self._chunks(place.s3path, cached=True), place.linenum), "store")
        except ArchiveError:
            if self._cache is None:
                raise
        return Body(find_line(self._chunks(place.s3path, cached=False), place.linenum), "store")

    def _unpack(self, uid: str, key: str, offset: int, length: int, unpack: Callable[[bytes], Body]) -> Body:
        """Read one gzip member, from the cache if it is there and whole.

        The uid is part of the name in the cache: when an object is written anew, as for a takedown, another
        measurement may come to lie in the same place.
        """
        if not 0 < length <= 2 * MAX_MEMBER_BYTES:
            raise ArchiveError(f"The table says that a member of {key} has {length} bytes, which cannot be.")
        name = f"member {self._store.name} {key} {offset} {length} {uid}"
        data = None if self._cache is None else self._cache.get(name)
        if data is not None:
            try:
                return unpack(data)
            except ArchiveError:
                log.warning("cached member of no use, read again", key=key)
        data = self._store.get_range(key, offset, length)
        body = unpack(data)
        if self._cache is not None:
            self._cache.put(name, data)
        return body

    def _chunks(self, key: str, *, cached: bool) -> Iterator[bytes]:
        """Yield an object in pieces; size and time of change tell an object written anew from the one in the cache."""
        info = self._store.head(key)
        if info is None:
            raise ObjectNotFound(f"The object {key} is not in the store, although the table has it.")
        for offset in range(0, info.size, _CHUNK):
            name = f"piece {self._store.name} {key} {info.size} {info.modified.timestamp()} {offset}"
            piece = self._cache.get(name) if self._cache is not None and cached else None
            if piece is None:
                piece = self._store.get_range(key, offset, min(_CHUNK, info.size - offset))
                if self._cache is not None:
                    self._cache.put(name, piece)
            yield piece


def _is_uid(uid: str) -> bool:
    if _LEGACY_UID.fullmatch(uid):
        return True
    try:
        parse_measurement_uid(uid)
    except IdentifierError:
        return False
    return True


def _is_fresh(uid: str) -> bool:
    if _LEGACY_UID.fullmatch(uid):
        return False
    return datetime.now(UTC) - parse_measurement_uid(uid).received_at < FRESH


def _body_of(submission: bytes, source: Source) -> Body:
    try:
        return Body(inner_document(submission), source)
    except DocumentError:
        return Body(submission, source, decoded=False)
