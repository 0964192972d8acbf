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
import heapq
import itertools
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import structlog

from core import spool_scan
from core.groupsync import GroupSync
from core.ids import parse_measurement_uid, spool_directory
from core.spool_files import (
    FILE_MODE,
    SUFFIX,
    TEMPORARY_SUFFIX,
    SpoolRecord,
    TornFile,
    make_header,
    parse,
    write_durably,
)

__all__ = [
    "DIRECTORY_MODE",
    "FILE_MODE",
    "INCOMING",
    "QUARANTINE",
    "SCORED",
    "STATES",
    "Quarantined",
    "Spool",
    "SpoolCounts",
    "SpoolFull",
    "SpoolRecord",
    "TornFile",
]

INCOMING, SCORED, QUARANTINE = "incoming", "scored", "quarantine"
STATES = (INCOMING, SCORED, QUARANTINE)

DIRECTORY_MODE = 0o2770
"""Set-gid: what one of the apps makes belongs to the group of all of them."""

MIN_FREE_INODES = 1000

STALE_AFTER_S = 3600
"""A temporary file this old belongs to a writer that died; nobody was told that its measurement is safe."""

QUARANTINE_MAX_FILES = 10_000
QUARANTINE_MAX_BYTES = 1024 * 1024 * 1024
"""What `quarantine` takes in: more is the doing of a bad release or a bad disk, and setting all aside helps nobody."""

_LOOKED_AT_FOR_OLDEST = 20_000
_MEASURE_QUARANTINE_EVERY_S = 10.0
_REASON_SUFFIX = ".reason"
_MAX_REASON = 4096

log = structlog.get_logger(__name__)


