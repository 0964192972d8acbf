"""A file that may be replaced at any time: read again when it changed, the last good content kept when it is broken.

    keys = WatchedFile(Path("/etc/ooni/keys"), parse_keys)
    keys.current()    # what parse_keys made of the file; None when it was never readable
    keys.problem      # a sentence when the file, as it lies there now, cannot be used

Parsers take the path, do not keep the file open or mapped, and raise what they like, with a text for people.
"""

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

import structlog

CHECK_EVERY_S = 1.0
"""Least time between two looks at the file, in seconds; each worker process looks for itself."""

RETRY_AFTER_S = 10.0
"""Time, in seconds, after which a file that could not be read is tried again although it did not change."""

_MTIME_STEP_S = 0.1
# Two changes this close together may bear the same time.

log = structlog.get_logger(__name__)

T = TypeVar("T")
_Signature = tuple[int, int, int, int, int]


class WatchedFile(Generic[T]):
    """The parsed content of one file; may be used by all threads of a process."""

    def __init__(
        self,
        path: Path,
        parse: Callable[[Path], T],
        *,
        settle_s: float = 0.0,
        on_change: Callable[["WatchedFile[T]"], None] | None = None,
    ) -> None:
        """Read the file, if it is there and can be used.

        Args:
            path: the file; it may be replaced by a rename or written in place.
            parse: makes the content of it; raises for what it cannot use.
            settle_s: seconds for which a file must have rested before it is read; for formats in which a file that is
                still being written can be mistaken for a whole one.
            on_change: called after each attempt to read and when `problem` changes, by the thread that read.
        """
        self.path = path
        self._parse = parse
        self._settle_s = settle_s
        self._on_change = on_change or _nothing
        self._reading = threading.Lock()
        self._content: T | None = None
        self._problem: str | None = None
        self._seen: _Signature | None = None
        self._next_look = 0.0
        self._retry_at = 0.0
        self.refresh()

    @property
    def problem(self) -> str | None:
        """Why the file, as it lies there now, cannot be used; None when `current` is its content."""
        return self._problem

    def current(self) -> T | None:
        """Return the content of the file, or the last one that could be used; None when there never was one."""
        self.refresh()
        return self._content

    def peek(self) -> T | None:
        """Return what `current` would, without looking at the file."""
        return self._content

    def refresh(self) -> None:
        """Look whether the file changed, at most once in `CHECK_EVERY_S`, and read it if it did. Never raises.

        One thread reads; others go on with what there is.
        """
        if time.monotonic() < self._next_look or not self._reading.acquire(blocking=False):
            return
        try:
            self._look()
        finally:
            self._next_look = time.monotonic() + CHECK_EVERY_S
            self._reading.release()

    def _look(self) -> None:
        try:
            status = self.path.stat()
        except (OSError, ValueError) as error:  # ValueError: a path with a NUL in it
            self._seen = None
            self._report(_sentence(self.path, error))
            return
        signature = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
        now = time.monotonic()
        if signature == self._seen and (self._problem is None or now < self._retry_at):
            return
        age_s = time.time() - status.st_mtime
        if 0 <= age_s < self._settle_s:
            return
        self._read()
        # What was written in the same tick as the file's time would go unseen: such a file is read once more.
        self._seen = None if 0 <= age_s < _MTIME_STEP_S else signature
        self._retry_at = now + RETRY_AFTER_S

    def _read(self) -> None:
        try:
            content = self._parse(self.path)
        except Exception as error:  # noqa: BLE001 whatever a parser trips over, requests go on with what there was
            self._report(_sentence(self.path, error))
            return
        self._content = content
        if self._problem is not None:
            log.info("file can be used again", path=str(self.path))
        self._problem = None
        self._on_change(self)

    def _report(self, problem: str) -> None:
        if problem != self._problem:
            log.error("file cannot be used", path=str(self.path), problem=problem, kept=self._content is not None)
        self._problem = problem
        self._on_change(self)


def _nothing(_file: WatchedFile[T]) -> None:
    """Nobody wants to know."""


def _sentence(path: Path, error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return f"{path} does not exist. Put it there and let the service's user read it."
    if isinstance(error, OSError):
        return f"{path} cannot be read: {error.strerror or type(error).__name__}. Let the service's user read it."
    return f"{path} cannot be used: {str(error) or type(error).__name__}"
