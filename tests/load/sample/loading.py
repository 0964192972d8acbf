"""Loads a sample into a database: `fast` into a new one of our own, `carefully` into one that others may be using."""

import contextlib
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor, as_completed
from datetime import date

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow
from tests.load.sample import counting, lists, staging
from tests.load.sample.draw import Month, Sampler, next_month

from core import db
from core.counters import TABLES, CounterTable

Say = Callable[[str], None]

_LOCK = 0x73616D70  # advisory lock: one load at a time per database
_LOCK_TIMEOUT_S = 10
_EVERY_S = 15.0
_ANALYZE_ROWS = sql.SQL("ANALYZE fastpath")  # with all its partitions, one after the other
_TIDY_OTHERS = [
    sql.SQL("VACUUM (ANALYZE) {}").format(sql.Identifier(name))
    for name in (*(table.name for table in TABLES), "citizenlab", "asnmeta")
]
"""Statistics for the planner, and what index-only scans need to know of what was not written with FREEZE."""

WORKERS = max(1, len(os.sched_getaffinity(0)))
"""Processes that draw and write months, and sessions that build indexes: one per core."""


class LoadError(Exception):
    """The sample was not loaded; the text is a sentence that ends with the next step."""


class Clock:
    """Seconds that each part of the work took, by name."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextlib.contextmanager
    def part(self, name: str) -> Iterator[None]:
        """Measure a block."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.parts[name] = self.parts.get(name, 0.0) + time.perf_counter() - started

    @property
    def total(self) -> float:
        """All parts together, in seconds."""
        return sum(self.parts.values())


def fast(dsn: str, sampler: Sampler, say: Say, clock: Clock, memory: str) -> None:
    """Load into a database that has the schema and no rows, and that nobody else uses.

    Months are written and counted side by side, their counters into files; then each counter table takes in its files
    and gets its indexes. An interruption leaves a database that is good for nothing.
    """
    with session(dsn) as connection:
        _begin(connection, sampler)
        wanted = {table.name: staging.indexes(connection, sql.Identifier(table.name)) for table in TABLES}
        with connection.transaction():
            for index in (index for indexes in wanted.values() for index in indexes):
                connection.execute(index.drop)
    settings = {
        "maintenance_work_mem": memory,
        "work_mem": memory,
        "temp_buffers": "256MB",
        "max_parallel_maintenance_workers": "0",
    }
    with clock.part("rows with indexes, and counters"):
        _each_month(dsn, sampler, say, settings, count=True)
    with clock.part("months into place"), session(dsn) as connection:
        for month in sampler.months:
            with connection.transaction():
                staging.swap_in(connection, month.first)
        _end(connection)
    with clock.part("counters into place"):
        _take_in_counters(dsn, sampler, settings)
    with clock.part("indexes of the counters, statistics of the rows"):
        creates = [index.create for table in TABLES for index in wanted[table.name]]
        _side_by_side(dsn, [_ANALYZE_ROWS, *creates], settings)
    with clock.part("statistics of the rest"):
        _side_by_side(dsn, _TIDY_OTHERS, settings)


def carefully(dsn: str, sampler: Sampler, say: Say, clock: Clock) -> None:
    """Load into any database: months are written beside the schema; rows and counters appear in one transaction.

    Raises:
        LoadError: months already have rows, another load is running, or somebody holds the tables.
    """
    with session(dsn) as connection:
        _begin(connection, sampler)
        settings: dict[str, str] = {"maintenance_work_mem": "256MB", "synchronous_commit": "off"}
        with clock.part("rows with indexes"):
            _each_month(dsn, sampler, say, settings, count=False)
        try:
            with clock.part("counters"), connection.transaction():
                connection.execute("SET LOCAL work_mem = '256MB'")
                for month in sampler.months:
                    with connection.transaction():
                        _count(connection, month)
                    counting.forget(connection)
                connection.execute(f"SET LOCAL lock_timeout = '{_LOCK_TIMEOUT_S}s'")
                for month in sampler.months:
                    staging.swap_in(connection, month.first)
        except LookupError as error:
            raise LoadError(f"{error} got rows while the sample was loaded. Nothing was changed; try again.") from error
        except (psycopg.errors.LockNotAvailable, psycopg.errors.UniqueViolation) as error:
            raise LoadError(
                "Somebody is writing rows of these months, so nothing was changed. Stop the fastpath, or end the "
                "sample earlier with UNTIL=…, then try again."
            ) from error
        _end(connection)
    with clock.part("vacuum and statistics"):
        _side_by_side(dsn, [_ANALYZE_ROWS, *_TIDY_OTHERS], {"maintenance_work_mem": "256MB"})


