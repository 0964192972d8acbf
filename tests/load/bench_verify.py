"""`uploader verify` and `uploader takedown` where a million measurements are archived.

PostgreSQL is real, with fsync on. The million rows are made by SQL, and their objects are empty files of the right
size, since nothing but `--deep` reads them; the last day was packed by the uploader, body by body. Each figure is one
command as an operator runs it, with its time and its greatest memory.

    python -m tests.load.bench_verify [ROWS]
"""

import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import LiteralString

import psycopg

from core import schema
from core.spool import Spool
from devstack.postgres import PostgresCluster

BIN = Path(sys.executable).parent
ROWS = 1_000_000
PER_OBJECT = 2_000
MEMBER_BYTES = 500
FIRST, DAYS = date(2024, 3, 1), 7
REAL = date(2024, 3, 8)
REAL_BODIES = 20_000
REPORT_SIZE = 20
LOST_OBJECTS, LOST_BODIES = 20, 50_000
WRITERS = 32

# Measurement n lies in object o; the objects go round over the hours of all days.
_NUMBERED: LiteralString = """
    CREATE TABLE bench_numbered AS
    SELECT n, n / %(per)s AS o, n %% %(per)s AS line, hour, 'raw/' || to_char(hour, 'YYYYMMDD/HH24') ||
        '/IT/webconnectivity/' || to_char(hour, 'YYYYMMDDHH24') || '_IT_webconnectivity.n1.' || n / %(per)s / %(hours)s
        AS batch, to_char(hour + make_interval(secs => n %% %(per)s * 3600 / %(per)s), 'YYYYMMDDHH24MISS') || '.'
        || lpad((n / %(per)s)::text, 6, '0') || '_IT_webconnectivity_' || left(md5(n::text), 16) AS uid,
        to_char(hour, 'YYYYMMDD"T"HH24MISS"Z"') || '_webconnectivity_IT_30722_n1_' || lpad((n / 20)::text, 16, '0')
        AS report_id
    FROM (SELECT n, %(first)s::timestamp + make_interval(hours => n / %(per)s %% %(hours)s) AS hour
          FROM generate_series(0, %(rows)s - 1) n) numbered"""
_FASTPATH: LiteralString = """
    INSERT INTO fastpath (measurement_uid, report_id, probe_cc, test_name, measurement_start_time, scores, anomaly,
        confirmed, msm_failure)
    SELECT uid, report_id,
        'IT', 'web_connectivity', hour, '{}', false, false, false FROM bench_numbered"""
_JSONL: LiteralString = """
    INSERT INTO jsonl (measurement_uid, report_id, input, s3path, linenum, member_offset, member_length, date, source)
    SELECT uid, report_id,
        '', batch || '.jsonl.gz', line, line * %(member)s, %(member)s, hour::date, 'uploader' FROM bench_numbered"""
_MANIFEST: LiteralString = """
    INSERT INTO upload_manifest (jsonl_s3path, postcan_s3path, directory, counter, measurements, jsonl_bytes,
        jsonl_sha256, postcan_bytes, postcan_sha256)
    SELECT batch || '.jsonl.gz', batch || '.tar.gz', regexp_replace(batch, '.*/(.*)[.][0-9]+$', '\\1'),
        regexp_replace(batch, '.*[.]', '')::integer, count(*), count(*) * %(member)s, '', count(*) * %(member)s, ''
    FROM bench_numbered GROUP BY batch"""


@dataclass(frozen=True, slots=True)
class Host:
    """What the commands work on."""

    dsn: str
    root: Path

    @property
    def objects(self) -> Path:
        """The object store."""
        return self.root / "objects"

    @property
    def spool(self) -> Path:
        """The spool."""
        return self.root / "spool"

    def environ(self) -> dict[str, str]:
        """What the uploader is told."""
        return {
            **os.environ,
            "OONI_DSN": self.dsn,
            "OONI_UPLOADER_COLLECTOR_ID": "1",
            "OONI_UPLOADER_SPOOL_DIRECTORY": str(self.spool),
            "OONI_UPLOADER_DB_URI": self.dsn,
            "OONI_UPLOADER_STORE_URL": f"file://{self.objects}",
        }


