"""All programs of a host as real processes, each of which may be killed at any time and is started again.

What systemd does in production this does here: a program that ended is started anew after a moment, and what is left of
its process group is killed before that. PostgreSQL writes to disk (fsync), objects go to an S3 server through a proxy
that fails on demand.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Self

import psycopg

from core import schema, spool_places
from core.objectstore import ObjectStore, open_store
from core.spool import STATES, Spool
from core.spool_files import SUFFIX
from devstack.faultproxy import FaultProxy
from devstack.ports import HOST, free_ports
from devstack.postgres import PostgresCluster, PostgresError
from devstack.s3server import BUCKET, CREDENTIALS, S3Server, best

BIN = Path(sys.executable).parent
DAEMONS = ("api", "fastpath")
COLLECTOR_ID = "1"
_RESTART_AFTER_S = 0.1
_ARCHIVE_EVERY_S = 0.5


class Program:
    """One program, started again whenever it ends."""

    def __init__(self, name: str, command: list[str | Path], environ: dict[str, str], log: Path) -> None:
        """Describe it; `start` starts it."""
        self.name = name
        self.environ = environ
        self.command = command
        self._log = log
        self._process: subprocess.Popen[bytes] | None = None
        self._lock = threading.Lock()
        self.starts = 0
        self.killed = 0
        """How often its first process ended by SIGKILL before anybody swept it away."""

        self.extra: dict[str, str] = {}
        """Environment of the next start alone."""

    @property
    def pid(self) -> int | None:
        """Its process id, None when it does not run."""
        process = self._process
        return process.pid if process is not None and process.poll() is None else None

    @property
    def status(self) -> int | None:
        """How it ended, None while it runs."""
        return self._process.poll() if self._process is not None else None

    def start(self) -> None:
        """Kill what is left of it and start it."""
        with self._lock:
            self._sweep()
            with self._log.open("ab") as log:
                self._process = subprocess.Popen(
                    self.command,
                    env=self.environ | self.extra,
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            self.extra = {}
            self.starts += 1

    def stop(self, number: int = signal.SIGTERM, patience_s: float = 30.0) -> int | None:
        """Ask it to stop, wait, then kill what is left; return its exit status."""
        with self._lock:
            if self._process is None:
                return None
            if self._process.poll() is None:
                self._process.send_signal(number)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._process.wait(patience_s)
            status = self._process.poll()
            self._sweep()
            return status

    def family(self) -> list[int]:
        """Its process and all below it, parents first."""
        return [] if self.pid is None else [self.pid, *descendants(self.pid)]

    def _sweep(self) -> None:
        if self._process is not None:
            self.killed += self._process.poll() == -signal.SIGKILL
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


class Stack:
    """One host: API, fastpath, uploader, PostgreSQL, S3."""

    def __init__(
        self,
        *,
        spool: Path | None = None,
        preload: dict[str, str] | None = None,
        directory_store: bool = False,
        overflow_after: int | None = None,
    ) -> None:
        """Make directories.

        `spool`: elsewhere, for a small disk; `preload`: more environment of API, fastpath and uploader;
        `directory_store`: objects go to a directory and not to the S3 server; `overflow_after`: files in a directory of
        the spool from which on there are overflow folders, for all programs.
        """
        # PostgreSQL runs as a user that has to reach its directory; pytest's are closed.
        self.root = Path(tempfile.mkdtemp(prefix="crash-", dir="/var/tmp"))
        self.root.chmod(0o755)
        self.logs = self.root / "log"
        self.logs.mkdir()
        self.spool_root = spool or self.root / "spool"
        self.cluster = PostgresCluster(
            Path(tempfile.mkdtemp(prefix="crashpg-", dir="/var/tmp")), fsync=True, settings={"max_wal_size": "256MB"}
        )
        server = best()
        if server is None:
            raise RuntimeError("no S3 server on this machine: run tools/setup-s3, or pip install nanio")
        self.s3 = S3Server(server, self.root / "s3")
        self.proxy = FaultProxy(self.s3.address)
        self.api_port, self.fastpath_port, fastpath_metrics, api_metrics = free_ports(4)
        self.url = f"http://{HOST}:{self.api_port}"
        self.metrics_url = f"http://{HOST}:{fastpath_metrics}/metrics"
        self.api_metrics_url = f"http://{HOST}:{api_metrics}/metrics"
        self._ports = {"fastpath_metrics": fastpath_metrics, "api_metrics": api_metrics}
        self.programs: dict[str, Program] = {}
        self.archiver = threading.Event()
        self.uploads = 0
        self._preload = preload or {}
        if overflow_after is not None:
            self._preload = self._preload | {spool_places.VARIABLE: str(overflow_after)}
        self._directory_store = directory_store
        self._closing = threading.Event()
        self._postgres_wanted = threading.Event()
        self._threads: list[threading.Thread] = []

    @property
    def dsn(self) -> str:
        """Address of the database."""
        return self.cluster.dsn("ooni")

    @property
    def spool(self) -> Spool:
        """The host's spool."""
        return Spool(self.spool_root)

    @property
    def store(self) -> ObjectStore:
        """The objects, past the proxy."""
        if self._directory_store:
            return open_store(self._directory_url)
        return open_store(f"s3://{BUCKET}", endpoint=self.s3.endpoint, **CREDENTIALS)

    @property
    def _directory_url(self) -> str:
        return f"file://{self.root}/objects"

    def environ(self) -> dict[str, str]:
        """What the programs are told."""
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("OONI_")}
        empty = self.root / "empty.toml"
        empty.touch()
        store = {
            "STORE_URL": f"s3://{BUCKET}",
            "STORE_ENDPOINT": self.proxy.endpoint,
            "STORE_REGION": CREDENTIALS["region"],
        }
        if self._directory_store:
            store = {"STORE_URL": self._directory_url}
        common = {"DB_URI": self.dsn, "SPOOL_DIRECTORY": str(self.spool_root), "CONFIG": str(empty)}
        api = {
            "BIND": f"{HOST}:{self.api_port}",
            "BASE_URL": self.url,
            "METRICS_PORT": str(self._ports["api_metrics"]),
            "FASTPATH_URL": f"http://{HOST}:{self.fastpath_port}",
            "COLLECTOR_ID": COLLECTOR_ID,
            "GRACEFUL_TIMEOUT_S": "5",
            "SPOOL_MIN_FREE_BYTES": str(4 * 1024 * 1024),
            **store,
        }
        fastpath = {
            "HTTP_HOST": HOST,
            "HTTP_PORT": str(self.fastpath_port),
            "METRICS_HOST": HOST,
            "METRICS_PORT": str(self._ports["fastpath_metrics"]),
        }
        uploader = {
            "COLLECTOR_ID": COLLECTOR_ID,
            "ATTEMPTS": "2",
            "RETRY_MIN_S": "0.05",
            "POSTCAN_BYTES": "100000",
            **store,
        }
        return {
            **inherited,
            "AWS_ACCESS_KEY_ID": CREDENTIALS["access_key_id"],
            "AWS_SECRET_ACCESS_KEY": CREDENTIALS["secret_access_key"],
            **{
                f"OONI_{app}_{name}": value
                for app, values in (("API", api), ("FASTPATH", fastpath), ("UPLOADER", uploader))
                for name, value in {**common, **values}.items()
            },
        }

    def __enter__(self) -> Self:
        self.cluster.start()
        self.cluster.ensure_database("ooni")
        schema.upgrade(self.dsn)
        with psycopg.connect(self.dsn) as connection:
            for table in ("fingerprints_dns", "fingerprints_http"):  # the fastpath scores nothing without any
                connection.execute(
                    f"INSERT INTO {table} (name, scope, pattern_type, pattern, confidence_no_fp)"
                    " VALUES ('crashlab', 'nat', 'full', '192.0.2.1', 5)".encode()
                )
        self.s3.start()
        self.proxy.__enter__()
        environ = self.environ() | self._preload
        for name, command in (("api", "ooni-api"), ("fastpath", "fastpath")):
            self.programs[name] = Program(name, [BIN / command], environ, self.logs / f"{name}.log")
            self.programs[name].start()
        self.programs["uploader"] = Program(
            "uploader", [BIN / "uploader", "--now"], environ, self.logs / "uploader.log"
        )
        self._postgres_wanted.set()
        self.archiver.set()
        for target in (self._supervise, self._archive):
            thread = threading.Thread(target=target, daemon=True)
            thread.start()
            self._threads.append(thread)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        for thread in self._threads:
            thread.join(60)
        for program in self.programs.values():
            program.stop(patience_s=10)
        self.proxy.__exit__(None, None, None)
        self.s3.stop()
        with contextlib.suppress(PostgresError):
            self.cluster.stop()
        shutil.rmtree(self.cluster.data_dir, ignore_errors=True)
        if error is None:
            shutil.rmtree(self.root, ignore_errors=True)
        else:
            print(f"\nThe stack of this failure is in {self.root}", file=sys.stderr)

    def _supervise(self) -> None:
        """Start again what ended."""
        while not self._closing.wait(0.02):
            for name in DAEMONS:
                if self.programs[name].pid is None:
                    time.sleep(_RESTART_AFTER_S)
                    self.programs[name].start()
            if self._postgres_wanted.is_set() and self.cluster.pid is None:
                try:
                    self.cluster.start()
                except PostgresError:
                    time.sleep(0.2)  # its children are not gone yet

    def _archive(self) -> None:
        """Run the uploader again and again, as its timer does."""
        uploader = self.programs["uploader"]
        while not self._closing.wait(_ARCHIVE_EVERY_S):
            if not self.archiver.is_set():
                continue
            uploader.start()
            while uploader.pid is not None and not self._closing.is_set():
                time.sleep(0.02)
            self.uploads += 1

    # What goes wrong.

    def victims(self) -> dict[str, list[int]]:
        """The processes that may be killed now, by kind."""
        api, fastpath = (self.programs[name].family() for name in DAEMONS)
        postgres = self.cluster.pid
        found = {
            "api": api[:1],
            "api worker": api[1:],
            "fastpath": fastpath[:1],
            "fastpath process": fastpath[1:],
            "uploader": self.programs["uploader"].family()[:1],
            "postmaster": [] if postgres is None else [postgres],
            "postgres backend": [] if postgres is None else descendants(postgres),
        }
        return {kind: pids for kind, pids in found.items() if pids}

    @contextlib.contextmanager
    def without_database(self) -> Iterator[None]:
        """PostgreSQL is down."""
        self._postgres_wanted.clear()
        self.cluster.stop()
        try:
            yield
        finally:
            self._postgres_wanted.set()

    # Where it is.

    def places(self) -> Counter[str]:
        """How many measurements lie in directories of the spool ("flat") and in overflow folders ("overflow")."""
        found: Counter[str] = Counter()
        for state in STATES:
            for place, _, names in os.walk(self.spool_root / state):
                where = "overflow" if Path(place).name.isdigit() else "flat"
                found[where] += sum(name.endswith(SUFFIX) for name in names)
        return found

    def is_mixed(self) -> bool:
        """Whether there are measurements in both places."""
        found = self.places()
        return found["flat"] > 0 and found["overflow"] > 0

    # Where it ends.

    def wait(self, what: Callable[[], bool], within_s: float, why: str) -> None:
        """Wait until something is so.

        Raises:
            AssertionError: it did not become so in time.
        """
        deadline = time.monotonic() + within_s
        while not what():
            assert time.monotonic() < deadline, f"not within {within_s} s: {why}; logs are in {self.logs}"
            time.sleep(0.1)

    def is_up(self) -> bool:
        """Whether the database and both daemons answer."""
        try:
            with psycopg.connect(self.dsn, connect_timeout=2) as connection:
                connection.execute("SELECT")
        except psycopg.Error:
            return False
        return all(_listens(port) for port in (self.api_port, self.fastpath_port))

    def is_watched(self) -> bool:
        """Whether both metrics endpoints answer; that of the API is a process of its own."""
        try:
            for url in (self.metrics_url, self.api_metrics_url):
                with urllib.request.urlopen(url, timeout=5) as response:
                    response.read()
        except OSError:
            return False
        return True

    def settle(self, within_s: float = 120.0) -> None:
        """Wait until everything is up and the spool is empty, as it becomes without anybody's help."""
        self.proxy.heal()
        self.archiver.set()
        self.wait(self.is_up, within_s, "the programs are back")
        self.wait(self.is_watched, within_s, "the metrics are back")
        spool = self.spool

        def empty() -> bool:
            counts = spool.counts()
            return counts.incoming == counts.scored == 0

        self.wait(empty, within_s, "the spool is empty")
        self.archiver.clear()
        self.wait(lambda: self.programs["uploader"].pid is None, within_s, "the last run of the uploader ended")


def descendants(pid: int) -> list[int]:
    """All processes below one, parents first."""
    found = []
    with contextlib.suppress(OSError):
        for task in os.listdir(f"/proc/{pid}/task"):
            for child in Path(f"/proc/{pid}/task/{task}/children").read_text().split():
                found += [int(child), *descendants(int(child))]
    return found


def _listens(port: int) -> bool:
    import socket

    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((HOST, port)) == 0
