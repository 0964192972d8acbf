"""Indexes on a partitioned table, made beside writers: interrupted, repeated, and on partitions that come later."""

import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from core import schema, schema_indexes
from core.schema_indexes import Index, parse

TABLE = """
CREATE TABLE events (happened date NOT NULL, note text) PARTITION BY RANGE (happened);
CREATE TABLE events_2020 PARTITION OF events FOR VALUES FROM ('2020-01-01') TO ('2021-01-01');
CREATE TABLE events_2021 PARTITION OF events FOR VALUES FROM ('2021-01-01') TO ('2022-01-01');
CREATE TABLE events_default PARTITION OF events DEFAULT;
"""
ROWS = "INSERT INTO events SELECT date '2020-01-01' + n, 'note ' || n FROM generate_series(0, 1500) AS n;"
INDEX = "CREATE INDEX CONCURRENTLY IF NOT EXISTS events_note ON events (left(note, 200), happened) WHERE note <> '';"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    (tmp_path / "0001_table.sql").write_text(TABLE + ROWS)
    return tmp_path


def _add(directory: Path, *statements: str) -> None:
    (directory / "0002_index.sql").write_text("\n".join(["-- no-transaction", *statements]))


def _parts(connection: psycopg.Connection, index: str = "events_note") -> dict[str, bool]:
    """Whether the index is valid, and each of its parts."""
    found = connection.execute(
        """SELECT indrelid::regclass::text, indisvalid FROM pg_index
           WHERE indexrelid = %s::regclass
               OR indexrelid IN (SELECT inhrelid FROM pg_inherits WHERE inhparent = %s::regclass)""",
        [index, index],
    ).fetchall()
    return dict(found)


COMPLETE = {"events": True, "events_2020": True, "events_2021": True, "events_default": True}


@pytest.mark.parametrize("rows", [ROWS, ""], ids=["with rows", "empty"])
def test_every_partition_gets_its_part(empty_dsn: str, directory: Path, rows: str) -> None:
    (directory / "0001_table.sql").write_text(TABLE + rows)
    _add(directory, INDEX)
    assert schema.upgrade(empty_dsn, directory) == ["0001_table.sql", "0002_index.sql"]
    with psycopg.connect(empty_dsn) as connection:
        assert _parts(connection) == COMPLETE
        (definition,) = connection.execute("SELECT pg_get_indexdef('events_note'::regclass)").fetchone() or ("",)
    assert definition.endswith("""USING btree ("left"(note, 200), happened) WHERE (note <> ''::text)""")


def test_a_partition_that_is_made_afterwards_has_the_index(empty_dsn: str, directory: Path) -> None:
    _add(directory, INDEX)
    schema.upgrade(empty_dsn, directory)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("CREATE TABLE events_2010 (LIKE events INCLUDING ALL)")
        connection.execute(
            "ALTER TABLE events ATTACH PARTITION events_2010 FOR VALUES FROM ('2010-01-01') TO ('2011-01-01')"
        )
        assert _parts(connection) == {**COMPLETE, "events_2010": True}


def test_one_file_may_make_several_indexes_on_several_tables(empty_dsn: str, directory: Path) -> None:
    plain = "CREATE TABLE plain (x integer); INSERT INTO plain VALUES (1);"
    (directory / "0001_table.sql").write_text(TABLE + ROWS + plain)
    second = "CREATE INDEX CONCURRENTLY IF NOT EXISTS events_second\n    ON events (note);"
    third = "CREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS plain_x ON plain (x);"
    _add(directory, "-- Why; and how.", INDEX, second, third)
    schema.upgrade(empty_dsn, directory)
    with psycopg.connect(empty_dsn) as connection:
        assert _parts(connection) == _parts(connection, "events_second") == COMPLETE
        assert _parts(connection, "plain_x") == {"plain": True}


