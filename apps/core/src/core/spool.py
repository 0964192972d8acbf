"""The durable disk queue: what was acknowledged lies here until the object store has it.

A measurement is one file, `<state>/<YYYYMMDDHH>_<CC>_<testname>/<uid>.post`: a header line with a checksum, then the
body as received. Its state is the directory it is in, and it only moves forward:

    incoming ──fastpath──> scored ──uploader──> (removed: the object store has it)
        └──────────────────────┴──> quarantine, with `<uid>.reason` beside it

Files appear by rename, complete and synchronised to disk, so a reader never meets half a file of ours; a checksum finds
those that a failing disk damaged.
"""

import contextlib
import functools
import itertools
import os
import re
import time
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from core.groupsync import GroupSync
from core.ids import IdentifierError, parse_measurement_uid, spool_directory

INCOMING, SCORED, QUARANTINE = "incoming", "scored", "quarantine"
STATES = (INCOMING, SCORED, QUARANTINE)

DIRECTORY_MODE = 0o2770
FILE_MODE = 0o640
"""The apps run as users of their own and share the spool through one group, hence set-gid directories."""

MIN_FREE_INODES = 1000

STALE_AFTER_S = 3600
"""A temporary file this old belongs to a writer that died; nobody was told that its measurement is safe."""

_DIRECTORY = re.compile(r"\d{10}_[0-9A-Za-z]{2}_[0-9A-Za-z]{2,29}", re.ASCII)
_HEADER = re.compile(rb"SPOOL1 ([0-9a-f]{8}) length=(\d{1,12}) report_id=([!-~]{0,256})\n")
_LONGEST_HEADER = 400
_SUFFIX = ".post"


class SpoolFull(OSError):
    """The disk has too little room to take the measurement; it was not accepted."""


class TornFile(ValueError):
    """A spool file does not agree with its checksum; the message names it and what disagrees."""


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """One measurement in the spool: `body` is what the probe sent, decompressed; `report_id` is from the path."""

    uid: str
    report_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """Number of measurements in each state."""

    incoming: int
    scored: int
    quarantine: int


