"""One place for a scoring process: it keeps one alive there, and finds the measurements that end it."""

import contextlib
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import structlog

from core.spool import Spool
from fastpath import metrics
from fastpath.config import FastpathSettings
from fastpath.fingerprint_source import FingerprintUpdate
from fastpath.poison import Suspects
from fastpath.scorer import Kind, Scored
from fastpath.scoring_client import ProcessLost, ScoringProcess
from fastpath.scoring_protocol import Loaded

log = structlog.get_logger(__name__)

PING_S = 10.0
"""Seconds after which an idle process is asked for a sign of life."""

SYSTEMIC_PAUSE_S = 2.0
"""Pause before each request while the processes die over every measurement."""

BACKOFF_S = (0.0, 0.1, 0.5, 2.0, 5.0)
"""Pauses before the first, second, … start in a row of a process that does not even come to score."""


@dataclass(slots=True)
class Finished:
    """What came of one request: `results`, and `left`, groups of uids that are to be asked for again, in order."""

    results: list[Scored] = field(default_factory=list)
    left: list[list[str]] = field(default_factory=list)


class Current(Protocol):
    """Where the fingerprints to use are found."""

    @property
    def current(self) -> FingerprintUpdate | None:
        """The newest good fingerprints; None before the first."""


class Slot:
    """Scores by a process of its own, which is replaced when it dies, hangs or has grown. For one thread.

    `begin` asks for the results of some measurements and `finish` waits for them; in between, the caller has time for
    something else.
    """

    def __init__(
        self,
        name: str,
        spool: Spool,
        fingerprints: Current,
        suspects: Suspects,
        settings: FastpathSettings,
        pause: Callable[[float], object] = time.sleep,
    ) -> None:
        """Score what lies in `spool`; `pause` waits some seconds, or less when the daemon stops."""
        self.name = name
        self.on_wait: Callable[[], None] = lambda: None
        """Called while a process is waited for."""
        self._spool = spool
        self._fingerprints = fingerprints
        self._suspects = suspects
        self._settings = settings
        self._pause = pause
        self._process: ScoringProcess | None = None
        self._cell: tuple[Path, int] | None = None
        self._generation = 0
        self._batch: list[str] = []
        self._lost: ProcessLost | None = None
        self._verdict: str | None = None
        self._asked = False
        self._futile_starts = 0

    @property
    def ready(self) -> bool:
        """Whether there are fingerprints; without them nothing may be scored."""
        return self._fingerprints.current is not None

    @property
    def up(self) -> bool:
        """Whether the process of this slot runs, as far as is known."""
        return self._process is not None

    def arrange(self, uids: Sequence[str]) -> list[list[str]]:
        """Return the uids in groups that are scored one after the other; each suspect is a group of its own."""
        clean = [uid for uid in uids if uid not in self._suspects]
        return [group for group in (clean, *([uid] for uid in uids if uid in self._suspects)) if group]

    def begin(self, uids: Sequence[str]) -> None:
        """Ask for the results of `uids`, a group of `arrange`."""
        self._batch, self._lost, self._asked = list(uids), None, False
        self._verdict = self._suspects.condemned(uids[0]) if len(uids) == 1 else None
        if self._verdict is not None:
            return
        if self._suspects.systemic:
            self._pause(SYSTEMIC_PAUSE_S)
        try:
            process = self._prepared()
            if len(uids) == 1 and uids[0] in self._suspects:
                self._suspects.trying(uids[0])
            process.begin(uids)
            self._asked = True
        except ProcessLost as lost:
            self._lost = lost

    def finish(self) -> Finished:
        """Return the results that were asked for. Never raises for what a measurement contains or does."""
        batch, self._batch = self._batch, []
        if self._verdict is not None:
            return Finished([Scored(batch[0], Kind.POISON, self._verdict)])
        try:
            if self._lost is not None:
                raise self._lost
            if self._process is None:
                raise RuntimeError("A slot was asked for results without a request.")
            scores = self._process.finish()
        except ProcessLost as lost:
            return self._after_loss(lost, batch)
        metrics.WORKER_RESIDENT.labels(self.name).set(scores.resident_bytes)
        self._suspects.scored(scored.uid for scored in scores.results)
        left = batch[len(scores.results) :]
        return Finished(scores.results, [left] if left else [])

    def settled(self, uid: str) -> None:
        """Note that a measurement of kind POISON was set aside; after its release it begins anew."""
        self._suspects.clear(uid)

    def idle(self) -> None:
        """Keep a process ready while there is nothing to score, and make sure that it lives."""
        try:
            process = self._prepared()
            if time.monotonic() - process.last_answer > PING_S:
                process.ping()
        except ProcessLost as lost:
            self._note_loss(lost)

    def close(self) -> None:
        """End the process."""
        if self._process is not None:
            self._process.close()
            self._gone("stopped")
        if self._cell is not None:
            path, descriptor = self._cell
            os.close(descriptor)
            with contextlib.suppress(OSError):
                path.unlink()
            self._cell = None

    def kill(self) -> None:
        """End the process at once, from any thread."""
        process = self._process
        if process is not None:
            process.kill()

    def _prepared(self) -> ScoringProcess:
        """Return the process of this slot, running, not too large and with the newest fingerprints."""
        process = self._process
        limit = self._settings.worker_recycle_bytes
        if process is not None:
            process.check()
        if process is not None and limit and process.resident_bytes > limit:
            log.info("scoring process has grown, it is replaced", process=self.name, bytes=process.resident_bytes)
            process.close()
            self._gone("recycled")
            process = None
        if process is None:
            process = self._start()
        update = self._fingerprints.current
        if update is not None and update.generation != self._generation:
            loaded = process.load(update.request)
            if loaded.problem:
                log.error("scoring process did not take the fingerprints", process=self.name, reason=loaded.problem)
                process.close()
                raise ProcessLost("died", "it did not take the fingerprints")
            self._generation = update.generation
        self._futile_starts = 0
        return process

    def _start(self) -> ScoringProcess:
        self._pause(BACKOFF_S[min(self._futile_starts, len(BACKOFF_S) - 1)])
        self._futile_starts += 1
        try:
            if self._cell is None:
                self._cell = self._suspects.create_cell(self.name)
            process = ScoringProcess(
                self.name,
                spool_root=self._spool.root,
                cell_descriptor=self._cell[1],
                document_limit_s=self._settings.document_limit_s,
                memory_limit_bytes=self._settings.worker_memory_bytes,
                on_wait=self._waits,
            )
        except OSError as error:
            raise ProcessLost("died", f"could not be started: {error}") from error
        self._process, self._generation = process, 0
        metrics.WORKERS.inc()
        process.set_up()
        log.info("scoring process started", process=self.name, pid=process.pid)
        return process

    def _waits(self) -> None:
        self.on_wait()  # looked up late, for its owner sets it

    def _gone(self, how: str) -> None:
        self._process = None
        metrics.WORKERS.dec()
        metrics.WORKER_EXITS.labels(how).inc()
        metrics.WORKER_RESIDENT.labels(self.name).set(0)

    def _note_loss(self, lost: ProcessLost) -> None:
        if self._process is not None:
            self._gone(lost.how)
        log.error("scoring process lost, it is replaced", process=self.name, reason=str(lost), uid=lost.uid or "none")

    def _after_loss(self, lost: ProcessLost, batch: list[str]) -> Finished:
        """Find the measurement that ended the process; have the others scored first, and it alone."""
        self._note_loss(lost)
        if not self._asked:
            return Finished(left=[batch])
        suspect = lost.uid if lost.uid in batch else batch[0] if len(batch) == 1 else ""
        if not suspect:  # between two measurements: each alone, so that the next time it is known
            return Finished(left=[[uid] for uid in batch])
        self._suspects.failed(suspect, lost.how, str(lost))
        rest = [uid for uid in batch if uid != suspect]
        return Finished(left=[group for group in (rest, [suspect]) if group])


def trial_of(suspects: Suspects, spool: Spool, settings: FastpathSettings) -> Callable[[bytes], Loaded]:
    """Return a function that has fingerprints compiled by a process of its own, and raises ProcessLost."""

    def trial(request: bytes) -> Loaded:
        try:
            path, descriptor = suspects.create_cell("trial")
        except OSError as error:
            raise ProcessLost("died", f"could not be started: {error}") from error
        try:
            process = ScoringProcess(
                "trial",
                spool_root=spool.root,
                cell_descriptor=descriptor,
                document_limit_s=settings.document_limit_s,
                memory_limit_bytes=settings.worker_memory_bytes,
            )
            process.set_up()
            loaded = process.load(request)
            process.close()
        except OSError as error:
            raise ProcessLost("died", f"could not be started: {error}") from error
        finally:
            os.close(descriptor)
            path.unlink(missing_ok=True)
        return loaded

    return trial
