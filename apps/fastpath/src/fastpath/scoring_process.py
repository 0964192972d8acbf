"""A scoring process: `python -m fastpath.scoring_process NAME SOCKET CELL`, started and watched by the daemon.

It reads measurements from the spool and scores them; it writes nothing, has no connection to the database and no
thread. Whatever a measurement does to it (a crash in native code, no end, too much memory) ends this process alone: it
limits its own memory, tells the kernel to choose it first when memory is short, and sets an alarm that ends it when a
measurement takes too long, so that it ends even when its daemon is gone.
"""

import contextlib
import faulthandler
import os
import resource
import signal
import socket
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from core.spool import Spool
from fastpath.fingerprints import Fingerprint, from_rows
from fastpath.garbage import tune_garbage_collector
from fastpath.matcher import Matcher
from fastpath.scorer import Scored, score_measurement
from fastpath.scoring_protocol import (
    BATCH_BYTES,
    Answer,
    Cell,
    Disconnected,
    FrameReader,
    Load,
    Loaded,
    Ping,
    Ready,
    Score,
    Scores,
    Setup,
    encode,
    requests,
    send_frame,
)

OOM_SCORE = "600"
"""Added to the badness of this process, so that the kernel ends it before the daemon and before the database."""

NICENESS = 5
"""Added to the niceness of this process."""


class TimedMatcher(Matcher):
    """A matcher that adds up the time it takes. For one thread."""

    spent = 0.0

    def body(self, body: str | bytes) -> list[Fingerprint]:
        """Match a body."""
        started = time.perf_counter()
        try:
            return super().body(body)
        finally:
            self.spent += time.perf_counter() - started

    def headers(self, headers: Mapping[str, Any]) -> list[Fingerprint]:
        """Match headers."""
        started = time.perf_counter()
        try:
            return super().headers(headers)
        finally:
            self.spent += time.perf_counter() - started


class ScoringLoop:
    """Answers the daemon's requests, one after the other."""

    def __init__(self, cell: Cell) -> None:
        """Note the measurement in hand in `cell`."""
        self._cell = cell
        self._spool: Spool | None = None
        self._limit_s = 0.0
        self._matcher: TimedMatcher | None = None

    def answer(self, request: Setup | Load | Score | Ping) -> Answer:
        """Return the answer to one request."""
        match request:
            case Setup():
                self._spool = Spool(Path(request.spool_directory))
                self._limit_s = request.document_limit_s
                return Ready(limit_memory(request.memory_limit_bytes))
            case Load():
                return self._load(request)
            case Score():
                return self._score(request.uids)
            case Ping():
                return Ready()

    def _load(self, request: Load) -> Loaded:
        started = time.perf_counter()
        try:
            fingerprints = from_rows(request.dns, request.http)
            matcher = TimedMatcher(fingerprints, request.mode)
        except Exception as error:  # noqa: BLE001 whatever is wrong with a list, the former one stays in use
            return Loaded(problem=f"The fingerprints cannot be compiled: {type(error).__name__}: {error}")
        self._matcher = matcher
        tune_garbage_collector()
        refused = list({refusal.name: refusal for refusal in (*fingerprints.refused, *matcher.refused)}.values())
        return Loaded(len(fingerprints.dns), len(fingerprints.http), refused, time.perf_counter() - started)

    def _score(self, uids: list[str]) -> Scores:
        spool, matcher = self._spool, self._matcher
        if spool is None or matcher is None:
            raise RuntimeError("A scoring process was asked to score before it was set up.")
        results: list[Scored] = []
        size = 0
        try:
            for uid in uids:
                self._cell.begin(uid)
                signal.setitimer(signal.ITIMER_REAL, self._limit_s)
                matcher.spent = 0.0
                scored = score_measurement(spool, matcher, uid)
                if matcher.spent:
                    scored = msgspec.structs.replace(scored, match_seconds=matcher.spent)
                results.append(scored)
                size += scored.size
                if size > BATCH_BYTES:
                    break
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        self._cell.end()
        return Scores(results, resident_bytes())


def limit_memory(limit: int) -> str:
    """Limit the data of this process to `limit` bytes (0: no limit); return a sentence when that is not allowed."""
    if not limit:
        return ""
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    except (OSError, ValueError) as error:
        return f"The memory of a scoring process cannot be limited: {error}. Allow setrlimit in the unit's filter."
    return ""


def resident_bytes() -> int:
    """Return the memory that this process occupies; 0 when the kernel does not tell."""
    try:
        with open("/proc/self/statm", "rb", buffering=0) as file:
            return int(file.read().split()[1]) * resource.getpagesize()
    except OSError:
        return 0


def step_back() -> None:
    """Have the kernel serve the daemon first, and end this process first when memory is short.

    So that measurements are taken in, and rows written, while a backlog is scored. Not allowed: nothing is lost.
    """
    with contextlib.suppress(OSError):
        os.setpriority(os.PRIO_PROCESS, 0, os.getpriority(os.PRIO_PROCESS, 0) + NICENESS)
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text(OOM_SCORE)


def main(arguments: list[str]) -> int:
    """Answer requests until the daemon closes the connection; return the exit code 0."""
    for number in (signal.SIGTERM, signal.SIGINT):  # sent to all processes of the service; the daemon ends this one
        signal.signal(number, signal.SIG_IGN)
    faulthandler.enable()
    faulthandler.register(signal.SIGALRM, all_threads=False, chain=True)  # the place in the log, then the end
    step_back()
    connection = socket.socket(fileno=int(arguments[1]))
    loop = ScoringLoop(Cell(int(arguments[2])))
    reader = FrameReader(connection)
    while True:
        try:
            request = requests.decode(reader.read())
        except Disconnected:
            return 0
        answer = encode(loop.answer(request))
        try:
            send_frame(connection, answer)
        except OSError:
            return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
