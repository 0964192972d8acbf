"""Migrations: order, checksums, concurrency, and what the schema promises about hostile rows and partitions."""

import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import psycopg
import pytest

from core import schema
from core.db import DatabaseUnavailable

ALL = [path.name for path in sorted(schema.MIGRATIONS.glob("*.sql"))]
UID = "20240208220710.181572_MA_ndt_7888edc7748936bf"
RID = "20240208T220700Z_ndt_MA_36903_n1_0123456789abcdef"


def _write(directory: Path, **files: str) -> Path:
    directory.mkdir(exist_ok=True)
    for name, text in files.items():
        (directory / f"{name.removeprefix('m')}.sql").write_text(text)
    return directory


# The upgrade ---------------------------------------------------------------------------------------------------------


def test_an_empty_database_is_brought_to_head_and_a_second_run_does_nothing(empty_dsn: str) -> None:
    assert schema.pending(empty_dsn) == ALL
    assert schema.upgrade(empty_dsn) == ALL
    assert schema.pending(empty_dsn) == []
    assert schema.upgrade(empty_dsn) == []


def test_pending_changes_nothing(empty_dsn: str) -> None:
    schema.pending(empty_dsn)
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT count(*) FROM pg_tables WHERE schemaname = 'public'").fetchone() == (0,)


