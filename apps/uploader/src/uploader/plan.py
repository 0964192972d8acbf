"""What a batch is called, and the plan file that makes its upload repeatable.

A plan is the list of measurements in one batch and the number the batch got. It is on disk before anything leaves the
host, so a run that was killed at any later point is finished by the next one, under the same name and with the same
measurements.
"""

import contextlib
import fcntl
import os
import re
import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec
import structlog

log = structlog.get_logger(__name__)

_PLAN, _TEMPORARY, _DAMAGED = ".plan", ".tmp", ".damaged"
_SCRATCH_AGE_S = 24 * 3600
JSONL, POSTCAN, ROWS = ".jsonl.gz", ".tar.gz", ".rows"


PLANNED_AT_ONCE = 100_000
"""Names of a directory that are in memory at a time; so many measurements are in a batch at most."""


class AnotherRun(Exception):
    """An uploader works on this spool, or for this collector, already."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """One batch: measurements of one hour, country and test that become one postcan and one jsonl object."""

    directory: str
    """The spool directory, `<YYYYMMDDHH>_<cc>_<testname>`."""

    collector_id: str
    """The collector that received the measurements."""

    counter: int
    """Number of the batch among those of the same directory and collector, from 0."""

    uids: list[str]
    """The measurements, in the order of the lines and entries."""

    version: Literal[1] = 1
    """Format of the plan file."""

    @property
    def series(self) -> str:
        """What the batches of a directory have in common: `<YYYYMMDDHH>_<cc>_<testname>.n<collector>`."""
        return series_of(self.directory, self.collector_id)

    @property
    def name(self) -> str:
        """Name of the batch: `<YYYYMMDDHH>_<cc>_<testname>.n<collector>.<counter>`."""
        return f"{self.series}.{self.counter}"

    @property
    def jsonl_key(self) -> str:
        """Key of the jsonl object."""
        return self._key(JSONL)

    @property
    def postcan_key(self) -> str:
        """Key of the postcan."""
        return self._key(POSTCAN)

    def _key(self, suffix: str) -> str:
        return f"{prefix_of(self.directory)}/{self.name}{suffix}"


@dataclass(frozen=True, slots=True)
class BatchName:
    """What the key of an object says about it."""

    directory: str
    collector_id: str
    counter: int
    suffix: str

    @property
    def series(self) -> str:
        """As in a plan."""
        return series_of(self.directory, self.collector_id)

    def key(self, suffix: str) -> str:
        """Key of this or, by its suffix, the other object of the batch."""
        return f"{prefix_of(self.directory)}/{self.series}.{self.counter}{suffix}"


_KEY = re.compile(
    r"raw/\d{8}/\d\d/[^/]+/[^/]+/(\d{10}_[0-9A-Za-z]{2}_[0-9A-Za-z]{2,29})\.n([0-9A-Za-z-]{1,32})\.(\d{1,9})"
    r"(\.jsonl\.gz|\.tar\.gz)",
    re.ASCII,
)


def parse_key(key: str) -> BatchName | None:
    """Take the key of an object apart; None when it is not one of a batch."""
    match = _KEY.fullmatch(key)
    if match is None:
        return None
    name = BatchName(match[1], match[2], int(match[3]), match[4])
    return name if name.key(name.suffix) == key else None


def prefix_of(directory: str) -> str:
    """Return what the keys of a directory's objects begin with, without the last slash."""
    hour, cc, test_name = directory.split("_")
    return f"raw/{hour[:8]}/{hour[8:10]}/{cc}/{test_name}"


def series_of(directory: str, collector_id: str) -> str:
    """Return the common part of the names of a directory's batches."""
    return f"{directory}.n{collector_id}"


class PackingDirectory:
    """`<spool>/packing`: plans of batches on their way, with their archives beside them."""

    def __init__(self, spool_root: Path) -> None:
        """Open the directory, creating it."""
        self.root = spool_root / "packing"
        self.root.mkdir(mode=0o750, exist_ok=True)

    def path(self, plan: Plan, suffix: str) -> Path:
        """Return where a batch's file with that suffix lies."""
        return self.root / f"{plan.name}{suffix}"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep other runs on this spool out.

        Raises:
            AnotherRun: one is at work.
        """
        with open(self.root / "lock", "ab") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise AnotherRun(
                    f"Another uploader works on {self.root.parent} already. Wait until it is done, or find it with "
                    f"`fuser {self.root / 'lock'}`."
                ) from None
            yield

    @contextlib.contextmanager
    def scratch(self, purpose: str) -> Iterator[Path]:
        """Give a directory for files of the moment, on the disk of the spool."""
        with tempfile.TemporaryDirectory(prefix=f"{purpose}-", dir=self.root) as directory:
            yield Path(directory)

    def write(self, plan: Plan) -> None:
        """Put a plan on disk; when this returns it survives a power cut."""
        final = self.root / f"{plan.name}{_PLAN}"
        temporary = self.root / f"{plan.name}{_PLAN}{_TEMPORARY}"
        with open(temporary, "wb") as file:
            file.write(msgspec.json.encode(plan))
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, final)
        self.sync()

    def plans(self) -> list[Plan]:
        """Return the plans of unfinished batches, oldest hour first.

        A plan file that cannot be read is renamed, loudly; its measurements are still in the spool and get a new plan.
        """
        found = []
        for path in sorted(self.root.glob(f"*{_PLAN}")):
            try:
                plan = msgspec.json.decode(path.read_bytes(), type=Plan)
            except msgspec.DecodeError as error:
                log.error("plan file unreadable, set aside", path=str(path), error=str(error))
                path.rename(path.with_suffix(_DAMAGED))
                continue
            found.append(plan)
        return found

    def drop(self, plan: Plan) -> None:
        """Delete a batch's archives, then its plan."""
        for suffix in (JSONL, POSTCAN, ROWS):
            self.path(plan, suffix).unlink(missing_ok=True)
        self.path(plan, _PLAN).unlink(missing_ok=True)
        self.sync()

    def sweep(self) -> None:
        """Delete what a killed run left half written: temporary files, and archives that have no plan.

        The scratch directories of a `verify` at work, which has no lock, are spared for a day.
        """
        planned = {plan.name for plan in self.plans()}
        for path in self.root.iterdir():
            if path.is_dir():
                if time.time() - path.stat().st_mtime > _SCRATCH_AGE_S:
                    shutil.rmtree(path, ignore_errors=True)
                continue
            suffix = next((s for s in (JSONL, POSTCAN, ROWS) if path.name.endswith(s)), None)
            orphaned = suffix is not None and path.name.removesuffix(suffix) not in planned
            if orphaned or path.name.endswith(_TEMPORARY):
                path.unlink()

    def sync(self) -> None:
        """Make renames and deletions in the directory durable."""
        descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
