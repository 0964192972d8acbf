"""Remembering what was received, so that a measurement which is sent again is answered with the uid it has.

A probe that did not hear the answer sends the same body to the same report once more. This is a memory of one host, for
today and yesterday (UTC), shared by its processes: from a key, the hash of report id and body, to the time of receipt.
Time and body together give the uid again. A clock that is wrong for a while costs nothing: days to come that have
tables are looked at too, and tables are kept longer than they are of use.

Below `<spool>/received`, each day has tables `<YYYYMMDD>.<n>`: 4096 pages of 170 records, the page chosen by the key; a
full page goes on in the next table. Nothing here is synchronised to disk, so it costs a submission some microseconds. A
killed process loses none of it; after a power cut `restore` reads back from the spool what the last seconds held.

It is a convenience, never a reason to refuse: when the disk fails or is full, measurements are taken without it.
"""

import contextlib
import fcntl
import hashlib
import os
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import structlog

KEY_BYTES = 16
PAGE_BYTES = 4096
PAGES = 4096
MAX_TABLES = 64
"""Tables of one day, hence at most 1 GiB and some 35 million measurements; what comes after is not remembered."""

KEPT = timedelta(hours=60)
"""A table is deleted when nothing was written to it for so long: not while the clock is two days ahead for a moment."""

_RECORD = struct.Struct("<16sQ")  # key, then microseconds since 1970 times two, plus one when acknowledged
_RECORDS = PAGE_BYTES // _RECORD.size
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_YEARS = range(2000, 3000)  # of times that a uid may have
_MICROSECOND = timedelta(microseconds=1)
_LOCK = struct.Struct("hhqqi0q")  # struct flock of 64-bit Linux
_PAGE_LOCKS = 1 << 61  # page locks lie behind all locks of keys
_BOOT_LOCK = _PAGE_LOCKS - 1

log = structlog.get_logger(__name__)


def received_key(scope: str, body: bytes) -> bytes:
    """Return the key of a body within a scope, such as the report id it is sent to."""
    digest = received_hash(scope)
    digest.update(body)
    return digest.digest()


def received_hash(scope: str) -> "hashlib.blake2b":
    """Return a hash whose digest is the key of the body that it is updated with, for bodies that come in pieces."""
    digest = hashlib.blake2b(digest_size=KEY_BYTES)
    digest.update(scope.encode("utf-8", "surrogatepass") + b"\0")
    return digest


@dataclass(slots=True)
class Entry:
    """What is remembered of a key: when it came, and whether it was acknowledged."""

    received_at: datetime | None = None
    acknowledged: bool = False
    _key: bytes = b""
    _memory: "Received | None" = None
    _place: "tuple[str, int] | None" = field(default=None, repr=False)

    def claim(self, received_at: datetime) -> None:
        """Remember the time under which the measurement is about to be stored; microseconds count."""
        self.received_at = received_at
        if self._memory is not None:
            self._place = self._memory.insert(self._key, received_at)

    def acknowledge(self) -> None:
        """Remember that the measurement is safe; from now on a repetition needs no look into the spool."""
        self.acknowledged = True
        if self._place is not None and self.received_at is not None:
            path, offset = self._place
            with _harmless():
                _write(path, offset, _pack(self._key, self.received_at, acknowledged=True))


