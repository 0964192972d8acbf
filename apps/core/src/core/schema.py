"""The database schema: numbered SQL files, applied in order, each once, each in one transaction.

`migrations/NNNN_name.sql` are recorded in table `schema_migration` with their SHA-256. A file that was applied must
not change any more: write the next one. The previous release must run on the new schema, so migrations add; what is no
longer used is removed one release later.

A file whose first line is `-- no-transaction` holds one statement that PostgreSQL refuses inside a transaction, and it
must be safe to run again after it was interrupted. Or it holds statements `CREATE INDEX CONCURRENTLY IF NOT EXISTS …`,
any number, which are run one by one beside writers. On a partitioned table, where PostgreSQL refuses them, the index
is made partition by partition (see `core.schema_indexes`). What is finished stays when the upgrade is interrupted; the
next one goes on from there, and removes what an interrupted index left.
"""

import argparse
import hashlib
import os
import sys
import time
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from core import db, schema_indexes

MIGRATIONS = Path(__file__).parent / "migrations"
CONFIG_FILE = Path("/etc/ooni/database.toml")
DSN_VARIABLE = "OONI_DSN"
NO_TRANSACTION = "-- no-transaction"

LOCK_TIMEOUT_S = 4  # a migration that waits for a lock makes every later query wait behind it: give up soon
STATEMENT_TIMEOUT_MS = 0  # none: filling a table or making an index takes as long as the database is big
UPGRADE_LOCK = 0x6F6F6E69  # advisory lock: one upgrade at a time per database
UPGRADE_WAIT_S = 120.0
MONTHS_AHEAD = 12

EXIT_PENDING = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3
EXIT_DENIED = 4
EXIT_REFUSED = 5
EXIT_FAILED = 6


class SchemaError(Exception):
    """The schema was not brought up to date; the text says why and what to do."""

    exit_code = EXIT_FAILED


class SchemaRefused(SchemaError):
    """The recorded history and the files do not fit together. Nothing was changed."""

    exit_code = EXIT_REFUSED


class SchemaDenied(SchemaError):
    """The database role lacks a right that the upgrade needs. The migration that met it was rolled back."""

    exit_code = EXIT_DENIED


class Migration(NamedTuple):
    """One numbered SQL file."""

    version: int
    name: str
    sql: str
    checksum: str
    transactional: bool


def load_migrations(directory: Path = MIGRATIONS) -> list[Migration]:
    """The migrations in `directory`, in order. Raises SchemaRefused when numbers repeat or have gaps."""
    found = []
    for path in sorted(directory.glob("*.sql")):
        number = path.name.partition("_")[0]
        if len(number) != 4 or not number.isdigit():
            raise SchemaRefused(f"{path.name} is not named like 0001_initial.sql. Rename it.")
        raw = path.read_bytes()
        text = raw.decode()
        transactional = text.partition("\n")[0].strip() != NO_TRANSACTION
        found.append(Migration(int(number), path.name, text, hashlib.sha256(raw).hexdigest(), transactional))
    for expected, migration in enumerate(found, start=1):
        if migration.version != expected:
            raise SchemaRefused(
                f"Migration {expected:04} is missing or its number is used twice (found {migration.name}). "
                "Number the files 0001, 0002, … without gaps."
            )
    return found


