"""Which measurements ended their scoring process, and how often: kept on disk, so that a restart does not forget.

A measurement becomes suspect when a scoring process dies or hangs over it, or when the daemon itself was gone while it
was in hand. From then on it is scored alone, with a mark on disk before each attempt, until it is scored (the mark
goes) or has used up its attempts (it is set aside). So it costs two processes at most, and no other measurement.
"""

import contextlib
import os
import threading
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import msgspec
import structlog

from core.ids import IdentifierError, parse_measurement_uid
from core.spool import INCOMING, Spool
from fastpath import metrics
from fastpath.scoring_protocol import abandoned_uid, create_cell_file

log = structlog.get_logger(__name__)

DIRECTORY = "suspects"
"""Name of the directory in the spool's root."""

FATAL_ATTEMPTS = 2
"""A measurement that ended its process so often is set aside."""

ALL_ATTEMPTS = 5
"""So is one that was in hand so often when the daemon itself ended, by whatever: that may be chance once or twice."""

SYSTEMIC = 5
"""When so many measurements in a row ended their process, none scored in between, it is not the measurements."""

_MARK = ".suspect"
_CELL = ".cell"

How = Literal["died", "stuck"]


class Marks(msgspec.Struct):
    """What happened to one measurement so far."""

    died: int = 0
    """Scoring processes that died over it."""
    stuck: int = 0
    """Scoring processes that were ended because they did not get on with it."""
    interrupted: int = 0
    """Attempts that nobody saw the end of, because the daemon was gone."""
    last: str = ""
    """How the last one ended."""

    @property
    def fatal(self) -> int:
        """Processes that it ended for certain."""
        return self.died + self.stuck

    @property
    def condemned(self) -> bool:
        """Whether it gets no further attempt."""
        return self.fatal >= FATAL_ATTEMPTS or self.fatal + self.interrupted >= ALL_ATTEMPTS

    def sentence(self) -> str:
        """Say why it is set aside."""
        return (
            f"Scoring it ended the scoring process: {self.died} died, {self.stuck} stuck, {self.interrupted} with the "
            f"daemon; last: {self.last or 'the daemon was gone'}. Score it by hand with fastpath --stdin, then repair "
            "the scorer and release the measurement."
        )


class Suspects:
    """The marks of all suspect measurements of a spool. Safe to share between threads.

    A mark that cannot be written (the disk is full) is kept in memory; only a restart forgets it then.
    """

    def __init__(self, spool: Spool) -> None:
        """Read the marks in the spool, and turn what a former daemon left in hand into marks. Raises OSError."""
        self._directory = spool.root / DIRECTORY
        self._directory.mkdir(exist_ok=True)
        self._lock = threading.Lock()
        self._marks: dict[str, Marks] = {}
        self._streak: set[str] = set()
        for path in sorted(self._directory.iterdir()):
            uid = path.name.removesuffix(_MARK)
            if path.suffix == _MARK and _is_uid(uid):
                self._read(path, uid, spool)
            elif path.suffix == _CELL:
                self._adopt(path, spool)
        metrics.SUSPECTS.set(len(self._marks))

    def __contains__(self, uid: object) -> bool:
        """Return whether a measurement is suspect."""
        return uid in self._marks

    def create_cell(self, name: str) -> tuple[Path, int]:
        """Return path and descriptor of a new cell file for the scoring process `name`. Raises OSError."""
        path = self._directory / f"{name}-{os.getpid()}{_CELL}"
        return path, create_cell_file(path)

    @property
    def systemic(self) -> bool:
        """Whether scoring processes die over every measurement; then none is set aside for it."""
        return len(self._streak) >= SYSTEMIC

    def condemned(self, uid: str) -> str | None:
        """Return why a measurement gets no further attempt; None when it does."""
        marks = self._marks.get(uid)
        return marks.sentence() if marks is not None and marks.condemned and not self.systemic else None

    def trying(self, uid: str) -> None:
        """Note, before a suspect is scored, that nobody knows how this attempt ends."""
        with self._lock:
            marks = self._marks.setdefault(uid, Marks())
            marks.interrupted += 1
            self._write(uid, marks)

    def failed(self, uid: str, how: How, text: str) -> None:
        """Note that a scoring process died or got stuck over a measurement; `text` says how."""
        with self._lock:
            known = uid in self._marks
            marks = self._marks.setdefault(uid, Marks())
            if known:
                marks.interrupted = max(0, marks.interrupted - 1)  # it is known now how this attempt ended
            setattr(marks, how, getattr(marks, how) + 1)
            marks.last = text
            self._streak.add(uid)
            self._write(uid, marks)

    def scored(self, uids: Iterable[str]) -> None:
        """Note that measurements were scored; they are suspect no longer."""
        if self._streak:
            with self._lock:
                self._streak.clear()
        if self._marks:
            for uid in uids:
                self.clear(uid)

    def clear(self, uid: str) -> None:
        """Forget a measurement: it was scored, or set aside."""
        with self._lock:
            if self._marks.pop(uid, None) is None:
                return
            metrics.SUSPECTS.set(len(self._marks))
            with contextlib.suppress(OSError):  # scored once more after a restart, which changes nothing
                self._path(uid).unlink(missing_ok=True)

    def _path(self, uid: str) -> Path:
        return self._directory / f"{uid}{_MARK}"

    def _read(self, path: Path, uid: str, spool: Spool) -> None:
        if not spool.path(INCOMING, uid).exists():
            path.unlink(missing_ok=True)
            return
        try:
            self._marks[uid] = msgspec.json.decode(path.read_bytes(), type=Marks)
        except (OSError, msgspec.DecodeError) as error:
            log.error("mark of a suspect measurement not readable, taken as one attempt", uid=uid, error=str(error))
            self._marks[uid] = Marks(interrupted=1)

    def _adopt(self, path: Path, spool: Spool) -> None:
        """Take over what a daemon that is gone had in hand."""
        uid = abandoned_uid(path)
        if uid is None:
            return
        tried = self._path(uid).exists()  # then this attempt was marked as open before it began
        if uid and not tried and _is_uid(uid) and spool.path(INCOMING, uid).exists():
            log.warning("the daemon ended while this measurement was scored, it is scored alone now", uid=uid)
            self.trying(uid)
        path.unlink(missing_ok=True)

    def _write(self, uid: str, marks: Marks) -> None:
        """Write a mark to disk, durably."""
        metrics.SUSPECTS.set(len(self._marks))
        final = self._path(uid)
        temporary = final.with_suffix(".tmp")
        try:
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
            try:
                os.write(descriptor, msgspec.json.encode(marks))
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
            os.rename(temporary, final)
            directory = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            log.error("mark of a suspect measurement not written, a restart forgets it", uid=uid, error=str(error))


def _is_uid(text: str) -> bool:
    try:
        parse_measurement_uid(text)
    except IdentifierError:
        return False
    return True
