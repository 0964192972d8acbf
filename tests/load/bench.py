"""`make bench`: the figures that the documents quote, measured on this machine.

Starts PostgreSQL (fsync on), the API and the fastpath as real processes and loads them with the repository's own
sample. The load comes from this machine too, so client, API, fastpath and database share its cores. Prints figures and
exits 0 whatever they are: machines are noisy, judgement is for people and ratios.
"""

import asyncio
import json
import os
import sys
import threading
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import psycopg
from tests.load import bench_probes, bench_rerun, bench_scoring
from tests.load.client import at_rate, saturate
from tests.load.stack import (
    FINGERPRINTS,
    Stack,
    percentiles,
    print_requests,
    running_cluster,
    running_stack,
    wait_until_scored,
)

from core import schema
from core.ids import new_measurement_uid, new_report_id
from devstack.postgres import PostgresCluster
from fastpath import fingerprints
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.store import Store
from probesim.sample import generate

DOCUMENTS = 2000
RATE = 300.0
RATE_SECONDS = 15
VISIBLE_WITHIN_S = 60.0
BATCH = 500


def main() -> int:
    """Run all benchmarks and print a line for each."""
    cores = len(os.sched_getaffinity(0))
    requests = _requests(DOCUMENTS)
    size = sum(len(body) for _, body in requests) / len(requests)
    print(
        f"machine: {cores} cores; documents: {len(requests)} of the own sample, mean {size / 1000:.1f} kB", flush=True
    )
    with running_stack() as stack:
        for clients in (1, 10, 100):
            report = asyncio.run(
                saturate("127.0.0.1", stack.port, requests[: 200 if clients == 1 else DOCUMENTS], clients)
            )
            print_requests(f"accepted, {clients} clients, fsync on", report, cores)
            wait_until_scored(stack)
        _at_rate(stack, _requests(int(RATE * RATE_SECONDS)), cores)
    bench_probes.run()
    bench_scoring.run()
    with running_cluster() as cluster:
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
    print_requests(f"open loop at {RATE:.0f}/s, fsync on", report, cores)
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while any(sent.uid not in seen for sent in report.sent) and time.monotonic() < deadline:
        time.sleep(0.1)
    done.set()
    watcher.join()
    visible = sorted(seen[sent.uid] - sent.sent_at for sent in report.sent if sent.uid in seen)
    missing = len(report.sent) - len(visible)
    counts = f"{len(visible)} rows, {missing} missing, {cores} cores"
    print(f"submit to visible at {RATE:.0f}/s: {percentiles(visible)} ({counts})", flush=True)


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


if __name__ == "__main__":
    sys.exit(main())
