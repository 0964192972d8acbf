"""The durable disk queue: what was acknowledged lies here until the object store has it.

A measurement is one file, `<state>/<YYYYMMDDHH>_<CC>_<testname>/<uid>.post`: a header line with a checksum, then the
body as received. A directory that is full has overflow folders, see `core.spool_places`. The state of a measurement is
the directory it is in, and it only moves forward:

    incoming ──fastpath──> scored ──uploader──> (removed: the object store has it)
        └──────────────────────┴──> quarantine, with `<uid>.reason` beside it

Files appear by rename, complete and synchronised to disk, so a reader never meets half a file of ours; a checksum finds
those that a failing disk damaged.
"""

import contextlib
import functools
import itertools
import os
import secrets
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core import spool_scan
from core.groupsync import GroupSync
from core.ids import parse_measurement_uid, spool_directory
from core.spool_files import (
    FILE_MODE,
    TEMPORARY_SUFFIX,
    SpoolRecord,
    TornFile,
    make_header,
    parse,
    write_durably,
)
from core.spool_places import Places, default_limit
from core.spool_quarantine import MAX_BYTES, MAX_FILES, MAX_REASON, REASON_SUFFIX, Capacity, Quarantined

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

_LOOKED_AT_FOR_OLDEST = 20_000
_MOVED_AT_ONCE = 200  # what a directory may get beyond its limit by one call


class SpoolFull(OSError):
    """The disk has too little room to take the measurement; it was not accepted."""


@dataclass(frozen=True, slots=True)
class SpoolCounts:
    """Number of measurements in each state, and whether the quarantine takes no more."""

    incoming: int
    scored: int
    quarantine: int
    quarantine_full: bool = False


