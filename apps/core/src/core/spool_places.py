"""Where the file of a measurement lies: in its directory, or in an overflow folder of it once that holds very many.

    <state>/<YYYYMMDDHH>_<CC>_<testname>/<uid>.post          while there are fewer than about OVERFLOW_AFTER files
    <state>/<YYYYMMDDHH>_<CC>_<testname>/<MMS>/<uid>.post    those that come later

`MMS` is the minute and the tens of seconds of the time of receipt, which the uid says. Hence a reader looks in two
places and lists nothing; folders in the order of their names are in the order of time; and no folder grows beyond what
a host takes in ten seconds.

As tests choose with the environment variable OONI_CRASH_AT where a process dies, OONI_SPOOL_OVERFLOW_AFTER gives it
another limit, so that whole programs run with folders that an ordinary day does not make.
"""

import itertools
import os
import threading
from dataclasses import dataclass
from pathlib import Path

from core.ids import spool_directory
from core.spool_files import SUFFIX

OVERFLOW_AFTER = 20_000
"""Files in a directory, about, from which on further ones go to its overflow folders."""

VARIABLE = "OONI_SPOOL_OVERFLOW_AFTER"
"""For tests alone: another number of files, for all spools of a process that are opened without one."""

_MOST_KNOWN = 4096
_SHARE_UNCOUNTED = 20
_SHARE_OF_ROOM = 8


def default_limit() -> int:
    """Return OVERFLOW_AFTER, or what a test has put into VARIABLE.

    Raises:
        ValueError: that is no number.
    """
    return int(os.environ.get(VARIABLE) or OVERFLOW_AFTER)


def overflow_folder(uid: str) -> str:
    """Return the name of the overflow folder of a measurement: minute and tens of seconds of its receipt."""
    return uid[10:13]


class Places:
    """Finds and chooses places of files below one root. Safe to share between threads."""

    def __init__(self, root: Path, overflow_after: int) -> None:
        """Directories below `root` take about `overflow_after` files; 0: all go to overflow folders."""
        self._root = root
        self._fill = _Fill(overflow_after)

    def both(self, state: str, uid: str) -> tuple[Path, Path]:
        """Return where a measurement in `state` may lie: in an overflow folder, or in the directory itself.

        Raises:
            IdentifierError: `uid` is no measurement uid.
        """
        directory = self._root / state / spool_directory(uid)
        name = f"{uid}{SUFFIX}"
        return directory / overflow_folder(uid) / name, directory / name

    def find(self, state: str, uid: str) -> Path | None:
        """Return where a measurement in `state` lies, None when it is not there."""
        return next((path for path in self.both(state, uid) if os.path.lexists(path)), None)

    def choose(self, state: str, uid: str) -> Path:
        """Return where the file of a measurement is to be put: where it is already, else where there is room."""
        there = self.find(state, uid)
        if there is not None:
            return there
        overflow, flat = self.both(state, uid)
        return flat if self._fill.takes_one(flat.parent) else overflow


@dataclass(slots=True)
class _Estimate:
    number: int
    uncounted: int  # further files before the next count


class _Fill:
    """Knows about how full directories are: what this process adds is added up, and now and then all is counted.

    Eight processes that fill one directory at the same time count often enough to notice in time; what they exceed the
    limit by is a twentieth of it for each process at most.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._known: dict[str, _Estimate] = {}
        self._lock = threading.Lock()

    def takes_one(self, directory: Path) -> bool:
        """Tell whether one more file is to go into a directory, which is then reckoned to have it."""
        if self._limit <= 0:
            return False
        key = str(directory)
        with self._lock:
            known = self._known.get(key)
            if known is None or known.uncounted <= 0:
                if len(self._known) >= _MOST_KNOWN:
                    self._known.clear()
                known = self._known[key] = self._count(key)
            known.uncounted -= 1
            if known.number >= self._limit:
                return False
            known.number += 1
            return True

    def _count(self, directory: str) -> _Estimate:
        try:
            with os.scandir(directory) as entries:
                number = sum(1 for _ in itertools.islice(entries, self._limit))
        except FileNotFoundError:
            number = 0
        pause = max(self._limit // _SHARE_UNCOUNTED, (self._limit - number) // _SHARE_OF_ROOM, 1)
        return _Estimate(number, pause)
