"""The processes of a rerun: started, fed, watched, and stopped.

A process that dies over a task is replaced, and each of the task's objects is tried once more on its own; the one that
kills a process again counts as unreadable, and does not stop the others. A process whose parent is gone ends by itself.
"""

import contextlib
import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Iterator
from multiprocessing.connection import Connection, wait
from multiprocessing.sharedctypes import Synchronized
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Literal

import msgspec
import structlog

import core.log
from core.objectstore import StoreError, StoreUnavailable, open_store
from fastpath.config import FastpathSettings
from fastpath.contents import Reader
from fastpath.fetch import Cache, Fetcher
from fastpath.fingerprints import FingerprintSet
from fastpath.garbage import tune_garbage_collector
from fastpath.ledger import Finished
from fastpath.matcher import Matcher, Mode
from fastpath.rerun_work import RETRY_FOR_S, RowWriter, Stopping, Tally, Work, WriteMode, patiently
from fastpath.sources import Filters, WorkObject
from fastpath.store import Conflict, Store, Unavailable

log = structlog.get_logger(__name__)

TASK_BYTES = 16 * 1024 * 1024
TASK_OBJECTS = 100
"""Where a task ends: what is done again when a process is killed."""

PROGRESS_S = 0.5
"""Seconds between two messages of a process about how far it is."""

GRACE_S = 10.0
"""Seconds that tasks in hand get when the rerun is asked to stop."""

STUCK_AFTER_S = RETRY_FOR_S + 300.0
"""Seconds after which a process with a task that says nothing is killed; waiting for the database is silent, too."""

EXIT_S = 5.0
"""Seconds that a process gets to end before it is killed."""

Task = list[WorkObject]


class Job(msgspec.Struct, frozen=True):
    """What a process needs to know."""

    settings: FastpathSettings
    fingerprints: FingerprintSet
    mode: Mode
    write: WriteMode
    filters: Filters
    cache: bool


class Gave(msgspec.Struct, frozen=True):
    """What a process says when it is through with a task."""

    kind: Literal["finished", "stopped", "unavailable"]
    finished: list[Finished] = []
    reason: str = ""


class PoolFailed(Exception):
    """The rerun cannot go on; the text says why and what to do."""


class Allowance:
    """How many measurements may be scored still, by all processes together; None for any number."""

    def __init__(self, limit: int | None) -> None:
        """Allow `limit` measurements."""
        self.left: Synchronized[int] | None = None if limit is None else _context.Value("q", limit)

    def take(self) -> bool:
        """Take one; return False when there is none left."""
        if self.left is None:
            return True
        with self.left.get_lock():
            self.left.value -= 1
            return self.left.value >= 0

    @property
    def used_up(self) -> bool:
        """Whether there is none left."""
        return self.left is not None and self.left.value <= 0


_context = multiprocessing.get_context("spawn")  # the object store's library does not survive a fork