class Spool:
    """The disk queue below one root directory. Safe to share between threads, processes and the apps of a host."""

    def __init__(
        self,
        root: Path,
        *,
        min_free_bytes: int = 256 * 1024 * 1024,
        quarantine_max_files: int = MAX_FILES,
        quarantine_max_bytes: int = MAX_BYTES,
        overflow_after: int | None = None,
    ) -> None:
        """Open the spool at `root`, creating it.

        `put` refuses while the disk has less than `min_free_bytes` free. A directory with about `overflow_after` files
        (default: `core.spool_places.default_limit`) gets overflow folders.
        """
        self.root = Path(root)
        self._min_free_bytes = min_free_bytes
        self._quarantine = Capacity(self.root / QUARANTINE, quarantine_max_files, quarantine_max_bytes)
        self._places = Places(self.root, default_limit() if overflow_after is None else overflow_after)
        self._sync = GroupSync()
        # Random, since numbers of processes come again and what a killed one left behind may still be there.
        self._serial = itertools.count(secrets.randbits(48))
        self._counts = spool_scan.DirectoryCounts()
        self._on_disk: tuple[str, set[Path]] = ("", set())
        self._ahead = ("", 0.0)  # oldest measurement, when all are from the future, and since when (monotonic)
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
        self.check_room(len(body))
        final = self._places.choose(INCOMING, uid)
        temporary = self._temporary(final)
        header = make_header(body, report_id)

        def write() -> None:
            write_durably(temporary, header, body)
            os.rename(temporary, final)

        self._in_directory(final.parent, write)

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
        for path in self._everywhere(uid):
            if path.exists():
                with contextlib.suppress(FileNotFoundError):  # moved on, hence found in one of the next states
                    for directory in (path.parent, *self._above(path.parent)):
                        self._sync.directory(directory)
                    if path.exists():
                        return True
        return False

    def read(self, uid: str) -> SpoolRecord | None:
        """Return a measurement in whatever state it is, or None when the spool does not have it.

        Looks in the order in which files move, so that one on its way is never missed.

        Raises:
            TornFile: the file is damaged.
            IdentifierError: `uid` is no measurement uid.
        """
        for path in self._everywhere(uid):
            try:
                raw = path.read_bytes()
            except FileNotFoundError:
                continue
            return parse(uid, raw)
        return None

    def path(self, state: str, uid: str) -> Path:
        """Return where a measurement in `state` lies, or would lie in an ordinary directory when it is not there."""
        return self._places.find(state, uid) or self._places.both(state, uid)[1]

    def incoming(self, older_than_s: float = 0, limit: int | None = None) -> Iterator[str]:
        """Yield the uids that are not scored yet, at most `limit`, oldest hour first.

        Each hour, country and test comes in order, oldest first, and memory stays bounded whatever the backlog. With
        `older_than_s`, leaves out those received within that many seconds. A uid from the future (the clock jumped) is
        yielded, or it would wait for the clock to catch up.
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
        for first in range(0, len(uids), _MOVED_AT_ONCE):
            groups: dict[Path, list[str]] = defaultdict(list)
            for uid in uids[first : first + _MOVED_AT_ONCE]:
                groups[self._places.choose(SCORED, uid).parent].append(uid)
            for target, names in groups.items():
                self._in_directory(target, functools.partial(self._move, names, INCOMING, target), sync=False)

    def quarantine(self, uid: str, reason: str) -> bool:
        """Set a measurement aside with the reason in a text file beside it; `release` brings it back.

        Returns False, leaving the measurement where it is, when the quarantine is full (or the measurement is gone).
        Only a scorer or a disk gone bad fills it. The rest then waits for the repair in its place, is tried again by
        itself, and nothing is lost.
        """
        state = next((state for state in STATES if self._places.find(state, uid) is not None), None)
        if state is None:
            return False
        if state != QUARANTINE and not self._quarantine.takes(_size(self.path(state, uid))):
            return False
        target = self._places.choose(QUARANTINE, uid)
        note = target.with_suffix(REASON_SUFFIX)
        temporary = self._temporary(note)
        text = f"{reason[:MAX_REASON]}\n".encode("utf-8", "backslashreplace")

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
        moved = self._move_first(uid, (QUARANTINE,), self._places.choose(INCOMING, uid))
        source.with_suffix(REASON_SUFFIX).unlink(missing_ok=True)
        self._remove_emptied(source.parent)
        return moved

    def quarantined(self) -> Iterator[Quarantined]:
        """Yield what was set aside, oldest hour first."""
        state = self.root / QUARANTINE
        for name in spool_scan.directories(state):
            for uid in spool_scan.in_order(state / name):
                path = self.path(QUARANTINE, uid)
                try:
                    status = path.stat()
                except FileNotFoundError:
                    continue
                try:
                    reason = path.with_suffix(REASON_SUFFIX).read_text("utf-8", "replace").rstrip("\n")
                except FileNotFoundError:
                    reason = ""
                yield Quarantined(uid, reason, status.st_size, datetime.fromtimestamp(status.st_ctime, UTC))

    def erase(self, uid: str) -> bool:
        """Delete a measurement in whatever state it is, durably: somebody asked that it be taken down.

        Returns whether the spool had it. Once in each state and once more, since it may move at the same time.
        """
        found = False
        for path in (*self._everywhere(uid), *self._everywhere(uid)):
            with contextlib.suppress(FileNotFoundError):
                path.unlink()
                found = True
                self._sync.directory(path.parent)
        for path in self._places.both(QUARANTINE, uid):
            path.with_suffix(REASON_SUFFIX).unlink(missing_ok=True)
        return found

    def scored_directories(self) -> list[str]:
        """Return the names of the directories that hold scored measurements, oldest hour first."""
        return spool_scan.directories(self.root / SCORED)

    def scored(self, directory: str, limit: int | None = None) -> list[str]:
        """Return the uids of the scored measurements in one directory, sorted; with `limit`, the oldest so many.

        With a limit memory stays bounded by it, at the price of one look through the directory per call.
        """
        place = self.root / SCORED / directory
        return sorted(spool_scan.uids(place)) if limit is None else spool_scan.oldest(place, limit)

    def remove_scored(self, uids: Sequence[str]) -> None:
        """Delete scored measurements, durably. Call it only when the object store and the database have them."""
        touched = dict.fromkeys(self.root / SCORED / spool_directory(uid) for uid in uids)
        for uid in uids:
            for path in self._places.both(SCORED, uid):
                with contextlib.suppress(FileNotFoundError):
                    path.unlink()
                    touched[path.parent] = None
        for directory in touched:
            with contextlib.suppress(FileNotFoundError):
                self._sync.directory(directory)
        for directory in touched:
            self._remove_emptied(directory)

    def prune(self) -> None:
        """Remove emptied directories of past hours and the temporary files of writers that died."""
        this_hour = f"{datetime.now(UTC):%Y%m%d%H}"
        for state in STATES:
            for name in spool_scan.directories(self.root / state):
                directory = self.root / state / name
                for place in (*(directory / folder for folder in spool_scan.folders(directory)), directory):
                    _remove_stale(place)
                    if name[:10] < this_hour:
                        with contextlib.suppress(OSError):
                            place.rmdir()

    def counts(self) -> SpoolCounts:
        """Count the measurements in each state; what did not change since the last time is not counted again."""
        numbers = {state: self._counts.total(self.root / state) for state in STATES}
        return SpoolCounts(**numbers, quarantine_full=numbers[QUARANTINE] > 0 and self._quarantine.is_full(0))

    def oldest_incoming_s(self) -> float:
        """Return the age in seconds of the oldest measurement that waits to be scored, 0 when none waits.

        Looks at no more than some 20,000 names of the oldest hour; beyond that, it may be wrong by part of an hour.
        When only measurements from the future wait (the clock was ahead), the time since this object saw the oldest.
        """
        oldest, left = "", _LOOKED_AT_FOR_OLDEST
        for name in spool_scan.directories(self.root / INCOMING):
            if left <= 0 or (oldest and name[:10] != oldest[:10]):
                break
            for uid in itertools.islice(spool_scan.uids(self.root / INCOMING / name), left):
                oldest = min(oldest or uid, uid)
                left -= 1
        if not oldest:
            return 0.0
        age_s = _age_s(oldest, datetime.now(UTC))
        if age_s >= 0:
            return age_s
        # The clock was ahead when it came, and the times of its file are no better.
        if self._ahead[0] != oldest:
            self._ahead = (oldest, time.monotonic())
        return time.monotonic() - self._ahead[1]

    def _temporary(self, final: Path) -> Path:
        return final.with_name(f"{final.name}.{os.getpid()}-{next(self._serial)}{TEMPORARY_SUFFIX}")

    def _everywhere(self, uid: str) -> Iterator[Path]:
        """Yield where a measurement may lie, in the order in which files move."""
        for state in STATES:
            yield from self._places.both(state, uid)

    def _above(self, directory: Path) -> list[Path]:
        """Return the directories between one of measurements and the root, which name it; the root is on disk."""
        return list(itertools.takewhile(lambda place: place != self.root, directory.parents))

    def _remove_emptied(self, directory: Path) -> None:
        """Remove a directory of measurements, and the one whose overflow folder it is, if they are empty."""
        with contextlib.suppress(OSError):  # not empty, or another process was faster
            directory.rmdir()
            if directory.parent.parent != self.root:
                directory.parent.rmdir()

    def _move_first(self, uid: str, states: Iterable[str], target: Path) -> bool:
        """Move a measurement from the first of these states that has it; return whether one had it."""
        moved = False

        def move() -> None:
            nonlocal moved
            moved = any(self._move([uid], state, target.parent) for state in states)

        self._in_directory(target.parent, move)
        for source in itertools.chain.from_iterable(self._places.both(state, uid) for state in states):
            with contextlib.suppress(FileNotFoundError):
                self._sync.directory(source.parent)
        return moved

    def _move(self, uids: Sequence[str], state: str, target: Path) -> int:
        """Rename the files of `uids` that are in `state`; return how many. Without `target`: FileNotFoundError."""
        moved = 0
        for uid in uids:
            for source in self._places.both(state, uid):
                try:
                    os.rename(source, target / source.name)
                except FileNotFoundError:
                    if not target.is_dir():
                        raise
                else:
                    moved += 1
        return moved

    def _in_directory(self, directory: Path, act: Callable[[], object], *, sync: bool = True) -> None:
        """Do something in a directory whose name is on disk and, with `sync`, bring its entries to disk.

        Another process may have made the directory and died before it synchronised that: what is moved there would be
        lost with it. Another process may also remove the directory while it is empty. Before `act` is done it is made
        again; afterwards its files have moved on, and the directories of the other states have to be on disk.
        """
        for attempt in itertools.count():
            try:
                self._make_directory(directory)
                self._bring_parents_to_disk(directory)
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
            name = directory.relative_to(self.root).parts[1]
            for other in (self.root / state / name for state in STATES):
                for place in (other, *(other / folder for folder in spool_scan.folders(other))):
                    with contextlib.suppress(FileNotFoundError):
                        self._sync.directory(place)
        else:
            self._bring_parents_to_disk(directory)  # once more: it may have been removed and made again in between

    def _make_directory(self, directory: Path) -> None:
        """Make a directory that the group of the apps shares, and bring its name to disk.

        Below a set-gid directory the kernel sets the bit by itself, and the sandbox of the services forbids to ask for
        it (RestrictSUIDSGID=). Asking is for spools that were made by hand.
        """
        try:
            directory.mkdir(DIRECTORY_MODE & 0o777, parents=directory.parent == self.root)
        except FileExistsError:
            return
        except FileNotFoundError:  # an overflow folder whose directory is not there (any more)
            self._make_directory(directory.parent)
            self._make_directory(directory)
            return
        if directory.stat().st_mode & 0o7777 != DIRECTORY_MODE:  # mkdir's mode is cut by the umask
            directory.chmod(DIRECTORY_MODE)
        self._sync.directory(directory.parent)

    def _bring_parents_to_disk(self, directory: Path) -> None:
        """Bring the names of a directory, and of the one whose overflow folder it is, to disk.

        Another process may just have made them and not be as far as synchronising it. Once per process is enough for a
        directory of this hour; those of past hours may be removed and made anew at any time.
        """
        this_hour = f"{datetime.now(UTC):%Y%m%d%H}"
        hour, known = self._on_disk
        if hour != this_hour:
            self._on_disk = hour, known = this_hour, set()
        if directory in known:
            return
        above = self._above(directory)
        for place in above:
            self._sync.directory(place)
        if (directory if len(above) == 1 else directory.parent).name[:10] == this_hour:
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


def _remove_stale(directory: Path) -> None:
    with contextlib.suppress(FileNotFoundError), os.scandir(directory) as entries:
        for entry in entries:
            if entry.name.endswith(TEMPORARY_SUFFIX):
                with contextlib.suppress(FileNotFoundError):
                    if time.time() - entry.stat().st_mtime > STALE_AFTER_S:
                        os.unlink(entry.path)