def run(cluster: PostgresCluster, rows: int = ROWS) -> None:
    """Measure and print figure (e) with a database of its own in `cluster`."""
    cluster.ensure_database("bench_verify")
    dsn = cluster.dsn("bench_verify")
    schema.upgrade(dsn)
    with tempfile.TemporaryDirectory(prefix="bench-verify-") as directory:
        host = Host(dsn, Path(directory))
        host.objects.mkdir()
        _fill(host, rows)
        report_id = _archive(host)
        until = str(FIRST + timedelta(days=DAYS - 1))
        week, real = ("--since", str(FIRST), "--until", until), ("--since", str(REAL), "--until", str(REAL))
        _measure(host, f"verify, {rows:,} rows, nothing wrong", "verify", *week)
        _measure(host, f"verify --deep, {REAL_BODIES:,} bodies", "verify", "--deep", *real)
        _execute(host, "DELETE FROM jsonl WHERE measurement_uid >= %s AND linenum %% 2 = 0", [f"{REAL:%Y%m%d}"])
        _measure(host, f"verify --repair, {REAL_BODIES // 2:,} rows written again", "verify", "--repair", *real)
        _measure(host, f"takedown of a report of {REPORT_SIZE}, dry", *_takedown(report_id))
        _measure(host, f"takedown of a report of {REPORT_SIZE}", *_takedown(report_id), "--go")
        for path in sorted(host.objects.rglob("*.jsonl.gz"))[:LOST_OBJECTS]:
            path.unlink()
        _measure(host, f"verify, {LOST_OBJECTS} objects lost", "verify", *week)
        _execute(
            host,
            "WITH lost AS (SELECT s3path FROM jsonl WHERE measurement_uid < %s GROUP BY 1 ORDER BY 1 DESC LIMIT %s)"
            " , rows AS (DELETE FROM jsonl USING lost WHERE jsonl.s3path = lost.s3path RETURNING jsonl.s3path)"
            " DELETE FROM upload_manifest m USING lost WHERE m.jsonl_s3path = lost.s3path",
            [f"{REAL:%Y%m%d}", LOST_BODIES // PER_OBJECT],
        )
        _measure(host, f"verify, no object and no row of {LOST_BODIES:,} bodies either", "verify", *week)


def _fill(host: Host, rows: int) -> None:
    values = {"per": PER_OBJECT, "hours": 24 * DAYS, "first": FIRST, "rows": rows, "member": MEMBER_BYTES}
    with psycopg.connect(host.dsn, autocommit=True) as connection:
        connection.execute("SELECT fastpath_ensure_partitions('2024-02-01', '2024-05-01')")
        with psycopg.ClientCursor(connection) as cursor:
            for statement in (_NUMBERED, _FASTPATH, _JSONL, _MANIFEST):
                cursor.execute(statement, values)
        connection.execute("DROP TABLE bench_numbered")
        connection.execute("VACUUM ANALYZE")
        found = connection.execute("SELECT jsonl_s3path, postcan_s3path, jsonl_bytes FROM upload_manifest").fetchall()
    for jsonl, postcan, size in found:
        for key in (jsonl, postcan):
            path = host.objects / key
            path.parent.mkdir(parents=True, exist_ok=True)
            with path.open("wb") as file:
                file.truncate(size)


def _archive(host: Host) -> str:
    """Let the uploader pack bodies of one more day; return one of their reports."""
    spool = Spool(host.spool, min_free_bytes=0)
    started = datetime(REAL.year, REAL.month, REAL.day, 10, tzinfo=UTC)
    bodies: list[tuple[str, bytes]] = []
    for number in range(REAL_BODIES):
        document = {
            "report_id": _report_id(number),
            "input": f"https://{number}.example/",
            "test_keys": {"pad": hashlib.shake_128(str(number).encode()).hexdigest(100)},
        }
        body = json.dumps({"format": "json", "content": document}).encode()
        stamp = f"{started + timedelta(seconds=number * 3600 // REAL_BODIES):%Y%m%d%H%M%S}.{number:06}"
        bodies.append((f"{stamp}_IT_webconnectivity_{hashlib.sha512(body).hexdigest()[:16]}", body))
    with ThreadPoolExecutor(WRITERS) as writers:
        list(writers.map(lambda one: spool.put(one[0], one[1], ""), bodies))
    spool.mark_scored([uid for uid, _ in bodies])
    subprocess.run([BIN / "uploader"], env=host.environ(), check=True, stdout=subprocess.DEVNULL)
    return _report_id(REAL_BODIES // 2)


def _report_id(number: int) -> str:
    return f"{REAL:%Y%m%d}T100000Z_webconnectivity_IT_30722_n1_{number // REPORT_SIZE:016}"


def _takedown(report_id: str) -> tuple[str, ...]:
    return "takedown", "--report-id", report_id, "--reason", "bench"


def _measure(host: Host, what: str, *arguments: str) -> None:
    """Run the uploader and print its time, its memory and its last sentence."""
    started = time.monotonic()
    memory_kb = 0
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen([BIN / "uploader", *arguments], env=host.environ(), stdout=said, stderr=said)
        while process.poll() is None:
            # Not what wait4 says: that begins with the memory of this process.
            memory_kb = max(memory_kb, _greatest_kb(process.pid))
            time.sleep(0.02)
        elapsed = time.monotonic() - started
        said.seek(0)
        last = said.read().rstrip().rpartition("\n")[2]
    print(
        f"(e) {what}: {elapsed:.1f} s, {memory_kb / 1024:.0f} MB, exit code {process.returncode}: {last[:160]}",
        flush=True,
    )


def _greatest_kb(pid: int) -> int:
    found = re.search(r"^VmHWM:\s*(\d+) kB$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found[1]) if found else 0


def _execute(host: Host, statement: LiteralString, values: list[object]) -> None:
    with psycopg.connect(host.dsn) as connection:
        connection.execute(statement, values)


def main() -> int:
    """Measure with a PostgreSQL of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-pg-") as directory:
        cluster = PostgresCluster(Path(directory))
        try:
            cluster.start()
            run(cluster, int(sys.argv[1]) if len(sys.argv) > 1 else ROWS)
        finally:
            cluster.stop()
    return 0


if __name__ == "__main__":
    sys.exit(main())
