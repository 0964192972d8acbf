"""Looking through directories of the spool, in memory that does not grow with what lies there.

A storm leaves a million files of one hour, country and test: some in the directory itself, the others in its overflow
folders. Names are therefore read as a stream, sorted folder by folder, and what did not change since it was counted is
not counted again.
"""

import functools
import heapq
import itertools
import os
import re
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from core.spool_files import SUFFIX
from core.spool_places import overflow_folder

SORTED_AT_ONCE = 50_000
"""Names that are put in order at a time. A directory with more of its own, which only a release without overflow
folders left, comes slice by slice, each slice in order."""

_DIRECTORY = re.compile(r"(2\d{9})_[0-9A-Za-z]{2}_[0-9A-Za-z]{2,29}", re.ASCII)
# The hour, then country and test; the hour is checked once, with the directory's name.
_FILE = re.compile(rf"(\d{{10}})[0-5]\d[0-5]\d\.\d{{6}}_(\w{{2}}_\w{{2,29}})_[0-9a-f]{{16}}\{SUFFIX}", re.ASCII)

_FOLDER = re.compile(r"[0-5]\d[0-5]", re.ASCII)

_SETTLED_S = 1.0
"""A count is kept once the directory's time of change is this old, since times of change have a coarse tick."""

_SLOW_COUNT_S = 0.05
_COUNT_SHARE = 20
"""A directory that takes long to count is counted again only after this many times as long."""


def directories(state: Path) -> list[str]:
    """Return the names of the measurement directories below `state`, sorted, hence the oldest hour first."""
    try:
        with os.scandir(state) as entries:
            return sorted(entry.name for entry in entries if _is_directory(entry.name))
    except FileNotFoundError:
        return []


def folders(directory: Path) -> list[str]:
    """Return the names of the overflow folders of a directory, sorted, hence the oldest first."""
    try:
        with os.scandir(directory) as entries:
            return sorted(entry.name for entry in entries if _FOLDER.fullmatch(entry.name))
    except FileNotFoundError:
        return []


def uids(directory: Path) -> Iterator[str]:
    """Yield the uids in one directory, as the file system gives them, then those in its overflow folders, oldest first.

    What does not belong there is left out.
    """
    if _is_directory(directory.name):
        below: list[str] = []
        yield from _own(directory, below)
        for folder in sorted(below):
            yield from _in_folder(directory, folder)


def in_order(directory: Path) -> Iterator[str]:
    """Yield the uids in one directory and its overflow folders, oldest first.

    A directory with more than SORTED_AT_ONCE files of its own comes in slices, its overflow folders after them.
    """
    if not _is_directory(directory.name):
        return
    below: list[str] = []
    own = _own(directory, below)
    batch = sorted(itertools.islice(own, SORTED_AT_ONCE))
    if len(batch) < SORTED_AT_ONCE:
        yield from heapq.merge(batch, _overflowed(directory, below))
        return
    while batch:
        yield from batch
        batch = sorted(itertools.islice(own, SORTED_AT_ONCE))
    yield from _overflowed(directory, below)


def oldest(directory: Path, limit: int) -> list[str]:
    """Return the `limit` oldest uids in one directory and its overflow folders, sorted; memory is bounded by it."""
    if not _is_directory(directory.name):
        return []
    below: list[str] = []
    own = heapq.nsmallest(limit, _own(directory, below))
    return list(itertools.islice(heapq.merge(own, _overflowed(directory, below)), limit))


def size_of(directory: Path) -> tuple[int, int]:
    """Return the number of measurements in a directory and the bytes they take."""
    files = total = 0
    for place in (directory, *(directory / folder for folder in folders(directory))):
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name.endswith(SUFFIX):
                        try:
                            total += entry.stat(follow_symlinks=False).st_size
                        except FileNotFoundError:
                            continue
                        files += 1
        except (FileNotFoundError, NotADirectoryError):
            continue
    return files, total


