"""A body is found wherever it is, byte for byte, and every way of not finding it is told apart."""

import gzip
import os
import socket
import tracemalloc
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from core.archive import MAX_MEMBER_BYTES, ArchiveError, JsonlWriter, PostcanWriter
from core.bodies import Body, BodyReader
from core.body_cache import BodyCache
from core.db import DatabaseUnavailable, Pool, open_pool
from core.ids import new_measurement_uid
from core.objectstore import ObjectNotFound, ObjectStore, StoreUnavailable, open_store
from core.spool import Spool

DOCUMENT = '{"report_id" : "r",  "t": "ü\\ud83d", "n": 1e5 }'.encode()
BODY = b'{"format": "json", "content": ' + DOCUMENT + b"}"
UID = new_measurement_uid(datetime(2024, 1, 2, 3, tzinfo=UTC), "IT", "webconnectivity", BODY)
LEGACY = "0120200102" + "0123456789abcdef" + "0123456789abcd"


@pytest.fixture
def pool(dsn: str) -> Iterator[Pool]:
    pool = open_pool(dsn)
    yield pool
    pool.close()


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool")


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return open_store(f"file://{tmp_path}/objects")


@pytest.fixture
def reader(spool: Spool, store: ObjectStore, pool: Pool) -> BodyReader:
    return BodyReader(spool, store, pool)


@pytest.fixture
def without_database(spool: Spool, store: ObjectStore) -> Iterator[BodyReader]:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        pool = open_pool(f"host=127.0.0.1 port={held.getsockname()[1]} dbname=x user=x", checkout_timeout_s=0.2)
        yield BodyReader(spool, store, pool)
        pool.close()


def archive(pool: Pool, store: ObjectStore, tmp_path: Path, lines: list[bytes], **columns: object) -> None:
    """Put a jsonl object into the store, with a row for its last line."""
    with open(tmp_path / "j", "wb") as file:
        writer = JsonlWriter(file)
        members = [writer.add(line) for line in lines]
    store.put("raw/x.jsonl.gz", tmp_path / "j")
    row = {
        "measurement_uid": UID,
        "report_id": "r",
        "input": "",
        "s3path": "raw/x.jsonl.gz",
        "linenum": len(lines) - 1,
        "member_offset": members[-1].offset,
        "member_length": members[-1].length,
    } | columns
    with pool.connection() as connection:
        connection.execute(
            f"INSERT INTO jsonl ({', '.join(row)}) VALUES ({', '.join(['%s'] * len(row))})".encode(), list(row.values())
        )


@pytest.mark.parametrize("state", ["incoming", "scored", "quarantine"])
def test_a_body_in_the_spool_needs_no_database(without_database: BodyReader, spool: Spool, state: str) -> None:
    spool.put(UID, BODY, "r")
    if state == "scored":
        spool.mark_scored([UID])
    elif state == "quarantine":
        spool.quarantine(UID, "a test")
    assert spool.path(state, UID).exists()
    assert without_database.read(UID) == Body(DOCUMENT, "spool")
    assert without_database.read_local(UID) == Body(DOCUMENT, "spool")


def test_a_body_in_the_store_is_one_member(reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path) -> None:
    archive(pool, store, tmp_path, [b'{"other": 1}', DOCUMENT])
    assert reader.read(UID) == Body(DOCUMENT, "store")
    assert reader.read_local(UID) is None


def test_only_the_bytes_of_the_member_are_read(
    reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path
) -> None:
    """Whatever stands before it in the object does not matter."""
    archive(pool, store, tmp_path, [b'{"other": 1}', DOCUMENT])
    object_file = tmp_path / "objects" / "raw" / "x.jsonl.gz"
    content = bytearray(object_file.read_bytes())
    content[:20] = bytes(20)
    object_file.write_bytes(content)
    assert reader.read(UID) == Body(DOCUMENT, "store")


def test_the_spool_comes_first(
    reader: BodyReader, spool: Spool, pool: Pool, store: ObjectStore, tmp_path: Path
) -> None:
    archive(pool, store, tmp_path, [DOCUMENT])
    spool.put(UID, BODY, "r")
    assert reader.read(UID) == Body(DOCUMENT, "spool")