def upgrade(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """Apply what is pending and make the partitions of the months ahead; returns the names of the applied files.

    Safe to run at any time and from several hosts at once. A failing file leaves nothing behind (those before it stay).
    Raises SchemaError (SchemaRefused, SchemaDenied) or db.DatabaseUnavailable.
    """
    return list(iter_upgrade(dsn, directory))


def iter_upgrade(dsn: str, directory: Path = MIGRATIONS) -> Iterator[str]:
    """Like `upgrade`, yielding each name as soon as that file is committed."""
    migrations = load_migrations(directory)
    with _session(dsn) as connection:
        with _upgrade_lock(connection):
            _create_history(connection)
            for migration in _pending(connection, migrations):
                _apply(connection, migration)
                yield migration.name
        _ensure_partitions(connection)


def pending(dsn: str, directory: Path = MIGRATIONS) -> list[str]:
    """Names of the files that `upgrade` would apply; changes nothing. Raises like `upgrade`."""
    migrations = load_migrations(directory)
    with _session(dsn) as connection:
        return [migration.name for migration in _pending(connection, migrations)]


@contextmanager
def _session(dsn: str) -> Iterator[Connection[TupleRow]]:
    """A connection whose errors come out as sentences."""
    connection = db.connect(
        dsn,
        autocommit=True,
        application_name="database_upgrade_schema",
        statement_timeout_ms=STATEMENT_TIMEOUT_MS,
    )
    with connection:
        try:
            connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
            yield connection
        except psycopg.errors.InsufficientPrivilege as error:
            raise SchemaDenied(
                f"The database refused: {_first_line(error)}. Run the upgrade as the owner of the database "
                f"(now: {db.describe(dsn)}), or make this role the owner with ALTER DATABASE … OWNER TO …."
            ) from error
        except psycopg.OperationalError as error:
            if not db.is_unavailable(error):
                raise
            raise db.unavailable(dsn, error) from error


@contextmanager
def _upgrade_lock(connection: Connection[TupleRow]) -> Iterator[None]:
    deadline = time.monotonic() + UPGRADE_WAIT_S
    # Asked again and again instead of waited for, because lock_timeout would end the waiting after 4 s.
    while not _one(connection, "SELECT pg_try_advisory_lock(%s)", UPGRADE_LOCK):
        if time.monotonic() > deadline:
            raise SchemaError(
                f"Another upgrade of this database has been running for {UPGRADE_WAIT_S:.0f} s, as is expected "
                "while it builds indexes: that may take hours. Nothing was changed here. Simply run this again later; "
                "pg_stat_activity shows the other (application_name database_upgrade_schema)."
            )
        time.sleep(0.1)
    try:
        yield
    finally:
        if not connection.broken:
            connection.execute("SELECT pg_advisory_unlock(%s)", [UPGRADE_LOCK])


def _create_history(connection: Connection[TupleRow]) -> None:
    if _one(connection, "SELECT to_regclass('schema_migration') IS NULL"):
        connection.execute(
            """CREATE TABLE IF NOT EXISTS schema_migration (
                version integer PRIMARY KEY,
                name text NOT NULL,
                checksum text NOT NULL,
                applied_at timestamptz NOT NULL DEFAULT now(),
                applied_by text NOT NULL DEFAULT current_user,
                duration_ms bigint NOT NULL
            )"""
        )


def _pending(connection: Connection[TupleRow], migrations: Sequence[Migration]) -> list[Migration]:
    """What is not applied yet, after the recorded history was compared with the files."""
    if _one(connection, "SELECT to_regclass('schema_migration') IS NULL"):
        return list(migrations)
    known = {migration.version: migration for migration in migrations}
    applied: set[int] = set()
    for version, name, checksum in connection.execute(
        "SELECT version, name, checksum FROM schema_migration ORDER BY version"
    ):
        migration = known.get(version)
        if migration is None:
            raise SchemaRefused(
                f"The database is newer than this release: it has {name}, which this release does not know. "
                "Install the release that brought it; an older release may go on running on the newer schema."
            )
        if migration.checksum != checksum:
            raise SchemaRefused(
                f"{migration.name} was changed after it was applied (as {name}). "
                "Restore the file as it was and put the change into a new migration."
            )
        applied.add(version)
    missing = [migration for migration in migrations if migration.version not in applied]
    if applied and missing and missing[0].version < max(applied):
        raise SchemaRefused(
            f"{missing[0].name} was never applied, but later migrations were. "
            "Restore table schema_migration from a backup, or give the file the next free number."
        )
    return missing


def _apply(connection: Connection[TupleRow], migration: Migration) -> None:
    started = time.monotonic()
    record = "INSERT INTO schema_migration (version, name, checksum, duration_ms) VALUES (%s, %s, %s, %s)"
    statement = migration.sql.encode()  # bytes: sent as they are, several statements at once
    try:
        if migration.transactional:
            with connection.transaction():
                connection.execute(statement)
                connection.execute(record, _record(migration, started))
        else:
            indexes = schema_indexes.parse(migration.sql)
            if indexes is None:
                connection.execute("SET lock_timeout = 0")
                connection.execute(statement)
            for index in indexes or ():
                schema_indexes.make(connection, index)
            connection.execute(f"SET lock_timeout = '{LOCK_TIMEOUT_S}s'")
            connection.execute(record, _record(migration, started))
    except psycopg.errors.LockNotAvailable as error:
        rest = f"within {LOCK_TIMEOUT_S} s and was rolled back" if migration.transactional else "and gave up for now"
        raise SchemaError(
            f"{migration.name} did not get its lock {rest}, so that it does not hold up other queries. "
            "Run the upgrade again, or first end the long transactions in pg_stat_activity."
        ) from error
    except psycopg.errors.InsufficientPrivilege:
        raise
    except psycopg.OperationalError as error:
        if db.is_unavailable(error):
            raise
        raise _failed(migration, error) from error
    except psycopg.Error as error:
        raise _failed(migration, error) from error


def _failed(migration: Migration, error: psycopg.Error) -> SchemaError:
    rest = "It was rolled back." if migration.transactional else "It ran outside a transaction: see what it left."
    return SchemaError(
        f"{migration.name} failed: {_first_line(error)}. {rest} Fix the cause and run the upgrade again."
    )


def _record(migration: Migration, started: float) -> list[int | str]:
    return [migration.version, migration.name, migration.checksum, round((time.monotonic() - started) * 1000)]


def _ensure_partitions(connection: Connection[TupleRow]) -> None:
    """Partitions of this month and the MONTHS_AHEAD next ones (a no-op on a schema without the measurement table)."""
    if _one(connection, "SELECT to_regproc('fastpath_ensure_partitions') IS NULL"):
        return
    try:
        connection.execute(
            """SELECT fastpath_ensure_partitions(today, (today + make_interval(months => %s))::date)
               FROM (SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS today) AS t""",
            [MONTHS_AHEAD + 1],
        )
    except psycopg.errors.LockNotAvailable as error:
        raise SchemaError(
            f"The partitions of the coming months were not made: no lock within {LOCK_TIMEOUT_S} s. "
            "Run the upgrade again; until then rows of these months go to fastpath_default."
        ) from error
    except psycopg.errors.RaiseException as error:
        raise SchemaError(f"The partitions of the coming months were not made: {_first_line(error)}.") from error


def _one(connection: Connection[TupleRow], query: str, *parameters: object) -> object:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0].rstrip(".")