class Spool:
    """The disk queue below one root directory. Safe to share between threads, processes and the apps of a host."""

    def __init__(self, root: Path, *, min_free_bytes: int = 256 * 1024 * 1024) -> None:
        """Open the spool at `root`, creating it; `put` refuses while the disk has less than `min_free_bytes` free."""
        self.root = Path(root)
        self._min_free_bytes = min_free_bytes
        self._sync = GroupSync()
        self._serial = itertools.count()
        for state in STATES:
            self._make_directory(self.root / state)

    def put(self, uid: str, body: bytes, report_id: str) -> None:
        """Store a measurement; when this returns it survives a power cut.

        Storing the same uid again changes nothing, since a uid contains the hash of its body.

        Raises:
            SpoolFull: the disk is (nearly) full; nothing was stored.
            IdentifierError: `uid` is no measurement uid.
            OSError: the disk failed; nothing was acknowledged.
        """
        directory = self.root / INCOMING / spool_directory(uid)
        self._refuse_when_full(len(body))
        final = directory / f"{uid}{_SUFFIX}"
        temporary = directory / f"{uid}{_SUFFIX}.{os.getpid()}-{next(self._serial)}.tmp"
        header = _make_header(body, report_id)

        def write() -> None:
            self._write(temporary, header, body)
            os.rename(temporary, final)

        self._in_directory(directory, write)

    def read(self, uid: str) -> SpoolRecord | None:
        """Return a measurement in whatever state it is, or None when the spool does not have it.

        Looks in the order in which files move, so that one on its way is never missed.

        Raises:
            TornFile: the file is damaged.
            IdentifierError: `uid` is no measurement uid.
        """
        for state in STATES:
            try:
                raw = self.path(state, uid).read_bytes()
            except FileNotFoundError:
                continue
            return _parse(uid, raw)
        return None

    def path(self, state: str, uid: str) -> Path:
        """Return where a measurement lies when it is in `state`."""
        return self.root / state / spool_directory(uid) / f"{uid}{_SUFFIX}"

    def incoming(self, older_than_s: float = 0, limit: int | None = None) -> Iterator[str]:
        """Yield the uids that are not scored yet, oldest first, at most `limit`.

        With `older_than_s`, leaves out those received within that many seconds. A uid from the future (the clock
        jumped) is yielded, or it would wait for the clock to catch up.
        """
        uids = itertools.chain.from_iterable(
            _uids(self.root / INCOMING / name) for name in _directories(self.root / INCOMING)
        )
        now = datetime.now(UTC)
        old = (uid for uid in uids if not 0 <= _age_s(uid, now) < older_than_s)
        return itertools.islice(old, limit)

    def mark_scored(self, uids: Sequence[str]) -> None:
        """Move measurements from incoming to scored; those that are not incoming are left alone.

        Not synchronised to disk: a rename is atomic, so after a power cut a file is in one of the two states, and
        scoring it once more changes nothing.
        """
        for directory, names in _by_directory(uids).items():
            source, target = self.root / INCOMING / directory, self.root / SCORED / directory
            self._in_directory(target, functools.partial(_move, names, source, target), sync=False)

    def quarantine(self, uid: str, reason: str) -> None:
        """Set a measurement aside with the reason in a text file beside it; `release` brings it back."""
        target = self.path(QUARANTINE, uid)
        note = target.with_suffix(".reason")
        temporary = note.with_suffix(f".reason.{os.getpid()}-{next(self._serial)}.tmp")
        self._make_directory(note.parent)
        self._write(temporary, f"{reason}\n".encode("utf-8", "backslashreplace"), b"")
        os.rename(temporary, note)
        self._move_first(uid, (INCOMING, SCORED), target)

    def release(self, uid: str) -> None:
        """Bring a measurement back from quarantine to incoming, where the fastpath takes it up again."""
        self._move_first(uid, (QUARANTINE,), self.path(INCOMING, uid))
        self.path(QUARANTINE, uid).with_suffix(".reason").unlink(missing_ok=True)

    def scored_directories(self) -> list[str]:
        """Return the names of the directories that hold scored measurements, oldest hour first."""
        return _directories(self.root / SCORED)

    def scored(self, directory: str) -> list[str]:
        """Return the uids of the scored measurements in one directory, sorted."""
        return _uids(self.root / SCORED / directory)

    def remove_scored(self, uids: Sequence[str]) -> None:
        """Delete scored measurements, durably. Call it only when the object store and the database have them."""
        for directory, names in _by_directory(uids).items():
            source = self.root / SCORED / directory
            for uid in names:
                (source / f"{uid}{_SUFFIX}").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._sync.directory(source)
            with contextlib.suppress(OSError):  # not empty, or another run was faster
                source.rmdir()

    def prune(self) -> None:
        """Remove emptied directories of past hours and the temporary files of writers that died."""
        this_hour = f"{datetime.now(UTC):%Y%m%d%H}"
        for state in (INCOMING, SCORED):
            for name in _directories(self.root / state):
                directory = self.root / state / name
                _remove_stale(directory)
                if name[:10] < this_hour:
                    with contextlib.suppress(OSError):
                        directory.rmdir()

    def counts(self) -> SpoolCounts:
        """Count the measurements in each state; takes about a second per million files."""
        return SpoolCounts(
            **{
                state: sum(_count(self.root / state / name) for name in _directories(self.root / state))
                for state in STATES
            }
        )

    def oldest_incoming_s(self) -> float:
        """Return the age in seconds of the oldest measurement that waits to be scored, 0 when none waits."""
        oldest = next(self.incoming(limit=1), None)
        return 0.0 if oldest is None else max(0.0, _age_s(oldest, datetime.now(UTC)))

    def _refuse_when_full(self, size: int) -> None:
        status = os.statvfs(self.root)
        no_room = status.f_bavail * status.f_frsize < self._min_free_bytes + size
        no_inodes = status.f_files > 0 and status.f_favail < MIN_FREE_INODES
        if no_room or no_inodes:
            raise SpoolFull(
                f"The disk of {self.root} has less than {self._min_free_bytes} bytes or {MIN_FREE_INODES} inodes free. "
                "Make room there, or run the uploader, then send again."
            )

    def _move_first(self, uid: str, states: Iterable[str], target: Path) -> None:
        sources = [self.path(state, uid) for state in states]

        def move() -> None:
            for source in sources:
                if _move([uid], source.parent, target.parent):
                    return

        self._in_directory(target.parent, move)
        for source in sources:
            with contextlib.suppress(FileNotFoundError):
                self._sync.directory(source.parent)

    def _in_directory(self, directory: Path, act: Callable[[], object], *, sync: bool = True) -> None:
        """Do something in a directory and, with `sync`, bring its entries to disk.

        Another process may remove the directory while it is empty. Before `act` is done it is made again; afterwards
        its files have moved on, and it is the directories of the other states that have to be on disk.
        """
        for attempt in itertools.count():
            try:
                self._make_directory(directory)
                act()
                break
            except FileNotFoundError:
                if attempt >= 5:
                    raise
        if not sync:
            return
        try:
            self._sync.directory(directory)
        except FileNotFoundError:
            for state in STATES:
                with contextlib.suppress(FileNotFoundError):
                    self._sync.directory(self.root / state / directory.name)

    def _make_directory(self, directory: Path) -> None:
        try:
            directory.mkdir(parents=True)
        except FileExistsError:
            return
        directory.chmod(DIRECTORY_MODE)  # mkdir's mode is cut by the umask
        self._sync.directory(directory.parent)

    @staticmethod
    def _write(path: Path, header: bytes, body: bytes) -> None:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
        try:
            os.fchmod(descriptor, FILE_MODE)
            with open(descriptor, "wb", buffering=0, closefd=False) as file:
                _write_all(file.fileno(), header + body)
            os.fsync(descriptor)
        except BaseException:
            with contextlib.suppress(OSError):
                path.unlink()
            raise
        finally:
            os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def _make_header(body: bytes, report_id: str) -> bytes:
    rest = f"length={len(body)} report_id={report_id}\n".encode("ascii")
    return f"SPOOL1 {zlib.crc32(body, zlib.crc32(rest)):08x} ".encode("ascii") + rest