def test_two_upgrades_at_once_apply_each_file_once(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(
        tmp_path / "m",
        m0001_a="SELECT pg_sleep(0.5); CREATE TABLE a ();",
        m0002_b="SELECT pg_sleep(0.5); CREATE TABLE b ();",
    )
    results: list[list[str]] = []
    threads = [threading.Thread(target=lambda: results.append(schema.upgrade(empty_dsn, directory))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert sorted(results) == [[], ["0001_a.sql", "0002_b.sql"]]


def test_an_upgrade_beside_a_long_one_says_that_it_may_simply_run_again(
    empty_dsn: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(schema, "UPGRADE_WAIT_S", 0.2)
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [schema.UPGRADE_LOCK])
        assert schema.main(["--dsn", empty_dsn]) == schema.EXIT_FAILED
    said = capsys.readouterr().err
    assert "expected while it builds indexes" in said
    assert "run this again later" in said
    assert schema.upgrade(empty_dsn) == ALL


def test_what_was_applied_is_recorded(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", m0001_a="CREATE TABLE a ();")
    schema.upgrade(empty_dsn, directory)
    with psycopg.connect(empty_dsn) as connection:
        row = connection.execute(
            "SELECT version, name, checksum, applied_by, now() - applied_at < '1 minute', duration_ms >= 0"
            " FROM schema_migration"
        ).fetchone()
    expected = schema.load_migrations(directory)[0].checksum
    assert row == (1, "0001_a.sql", expected, "postgres", True, True)
    assert len(expected) == 64


def test_a_changed_file_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", m0001_a="CREATE TABLE a ();")
    schema.upgrade(empty_dsn, directory)
    _write(directory, m0001_a="CREATE TABLE a (); ", m0002_b="CREATE TABLE b ();")
    for use in (schema.upgrade, schema.pending):
        with pytest.raises(schema.SchemaRefused, match=r"0001_a\.sql was changed after it was applied"):
            use(empty_dsn, directory)
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT to_regclass('b')").fetchone() == (None,)


def test_a_database_newer_than_the_code_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    newer = _write(tmp_path / "m", m0001_a="SELECT 1;", m0002_b="SELECT 1;")
    schema.upgrade(empty_dsn, newer)
    (newer / "0002_b.sql").unlink()
    with pytest.raises(schema.SchemaRefused, match=r"newer than this release: it has 0002_b\.sql"):
        schema.upgrade(empty_dsn, newer)


def test_a_hole_in_the_history_is_refused(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", m0001_a="SELECT 1;", m0002_b="SELECT 1;")
    schema.upgrade(empty_dsn, directory)
    with psycopg.connect(empty_dsn) as connection:
        connection.execute("DELETE FROM schema_migration WHERE version = 1")
    with pytest.raises(schema.SchemaRefused, match=r"0001_a\.sql was never applied, but later"):
        schema.upgrade(empty_dsn, directory)


@pytest.mark.parametrize(
    ("names", "sentence"),
    [
        (["0001_a", "0003_c"], "Migration 0002 is missing"),
        (["0001_a", "0001_b"], "used twice"),
        (["0002_b"], "Migration 0001 is missing"),
        (["1_a"], "not named like"),
    ],
)
def test_files_numbered_wrongly_are_refused(tmp_path: Path, names: list[str], sentence: str) -> None:
    _write(tmp_path, **{f"m{name}": "SELECT 1;" for name in names})
    with pytest.raises(schema.SchemaRefused, match=sentence):
        schema.load_migrations(tmp_path)


def test_a_failing_migration_leaves_nothing_behind_and_those_before_it_stay(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(
        tmp_path / "m",
        m0001_a="CREATE TABLE a ();",
        m0002_b="CREATE TABLE b (); SELECT 1/0;",
        m0003_c="CREATE TABLE c ();",
    )
    with pytest.raises(schema.SchemaError, match=r"0002_b\.sql failed: .*division by zero.*rolled back"):
        schema.upgrade(empty_dsn, directory)
    with psycopg.connect(empty_dsn) as connection:
        found = connection.execute("SELECT to_regclass('a'), to_regclass('b'), to_regclass('c')").fetchone()
    assert found == ("a", None, None)
    assert schema.pending(empty_dsn, directory) == ["0002_b.sql", "0003_c.sql"]
    _write(directory, m0002_b="CREATE TABLE b ();")
    assert schema.upgrade(empty_dsn, directory) == ["0002_b.sql", "0003_c.sql"]


@pytest.mark.parametrize("first_line", ["-- a table", schema.NO_TRANSACTION])
def test_a_statement_may_take_as_long_as_it_needs(empty_dsn: str, tmp_path: Path, first_line: str) -> None:
    text = f"{first_line}\nCREATE TABLE a AS SELECT current_setting('statement_timeout') AS ends_after;"
    schema.upgrade(empty_dsn, _write(tmp_path / "m", m0001_a=text))
    with psycopg.connect(empty_dsn) as connection:
        assert connection.execute("SELECT ends_after FROM a").fetchall() == [("0",)]


def test_a_statement_that_refuses_transactions_can_be_a_migration(empty_dsn: str, tmp_path: Path) -> None:
    concurrently = "CREATE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (x);"
    directory = _write(tmp_path / "m", m0001_a="CREATE TABLE a (x int);", m0002_b=concurrently)
    with pytest.raises(schema.SchemaError, match="cannot run inside a transaction"):
        schema.upgrade(empty_dsn, directory)
    _write(directory, m0002_b=f"-- no-transaction\n{concurrently}")
    assert schema.upgrade(empty_dsn, directory) == ["0002_b.sql"]


def test_what_an_interrupted_index_left_is_not_taken_for_a_finished_one(empty_dsn: str, tmp_path: Path) -> None:
    concurrently = "-- no-transaction\nCREATE UNIQUE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (x);"
    directory = _write(tmp_path / "m", m0001_a="CREATE TABLE a (x int); INSERT INTO a VALUES (1), (1)")
    schema.upgrade(empty_dsn, directory)
    _write(directory, m0002_b=concurrently)
    with pytest.raises(schema.SchemaError, match="could not create unique index"):
        schema.upgrade(empty_dsn, directory)
    valid = "SELECT indisvalid FROM pg_index WHERE indexrelid = 'a_x'::regclass"
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        assert connection.execute(valid).fetchone() == (False,)
        connection.execute("DELETE FROM a WHERE ctid = '(0,1)'")
        assert schema.upgrade(empty_dsn, directory) == ["0002_b.sql"]
        assert connection.execute(valid).fetchone() == (True,)


def test_an_index_made_beside_writers_waits_for_them(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(
        tmp_path / "m",
        m0001_a="CREATE TABLE a (x int);",
        m0002_b="-- no-transaction\nCREATE INDEX CONCURRENTLY IF NOT EXISTS a_x ON a (x);",
    )
    with psycopg.connect(empty_dsn) as writer:
        schema.upgrade(empty_dsn, _write(tmp_path / "first", m0001_a="CREATE TABLE a (x int);"))
        writer.execute("INSERT INTO a VALUES (1)")
        upgrade = threading.Thread(target=schema.upgrade, args=(empty_dsn, directory))
        upgrade.start()
        upgrade.join(schema.LOCK_TIMEOUT_S + 1)
        assert upgrade.is_alive()
        writer.commit()
        upgrade.join(60)
    assert schema.pending(empty_dsn, directory) == []


def test_a_migration_gives_up_on_a_lock_after_four_seconds(empty_dsn: str, tmp_path: Path) -> None:
    directory = _write(tmp_path / "m", m0001_a="CREATE TABLE a ();")
    schema.upgrade(empty_dsn, directory)
    _write(directory, m0002_b="ALTER TABLE a ADD COLUMN x int;")
    with psycopg.connect(empty_dsn) as reader:
        reader.execute("SELECT * FROM a")  # holds its lock until the transaction ends
        started = time.monotonic()
        with pytest.raises(schema.SchemaError, match="did not get its lock within 4 s"):
            schema.upgrade(empty_dsn, directory)
        assert 3.5 < time.monotonic() - started < 15
    assert schema.upgrade(empty_dsn, directory) == ["0002_b.sql"]


# The command ---------------------------------------------------------------------------------------------------------


def _command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("OONI_", "PG"))}
    return subprocess.run(
        [Path(sys.executable).parent / "database_upgrade_schema", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        env={**clean, **environ},
    )


def test_the_command_prints_a_line_per_migration(empty_dsn: str) -> None:
    check = _command("--check", "--dsn", empty_dsn)
    assert (check.returncode, check.stdout.splitlines()) == (1, [f"pending {name}" for name in ALL])
    first = _command(OONI_DSN=empty_dsn)
    assert first.returncode == 0, first.stderr
    assert [line.split(" in ")[0] for line in first.stdout.splitlines()] == [f"applied {name}" for name in ALL]
    second = _command("--dsn", empty_dsn)
    assert (second.returncode, second.stdout) == (0, "the schema is up to date\n")
    check = _command("--check", "--dsn", empty_dsn)
    assert (check.returncode, check.stdout) == (0, "")


def test_without_an_address_the_command_says_where_to_put_one() -> None:
    if schema.CONFIG_FILE.exists():
        pytest.skip(f"this machine has a {schema.CONFIG_FILE}")
    done = _command()
    assert done.returncode == schema.EXIT_USAGE
    assert "set OONI_DSN" in done.stderr


def test_an_unreachable_database_gives_a_sentence_without_the_password() -> None:
    done = _command("--dsn", "postgresql://someone:hunter2@127.0.0.1:1/ooni")
    assert done.returncode == schema.EXIT_UNREACHABLE
    assert "The database ooni at 127.0.0.1:1 (user someone) is not available" in done.stderr
    assert "hunter2" not in done.stderr
    assert "Traceback" not in done.stderr


def test_a_text_that_is_no_address_gives_a_sentence() -> None:
    done = _command("--dsn", "no address at all")
    assert done.returncode == schema.EXIT_UNREACHABLE
    assert "not a PostgreSQL connection string" in done.stderr


def test_a_role_without_rights_gets_a_sentence(empty_dsn: str) -> None:
    with psycopg.connect(empty_dsn, autocommit=True) as connection:
        connection.execute("DROP ROLE IF EXISTS powerless")
        connection.execute("CREATE ROLE powerless LOGIN")
    try:
        done = _command("--dsn", empty_dsn.replace("user=postgres", "user=powerless"))
        assert done.returncode == schema.EXIT_DENIED
        assert "Run the upgrade as the owner" in done.stderr
    finally:
        with psycopg.connect(empty_dsn, autocommit=True) as connection:
            connection.execute("DROP ROLE powerless")


def test_a_refused_history_has_its_own_exit_code(dsn: str) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("UPDATE schema_migration SET checksum = 'x' WHERE version = 1")
    assert _command("--dsn", dsn).returncode == schema.EXIT_REFUSED


def test_the_address_comes_from_the_argument_then_the_environment_then_the_file(tmp_path: Path) -> None:
    config = tmp_path / "database.toml"
    config.write_text('dsn = "from file"')
    assert schema.find_dsn("from argument", {"OONI_DSN": "from environment"}, config) == "from argument"
    assert schema.find_dsn(None, {"OONI_DSN": "from environment"}, config) == "from environment"
    assert schema.find_dsn(None, {}, config) == "from file"
    assert schema.find_dsn(None, {}, tmp_path / "absent") is None
    config.write_text("dsn =")
    with pytest.raises(schema.SchemaError, match="cannot be read"):
        schema.find_dsn(None, {}, config)


def test_a_server_that_went_away_is_unavailable() -> None:
    with pytest.raises(DatabaseUnavailable):
        schema.upgrade("host=/nonexistent dbname=x")


# The tables ----------------------------------------------------------------------------------------------------------
