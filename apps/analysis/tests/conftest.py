"""Fixtures of the analysis tests: rows without the fastpath, and the command as a process."""

import os
import subprocess
import sys
from collections.abc import Callable
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.counters import COUNTS, TABLES

INSERT = """INSERT INTO fastpath (measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name,
    test_name_other, measurement_start_time, scores, anomaly, confirmed, msm_failure, blocking_type)
    VALUES (%(uid)s, '', %(input)s, 'example.org', %(cc)s, %(asn)s, %(test)s, %(other)s, %(start)s, '{}',
    %(anomaly)s, %(confirmed)s, %(failure)s, %(blocking)s)"""


class Rows:
    """Inserts rows as a script that forgets the counters would."""

    def __init__(self, dsn: str) -> None:
        self.connection = psycopg.connect(dsn, autocommit=True)
        self.number = 0

    def add(self, day: date, **changes: Any) -> None:
        self.number += 1
        values = {
            "uid": f"{day:%Y%m%d}030405.{self.number:06d}_IT_webconnectivity_{self.number:016x}",
            "input": "https://example.org/",
            "cc": "IT",
            "asn": 30722,
            "test": "web_connectivity",
            "other": None,
            "start": datetime(day.year, day.month, day.day, 3, 4, 5),  # noqa: DTZ001 the column has no zone
            "anomaly": False,
            "confirmed": False,
            "failure": False,
            "blocking": "",
        }
        self.connection.execute(INSERT, values | changes)

    def counters(self, table: str) -> list[tuple[Any, ...]]:
        """Every counter with its counts, by day and key."""
        columns = ", ".join(next(known for known in TABLES if known.name == table).columns)
        return self.connection.execute(
            f"SELECT {columns}, {', '.join(COUNTS)} FROM {table} ORDER BY {columns}"
        ).fetchall()


@pytest.fixture
def rows(dsn: str) -> Rows:
    made = Rows(dsn)
    yield made
    made.connection.close()


@pytest.fixture
def today(rows: Rows) -> date:
    row = rows.connection.execute("SELECT (now() AT TIME ZONE 'UTC')::date").fetchone()
    assert row is not None
    # A test that runs over midnight would see two days.
    return row[0]


@pytest.fixture
def long_ago(today: date) -> date:
    return today - timedelta(days=400)


Analysis = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def analysis(dsn: str, tmp_path: Path) -> Analysis:
    """Runs `analysis …` on the test's database; keyword arguments are settings."""

    def run(*arguments: str, **settings: object) -> subprocess.CompletedProcess[str]:
        values = {
            "db_uri": dsn,
            "state_directory": tmp_path,
            "metrics_directory": tmp_path,
            **settings,
        }
        environ = {key: value for key, value in os.environ.items() if not key.startswith("OONI_")}
        environ |= {f"OONI_ANALYSIS_{key.upper()}": str(value) for key, value in values.items()}
        return subprocess.run(
            [sys.executable, "-m", "analysis", *arguments],
            env=environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run
