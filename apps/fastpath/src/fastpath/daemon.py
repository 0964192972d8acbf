"""The daemon: threads, HTTP server, signals and the notices to the service manager, wired from the settings.

One process takes measurements and writes rows; it has a thread for each scoring process, which asks that process for
results and writes them. Metrics are all kept here: the scoring processes send what they measured with their results.
"""

import asyncio
import contextlib
import logging
import math
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import structlog
import uvicorn

import core.metrics
from core.spool import Spool
from fastpath.config import FastpathSettings
from fastpath.fingerprint_source import FingerprintSource
from fastpath.garbage import tune_garbage_collector
from fastpath.health import DatabaseHealth
from fastpath.intake import Intake, IntakeQueue
from fastpath.pipeline import Worker
from fastpath.poison import Suspects
from fastpath.slot import Slot, trial_of
from fastpath.store import Store
from fastpath.sweeper import Sweeper
from fastpath.writer import Writer

log = structlog.get_logger(__name__)

BACKLOG = 2048
"""Connections that wait to be accepted at most."""

GRACE_S = 5
"""Seconds that open requests get when the daemon is asked to stop."""

PUT_THREADS = 32
"""Bodies stored at the same time; they share the fsync of their directory."""

STUCK_AFTER_S = 120.0
"""A worker without a sign of life for this long is stuck; the service manager is not told any more that all is well."""