def test_a_document_with_line_ends_comes_from_the_postcan(
    reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path
) -> None:
    sent = b'{"format": "json", "content": {"a":\n 1}}'
    with open(tmp_path / "p", "wb") as file:
        writer = PostcanWriter(file)
        writer.add(UID.replace("03", "02", 1), b"another")
        member = writer.add(UID, sent)
        writer.finish()
    store.put("raw/x.tar.gz", tmp_path / "p")
    archive(
        pool,
        store,
        tmp_path,
        [b'{"a":  1}'],
        raw_s3path="raw/x.tar.gz",
        raw_offset=member.offset,
        raw_length=member.length,
    )
    assert reader.read(UID) == Body(b'{"a":\n 1}', "store")


@pytest.mark.parametrize("uid", [UID, LEGACY])
def test_objects_without_index_are_searched(
    reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path, uid: str
) -> None:
    """Older objects are one gzip member, larger than one read, and their measurements may have legacy uids."""
    lines = [b'{"n": %d}' % number for number in range(3)]
    archive(pool, store, tmp_path, [b""], measurement_uid=uid, linenum=1, member_offset=None, member_length=None)
    (tmp_path / "old").write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0))
    store.put("raw/x.jsonl.gz", tmp_path / "old")
    assert reader.read(uid) == Body(b'{"n": 1}', "store")


def test_a_large_object_without_index_is_read_in_ranges(
    reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path
) -> None:
    noise = bytes(range(256)).replace(b"\n", b"") * 12_000  # stored, 3 MB
    archive(pool, store, tmp_path, [b""], linenum=1, member_offset=None, member_length=None)
    (tmp_path / "old").write_bytes(gzip.compress(noise + b"\nlast\n", compresslevel=0, mtime=0))
    store.put("raw/x.jsonl.gz", tmp_path / "old")
    assert reader.read(UID) == Body(b"last", "store")


def test_what_nobody_has_is_none(reader: BodyReader) -> None:
    assert reader.read(UID) is None
    assert reader.read_local(UID) is None


@pytest.mark.parametrize(
    "uid",
    [
        "",
        "../../etc/passwd",
        UID + "\n",
        UID[:-1],
        UID.replace("IT", "i/"),
        LEGACY + "0",
        "20249902030000.000000_IT_webconnectivity_0123456789abcdef",
        "\0",
    ],
)
def test_what_is_no_uid_is_none_without_any_look(without_database: BodyReader, uid: str) -> None:
    assert without_database.read(uid) is None
    assert without_database.read_local(uid) is None


def test_without_database_an_absent_body_is_not_none(without_database: BodyReader) -> None:
    with pytest.raises(DatabaseUnavailable):
        without_database.read(UID)


def test_a_missing_object_is_told(reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path) -> None:
    archive(pool, store, tmp_path, [DOCUMENT])
    store.delete("raw/x.jsonl.gz")
    with pytest.raises(ObjectNotFound):
        reader.read(UID)
    with pool.connection() as connection:
        connection.execute("UPDATE jsonl SET member_offset = NULL")
    with pytest.raises(ObjectNotFound):
        reader.read(UID)


def test_a_store_that_is_away_is_told(spool: Spool, pool: Pool, store: ObjectStore, tmp_path: Path) -> None:
    archive(pool, store, tmp_path, [DOCUMENT])
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        away = open_store(
            "s3://bucket",
            endpoint=f"http://127.0.0.1:{held.getsockname()[1]}",
            region="x",
            access_key_id="x",
            secret_access_key="x",
        )
        with pytest.raises(StoreUnavailable):
            BodyReader(spool, away, pool).read(UID)


def test_a_damaged_object_is_told(reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path) -> None:
    archive(pool, store, tmp_path, [DOCUMENT])
    object_file = tmp_path / "objects" / "raw" / "x.jsonl.gz"
    content = bytearray(object_file.read_bytes())
    content[-5] ^= 1
    object_file.write_bytes(content)
    with pytest.raises(ArchiveError):
        reader.read(UID)


@pytest.mark.parametrize("length", [0, -1, 10**12])
def test_an_impossible_row_is_told(
    reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path, length: int
) -> None:
    archive(pool, store, tmp_path, [DOCUMENT], member_length=length)
    with pytest.raises(ArchiveError, match="cannot be"):
        reader.read(UID)


def test_a_damaged_spool_file_counts_as_absent(
    reader: BodyReader, spool: Spool, pool: Pool, store: ObjectStore, tmp_path: Path
) -> None:
    spool.put(UID, BODY, "r")
    path = spool.path("incoming", UID)
    path.write_bytes(path.read_bytes()[:-1])
    assert reader.read(UID) is None
    archive(pool, store, tmp_path, [DOCUMENT])
    assert reader.read(UID) == Body(DOCUMENT, "store")


