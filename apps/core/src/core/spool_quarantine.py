"""What the quarantine of a spool takes in, and what it holds."""

import time
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import structlog

from core import spool_scan

MAX_FILES = 10_000
MAX_BYTES = 1024 * 1024 * 1024
"""What the quarantine takes in. More is the doing of a bad release or disk, and setting all aside helps nobody."""

REASON_SUFFIX = ".reason"
MAX_REASON = 4096

_MEASURE_EVERY_S = 10.0

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Quarantined:
    """A measurement that was set aside: why, its size in bytes, and since when."""

    uid: str
    reason: str
    size: int
    since: datetime


class Capacity:
    """Tells whether the quarantine takes more; what lies there is measured every ten seconds."""

    def __init__(self, root: Path, max_files: int, max_bytes: int) -> None:
        """`root` is the directory of the state."""
        self._root = root
        self._limits = (max_files, max_bytes)
        self._size = (0, 0)
        self._measured = self._refusal_logged = float("-inf")

    def takes(self, size: int) -> bool:
        """Tell whether a file of `size` bytes is to go there, which is then reckoned to be there."""
        if self.is_full(size):
            if time.monotonic() - self._refusal_logged > _MEASURE_EVERY_S:
                self._refusal_logged = time.monotonic()
                files, total = self._size
                log.error("quarantine is full, measurements stay where they are", files=files, bytes=total)
            return False
        files, total = self._size
        self._size = (files + 1, total + size)
        return True

    def is_full(self, size: int) -> bool:
        """Tell whether there is no room for one more file of `size` bytes."""
        if time.monotonic() - self._measured > _MEASURE_EVERY_S:
            sizes = [spool_scan.size_of(self._root / name) for name in spool_scan.directories(self._root)]
            self._size = (sum(files for files, _ in sizes), sum(total for _, total in sizes))
            self._measured = time.monotonic()
        files, total = self._size
        max_files, max_bytes = self._limits
        return files >= max_files or total + size > max_bytes