class Daemon:
    """One fastpath process."""

    def __init__(self, settings: FastpathSettings) -> None:
        """Open the spool and prepare everything; `run` starts it. Needs no database yet."""
        self.settings = settings
        self.spool = Spool(settings.spool_root, min_free_bytes=settings.spool_min_free_bytes)
        self.queue = IntakeQueue(settings.queue_size)
        self.stop = threading.Event()
        self.stop_deadline = math.inf
        self.threads: list[threading.Thread] = []
        self.health = DatabaseHealth()
        self.suspects = Suspects(self.spool)
        self.fingerprints = FingerprintSource(
            self._store(),
            trial_of(self.suspects, self.spool, settings),
            refresh_s=settings.fingerprints_refresh_s,
            minimum=settings.fingerprints_minimum,
            mode=settings.fingerprints_mode,
        )
        self.sweeper = Sweeper(self.spool, self.queue, self._store(), self.health, self.stop, settings)
        self.slots = [self._slot(number) for number in range(settings.worker_count)]
        self.workers = [self._worker(slot) for slot in self.slots]
        self.executor = ThreadPoolExecutor(PUT_THREADS, thread_name_prefix="put")
        self.intake = Intake(
            self.spool,
            self.queue,
            self.executor,
            self.not_ready,
            queue_wait_s=settings.queue_wait_s,
            body_limit=settings.body_limit_bytes,
            body_memory=settings.body_memory_bytes,
        )
        self.notifier = Notifier(os.environ.get("NOTIFY_SOCKET", ""))

    def not_ready(self) -> list[str]:
        """Return why measurements do not become rows at the moment; empty when they do."""
        reasons = []
        if not self.fingerprints.loaded:
            reasons.append("The fingerprints are not loaded. Import them, or see the log for why they cannot be.")
        if self.settings.write_to_db and not self.health.up:
            reasons.append("The database does not answer. Start it, or check db_uri.")
        if not all(worker.is_alive() for worker in self.workers):
            reasons.append("A worker died. See the log, then restart the daemon.")
        if not any(slot.up for slot in self.slots):
            reasons.append("No scoring process runs. See the log for why they do not start.")
        if self.suspects.systemic:
            reasons.append("Scoring processes die over every measurement. See the log, then repair the installation.")
        return reasons

    def run(self) -> int:
        """Serve until SIGTERM or SIGINT, then finish the batches in hand; return the exit code.

        Raises:
            ListenError: the HTTP port cannot be opened.
            core.metrics.MetricsUnavailable: the metrics port cannot be opened.
        """
        listener = listen(self.settings.http_host, self.settings.http_port)
        if self.settings.metrics_port:
            core.metrics.serve(self.settings.metrics_port, self.settings.metrics_host)
        tune_garbage_collector()
        refresher = threading.Thread(target=self.fingerprints.run, args=(self.stop,), name="fingerprints", daemon=True)
        threads = self.threads = [refresher, self.sweeper, *self.workers]
        for thread in threads:
            thread.start()
        logging.getLogger("uvicorn").setLevel(logging.WARNING)  # the daemon itself says when it starts and stops
        server = _Server(self._server_config())
        try:
            asyncio.run(self._serve(server, listener))
        finally:
            self._finish(threads)
        return 0 if server.started else 1

    async def _serve(self, server: "_Server", listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, server)
        serving = asyncio.create_task(server.serve([listener]))
        while not (server.started or serving.done()):
            await asyncio.sleep(0.01)
        if server.started:
            log.info("fastpath started", host=self.settings.http_host, port=self.settings.http_port)
            self.notifier.send("READY=1")
        await serving

    def _server_config(self) -> uvicorn.Config:
        return uvicorn.Config(
            self.intake,
            http="httptools",
            ws="none",
            lifespan="off",
            loop="asyncio",
            log_config=None,
            access_log=False,
            server_header=False,
            proxy_headers=False,
            backlog=BACKLOG,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=GRACE_S,
            callback_notify=self._watchdog,
            timeout_notify=self.notifier.interval_s,  # type: ignore[arg-type]  # compared with seconds as a float
        )

    def _stop(self, server: "_Server") -> None:
        """Stop taking measurements, and new batches; what is in hand is finished."""
        self.notifier.send("STOPPING=1")
        self.stop_deadline = min(self.stop_deadline, time.monotonic() + self.settings.shutdown_s)
        self.stop.set()
        server.stop()

    async def _watchdog(self) -> None:
        """Tell the service manager that all is alive, as long as it is.

        A worker's thread beats only while its scoring process gets on, or while it replaces one that does not.
        """
        now = time.monotonic()
        alive = all(thread.is_alive() for thread in self.threads)
        if alive and all(now - worker.beat < STUCK_AFTER_S for worker in self.workers):
            self.notifier.send("WATCHDOG=1")

    def _finish(self, threads: list[threading.Thread]) -> None:
        """Stop the threads; what they do not finish in time stays in the spool for the next start."""
        self.stop.set()
        deadline = min(self.stop_deadline, time.monotonic() + self.settings.shutdown_s)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        late = [thread.name for thread in threads if thread.is_alive()]
        for slot in self.slots:
            slot.kill()  # of those whose thread is late; the others have ended
        self.executor.shutdown(wait=False, cancel_futures=True)
        log.info("fastpath stopped", queued=len(self.queue), unfinished=",".join(late) or "none")

    def _slot(self, number: int) -> Slot:
        return Slot(f"worker-{number}", self.spool, self.fingerprints, self.suspects, self.settings, self.stop.wait)

    def _worker(self, slot: Slot) -> Worker:
        settings = self.settings
        writer = Writer(
            self._store(),
            self.health,
            self.stop,
            retry_min_s=settings.retry_min_s,
            retry_max_s=settings.retry_max_s,
        )
        return Worker(slot.name, slot, writer, self.spool, self.queue, self.stop, settings)

    def _store(self) -> Store:
        return Store(self.settings.db_uri, statement_timeout_s=self.settings.statement_timeout_s)


class ListenError(OSError):
    """The HTTP port cannot be opened; the text says why and what to do."""


def listen(host: str, port: int) -> socket.socket:
    """Open the port that takes measurements. Raises ListenError."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise ListenError(
            f"The port {host}:{port} cannot be opened: {error.strerror}. Set another http_port, or stop the process "
            f"that has it (find it with: ss -ltnp 'sport = :{port}')."
        ) from error


class _Server(uvicorn.Server):
    """The HTTP server, which leaves the signals to the daemon so that a stop is an orderly exit with code 0."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        yield

    def stop(self) -> None:
        """Stop accepting; asked a second time, stop waiting for open requests."""
        self.force_exit = self.should_exit
        self.should_exit = True


class Notifier:
    """Notices to systemd (sd_notify): one datagram each, none when no service manager listens."""

    def __init__(self, address: str) -> None:
        """Send to the socket `address`: a path, or `@name` in the abstract namespace; empty for nowhere."""
        self._address = f"\0{address[1:]}" if address.startswith("@") else address
        self.interval_s = max(0.5, int(os.environ.get("WATCHDOG_USEC") or "20000000") / 2_000_000)

    def send(self, state: str) -> None:
        """Send one state such as `READY=1`; a service manager that went away is no reason to fail."""
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sender,
        ):
            sender.sendto(state.encode(), self._address)