def find_dsn(argument: str | None, environ: Mapping[str, str] = os.environ, config: Path = CONFIG_FILE) -> str | None:
    """The DSN of the command line, else of OONI_DSN, else of key `dsn` in /etc/ooni/database.toml.

    Raises SchemaError when that file cannot be read.
    """
    given = argument or environ.get(DSN_VARIABLE)
    if given:
        return given
    try:
        found = tomllib.loads(config.read_text()).get("dsn")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise SchemaError(f"{config} cannot be read: {error}. Fix the file, or pass --dsn.") from error
    return found if isinstance(found, str) and found else None


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `database_upgrade_schema`. Exit codes: see the EXIT_ constants and `--help`."""
    parser = argparse.ArgumentParser(
        prog="database_upgrade_schema",
        description="Bring the database schema up to date. Safe to run again.",
        epilog="Exit codes: 0 up to date, 1 --check found pending migrations, 2 no address given, "
        "3 database unreachable, 4 permission denied, 5 files and database do not fit together, 6 a migration failed.",
    )
    parser.add_argument("--dsn", help=f"database address (default: {DSN_VARIABLE}, else key dsn in {CONFIG_FILE})")
    parser.add_argument("--check", action="store_true", help="only print what is pending; exit 1 when something is")
    options = parser.parse_args(arguments)
    try:
        dsn = find_dsn(options.dsn)
        if dsn is None:
            _complain(f'No database address. Pass --dsn, set {DSN_VARIABLE}, or put `dsn = "…"` into {CONFIG_FILE}.')
            return EXIT_USAGE
        if options.check:
            names = pending(dsn)
            for name in names:
                print(f"pending {name}")
            return EXIT_PENDING if names else 0
        count = 0
        started = time.monotonic()
        for name in iter_upgrade(dsn):
            print(f"applied {name} in {time.monotonic() - started:.2f} s", flush=True)
            started = time.monotonic()
            count += 1
        if not count:
            print("the schema is up to date")
    except db.DatabaseUnavailable as error:
        _complain(str(error))
        return EXIT_UNREACHABLE
    except SchemaError as error:
        _complain(str(error))
        return error.exit_code
    return 0


def _complain(sentence: str) -> None:
    print(f"database_upgrade_schema: {sentence}", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
