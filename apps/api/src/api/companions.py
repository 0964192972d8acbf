"""The processes beside the workers, such as the metrics endpoint: started by the master, and again when they end.

The master forks workers at any time, so nothing here is a thread: `tend` is called from the master's own loop, which
turns once a second and at once when a child ends.
"""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from api.metrics import COMPANION_RESTARTS
from core.metrics import MULTIPROC_VARIABLE, forget

PAUSE_MIN_S = 1.0
PAUSE_MAX_S = 60.0
"""One that ends at once, again and again, is started after pauses that double up to this many seconds."""

STEADY_S = 60.0
"""One that lived for so many seconds is started again at once."""

MASTER_VARIABLE = "API_MASTER_PID"

log = structlog.get_logger(__name__)


def master() -> int:
    """Return the process id of the master, for one of the processes beside the workers, which ends when it is gone.

    Not the parent of the moment: the master may be gone before this process asks, and the process would stay for ever.
    """
    return int(os.environ.get(MASTER_VARIABLE) or os.getppid())


@dataclass(slots=True)
class _Companion:
    name: str
    command: list[str]
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)
    started_at: float = 0.0  # monotonic
    pause_s: float = PAUSE_MIN_S
    due_at: float = 0.0  # monotonic; when it is started, while it does not run


class Companions:
    """Some processes that are to run as long as the master does. For its main thread alone."""

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        """Start with none; `now` is a monotonic time in seconds."""
        self._now = now
        self._all: list[_Companion] = []

    def add(self, name: str, module: str, *arguments: str) -> None:
        """Start `python -m module arguments`, under a name for log and metric."""
        companion = _Companion(name, [sys.executable, "-m", module, *arguments])
        COMPANION_RESTARTS.labels(name)  # shown as 0 from the start
        self._all.append(companion)
        self._start(companion)

    def tend(self) -> None:
        """Start again what ended, each when its pause is over. Never raises and never waits."""
        for companion in self._all:
            if companion.process is not None and companion.process.poll() is not None:
                self._ended(companion)
            if companion.process is None and self._now() >= companion.due_at:
                COMPANION_RESTARTS.labels(companion.name).inc()
                self._start(companion)

    def stop(self) -> None:
        """Ask all of them to end."""
        for companion in self._all:
            if companion.process is not None:
                companion.process.terminate()

    def _ended(self, companion: _Companion) -> None:
        # How it ended is not known here: gunicorn waits for every child of the master, and says it at level DEBUG.
        now = self._now()
        if companion.process is not None:
            _remove_metrics(companion.process.pid)
        if now - companion.started_at >= STEADY_S:
            companion.pause_s = PAUSE_MIN_S
            companion.due_at = now
        else:
            companion.due_at = now + companion.pause_s
            companion.pause_s = min(2 * companion.pause_s, PAUSE_MAX_S)
        companion.process = None
        log.error(
            "process beside the workers ended, it is started again",
            process=companion.name,
            lived_s=round(now - companion.started_at, 1),
            pause_s=round(companion.due_at - now, 1),
        )

    def _start(self, companion: _Companion) -> None:
        companion.started_at = self._now()
        try:
            companion.process = subprocess.Popen(  # noqa: S603 our own interpreter and settings
                companion.command,
                stdin=subprocess.DEVNULL,
                env=os.environ | {MASTER_VARIABLE: str(os.getpid())},
            )
        except OSError as error:  # no memory, no process numbers: taking measurements goes on
            log.error("process beside the workers cannot be started", process=companion.name, error=str(error))
            companion.due_at = companion.started_at + companion.pause_s
            companion.pause_s = min(2 * companion.pause_s, PAUSE_MAX_S)


def _remove_metrics(pid: int) -> None:
    """Drop all that a dead process counted, which no worker counts: its counters begin at 0 again, as for any restart.

    One that ends again and again would otherwise leave its files to every scrape until the API itself ends.
    """
    directory = os.environ.get(MULTIPROC_VARIABLE)
    if not directory:
        return
    try:
        forget(pid)
        for path in Path(directory).glob(f"*_{pid}.db"):
            path.unlink(missing_ok=True)
    except OSError as error:
        log.warning("metrics of a process that ended stay", error=str(error))
