"""A database with rows gets the coarser counters: filled at once, and exact after hosts of two releases wrote."""

import os
import random
import shutil
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg import sql

import fastpath.store
from core import schema
from core.counters import TABLES
from fastpath.row import Row, fallback_row
from fastpath.store import Store

REPORT_ID = "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000"
OLD_TABLES = ("counters_input", "counters_network", "counters_country")
"""The tables that the previous release knows."""

TODAY = datetime.now(UTC).replace(tzinfo=None)
LONG_AGO = ("2024-01-31 23:59:59", "2024-02-01 00:00:00", "0001-01-01 00:00:00", "9999-12-31 23:59:59")


def rows(first: int, number: int, seed: int, times: list[datetime]) -> list[Row]:
    chance = random.Random(seed)
    return [
        msgspec.structs.replace(
            fallback_row(f"{TODAY:%Y%m%d}030405.{n:06d}_IT_webconnectivity_{n:016x}", None, "pipeline_test", REPORT_ID),
            input=f"https://{chance.randrange(4)}.example/{chance.randrange(2)}",
            domain=f"{chance.randrange(4)}.example",
            probe_cc=chance.choice(("IT", "DE")),
            probe_asn=chance.randrange(3),
            test_name=chance.choice(("web_connectivity", "unheard_of")),
            measurement_start_time=chance.choice(times),
            anomaly=chance.random() < 0.3,
            confirmed=chance.random() < 0.1,
            msm_failure=chance.random() < 0.1,
            blocking_type=chance.choice(("", "dns", "tcp_ip")),
        )
        for n in range(first, first + number)
    ]


RECENT = [TODAY - timedelta(hours=hours) for hours in (0, 20, 60)]
ALL_TIMES = RECENT + [datetime.fromisoformat(text) for text in LONG_AGO]


@pytest.fixture
def previous_release(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Makes stores count in the tables of the previous release only, until it is undone."""
    for name in ("_COUNT_NEW", "_COUNT_REPLACED"):
        statements = dict(zip((table.name for table in TABLES), getattr(fastpath.store, name), strict=True))
        monkeypatch.setattr(fastpath.store, name, [statements[table] for table in OLD_TABLES])
    return monkeypatch


def differences(dsn: str) -> list[str]:
    """Tables that differ from the rows, each once."""
    store = Store(dsn)
    try:
        return sorted({str(found["table"]) for found in store.counters_difference()})
    finally:
        store.close()


def write(dsn: str, some: list[Row]) -> None:
    store = Store(dsn)
    store.insert(some)
    store.close()


def update_counters(dsn: str, directory: Path, *arguments: str) -> str:
    environ = {
        **os.environ,
        "OONI_ANALYSIS_DB_URI": dsn,
        "OONI_ANALYSIS_STATE_DIRECTORY": str(directory),
        "OONI_ANALYSIS_COUNTERS_SWEEP_DAYS": "0",
    }
    done = subprocess.run(
        [sys.executable, "-m", "analysis", "update-counters", *arguments],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stderr


@pytest.fixture
def old_dsn(empty_dsn: str, tmp_path: Path) -> str:
    """A database with the schema before the coarser counters."""
    schema.upgrade(empty_dsn, first_migrations(tmp_path / "seven", 7))
    return empty_dsn


def first_migrations(directory: Path, number: int) -> Path:
    directory.mkdir()
    for path in sorted(schema.MIGRATIONS.glob("*.sql"))[:number]:
        shutil.copy(path, directory)
    return directory


def test_the_migration_fills_the_tables_that_it_makes(old_dsn: str, previous_release: pytest.MonkeyPatch) -> None:
    write(old_dsn, rows(0, 600, 1, ALL_TIMES))
    assert "0008_coarser_counters.sql" in schema.upgrade(old_dsn)
    assert differences(old_dsn) == []
    with psycopg.connect(old_dsn) as connection:
        for table in TABLES:
            found = connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name))).fetchone()
            assert found is not None
            assert found[0] > 0, table.name


def test_the_migration_holds_up_no_writer_and_no_writer_holds_it_up(
    old_dsn: str, tmp_path: Path, previous_release: pytest.MonkeyPatch
) -> None:
    write(old_dsn, rows(0, 50, 1, ALL_TIMES))
    with psycopg.connect(old_dsn) as writer:
        # As any transaction of a writer while it is open.
        for table in ("fastpath", *OLD_TABLES):
            writer.execute(sql.SQL("LOCK TABLE {} IN ROW EXCLUSIVE MODE").format(sql.Identifier(table)))
        applied = schema.upgrade(old_dsn, first_migrations(tmp_path / "eight", 8))
    assert applied == ["0008_coarser_counters.sql"]
    assert differences(old_dsn) == []


def test_what_a_previous_release_leaves_out_is_put_right(
    dsn: str, tmp_path: Path, previous_release: pytest.MonkeyPatch
) -> None:
    write(dsn, rows(0, 200, 2, RECENT))
    new_tables = sorted(table.name for table in TABLES if table.name not in OLD_TABLES)
    assert differences(dsn) == new_tables
    previous_release.undo()  # the first host is upgraded
    write(dsn, rows(200, 200, 3, RECENT))
    assert differences(dsn) == new_tables
    assert "corrected" in update_counters(dsn, tmp_path)
    assert differences(dsn) == []
    assert "counters equal rows" in update_counters(dsn, tmp_path)


def test_rows_of_all_times_are_put_right_by_a_full_run(
    dsn: str, tmp_path: Path, previous_release: pytest.MonkeyPatch
) -> None:
    write(dsn, rows(0, 200, 4, ALL_TIMES))
    previous_release.undo()
    store = Store(dsn)
    store.replace(rows(0, 100, 5, ALL_TIMES))  # a rerun takes out what was not counted
    store.close()
    assert differences(dsn) != []
    update_counters(dsn, tmp_path)
    assert differences(dsn) != [], "days outside the window were repaired"
    update_counters(dsn, tmp_path, "--full")
    assert differences(dsn) == []