class _Process:
    """One process, as its parent sees it."""

    def __init__(self, job: Job, halt: Event, allowance: Allowance, number: int) -> None:
        self.connection, theirs = _context.Pipe()
        self.process = _context.Process(
            target=main, args=(theirs, job, halt, allowance.left), name=f"rerun-{number}", daemon=True
        )
        self.process.start()
        theirs.close()
        self.task: Task | None = None
        self.heard = time.monotonic()

    def give(self, task: Task) -> None:
        self.task = task
        self.heard = time.monotonic()
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its end is noticed by the pool
            self.connection.send(task)

    def end(self) -> None:
        """Have it end; kill it when it does not."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.connection.send(None)
        self.process.join(EXIT_S)
        if self.process.is_alive():
            self.process.kill()
            self.process.join()
        self.connection.close()


class Pool:
    """Feeds tasks to processes until there are none left."""

    def __init__(
        self,
        job: Job,
        workers: int,
        allowance: Allowance,
        *,
        on_progress: Callable[[Tally], None],
        on_finished: Callable[[list[Finished]], None],
        tick: Callable[[], None],
    ) -> None:
        """Prepare `workers` processes; the callbacks come from the thread that calls `run`."""
        self._job = job
        self._workers = workers
        self._allowance = allowance
        self._on_progress = on_progress
        self._on_finished = on_finished
        self._tick = tick
        self._halt = _context.Event()
        self._processes: list[_Process] = []
        self._again: deque[Task] = deque()
        self._suspects: set[str] = set()
        self._stopping_since: float | None = None
        self._started = 0
        self.unfinished = 0
        """Objects that were handed out and not finished, because the rerun was stopped."""

    def stop(self) -> None:
        """Have tasks in hand finished within GRACE_S; called again, give them up at once. Safe in a signal handler."""
        if self._stopping_since is None:
            self._stopping_since = time.monotonic()
        else:
            self._stopping_since = -GRACE_S

    @property
    def stopping(self) -> bool:
        """Whether no further task is handed out."""
        return self._stopping_since is not None or self._allowance.used_up

    def run(self, tasks: Iterator[Task | None]) -> None:
        """Hand out tasks until there are no more; None stands for "none at the moment, ask again".

        Raises:
            PoolFailed: the store or the database stayed unavailable, or processes die without a task.
        """
        try:
            for _ in range(self._workers):
                self._start()
            more = True
            while True:
                if more and not self.stopping:
                    more = self._hand_out(tasks)
                busy = [process for process in self._processes if process.task is not None]
                if not busy and (self.stopping or (not more and not self._again)):
                    return
                self._listen(timeout_s=0.2 if busy else 1.0)
                self._halt_when_overdue()
                self._kill_stuck()
                self._tick()
        finally:
            self._halt.set()
            for process in self._processes:
                process.end()

    def _start(self) -> None:
        self._started += 1
        self._processes.append(_Process(self._job, self._halt, self._allowance, self._started))

    def _hand_out(self, tasks: Iterator[Task | None]) -> bool:
        for process in self._processes:
            if process.task is not None:
                continue
            if self._again:
                process.give(self._again.popleft())
                continue
            try:
                task = next(tasks)
            except StopIteration:
                return False
            if task is None:
                return True
            process.give(task)
        return True

    def _listen(self, timeout_s: float) -> None:
        by_connection = {process.connection: process for process in self._processes}
        for ready in wait(list(by_connection), timeout_s):
            process = by_connection[ready]  # type: ignore[index]  # what was waited for
            try:
                message = process.connection.recv()
            except (EOFError, ConnectionResetError):
                self._replace(process)
            else:
                self._hear(process, message)

    def _hear(self, process: _Process, message: Tally | Gave) -> None:
        process.heard = time.monotonic()
        if isinstance(message, Tally):
            self._on_progress(message)
            return
        task, process.task = process.task or [], None
        if message.kind == "finished":
            self._on_finished(message.finished)
        elif message.kind == "stopped":
            self.unfinished += len(task)
        else:
            raise PoolFailed(message.reason)

    def _replace(self, process: _Process) -> None:
        """Put another process in the place of one that died."""
        process.process.join()
        self._processes.remove(process)
        task, code = process.task, process.process.exitcode or 0
        how = f"signal {-code}" if code < 0 else f"exit code {code}"
        if task is None:
            raise PoolFailed(f"A process of the rerun ended with {how} before it had work. See what it wrote above.")
        log.error("process died", how=how, objects=len(task))
        for work in task:
            if len(task) == 1 and work.key in self._suspects:
                text = f"The object {work.key} ends each process that reads it ({how}). Look at it by hand."
                self._on_finished([Finished(work, 0, text)])
            else:
                self._suspects.add(work.key)
                self._again.append([work])
        self._start()

    def _kill_stuck(self) -> None:
        for process in self._processes:
            if process.task is not None and time.monotonic() - process.heard > STUCK_AFTER_S:
                log.error("process stuck, killed", seconds=round(STUCK_AFTER_S))
                process.process.kill()

    def _halt_when_overdue(self) -> None:
        since = self._stopping_since
        if since is not None and time.monotonic() - since > GRACE_S:
            self._halt.set()


def main(connection: Connection, job: Job, halt: Event, left: "Synchronized[int] | None") -> None:
    """Run one process: take tasks until told to end, or until the parent is gone."""
    for number in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # a terminal and a service manager send them to all; the parent decides
        signal.signal(number, signal.SIG_IGN)
    os.environ["TZ"] = "UTC"
    time.tzset()
    core.log.setup("fastpath", "WARNING")
    allowance = Allowance(None)
    allowance.left = left
    settings = job.settings
    messenger = _Messenger(connection)
    options = {
        name: getattr(settings, f"store_{name}")
        for name in ("endpoint", "region", "access_key_id", "secret_access_key")
    }
    fetcher = Fetcher(
        open_store(settings.store_url, **options),
        Cache(Path(settings.state_directory) / "cache", settings.cache_bytes) if job.cache else None,
    )
    table = Store(settings.db_uri, statement_timeout_s=settings.statement_timeout_s)
    writer = None
    if job.write != "none":
        writer = RowWriter(
            Store(settings.db_uri, statement_timeout_s=settings.statement_timeout_s), job.write, halt.is_set
        )
    work = Work(
        Reader(fetcher, job.filters, lambda key: patiently(lambda: table.archived_lines(key), halt.is_set)),
        fetcher,
        Matcher(job.fingerprints, job.mode),
        writer,
        halt.is_set,
        allowance=allowance.take,
        progress=messenger.progress,
    )
    tune_garbage_collector()
    with contextlib.suppress(EOFError, BrokenPipeError, ConnectionResetError):  # the parent is gone
        messenger.flush()
        while (task := connection.recv()) is not None:
            gave = _attempt(work, task)
            messenger.flush()
            connection.send(gave)
    fetcher.close()
    table.close()
    if writer is not None:
        writer.close()


def _attempt(work: Work, task: Task) -> Gave:
    try:
        return Gave("finished", work.do(task))
    except Stopping:
        return Gave("stopped")
    except (StoreUnavailable, StoreError, Unavailable, Conflict) as error:
        return Gave("unavailable", reason=str(error))


class _Messenger:
    """Tells the parent how far this process is, not too often."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._tally = Tally()
        self._sent = 0.0

    def progress(self, tally: Tally) -> None:
        self._tally.add(tally)
        self._tally.notes.extend(tally.notes)
        if time.monotonic() - self._sent > PROGRESS_S:
            self.flush()

    def flush(self) -> None:
        self._sent = time.monotonic()
        self._connection.send(self._tally.take())


def in_tasks(works: list[WorkObject], workers: int) -> Iterator[Task]:
    """Yield the objects in tasks of a bounded size, small enough for all workers to have one."""
    most = max(1, min(TASK_OBJECTS, len(works) // workers))
    task: Task = []
    size = 0
    for work in works:
        if task and (size + work.size > TASK_BYTES or len(task) >= most):
            yield task
            task, size = [], 0
        task.append(work)
        size += work.size
    if task:
        yield task
