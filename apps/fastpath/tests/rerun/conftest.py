"""An object store that the real uploader filled, and the rerun command as a process; shared by the tests of reruns."""

import json
import os
import random
import re
import socket
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.counters import TABLES
from core.ids import new_measurement_uid
from core.spool import Spool
from fastpath.store import Store

DAY = datetime(2024, 1, 2, 3, tzinfo=UTC)
RANGE = ("--start-day", "2024-01-02", "--end-day", "2024-01-04")
COUNTERS = tuple(table.name for table in TABLES)


def submission(number: int, at: datetime, cc: str, test_name: str, **changes: Any) -> bytes:
    """The body of a measurement that was received at `at`, different for each number."""
    names = random.Random(number)
    stamp = f"{at:%Y-%m-%d %H:%M:%S}"
    content: dict[str, Any] = {
        "annotations": {"platform": "linux"},
        "input": f"https://host-{names.randrange(20)}.example/{number}",
        "measurement_start_time": stamp,
        "probe_asn": f"AS{names.randrange(1, 20)}",
        "probe_cc": cc,
        "report_id": f"{at:%Y%m%dT%H%M%SZ}_{test_name.replace('_', '')}_{cc}_30722_n1_{number:016d}",
        "software_name": "sample",
        "software_version": "1.0",
        "test_keys": {"accessible": True, "blocking": names.choice([False, "dns", "http-failure"]), "requests": []},
        "test_name": test_name,
        "test_runtime": 1.5,
        "test_start_time": stamp,
        "test_version": "0.4.3",
        **changes,
    }
    is_verified = "t" if number % 7 == 0 else "u"
    return json.dumps({"format": "json", "is_verified": is_verified, "content": content}).encode()


def number_of(said: str, name: str) -> int:
    """The number that the last line of a rerun gives under `name`; 0 when it does not."""
    last = [line for line in said.splitlines() if "rerun finished" in line or "rerun stopped" in line][-1]
    match = re.search(rf" {name}=(\d+)", last)
    return int(match[1]) if match else 0


class Archive:
    """A spool, an object store filled from it by the uploader, and a database."""

    day = DAY
    range = RANGE
    submission = staticmethod(submission)
    number_of = staticmethod(number_of)

    def __init__(self, root: Path, dsn: str) -> None:
        self.root = root
        self.dsn = dsn
        self.spool = Spool(root / "spool", min_free_bytes=0)
        self.objects = root / "objects"
        self.state = root / "state"
        self.sent: dict[str, bytes] = {}

    @property
    def store_url(self) -> str:
        return f"file://{self.objects}"

    def receive(self, body: bytes, *, at: datetime = DAY, cc: str = "IT", test_name: str = "web_connectivity") -> str:
        """Take a measurement as the API does, and mark it as the daemon does."""
        uid = new_measurement_uid(at, cc, test_name, body)
        self.spool.put(uid, body, "")
        self.spool.mark_scored([uid])
        self.sent[uid] = body
        return uid

    def receive_many(self, count: int, *, first: int = 0) -> None:
        """Take measurements of two days, three countries and two tests."""
        for number in range(first, first + count):
            at = DAY + timedelta(hours=number % 8 * 5, seconds=number)
            cc, test_name = ("IT", "DE", "BR")[number % 3], ("web_connectivity", "signal")[number % 2]
            self.receive(submission(number, at, cc, test_name), at=at, cc=cc, test_name=test_name)

    def upload(self, **settings: Any) -> None:
        """Run the uploader."""
        values = {
            "spool_directory": self.spool.root,
            "db_uri": self.dsn,
            "store_url": self.store_url,
            "collector_id": "1",
            **settings,
        }
        environment = os.environ | {f"OONI_UPLOADER_{key.upper()}": str(value) for key, value in values.items()}
        done = subprocess.run(
            [sys.executable, "-m", "uploader"],
            env=environment,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr

    def environment(self, **settings: Any) -> dict[str, str]:
        values = {
            "db_uri": self.dsn,
            "store_url": self.store_url,
            "state_directory": self.state,
            "rerun_metrics_port": 0,
            **settings,
        }
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("OONI_FASTPATH_")}
        return inherited | {f"OONI_FASTPATH_{key.upper()}": str(value) for key, value in values.items()}

    def start(self, *arguments: str, **settings: Any) -> "subprocess.Popen[str]":
        """Start the rerun command."""
        return subprocess.Popen(
            [sys.executable, "-m", "fastpath", *arguments],
            env=self.environment(**settings),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=self.root,
        )

    def rerun(self, *arguments: str, code: int = 0, **settings: Any) -> str:
        """Run the rerun command to its end; return what it said."""
        process = self.start("--noapi", *arguments, **settings)
        said, _ = process.communicate(timeout=120)
        assert process.returncode == code, said
        return said

    def query(self, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(statement).fetchall()  # type: ignore[arg-type, unused-ignore]  # tests

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.dsn) as connection:
            connection.execute(statement)  # type: ignore[arg-type, unused-ignore]  # tests

    def rows(self) -> dict[str, tuple[Any, ...]]:
        """All rows by uid, without the time of writing."""
        columns = (
            "measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name::text, test_start_time,"
            " measurement_start_time, scores::text, anomaly, confirmed, msm_failure, blocking_type, platform,"
            " is_verified, reason"
        )
        return {row[0]: row for row in self.query(f"SELECT {columns} FROM fastpath")}

    def counters(self) -> dict[str, list[tuple[Any, ...]]]:
        """Every counter."""
        return {
            table: self.query(f"SELECT * FROM {table} WHERE measurement_count <> 0 ORDER BY 1, key")
            for table in COUNTERS
        }

    def differences(self) -> list[dict[str, Any]]:
        """What `Store.counters_difference` says."""
        store = Store(self.dsn)
        try:
            return store.counters_difference()
        finally:
            store.close()

    def files(self) -> dict[str, tuple[int, int]]:
        """Every file below the root with size and time of change."""
        return {
            str(path): (path.stat().st_size, path.stat().st_mtime_ns)
            for path in sorted(self.root.rglob("*"))
            if path.is_file()
        }

    def everything(self) -> tuple[Any, ...]:
        """What a rerun could have touched in the database."""
        ledger = [self.query(f"SELECT count(*) FROM {table}") for table in ("rerun", "rerun_day", "rerun_progress")]
        stamps = self.query("SELECT measurement_uid, update_time FROM fastpath ORDER BY 1")
        return self.rows(), self.counters(), stamps, ledger


@pytest.fixture
def archive(fastpath_dsn: str, fingerprints: Any, tmp_path: Path) -> Archive:
    """An archive with a fresh database that has two fingerprints."""
    with psycopg.connect(fastpath_dsn) as connection:
        connection.execute("TRUNCATE jsonl, upload_manifest, rerun, rerun_day, rerun_progress")
    store = Store(fastpath_dsn)
    store.replace_fingerprints(*fingerprints)
    store.close()
    return Archive(tmp_path, fastpath_dsn)


@pytest.fixture
def unused_port() -> int:
    """A port that nobody listens on."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])
