"""A rerun as operators run it: jsonl objects that the uploader packed, to rows and counters in PostgreSQL.

Everything is real: the uploader fills a store in a directory, `fastpath --noapi` reads it with one worker, PostgreSQL
has fsync on. Real documents are repeated under uids of their own until there are enough to measure, and moved to the
day of the archive (their dates are replaced, digit by digit): what a day's archive holds was measured on that day.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
from tests.load import documents
from tests.load.documents import Document

from core import schema
from core.spool import Spool
from devstack.postgres import PostgresCluster

BIN = Path(sys.executable).parent
DAY = "2024-03-05"
COPIES = 120
WRITERS = 32
_DATES = re.compile(rb'("(?:measurement|test)_start_time": ?")[0-9]{4}-[0-9]{2}-[0-9]{2}')
_REPORT_DAY = re.compile(rb'("report_id": ?")[0-9]{8}')


def run(cluster: PostgresCluster) -> None:
    """Measure and print figure (d) with a database of its own in `cluster`."""
    loaded = documents.load()
    chosen = _copies(loaded.real)
    size = sum(len(body) for _, body in chosen)
    cluster.ensure_database("bench_rerun")
    dsn = cluster.dsn("bench_rerun")
    schema.upgrade(dsn)
    with tempfile.TemporaryDirectory(prefix="bench-rerun-") as directory:
        environment = _environment(dsn, Path(directory))
        _fill(chosen, Path(directory), environment)
        _fastpath(environment, "--import-fingerprints", str(loaded.fingerprints)).check_returncode()
        start = time.perf_counter()
        arguments = ("--noapi", "--start-day", DAY, "--end-day", _next_day(), "--workers", "1", "--source", "jsonl")
        done = _fastpath(environment, *arguments, "--no-write-msmt")
        elapsed = time.perf_counter() - start
    with psycopg.connect(dsn) as connection:
        rows = connection.execute("SELECT count(*) FROM fastpath").fetchone()
    counted = rows[0] if rows else 0
    if done.returncode or not counted:
        print(f"(d) the rerun ended with {done.returncode} and {counted} rows: {done.stderr[-500:]}", flush=True)
        return
    busy = re.search(r"busy_seconds=([0-9.]+)", done.stderr)
    seconds = float(busy[1]) if busy and float(busy[1]) else elapsed
    print(
        f"(d) rerun, jsonl.gz to rows in PostgreSQL, 1 worker: {counted} rows, mean {size / len(chosen):.0f} bytes: "
        f"{counted / elapsed:,.0f} rows/s with the start of the command, {counted / seconds:,.0f} rows/s at work, "
        f"{size / seconds / 1e6:.0f} MB/s",
        flush=True,
    )


def _fastpath(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "fastpath", *arguments], env=environment, stderr=subprocess.PIPE, text=True, check=False
    )


def _copies(real: list[Document]) -> list[Document]:
    """Return the documents under uids of that day, several times; those with uids of early times are left out."""
    found: list[Document] = []
    for number in range(COPIES):
        for uid, body in real:
            parts = uid.split("_")
            if len(parts) == 4:
                serial = len(found)
                stamp = f"{DAY.replace('-', '')}10{serial // 3600 % 60:02}{serial % 60:02}.{serial:06}"
                digest = hashlib.sha512(f"{number} {uid}".encode()).hexdigest()[:16]
                found.append((f"{stamp}_{parts[1]}_{parts[2]}_{digest}", _moved(body)))
    return found


def _moved(body: bytes) -> bytes:
    """Return a document as if it had been measured on the day of the archive, in as many bytes."""
    body = _DATES.sub(rb"\g<1>" + DAY.encode(), body)
    return _REPORT_DAY.sub(rb"\g<1>" + DAY.replace("-", "").encode(), body)


def _next_day() -> str:
    return f"{DAY[:-1]}{int(DAY[-1]) + 1}"


def _environment(dsn: str, directory: Path) -> dict[str, str]:
    store = f"file://{directory}/objects"
    (directory / "objects").mkdir()
    return {
        **os.environ,
        "OONI_UPLOADER_COLLECTOR_ID": "1",
        "OONI_UPLOADER_SPOOL_DIRECTORY": str(directory / "spool"),
        "OONI_UPLOADER_DB_URI": dsn,
        "OONI_UPLOADER_STORE_URL": store,
        "OONI_FASTPATH_DB_URI": dsn,
        "OONI_FASTPATH_STORE_URL": store,
        "OONI_FASTPATH_STATE_DIRECTORY": str(directory / "state"),
        "OONI_FASTPATH_RERUN_METRICS_PORT": "0",
    }


def _fill(chosen: list[Document], directory: Path, environment: dict[str, str]) -> None:
    spool = Spool(directory / "spool", min_free_bytes=0)
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda document: spool.put(document[0], document[1], ""), chosen))
    spool.mark_scored([uid for uid, _ in chosen])
    subprocess.run([BIN / "uploader", "--now"], env=environment, check=True, stderr=subprocess.DEVNULL)


def main() -> int:
    """Measure with a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-pg-") as directory:
        cluster = PostgresCluster(Path(directory))
        try:
            cluster.start()
            run(cluster)
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