class Received:
    """The memory of one host. Safe to share between threads and processes."""

    def __init__(self, directory: Path, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> None:
        """Use the tables in `directory`, made at the first use; `now` tells which days count."""
        self._directory = directory
        self._now = now
        self._pruned_for = date.min
        self._lock_path = str(directory / "lock")
        self._days: tuple[date, int, list[str]] = (date.min, 0, [])  # today, change of the directory, days to look at

    @contextmanager
    def hold(self, key: bytes) -> Iterator[Entry]:
        """Give what is remembered of a key, and keep everybody else from the same key meanwhile.

        Of two identical submissions at the same time the second one waits here for the first. The lock ends with the
        process that holds it.
        """
        try:
            self._prepare()
            lock = _lock(self._lock_path, int.from_bytes(key[:7], "little"))
        except OSError as error:
            log.warning("repeated measurements are not recognised", error=str(error))
            yield Entry()
            return
        try:
            yield self._find(key)
        finally:
            os.close(lock)

    def restore(self, after: Callable[[bool], Iterator[tuple[bytes, datetime]]], boot_id: str) -> int:
        """After a start of the machine, remember again what `after` gives; return how many were new.

        `after` is called with True when no table is left at all, with False when just the last minutes may be missing.
        Only one process of the host does it, and once per start.
        """
        try:
            self._prepare()
            lock = _lock(self._lock_path, _BOOT_LOCK, wait=False)
        except OSError:
            return 0
        try:
            note = self._directory / "boot"
            with contextlib.suppress(FileNotFoundError):
                if note.read_text("ascii", "replace") == boot_id:
                    return 0
            restored = 0
            for key, received_at in after(not any(self._directory.glob("2*.0"))):
                with self.hold(key) as entry:
                    if entry.received_at is None:
                        entry.claim(received_at)
                        entry.acknowledge()
                        restored += 1
            note.write_text(boot_id, "ascii")
            return restored
        finally:
            os.close(lock)

    def _days_to_look_at(self) -> list[str]:
        """Return today, yesterday, and the days to come that have tables, since the clock was ahead for a while.

        The directory is listed when it changed, which is when a table is made, or the day did.
        """
        today = self._now().date()
        changed_ns = self._directory.stat().st_mtime_ns
        if self._days[:2] != (today, changed_ns):
            days = [f"{today:%Y%m%d}", f"{today - timedelta(days=1):%Y%m%d}"]
            named = {name[:8] for name in os.listdir(self._directory) if name[:8].isdigit()}
            self._days = (today, changed_ns, days + sorted(day for day in named if day > days[0]))
        return self._days[2]

    def _table(self, day: str, number: int) -> str:
        return f"{self._directory}/{day}.{number}"

    def _prepare(self) -> None:
        """Make the directory, and once a day forget the tables that were not written to for KEPT."""
        now = self._now()
        if self._pruned_for == now.date():
            return
        self._directory.mkdir(0o770, parents=True, exist_ok=True)
        for path in self._directory.glob("2*.*"):
            with contextlib.suppress(FileNotFoundError):  # another process was faster
                if now.timestamp() - path.stat().st_mtime > KEPT.total_seconds():
                    path.unlink()
        self._pruned_for = now.date()

    def _find(self, key: bytes) -> Entry:
        with _harmless():
            for day in self._days_to_look_at():
                for number in range(MAX_TABLES):
                    path = self._table(day, number)
                    page = _read_page(path, _page_of(key))
                    if page is None:
                        break
                    slot = _slot_of(page, key)
                    if slot is not None:
                        offset = _page_of(key) * PAGE_BYTES + slot * _RECORD.size
                        received_at, acknowledged = _unpack(page, slot)
                        return Entry(received_at, acknowledged, key, self, (path, offset))
                    if _slot_of(page, bytes(KEY_BYTES)) is not None:  # it has room, so that nothing went on
                        break
        return Entry(_key=key, _memory=self)

    def insert(self, key: bytes, received_at: datetime) -> "tuple[str, int] | None":
        """Add a record, not acknowledged yet; return its table and position, None when it cannot be remembered."""
        with _harmless():
            page_number = _page_of(key)
            lock = _lock(self._lock_path, _PAGE_LOCKS + page_number)
            try:
                day = f"{received_at.astimezone(UTC):%Y%m%d}"
                for number in range(MAX_TABLES):
                    path = self._table(day, number)
                    page = _read_page(path, page_number, create=True)
                    slot = None if page is None else _slot_of(page, bytes(KEY_BYTES))
                    if slot is not None:
                        offset = page_number * PAGE_BYTES + slot * _RECORD.size
                        _write(path, offset, _pack(key, received_at, acknowledged=False))
                        return path, offset
            finally:
                os.close(lock)
        return None


class BackgroundRestore(threading.Thread):
    """Runs `Received.restore` beside the work of a process."""

    def __init__(self, received: Received, after: Callable[[bool], Iterator[tuple[bytes, datetime]]]) -> None:
        """Prepare the thread; it changes nothing when the machine was not started anew."""
        super().__init__(name="received-restore", daemon=True)
        self._received = received
        self._after = after

    def run(self) -> None:
        """Restore what a power cut may have taken."""
        try:
            restored = self._received.restore(self._after, boot_id())
        except OSError as error:
            log.warning("what was received before the start is not remembered", error=str(error))
            return
        if restored:
            log.info("measurements received before the start are remembered again", measurements=restored)


def boot_id() -> str:
    """Return a text that changes with each start of the machine."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return "unknown"


@contextmanager
def _harmless() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.warning("what was received cannot be remembered", error=str(error))


def _lock(path: str, byte: int, *, wait: bool = True) -> int:
    """Lock one byte; closing the descriptor, or the end of the process, unlocks it.

    Each lock has an open file of its own, so that it holds between threads as between processes.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        command = fcntl.F_OFD_SETLKW if wait else fcntl.F_OFD_SETLK
        fcntl.fcntl(descriptor, command, _LOCK.pack(fcntl.F_WRLCK, os.SEEK_SET, byte, 1, 0))
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def _read_page(path: str, page: int, *, create: bool = False) -> bytes | None:
    """Return a page of a table, None when there is no such table."""
    try:
        descriptor = os.open(path, (os.O_RDWR | os.O_CREAT if create else os.O_RDONLY) | os.O_CLOEXEC, 0o640)
    except FileNotFoundError:
        return None
    try:
        return os.pread(descriptor, PAGE_BYTES, page * PAGE_BYTES).ljust(PAGE_BYTES, b"\0")
    finally:
        os.close(descriptor)


def _write(path: str, offset: int, record: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.pwrite(descriptor, record, offset)
    finally:
        os.close(descriptor)


def _page_of(key: bytes) -> int:
    return int.from_bytes(key[-2:], "little") % PAGES


def _slot_of(page: bytes, key: bytes) -> int | None:
    """Return the number of the record with this key, or with an empty one the first free record."""
    position = page.find(key)
    while position >= 0:
        slot, rest = divmod(position, _RECORD.size)
        if slot >= _RECORDS:
            return None
        if rest == 0:
            return slot
        position = page.find(key, position + 1)
    return None


def _pack(key: bytes, received_at: datetime, *, acknowledged: bool) -> bytes:
    return _RECORD.pack(key, 2 * ((received_at - _EPOCH) // _MICROSECOND) + acknowledged)


def _unpack(page: bytes, slot: int) -> tuple[datetime | None, bool]:
    """Return time and state of a record; no time when a power cut left half a record."""
    value: int = _RECORD.unpack_from(page, slot * _RECORD.size)[1]
    try:
        received_at = _EPOCH + timedelta(microseconds=value // 2)
    except OverflowError:
        return None, False
    return (received_at, bool(value % 2)) if received_at.year in _YEARS else (None, False)