def test_a_body_without_document_comes_as_it_is(reader: BodyReader, spool: Spool) -> None:
    body = b"no json"
    uid = new_measurement_uid(datetime(2024, 1, 2, 3, tzinfo=UTC), "IT", "webconnectivity", body)
    spool.put(uid, body, "r")
    assert reader.read(uid) == Body(body, "spool", decoded=False)


class MovingSpool(Spool):
    """A spool in which something happens right after a look that found nothing."""

    def after_miss(self) -> None:
        raise NotImplementedError

    def read(self, uid: str):
        record = super().read(uid)
        if record is None:
            self.after_miss()
        return record


def test_archived_between_the_two_looks(pool: Pool, store: ObjectStore, tmp_path: Path) -> None:
    spool = MovingSpool(tmp_path / "spool")
    done: list[None] = []

    def archive_once() -> None:
        if not done:
            archive(pool, store, tmp_path, [DOCUMENT])
            done.append(None)

    spool.after_miss = archive_once
    assert BodyReader(spool, store, pool).read(UID) == Body(DOCUMENT, "store")


def test_released_from_quarantine_between_the_two_looks(pool: Pool, store: ObjectStore, tmp_path: Path) -> None:
    """The one movement backwards: incoming is looked at before the file comes, quarantine after it went."""
    spool = MovingSpool(tmp_path / "spool")
    spool.after_miss = lambda: spool.put(UID, BODY, "r")
    assert BodyReader(spool, store, pool).read(UID) == Body(DOCUMENT, "spool")


class CountingStore:
    """Counts the bytes that a real store gives."""

    def __init__(self, store: ObjectStore) -> None:
        self._store = store
        self.name = store.name
        self.fetched: list[int] = []

    def get_range(self, key: str, offset: int, length: int) -> bytes:
        self.fetched.append(length)
        return self._store.get_range(key, offset, length)

    def head(self, key: str):
        return self._store.head(key)


@pytest.fixture
def counted(store: ObjectStore) -> CountingStore:
    return CountingStore(store)


@pytest.fixture
def cache(tmp_path: Path) -> BodyCache:
    return BodyCache(tmp_path / "cache", 64 * 1024 * 1024)


def test_one_member_is_fetched_once_and_then_kept(
    spool: Spool, counted: CountingStore, pool: Pool, store: ObjectStore, tmp_path: Path, cache: BodyCache
) -> None:
    archive(pool, store, tmp_path, [b'{"other": "%s"}' % (b"x" * 100_000), DOCUMENT])
    with pool.connection() as connection:
        length = connection.execute("SELECT member_length FROM jsonl").fetchone()[0]
    reader = BodyReader(spool, counted, pool, cache=cache)
    for _ in range(3):
        assert reader.read(UID) == Body(DOCUMENT, "store")
    assert counted.fetched == [length]
    cache.clear()
    assert reader.read(UID) == Body(DOCUMENT, "store")
    assert counted.fetched == [length, length]


def test_a_damaged_member_in_the_cache_is_fetched_again(
    spool: Spool, store: ObjectStore, pool: Pool, tmp_path: Path
) -> None:
    class Garbage(BodyCache):
        def get(self, key: str) -> bytes | None:
            return b"garbage"

    archive(pool, store, tmp_path, [DOCUMENT])
    reader = BodyReader(spool, store, pool, cache=Garbage(tmp_path / "cache", 1024 * 1024))
    assert reader.read(UID) == Body(DOCUMENT, "store")


def test_another_measurement_in_the_same_place_is_not_taken_from_the_cache(
    spool: Spool, store: ObjectStore, pool: Pool, tmp_path: Path, cache: BodyCache
) -> None:
    """After a takedown the object is written anew, and what comes next may lie where the removed one lay."""
    reader = BodyReader(spool, store, pool, cache=cache)
    archive(pool, store, tmp_path, [b'{"n": 1}'])
    assert reader.read(UID) == Body(b'{"n": 1}', "store")
    other = UID[:-1] + ("0" if UID[-1] != "0" else "1")
    with pool.connection() as connection:
        connection.execute("DELETE FROM jsonl")
    archive(pool, store, tmp_path, [b'{"n": 2}'], measurement_uid=other)
    assert reader.read(other) == Body(b'{"n": 2}', "store")
    assert reader.read(UID) is None