def _own(directory: Path, below: list[str]) -> Iterator[str]:
    """Yield the uids of the files in the directory itself; the names of its overflow folders come into `below`."""
    parts = (directory.name[:10], directory.name[11:])
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                match = _FILE.fullmatch(entry.name)
                if match is None:
                    if _FOLDER.fullmatch(entry.name):
                        below.append(entry.name)
                elif match.groups() == parts:
                    yield entry.name[: -len(SUFFIX)]
    except FileNotFoundError:
        return


def _in_folder(directory: Path, folder: str) -> Iterator[str]:
    parts = (directory.name[:10], directory.name[11:])
    try:
        with os.scandir(directory / folder) as entries:
            for entry in entries:
                match = _FILE.fullmatch(entry.name)
                if match is not None and match.groups() == parts and overflow_folder(entry.name) == folder:
                    yield entry.name[: -len(SUFFIX)]
    except (FileNotFoundError, NotADirectoryError):
        return


def _overflowed(directory: Path, below: list[str]) -> Iterator[str]:
    """Yield the uids in these overflow folders, oldest first; one folder is in memory at a time."""
    for folder in sorted(below):
        yield from sorted(_in_folder(directory, folder))


@dataclass(frozen=True, slots=True)
class _Count:
    number: int
    below: tuple[str, ...]  # overflow folders
    changed_ns: int  # time of change of the directory, before it was counted
    settled: bool
    at: float  # monotonic
    took_s: float


class DirectoryCounts:
    """Counts files and remembers the counts of directories that do not change. Safe to share between threads."""

    def __init__(self) -> None:
        self._known: dict[str, _Count] = {}
        self._lock = threading.Lock()

    def total(self, state: Path) -> int:
        """Return the number of measurements in all directories below `state`.

        The part of a directory so large that counting takes long may be late by 20 times as long as that takes.
        """
        with self._lock:
            found = dict[str, _Count | None]()
            for name in directories(state):
                count = found[f"{state}/{name}"] = self._count(state / name)
                for folder in () if count is None else count.below:
                    found[f"{state}/{name}/{folder}"] = self._count(state / name / folder)
            for key in [key for key in self._known if key.startswith(f"{state}/") and key not in found]:
                del self._known[key]
            self._known |= {key: count for key, count in found.items() if count is not None}
        return sum(count.number for count in found.values() if count is not None)

    def _count(self, directory: Path) -> _Count | None:
        try:
            changed_ns = directory.stat().st_mtime_ns
        except FileNotFoundError:
            return None
        known = self._known.get(str(directory))
        started = time.monotonic()
        if known is not None:
            if known.settled and known.changed_ns == changed_ns:
                return known
            if known.took_s > _SLOW_COUNT_S and started - known.at < _COUNT_SHARE * known.took_s:
                return known
        settled = time.time() - changed_ns / 1e9 > _SETTLED_S
        number, below = _number_of_files(directory)
        return _Count(number, below, changed_ns, settled, started, time.monotonic() - started)


def _number_of_files(directory: Path) -> tuple[int, tuple[str, ...]]:
    """Return how many measurements are in the directory itself, and the names of its overflow folders."""
    number, below = 0, list[str]()
    try:
        with os.scandir(directory) as entries:
            for entry in entries:
                if entry.name.endswith(SUFFIX):
                    number += 1
                elif _FOLDER.fullmatch(entry.name):
                    below.append(entry.name)
    except (FileNotFoundError, NotADirectoryError):
        pass
    return number, tuple(below)


@functools.lru_cache(maxsize=65536)
def _is_directory(name: str) -> bool:
    """Whether a name is that of a directory of measurements; its hour has to be one that existed."""
    match = _DIRECTORY.fullmatch(name)
    if match is None:
        return False
    try:
        datetime.strptime(match[1], "%Y%m%d%H")  # noqa: DTZ007 only whether it is a date
    except ValueError:
        return False
    return True
