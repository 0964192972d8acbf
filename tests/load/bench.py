"""`make bench`: the figures that the documents quote, measured on this machine.

Starts PostgreSQL (fsync on), the API and the fastpath as real processes and loads them with the repository's own
sample. The load comes from this machine too, so client, API, fastpath and database share its cores. Prints figures and
exits 0 whatever they are: machines are noisy, judgement is for people and ratios.
"""

import asyncio
import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from tests.load import bench_rerun, bench_scoring
from tests.load.client import Report, at_rate, saturate

from core import schema
from core.ids import new_measurement_uid, new_report_id
from devstack.postgres import PostgresCluster
from fastpath import fingerprints
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.store import Store
from probesim.sample import generate

BIN = Path(sys.executable).parent
REPOSITORY = Path(__file__).resolve().parents[2]
FINGERPRINTS = REPOSITORY / "apps/core/src/core/data"
DOCUMENTS = 2000
RATE = 300.0
RATE_SECONDS = 15
VISIBLE_WITHIN_S = 60.0
BATCH = 500


@dataclass(frozen=True)
class Stack:
    """Addresses of the running stack."""

    port: int
    dsn: str
    spool: Path


def main() -> int:
    """Run all benchmarks and print a line for each."""
    cores = len(os.sched_getaffinity(0))
    requests = _requests(DOCUMENTS)
    size = sum(len(body) for _, body in requests) / len(requests)
    print(
        f"machine: {cores} cores; documents: {len(requests)} of the own sample, mean {size / 1000:.1f} kB", flush=True
    )
    with _stack() as stack:
        for clients in (1, 10, 100):
            report = asyncio.run(
                saturate("127.0.0.1", stack.port, requests[: 200 if clients == 1 else DOCUMENTS], clients)
            )
            _print_requests(f"accepted, {clients} clients", report, cores)
            _wait_until_scored(stack)
        _at_rate(stack, _requests(int(RATE * RATE_SECONDS)), cores)
    bench_scoring.run()
    with _cluster() as cluster:
        _rows_per_second(cluster)
        bench_rerun.run(cluster)
    return 0


def _requests(count: int) -> list[tuple[str, bytes]]:
    requests = []
    now = datetime.now(UTC)
    for document in generate(count, seed=int(now.timestamp()), now=now):
        fields = dict(document.measurement)
        asn = int(str(fields["probe_asn"])[2:])
        report_id = new_report_id(now, str(fields["test_name"]), str(fields["probe_cc"]), asn, "1")
        body = json.dumps({"format": "json", "content": {**fields, "report_id": report_id}}, separators=(",", ":"))
        requests.append((f"/report/{report_id}", body.encode()))
    return requests


def _at_rate(stack: Stack, requests: Sequence[tuple[str, bytes]], cores: int) -> None:
    seen: dict[str, float] = {}
    done = threading.Event()
    watcher = threading.Thread(target=_watch, args=(stack.dsn, seen, done), daemon=True)
    watcher.start()
    report = asyncio.run(at_rate("127.0.0.1", stack.port, requests, RATE))
    _print_requests(f"open loop at {RATE:.0f}/s", report, cores)
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while any(sent.uid not in seen for sent in report.sent) and time.monotonic() < deadline:
        time.sleep(0.1)
    done.set()
    watcher.join()
    visible = sorted(seen[sent.uid] - sent.sent_at for sent in report.sent if sent.uid in seen)
    missing = len(report.sent) - len(visible)
    counts = f"{len(visible)} rows, {missing} missing, {cores} cores"
    print(f"submit to visible at {RATE:.0f}/s: {_percentiles(visible)} ({counts})", flush=True)