def _upgrade_until(dsn: str, directory: Path, reached: str, stop: Callable[[psycopg.Connection, int], None]) -> None:
    """Upgrade in a thread; once a statement of it begins with `reached`, call `stop` with its server process."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            schema.upgrade(dsn, directory)
        except Exception as error:  # noqa: BLE001 the other thread looks at it
            failures.append(error)

    upgrade = threading.Thread(target=run)
    upgrade.start()
    with psycopg.connect(dsn, autocommit=True) as watcher:
        deadline = time.monotonic() + 60
        found = None
        while found is None and upgrade.is_alive() and time.monotonic() < deadline:
            found = watcher.execute(
                "SELECT pid FROM pg_stat_activity WHERE application_name = 'database_upgrade_schema'"
                " AND datname = current_database() AND query LIKE %s AND wait_event_type = 'Lock'",
                [reached + "%"],
            ).fetchone()
        assert found is not None, failures
        stop(watcher, found[0])
    upgrade.join(60)
    assert failures


def test_an_interrupted_one_is_completed_by_the_next_run_and_writers_go_on(empty_dsn: str, directory: Path) -> None:
    schema.upgrade(empty_dsn, directory)
    _add(directory, INDEX)

    def stop(watcher: psycopg.Connection, pid: int) -> None:
        watcher.execute("SET lock_timeout = '2s'")
        watcher.execute("INSERT INTO events VALUES ('2021-05-05', 'written meanwhile')")
        watcher.execute("CREATE TABLE events_2010 (LIKE events INCLUDING ALL)")
        watcher.execute(
            "ALTER TABLE events ATTACH PARTITION events_2010 FOR VALUES FROM ('2010-01-01') TO ('2011-01-01')"
        )
        watcher.execute("SELECT pg_terminate_backend(%s)", [pid])

    with psycopg.connect(empty_dsn) as writer:
        writer.execute("INSERT INTO events_2021 VALUES ('2021-01-01', 'not committed')")  # an index waits for its end
        _upgrade_until(empty_dsn, directory, 'CREATE INDEX CONCURRENTLY IF NOT EXISTS "events_2021_note"', stop)
    with psycopg.connect(empty_dsn) as connection:
        assert _parts(connection) == {"events": False, "events_2010": True, "events_2020": True}
        left = connection.execute("SELECT indisvalid FROM pg_index WHERE indexrelid = 'events_2021_note'::regclass")
        assert left.fetchone() == (False,)
    assert schema.upgrade(empty_dsn, directory) == ["0002_index.sql"]
    with psycopg.connect(empty_dsn) as connection:
        assert _parts(connection) == {**COMPLETE, "events_2010": True}
        connection.execute("SET enable_seqscan = off")
        plan = connection.execute("EXPLAIN SELECT FROM events WHERE left(note, 200) = 'x' AND note <> ''").fetchall()
    assert sum("Index" in line for (line,) in plan) >= 4, plan


def test_without_its_lock_it_gives_up_and_says_so(
    empty_dsn: str, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_indexes, "_ATTEMPTS", 2)
    schema.upgrade(empty_dsn, directory)
    _add(directory, INDEX)
    with psycopg.connect(empty_dsn) as writer:
        writer.execute("INSERT INTO events VALUES ('2020-01-01', 'not committed')")
        with pytest.raises(schema.SchemaError, match="did not get its lock and gave up for now"):
            schema.upgrade(empty_dsn, directory)
    assert schema.upgrade(empty_dsn, directory) == ["0002_index.sql"]


def test_what_counts_as_indexes() -> None:
    assert parse(f"-- no-transaction\n{INDEX}") == [
        Index(unique=False, name="events_note", table="events", rest="(left(note, 200), happened) WHERE note <> ''")
    ]
    assert parse("-- no-transaction\nVACUUM events;") is None
    assert parse(f"{INDEX} VACUUM events;") is None
    assert parse("CREATE INDEX CONCURRENTLY events_note ON events (note);") is None  # could not be repeated


def test_the_indexes_of_the_list_are_on_every_partition(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        partitions = {
            name
            for (name,) in connection.execute(
                "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'fastpath'::regclass"
            )
        }
        for column in ("software_version", "engine_version", "test_version", "confirmed", "flagged", "flagged_cc"):
            assert _parts(connection, f"fastpath_{column}_time") == dict.fromkeys(partitions | {"fastpath"}, True)
