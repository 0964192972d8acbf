"""The daemon's side of a scoring process: start it, ask it, notice when it dies or hangs."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import structlog

from fastpath.poison import How
from fastpath.scoring_protocol import (
    Answer,
    Cell,
    Disconnected,
    FrameReader,
    Loaded,
    Ping,
    Ready,
    Score,
    Scores,
    Setup,
    answers,
    encode,
    send_frame,
)

log = structlog.get_logger(__name__)

LOOK_S = 0.25
"""Seconds between two looks whether a process that owes an answer gets on."""

ANSWER_LIMIT_S = 30.0
"""Seconds that a process gets to start, to compile fingerprints, or to send an answer."""

MARGIN_S = 2.0
"""Seconds beyond the limit of a measurement after which a process that did not end itself is killed."""

END_S = 5.0
"""Seconds that a process gets to end when it is asked to."""

_WITHHELD = ("OONI_FASTPATH_DB_URI", "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID")
"""Variables that a process which only scores has no use for."""

A = TypeVar("A", Ready, Loaded, Scores)


class ProcessLost(Exception):
    """A scoring process is gone: it died, or was killed because it was stuck.

    `uid` is the measurement that it had in hand, empty when it had none.
    """

    def __init__(self, how: How, text: str, uid: str = "") -> None:
        super().__init__(text)
        self.how: How = how
        self.uid = uid


class ScoringProcess:
    """One scoring process. Used by one thread; `kill` and `pid` by any."""

    def __init__(
        self,
        name: str,
        *,
        spool_root: Path,
        cell_descriptor: int,
        document_limit_s: float,
        memory_limit_bytes: int,
        on_wait: Callable[[], None] = lambda: None,
    ) -> None:
        """Start the process; `on_wait` is called again and again while it is waited for and gets on. Raises OSError."""
        self.name = name
        self._setup = Setup(str(spool_root), document_limit_s, memory_limit_bytes)
        self._on_wait = on_wait
        self._cell = Cell(cell_descriptor)
        self._cell.end()
        self._connection, theirs = socket.socketpair()
        with theirs:
            self._connection.settimeout(ANSWER_LIMIT_S)
            self._reader = FrameReader(self._connection)
            arguments = [name, str(theirs.fileno()), str(cell_descriptor)]
            environment = {key: value for key, value in os.environ.items() if key not in _WITHHELD}
            try:
                self._process = subprocess.Popen(  # noqa: S603 our own module, no text from outside
                    [sys.executable, "-P", "-m", "fastpath.scoring_process", *arguments],
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    env=environment,
                    pass_fds=(theirs.fileno(), cell_descriptor),
                )
            except BaseException:
                self._connection.close()
                self._cell.close()
                raise
        self.last_answer = time.monotonic()
        self.resident_bytes = 0

    @property
    def pid(self) -> int:
        """The id of the process."""
        return self._process.pid

    def check(self) -> None:
        """Return when the process has not ended. Raises ProcessLost."""
        if self._process.poll() is not None:
            raise self._died()

    def set_up(self) -> None:
        """Wait until the process has started. Raises ProcessLost."""
        ready = self._ask(encode(self._setup), Ready)
        if ready.problem:
            log.warning("scoring process without a limit", process=self.name, reason=ready.problem)

    def load(self, request: bytes) -> Loaded:
        """Have an encoded `Load` put to use. Raises ProcessLost."""
        return self._ask(request, Loaded)

    def ping(self) -> None:
        """Return when the process answers. Raises ProcessLost."""
        self._ask(encode(Ping()), Ready)

    def begin(self, uids: Sequence[str]) -> None:
        """Ask for the results of `uids`. Raises ProcessLost."""
        self._send(encode(Score(list(uids))))

    def finish(self) -> Scores:
        """Return the results that were asked for, of the first measurement at least. Raises ProcessLost."""
        scores = self._receive(Scores, self._setup.document_limit_s + MARGIN_S)
        self.resident_bytes = scores.resident_bytes
        return scores

    def kill(self) -> None:
        """End the process at once."""
        self._process.kill()

    def close(self) -> None:
        """End the process in order, by closing its connection; one that does not go is killed."""
        self._connection.close()
        try:
            self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            self.kill()
            self._process.wait()
        with contextlib.suppress(ValueError):
            self._cell.close()

    def _ask(self, request: bytes, kind: type[A]) -> A:
        self._send(request)
        return self._receive(kind)

    def _send(self, request: bytes) -> None:
        self._connection.settimeout(ANSWER_LIMIT_S)
        try:
            send_frame(self._connection, request)
        except TimeoutError:
            raise self._stuck("took no message") from None
        except OSError:
            raise self._died() from None

    def _receive(self, kind: type[A], limit_s: float = ANSWER_LIMIT_S) -> A:
        """Wait for an answer as long as the process makes a step every `limit_s` seconds."""
        self._connection.settimeout(LOOK_S)
        steps, since = -1, time.monotonic()
        while True:
            try:
                answer: Answer = answers.decode(self._reader.read())
                break
            except TimeoutError:
                now = time.monotonic()
                look, _ = self._cell.look()
                if look != steps:
                    steps, since = look, now
                if now - since > limit_s:
                    raise self._stuck(f"made no progress for {limit_s:g} s") from None
                self._on_wait()
            except (Disconnected, ValueError):
                raise self._died() from None
        if not isinstance(answer, kind):
            raise self._stuck(f"answered {type(answer).__name__} instead of {kind.__name__}")
        self.last_answer = time.monotonic()
        return answer

    def _died(self) -> ProcessLost:
        """Return what happened to a process that closed its connection."""
        self._connection.close()
        try:
            code = self._process.wait(END_S)
        except subprocess.TimeoutExpired:
            return self._stuck("closed its connection and did not end")
        uid = self._cell.look()[1]
        self._cell.close()
        if code == -signal.SIGALRM:
            return ProcessLost("stuck", f"took longer than {self._setup.document_limit_s:g} s for one measurement", uid)
        if code < 0:
            return ProcessLost("died", f"ended by {_signal_name(-code)}", uid)
        return ProcessLost("died", f"exit code {code}", uid)

    def _stuck(self, text: str) -> ProcessLost:
        self.kill()
        self._process.wait()
        self._connection.close()
        uid = self._cell.look()[1]
        self._cell.close()
        return ProcessLost("stuck", text, uid)


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