def _watch(dsn: str, seen: dict[str, float], done: threading.Event) -> None:
    """Note when each row appears to another session, to within about 20 ms."""
    since = datetime.now(UTC)
    with psycopg.connect(dsn, autocommit=True) as connection:
        while not done.is_set():
            rows = connection.execute(
                "SELECT measurement_uid FROM fastpath WHERE update_time >= %s - interval '5 s'"
                " AND measurement_start_time > now() - interval '40 days'",
                [since],
            ).fetchall()
            now = time.time()
            since = datetime.now(UTC)
            for (uid,) in rows:
                seen.setdefault(uid, now)
            done.wait(0.02)


def _rows_per_second(cluster: PostgresCluster) -> None:
    matcher = Matcher(fingerprints.load_files(FINGERPRINTS))
    now = datetime.now(UTC)
    outcomes = [
        process(new_measurement_uid(now, "IT", "sample", body + str(number).encode()), body, matcher)
        for number, (_, body) in enumerate(_requests(DOCUMENTS))
    ]
    rows = [outcome.row for outcome in outcomes if outcome.row is not None]
    cluster.ensure_database("bench")
    schema.upgrade(cluster.dsn("bench"))
    store = Store(cluster.dsn("bench"))
    start = time.perf_counter()
    for first in range(0, len(rows), BATCH):
        store.insert(rows[first : first + BATCH])
    elapsed = time.perf_counter() - start
    store.close()
    print(
        f"rows into PostgreSQL with counters, fsync on, batches of {BATCH}: {len(rows) / elapsed:.0f} rows/s "
        "(1 client core, 1 server core)",
        flush=True,
    )


@contextlib.contextmanager
def _cluster() -> Iterator[PostgresCluster]:
    directory = Path(tempfile.mkdtemp(prefix="bench-pg-"))
    cluster = PostgresCluster(directory)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.stop()
        shutil.rmtree(directory)


@contextlib.contextmanager
def _stack() -> Iterator[Stack]:
    with _cluster() as cluster, tempfile.TemporaryDirectory(prefix="bench-") as directory:
        cluster.ensure_database("bench")
        dsn = cluster.dsn("bench")
        schema.upgrade(dsn)
        port, intake, metrics_api, metrics_fastpath = _free_ports(4)
        spool = Path(directory) / "spool"
        environment = {
            **os.environ,
            "OONI_API_BIND": f"127.0.0.1:{port}",
            "OONI_API_BASE_URL": f"http://127.0.0.1:{port}",
            "OONI_API_DB_URI": dsn,
            "OONI_API_SPOOL_DIRECTORY": str(spool),
            "OONI_API_STORE_URL": f"file://{directory}/objects",
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
            _wait_for(f"http://127.0.0.1:{port}/health")
            _wait_for(f"http://127.0.0.1:{intake}/ready")
            yield Stack(port, dsn, spool)


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


def _wait_for(url: str, seconds: float = 30.0) -> None:
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


def _wait_until_scored(stack: Stack, seconds: float = 120.0) -> None:
    deadline = time.monotonic() + seconds
    while any((stack.spool / "incoming").glob("*/*.post")):
        if time.monotonic() > deadline:
            print("the fastpath did not catch up in two minutes", flush=True)
            return
        time.sleep(0.2)


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [sock.getsockname()[1] for sock in sockets]
    for sock in sockets:
        sock.close()
    return ports


def _print_requests(what: str, report: Report, cores: int) -> None:
    rate = len(report.sent) / report.elapsed_s
    latency = _percentiles(sorted(sent.latency_s for sent in report.sent))
    print(f"{what}, fsync on: {rate:.0f} requests/s, latency {latency} ({cores} cores)", flush=True)
    if report.errors:
        print(f"  {len(report.errors)} errors, the first: {report.errors[0]}", flush=True)


def _percentiles(ordered: Sequence[float]) -> str:
    if not ordered:
        return "none"
    values = (ordered[min(len(ordered) - 1, int(len(ordered) * part))] * 1000 for part in (0.5, 0.95, 0.99))
    return "p50 {:.1f} ms, p95 {:.1f} ms, p99 {:.1f} ms".format(*values)


if __name__ == "__main__":
    sys.exit(main())