@contextlib.contextmanager
def session(dsn: str, settings: dict[str, str] | None = None) -> Iterator[Connection[TupleRow]]:
    """A connection without time limits."""
    with db.connect(dsn, autocommit=True, statement_timeout_ms=0, application_name="load-sample") as connection:
        for name, value in (settings or {}).items():
            connection.execute("SELECT set_config(%s, %s, false)", [name, value])
        yield connection


def _begin(connection: Connection[TupleRow], sampler: Sampler) -> None:
    if connection.execute("SELECT pg_try_advisory_lock(%s)", [_LOCK]).fetchone() != (True,):
        raise LoadError("Another sample is being loaded into this database. Wait for it.")
    if connection.execute("SELECT to_regclass('fastpath') IS NULL").fetchone() == (True,):
        raise LoadError("The database has no schema yet. Run database_upgrade_schema on it first.")
    taken = _months_with_rows(connection, sampler.months)
    if taken:
        raise LoadError(
            f"There are rows of {len(taken)} of these months already, the first is {taken[0]:%Y-%m}; nothing is loaded "
            "over them. End the sample before it: make load-sample UNTIL=YYYY-MM-DD, with the last day of the month "
            "before. Or take an empty database: make load-sample RUN_DIR=run-sample, or DSN=…"
        )
    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(staging.SCHEMA)))
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(staging.SCHEMA)))
    with connection.transaction():
        lists.write(connection, sampler.world)


def _end(connection: Connection[TupleRow]) -> None:
    connection.execute(sql.SQL("DROP SCHEMA {}").format(sql.Identifier(staging.SCHEMA)))


def _months_with_rows(connection: Connection[TupleRow], months: Sequence[Month]) -> list[date]:
    found = []
    for month in months:
        row = connection.execute(
            "SELECT EXISTS (SELECT FROM fastpath WHERE measurement_start_time >= %s AND measurement_start_time < %s)"
            " OR EXISTS (SELECT FROM counters_country"
            " WHERE measurement_start_day >= %s AND measurement_start_day < %s)",
            [month.first, next_month(month.first)] * 2,
        ).fetchone()
        if row == (True,):
            found.append(month.first)
    return found


def _count(connection: Connection[TupleRow], month: Month) -> None:
    counting.gather(connection, staging.staged(month.first), month.first)
    for table in TABLES:
        counting.insert(connection, table)


_sampler: Sampler | None = None  # of a worker process, which inherits it


def _each_month(dsn: str, sampler: Sampler, say: Say, settings: dict[str, str], *, count: bool) -> None:
    global _sampler  # noqa: PLW0603 - forked workers find it there; it is large
    _sampler = sampler
    started = said = time.monotonic()
    done = 0
    largest_first = sorted(range(len(sampler.months)), key=lambda number: -sampler.months[number].rows)
    with ProcessPoolExecutor(WORKERS, mp_context=multiprocessing.get_context("fork")) as pool:
        work = {pool.submit(_one_month, dsn, number, settings, count): number for number in largest_first}
        for finished in as_completed(work):
            done += finished.result()
            if time.monotonic() - said > _EVERY_S:
                said = time.monotonic()
                say(f"  {done:,} rows, {done / (said - started):,.0f}/s")


def _one_month(dsn: str, number: int, settings: dict[str, str], count: bool) -> int:
    assert _sampler is not None
    month = _sampler.months[number]
    with session(dsn, settings) as connection, connection.transaction():
        staging.fill(connection, _sampler, month)
        if count:
            counting.gather(connection, staging.staged(month.first), month.first)
            for table in TABLES:
                counting.put_aside(connection, table, month.first)
    return month.rows


def _take_in_counters(dsn: str, sampler: Sampler, settings: dict[str, str]) -> None:
    months = [month.first for month in sampler.months]

    def take_in(table: CounterTable) -> None:
        with session(dsn, settings) as connection, connection.transaction():
            counting.take_in(connection, table, months)

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(take_in, TABLES):
            pass


def _side_by_side(dsn: str, statements: Sequence[sql.Composable], settings: dict[str, str]) -> None:
    def run(statement: sql.Composable) -> None:
        with session(dsn, settings) as connection:
            connection.execute(statement if isinstance(statement, sql.Composed) else sql.Composed([statement]))

    with ThreadPoolExecutor(WORKERS) as pool:
        for _ in pool.map(run, statements):
            pass
