"""PostgreSQL (fsync on), the API and the fastpath as real processes for the benchmarks, and how figures are printed."""

import contextlib
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.load.client import Report

from core import schema
from core.spool import Spool
from devstack.postgres import PostgresCluster

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
FINGERPRINTS = REPOSITORY / "apps/core/src/core/data"


@dataclass(frozen=True)
class Stack:
    """Addresses of the running stack."""

    port: int
    metrics_port: int
    dsn: str
    spool: Path


@contextlib.contextmanager
def running_cluster() -> Iterator[PostgresCluster]:
    """A PostgreSQL of its own."""
    directory = Path(tempfile.mkdtemp(prefix="bench-pg-"))
    cluster = PostgresCluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory)


@contextlib.contextmanager
def running_stack() -> Iterator[Stack]:
    """Everything, until the context ends."""
    with running_cluster() as cluster, tempfile.TemporaryDirectory(prefix="bench-") as directory:
        cluster.ensure_database("bench")
        dsn = cluster.dsn("bench")
        schema.upgrade(dsn)
        port, intake, metrics_api, metrics_fastpath = free_ports(4)
        spool = Path(directory) / "spool"
        (Path(directory) / "state").mkdir(mode=0o700)
        environment = {
            **os.environ,
            "OONI_API_BIND": f"127.0.0.1:{port}",
            "OONI_API_BASE_URL": f"http://127.0.0.1:{port}",
            "OONI_API_DB_URI": dsn,
            "OONI_API_SPOOL_DIRECTORY": str(spool),
            "OONI_API_STORE_URL": f"file://{directory}/objects",
            "OONI_API_STATE_DIRECTORY": f"{directory}/state",
            "OONI_API_PROBE_CONFIG_DIRECTORY": "",
            "OONI_API_FASTPATH_URL": f"http://127.0.0.1:{intake}",
            "OONI_API_METRICS_PORT": str(metrics_api),
            "OONI_FASTPATH_HTTP_PORT": str(intake),
            "OONI_FASTPATH_METRICS_PORT": str(metrics_fastpath),
            "OONI_FASTPATH_DB_URI": dsn,
            "OONI_FASTPATH_SPOOL_DIRECTORY": str(spool),
        }
        subprocess.run([BIN / "fastpath", "--import-fingerprints", FINGERPRINTS], env=environment, check=True)
        with contextlib.ExitStack() as children:
            for name in ("ooni-api", "fastpath"):
                log = children.enter_context((Path(directory) / f"{name}.log").open("wb"))
                children.enter_context(_child(name, environment, log.fileno()))
            wait_for(f"http://127.0.0.1:{port}/health")
            wait_for(f"http://127.0.0.1:{intake}/ready")
            yield Stack(port, metrics_api, dsn, spool)


@contextlib.contextmanager
def _child(name: str, environment: dict[str, str], log: int) -> Iterator[None]:
    process_ = subprocess.Popen([BIN / name], env=environment, stdout=log, stderr=log)
    try:
        yield
    finally:
        process_.terminate()
        try:
            process_.wait(30)
        except subprocess.TimeoutExpired:
            process_.kill()
            process_.wait()


def wait_for(url: str, seconds: float = 30.0) -> None:
    """Wait until an address answers."""
    deadline = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            return


def wait_until_scored(stack: Stack, seconds: float = 120.0) -> None:
    """Wait until nothing in the spool waits for its score."""
    deadline = time.monotonic() + seconds
    while Spool(stack.spool).counts().incoming:
        if time.monotonic() > deadline:
            print("the fastpath did not catch up in two minutes", flush=True)
            return
        time.sleep(0.2)


def free_ports(count: int) -> list[int]:
    """Return ports that nobody listens on."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def print_requests(what: str, report: Report, cores: int) -> None:
    """Print rate and latencies of requests, and the first error."""
    rate = len(report.sent) / report.elapsed_s
    latency = percentiles(sorted(sent.latency_s for sent in report.sent))
    print(f"{what}: {rate:.0f} requests/s, latency {latency} ({cores} cores)", flush=True)
    if report.errors:
        print(f"  {len(report.errors)} errors, the first: {report.errors[0]}", flush=True)


def percentiles(ordered: Sequence[float]) -> str:
    """Return p50, p95 and p99 of ascending seconds, in milliseconds."""
    if not ordered:
        return "none"
    values = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 for part in (0.5, 0.95, 0.99))
    return "p50 {:.1f} ms, p95 {:.1f} ms, p99 {:.1f} ms".format(*values)