def _parse(uid: str, raw: bytes) -> SpoolRecord:
    match = _HEADER.match(raw, 0, _LONGEST_HEADER)
    if match is None:
        raise TornFile(f"The spool file of {uid} has no valid header line.")
    body = raw[match.end() :]
    if len(body) != int(match[2]):
        raise TornFile(f"The spool file of {uid} holds {len(body)} bytes of body; its header says {int(match[2])}.")
    if zlib.crc32(memoryview(raw)[16:]) != int(match[1], 16):
        raise TornFile(f"The spool file of {uid} does not agree with its checksum.")
    return SpoolRecord(uid, match[3].decode("ascii"), body)


def _directories(state: Path) -> list[str]:
    try:
        return sorted(name for name in os.listdir(state) if _DIRECTORY.fullmatch(name))
    except FileNotFoundError:
        return []


def _uids(directory: Path) -> list[str]:
    try:
        names = os.listdir(directory)
    except FileNotFoundError:
        return []
    return sorted(name[: -len(_SUFFIX)] for name in names if name.endswith(_SUFFIX) and _is_uid(name[: -len(_SUFFIX)]))


def _is_uid(text: str) -> bool:
    try:
        parse_measurement_uid(text)
    except IdentifierError:
        return False
    return True


def _count(directory: Path) -> int:
    try:
        return sum(name.endswith(_SUFFIX) for name in os.listdir(directory))
    except FileNotFoundError:
        return 0


def _age_s(uid: str, now: datetime) -> float:
    return (now - parse_measurement_uid(uid).received_at).total_seconds()


def _move(uids: Sequence[str], source: Path, target: Path) -> int:
    """Rename the files of `uids` that `source` has; return how many. Raises FileNotFoundError without `target`."""
    moved = 0
    for uid in uids:
        try:
            os.rename(source / f"{uid}{_SUFFIX}", target / f"{uid}{_SUFFIX}")
        except FileNotFoundError:
            if not target.is_dir():
                raise
        else:
            moved += 1
    return moved


def _by_directory(uids: Sequence[str]) -> dict[str, list[str]]:
    grouped: dict[str, list[str]] = defaultdict(list)
    for uid in uids:
        grouped[spool_directory(uid)].append(uid)
    return grouped


def _remove_stale(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(".tmp"):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > STALE_AFTER_S:
                        os.unlink(entry.path)
