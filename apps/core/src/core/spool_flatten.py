"""Going back to a release that knows no overflow folders: their files go back to the directories they belong to.

The order of every step is that of a reader, which looks into the overflow folder first: whoever looks for a measurement
meanwhile finds it. A listing may leave it out once. What an interrupted call left, the next one does.
"""

import contextlib
import os
from dataclasses import dataclass
from pathlib import Path

from core import spool_scan
from core.groupsync import GroupSync
from core.spool_files import SUFFIX
from core.spool_quarantine import REASON_SUFFIX


@dataclass(slots=True)
class Flattened:
    """How many measurements were moved, and the overflow folders that still hold some, which came meanwhile."""

    moved: int
    left: list[Path]


def flatten(root: Path, states: tuple[str, ...]) -> Flattened:
    """Move all files out of the overflow folders below `root`; when this returns that survives a power cut.

    Safe while services use the spool, but they may make folders again: stop them before, so that none are left.

    Raises:
        OSError: the disk failed or may not be written; nothing is lost, call it again.
    """
    sync = GroupSync()
    result = Flattened(0, [])
    for state in states:
        for name in spool_scan.directories(root / state):
            directory = root / state / name
            for folder in spool_scan.folders(directory):
                result.moved += _empty(directory / folder, directory, sync)
    for state in states:
        for name in spool_scan.directories(root / state):
            places = (root / state / name / folder for folder in spool_scan.folders(root / state / name))
            result.left += [place for place in places if any(_files(place))]
    return result


def _empty(folder: Path, directory: Path, sync: GroupSync) -> int:
    """Move the files of one folder to its directory and remove it; return how many measurements there were."""
    moved = 0
    for name in _files(folder):
        with contextlib.suppress(FileNotFoundError):  # a service was faster
            os.rename(folder / name, directory / name)
            moved += name.endswith(SUFFIX)
    with contextlib.suppress(FileNotFoundError):  # emptied, and removed with its directory
        sync.directory(directory)
        if folder.is_dir():
            sync.directory(folder)
            with contextlib.suppress(OSError):  # something is being written there, or somebody's file lies in it
                folder.rmdir()
            sync.directory(directory)
    return moved


def _files(folder: Path) -> list[str]:
    """Return the names of measurements and of reasons in a folder; it holds no more than ten seconds brought."""
    try:
        return sorted(name for name in os.listdir(folder) if name.endswith((SUFFIX, REASON_SUFFIX)))
    except (FileNotFoundError, NotADirectoryError):
        return []