class SpoolFull(OSError):
    """The disk has too little room to take the measurement; it was not accepted."""


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """Number of measurements in each state, and whether the quarantine takes no more."""

    incoming: int
    scored: int
    quarantine: int
    quarantine_full: bool = False


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A measurement that was set aside: why, its size in bytes, and since when."""

    uid: str
    reason: str
    size: int
    since: datetime


class Spool:
    """The disk queue below one root directory. Safe to share between threads, processes and the apps of a host."""

    def __init__(
        self,
        root: Path,
        *,
        min_free_bytes: int = 256 * 1024 * 1024,
        quarantine_max_files: int = QUARANTINE_MAX_FILES,
        quarantine_max_bytes: int = QUARANTINE_MAX_BYTES,
    ) -> None:
        """Open the spool at `root`, creating it; `put` refuses while the disk has less than `min_free_bytes` free."""
        self.root = Path(root)
        self._min_free_bytes = min_free_bytes
        self._quarantine_limits = (quarantine_max_files, quarantine_max_bytes)
        self._quarantine_size = (0, 0)
        self._quarantine_measured = float("-inf")
        self._refusal_logged = float("-inf")
        self._sync = GroupSync()
        # Random, since numbers of processes come again and what a killed one left behind may still be there.
        self._serial = itertools.count(secrets.randbits(48))
        self._counts = spool_scan.DirectoryCounts()
        self._on_disk: tuple[str, set[Path]] = ("", set())
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
        self.check_room(len(body))
        final = directory / f"{uid}{SUFFIX}"
        temporary = self._temporary(directory / f"{uid}{SUFFIX}")
        header = make_header(body, report_id)

        def write() -> None:
            write_durably(temporary, header, body)
            os.rename(temporary, final)

        self._in_directory(directory, write)
        self._bring_parent_to_disk(directory)

    def check_room(self, size: int) -> None:
        """Raise SpoolFull when a body of `size` bytes would be refused."""
        status = os.statvfs(self.root)
        no_room = status.f_bavail * status.f_frsize < self._min_free_bytes + size
        no_inodes = status.f_files > 0 and status.f_favail < MIN_FREE_INODES
        if no_room or no_inodes:
            raise SpoolFull(
                f"The disk of {self.root} has less than {self._min_free_bytes} bytes or {MIN_FREE_INODES} inodes free. "
                "Make room there, or run the uploader, then send again."
            )

    def confirm(self, uid: str) -> bool:
        """Make sure that a measurement, if the spool has it, survives a power cut; return whether it has it.

        For a file that another process put and died before it could say so.
        """
        for state in STATES:
            directory = self.path(state, uid).parent
            if self.path(state, uid).exists():
                with contextlib.suppress(FileNotFoundError):  # moved on, hence found in one of the next states
                    self._sync.directory(directory)
                    self._sync.directory(directory.parent)
                    if self.path(state, uid).exists():
                        return True
        return False

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
            return parse(uid, raw)
        return None

    def path(self, state: str, uid: str) -> Path:
        """Return where a measurement lies when it is in `state`."""
        return self.root / state / spool_directory(uid) / f"{uid}{SUFFIX}"

    def incoming(self, older_than_s: float = 0, limit: int | None = None) -> Iterator[str]:
        """Yield the uids that are not scored yet, at most `limit`, oldest hour first.

        Within an hour, each country and test comes in slices of 20,000 that are in order, so that memory stays bounded
        whatever the backlog. With `older_than_s`, leaves out those received within that many seconds. A uid from the
        future (the clock jumped) is yielded, or it would wait for the clock to catch up.
        """
        state = self.root / INCOMING
        names = spool_scan.directories(state)
        uids: Iterator[str] = itertools.chain.from_iterable(spool_scan.in_order(state / name) for name in names)
        if older_than_s > 0:
            now = datetime.now(UTC)
            first, last = _stamp(now - timedelta(seconds=older_than_s)), _stamp(now)
            uids = (uid for uid in uids if not first < uid[: len(first)] <= last)
        return itertools.islice(uids, limit)

    def mark_scored(self, uids: Sequence[str]) -> None:
        """Move measurements from incoming to scored; those that are not incoming are left alone.

        Not synchronised to disk: a rename is atomic, so after a power cut a file is in one of the two states, and
        scoring it once more changes nothing.
        """
        for directory, names in _by_directory(uids).items():
            source, target = self.root / INCOMING / directory, self.root / SCORED / directory
            self._in_directory(target, functools.partial(_move, names, source, target), sync=False)

    def quarantine(self, uid: str, reason: str) -> bool:
        """Set a measurement aside with the reason in a text file beside it; `release` brings it back.

        Returns False, leaving the measurement where it is, when the quarantine is full (or the measurement is gone).
        Only a scorer or a disk gone bad fills it. The rest then waits for the repair in its place, is tried again by
        itself, and nothing is lost.
        """
        source = next((path for state in STATES if (path := self.path(state, uid)).exists()), None)
        if source is None:
            return False
        if source.parent.parent.name != QUARANTINE and not self._quarantine_takes(_size(source)):
            return False
        target = self.path(QUARANTINE, uid)
        note = target.with_suffix(_REASON_SUFFIX)
        temporary = self._temporary(note)
        text = f"{reason[:_MAX_REASON]}\n".encode("utf-8", "backslashreplace")

        def annotate() -> None:
            write_durably(temporary, text, b"")
            os.rename(temporary, note)

        self._in_directory(target.parent, annotate, sync=False)
        self._move_first(uid, (INCOMING, SCORED), target)
        return True

    def release(self, uid: str) -> bool:
        """Bring a measurement back from quarantine to incoming, where the fastpath takes it up again.

        Returns whether it was in quarantine.
        """
        source = self.path(QUARANTINE, uid)
        moved = self._move_first(uid, (QUARANTINE,), self.path(INCOMING, uid))
        source.with_suffix(_REASON_SUFFIX).unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds others
            source.parent.rmdir()
        return moved

    def quarantined(self) -> Iterator[Quarantined]:
        """Yield what was set aside, oldest hour first."""
        state = self.root / QUARANTINE
        for name in spool_scan.directories(state):
            for uid in spool_scan.in_order(state / name):
                path = state / name / f"{uid}{SUFFIX}"
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                try:
                    reason = path.with_suffix(_REASON_SUFFIX).read_text("utf-8", "replace").rstrip("\n")
                except FileNotFoundError:
                    reason = ""
                yield Quarantined(uid, reason, status.st_size, datetime.fromtimestamp(status.st_ctime, UTC))

    def erase(self, uid: str) -> bool:
        """Delete a measurement in whatever state it is, durably: somebody asked that it be taken down.

        Returns whether the spool had it. Once in each state and once more, since it may move at the same time.
        """
        found = False
        for state in (*STATES, *STATES):
            path = self.path(state, uid)
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                found = True
                self._sync.directory(path.parent)
        self.path(QUARANTINE, uid).with_suffix(_REASON_SUFFIX).unlink(missing_ok=True)
        return found

    def scored_directories(self) -> list[str]:
        """Return the names of the directories that hold scored measurements, oldest hour first."""
        return spool_scan.directories(self.root / SCORED)

    def scored(self, directory: str, limit: int | None = None) -> list[str]:
        """Return the uids of the scored measurements in one directory, sorted; with `limit`, the oldest so many.

        With a limit memory stays bounded by it, at the price of one look through the directory per call.
        """
        found = spool_scan.uids(self.root / SCORED / directory)
        return sorted(found) if limit is None else heapq.nsmallest(limit, found)

    def remove_scored(self, uids: Sequence[str]) -> None:
        """Delete scored measurements, durably. Call it only when the object store and the database have them."""
        for directory, names in _by_directory(uids).items():
            source = self.root / SCORED / directory
            for uid in names:
                (source / f"{uid}{SUFFIX}").unlink(missing_ok=True)
            with contextlib.suppress(FileNotFoundError):
                self._sync.directory(source)
            with contextlib.suppress(OSError):  # not empty, or another run was faster
                source.rmdir()

    def prune(self) -> None:
        """Remove emptied directories of past hours and the temporary files of writers that died."""
        this_hour = f"{datetime.now(UTC):%Y%m%d%H}"
        for state in STATES:
            for name in spool_scan.directories(self.root / state):
                directory = self.root / state / name
                _remove_stale(directory)
                if name[:10] < this_hour:
                    with contextlib.suppress(OSError):
                        directory.rmdir()

    def counts(self) -> SpoolCounts:
        """Count the measurements in each state; what did not change since the last time is not counted again."""
        numbers = {state: self._counts.total(self.root / state) for state in STATES}
        return SpoolCounts(**numbers, quarantine_full=numbers[QUARANTINE] > 0 and self._quarantine_is_full(0))

    def oldest_incoming_s(self) -> float:
        """Return the age in seconds of the oldest measurement that waits to be scored, 0 when none waits.

        Looks at no more than some 20,000 names of the oldest hour; beyond that, it may be wrong by part of an hour.
        """
        oldest, left = "", _LOOKED_AT_FOR_OLDEST
        for name in spool_scan.directories(self.root / INCOMING):
            if left <= 0 or (oldest and name[:10] != oldest[:10]):
                break
            for uid in itertools.islice(spool_scan.uids(self.root / INCOMING / name), left):
                oldest = min(oldest or uid, uid)
                left -= 1
        return max(0.0, _age_s(oldest, datetime.now(UTC))) if oldest else 0.0

    def _temporary(self, final: Path) -> Path:
        return final.with_name(f"{final.name}.{os.getpid()}-{next(self._serial)}{TEMPORARY_SUFFIX}")

    def _quarantine_takes(self, size: int) -> bool:
        if self._quarantine_is_full(size):
            if time.monotonic() - self._refusal_logged > _MEASURE_QUARANTINE_EVERY_S:
                self._refusal_logged = time.monotonic()
                files, total = self._quarantine_size
                log.error("quarantine is full, measurements stay where they are", files=files, bytes=total)
            return False
        files, total = self._quarantine_size
        self._quarantine_size = (files + 1, total + size)
        return True

    def _quarantine_is_full(self, size: int) -> bool:
        if time.monotonic() - self._quarantine_measured > _MEASURE_QUARANTINE_EVERY_S:
            state = self.root / QUARANTINE
            sizes = [spool_scan.size_of(state / name) for name in spool_scan.directories(state)]
            self._quarantine_size = (sum(files for files, _ in sizes), sum(total for _, total in sizes))
            self._quarantine_measured = time.monotonic()
        files, total = self._quarantine_size
        max_files, max_bytes = self._quarantine_limits
        return files >= max_files or total + size > max_bytes

    def _move_first(self, uid: str, states: Iterable[str], target: Path) -> bool:
        """Move a measurement from the first of these states that has it; return whether one had it."""
        sources = [self.path(state, uid) for state in states]
        moved = False

        def move() -> None:
            nonlocal moved
            moved = any(_move([uid], source.parent, target.parent) for source in sources)

        self._in_directory(target.parent, move)
        for source in sources:
            with contextlib.suppress(FileNotFoundError):
                self._sync.directory(source.parent)
        return moved

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
        """Make a directory that the group of the apps shares, and bring its name to disk.

        Below a set-gid directory the kernel sets the bit by itself, and the sandbox of the services forbids to ask for
        it (RestrictSUIDSGID=). Asking is for spools that were made by hand.
        """
        try:
            directory.mkdir(DIRECTORY_MODE & 0o777, parents=True)
        except FileExistsError:
            return
        if directory.stat().st_mode & 0o7777 != DIRECTORY_MODE:  # mkdir's mode is cut by the umask
            directory.chmod(DIRECTORY_MODE)
        self._sync.directory(directory.parent)

    def _bring_parent_to_disk(self, directory: Path) -> None:
        """Bring the name of a directory to disk that another process may just have made.

        That process may not be as far as synchronising it. Once per process is enough for a directory of this hour;
        those of past hours may be removed and made anew at any time.
        """
        this_hour = f"{datetime.now(UTC):%Y%m%d%H}"
        hour, known = self._on_disk
        if hour != this_hour:
            self._on_disk = hour, known = this_hour, set()
        if directory in known:
            return
        self._sync.directory(directory.parent)
        if directory.name[:10] == this_hour:
            known.add(directory)


def _stamp(moment: datetime) -> str:
    return f"{moment:%Y%m%d%H%M%S.%f}"


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _age_s(uid: str, now: datetime) -> float:
    return (now - parse_measurement_uid(uid).received_at).total_seconds()


def _move(uids: Sequence[str], source: Path, target: Path) -> int:
    """Rename the files of `uids` that `source` has; return how many. Raises FileNotFoundError without `target`."""
    moved = 0
    for uid in uids:
        try:
            os.rename(source / f"{uid}{SUFFIX}", target / f"{uid}{SUFFIX}")
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
            if entry.name.endswith(TEMPORARY_SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > STALE_AFTER_S:
                        os.unlink(entry.path)