def test_an_object_without_index_is_downloaded_no_further_than_the_line_and_once(
    spool: Spool, counted: CountingStore, store: ObjectStore, pool: Pool, tmp_path: Path, cache: BodyCache
) -> None:
    lines = [b'{"n": %d, "x": "%s"}' % (number, os.urandom(300_000).hex().encode()) for number in range(12)]
    archive(pool, store, tmp_path, [b""], linenum=2, member_offset=None, member_length=None)
    (tmp_path / "old").write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0))
    store.put("raw/x.jsonl.gz", tmp_path / "old")
    assert (tmp_path / "old").stat().st_size > 3_500_000
    reader = BodyReader(spool, counted, pool, cache=cache)
    assert reader.read(UID) == Body(lines[2], "store")
    assert counted.fetched == [1024 * 1024]
    with pool.connection() as connection:
        connection.execute("UPDATE jsonl SET linenum = 5")
    assert reader.read(UID) == Body(lines[5], "store")
    assert counted.fetched == [1024 * 1024] * 2
    lines[5] = b'{"rewritten": true}'
    (tmp_path / "old").write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines), mtime=0))
    store.put("raw/x.jsonl.gz", tmp_path / "old")
    assert reader.read(UID) == Body(lines[5], "store")


def test_a_bomb_in_the_store_stops_at_the_bound(
    reader: BodyReader, pool: Pool, store: ObjectStore, tmp_path: Path
) -> None:
    bomb = gzip.compress(bytes(200 * 1024 * 1024), mtime=0)
    (tmp_path / "bomb").write_bytes(bomb)
    archive(pool, store, tmp_path, [DOCUMENT], member_offset=0, member_length=len(bomb))
    store.put("raw/x.jsonl.gz", tmp_path / "bomb")
    tracemalloc.start()
    try:
        with pytest.raises(ArchiveError, match="expands to more"):
            reader.read(UID)
        with pool.connection() as connection:
            connection.execute("UPDATE jsonl SET member_offset = NULL")
        with pytest.raises(ArchiveError, match="longer than"):
            reader.read(UID)
        assert tracemalloc.get_traced_memory()[1] < 3 * MAX_MEMBER_BYTES
    finally:
        tracemalloc.stop()


class Peer:
    """Another host that has one body, or none."""

    def __init__(self, body: bytes | None) -> None:
        self.body = body
        self.asked: list[str] = []

    def read(self, uid: str) -> bytes | None:
        self.asked.append(uid)
        return self.body


def fresh_uid() -> str:
    return new_measurement_uid(datetime.now(UTC), "IT", "webconnectivity", BODY)


def test_another_host_is_asked_first_for_what_came_in_lately(spool: Spool, store: ObjectStore, pool: Pool) -> None:
    peer = Peer(BODY)
    uid = fresh_uid()
    assert BodyReader(spool, store, pool, peers=peer).read(uid) == Body(DOCUMENT, "peer")
    assert peer.asked == [uid]


def test_another_host_is_asked_last_for_what_is_old(
    spool: Spool, store: ObjectStore, pool: Pool, tmp_path: Path
) -> None:
    peer = Peer(BODY)
    reader = BodyReader(spool, store, pool, peers=peer)
    assert reader.read(UID) == Body(DOCUMENT, "peer")
    archive(pool, store, tmp_path, [DOCUMENT])
    assert reader.read(UID) == Body(DOCUMENT, "store")
    assert peer.asked == [UID]


def test_another_host_helps_when_the_store_does_not(
    spool: Spool, store: ObjectStore, pool: Pool, tmp_path: Path
) -> None:
    archive(pool, store, tmp_path, [DOCUMENT])
    store.delete("raw/x.jsonl.gz")
    assert BodyReader(spool, store, pool, peers=Peer(BODY)).read(UID) == Body(DOCUMENT, "peer")
    with pytest.raises(ObjectNotFound):
        BodyReader(spool, store, pool, peers=Peer(None)).read(UID)


def test_other_hosts_are_not_asked_for_legacy_uids(spool: Spool, store: ObjectStore, pool: Pool) -> None:
    peer = Peer(BODY)
    assert BodyReader(spool, store, pool, peers=peer).read(LEGACY) is None
    assert peer.asked == []


def test_archived_by_the_other_host_between_the_looks(
    spool: Spool, store: ObjectStore, pool: Pool, tmp_path: Path
) -> None:
    """The table had no row yet; then the other host committed one and deleted its file."""

    class Archiving(Peer):
        def read(self, uid: str) -> bytes | None:
            if not self.asked:
                archive(pool, store, tmp_path, [DOCUMENT])
            return super().read(uid)

    assert BodyReader(spool, store, pool, peers=Archiving(None)).read(UID) == Body(DOCUMENT, "store")
