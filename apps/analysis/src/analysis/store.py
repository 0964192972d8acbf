"""The database as the analysis jobs use it; the statements themselves are in `statements`.

Counters. The fastpath adds to them in the transaction that writes the rows, so in every snapshot of the database rows
and counters agree, whatever is being written. One statement sees one snapshot: the difference that it finds is an error
in the counters, not a race. A repair adds that difference in the same statement; additions commute, hence it is right
even when the fastpath adds to the same counters at the same time, and it needs no lock against it. Two repairs at once
would both add the difference: an advisory lock keeps them apart. A takedown does more than add (it makes no counter
that was missing), so another lock keeps takedowns out of a repair, see `core.row_locks`.

Partitions. Moving rows into a new partition is the one thing that a snapshot does not cover, because a plan may be
older than the partition. It takes an exclusive lock on the default partition; transactions here take a shared one.
"""

import time
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from typing import Any, LiteralString, TypeVar

import psycopg
import structlog
from psycopg import Connection, sql
from psycopg.abc import Params
from psycopg.rows import TupleRow

import core.db
from analysis import statements
from core.counters import Period
from core.row_locks import lock_to_repair
from core.testlists import Entry

T = TypeVar("T")

COUNTERS_LOCK = 0x636F756E
"""Advisory lock of whoever repairs counters."""

TEST_LISTS_LOCK = 0x6C697374
"""Advisory lock of whoever updates the test lists."""

EXAMPLES = 10
"""How many wrong counters of each table are shown per day."""

RETRY_PAUSE_S = 0.5

_IN_THE_WAY = (
    psycopg.errors.LockNotAvailable,
    psycopg.errors.DeadlockDetected,
    psycopg.errors.SerializationFailure,
)

log = structlog.get_logger(__name__)


class StoreError(Exception):
    """The database did not do the work; the text says why and what to do next."""


class AnotherRun(Exception):
    """Another run of the same job holds the lock."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One wrong counter: what it counts by, and the five counts as they are and as the rows say."""

    table: str
    key: tuple[str | int, ...]
    counted: tuple[int, ...]
    actual: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Check:
    """What comparing one day or month brought: `wrong` is the number of wrong counters per table, `examples` the first.

    `measurements` is how many the rows (of a month: the counters of its days) have, `counted` how many the counters.
    """

    period: Period
    start: date
    measurements: int
    counted: int
    wrong: dict[str, int]
    examples: tuple[Difference, ...]

    @property
    def rows_are_gone(self) -> bool:
        """Whether there are counters but not a single row, as when a partition was detached."""
        return self.measurements == 0 and self.counted > 0

    def __str__(self) -> str:
        """The day or month."""
        return str(self.start)[: 10 if self.period == "day" else 7]


class Store:
    """One connection to the database, for one job."""

    def __init__(
        self,
        dsn: str,
        *,
        statement_timeout_s: float,
        lock_timeout_s: float,
        attempts: int,
    ) -> None:
        """Connect. Raises core.db.DatabaseUnavailable."""
        self._dsn = dsn
        self._attempts = attempts
        self._connection: Connection[TupleRow] = core.db.connect(
            dsn,
            autocommit=True,
            statement_timeout_ms=round(statement_timeout_s * 1000),
            application_name="analysis",
        )
        with self._sentences():
            self._connection.execute("SELECT set_config('lock_timeout', %s, false)", [f"{lock_timeout_s * 1000:.0f}"])

    def close(self) -> None:
        """Close the connection, which also gives back the lock of `counters_lock`."""
        self._connection.close()

    def counters_lock(self) -> None:
        """Keep every other repair of counters away until `close`. Raises AnotherRun, StoreError."""
        if not self._value("SELECT pg_try_advisory_lock(%s)", [COUNTERS_LOCK]):
            raise AnotherRun(
                "Another run is comparing the counters of this database. Wait for it to end, or find it in "
                "pg_stat_activity (application_name analysis)."
            )

    def test_lists_lock(self) -> None:
        """Keep every other update of the test lists away until `close`. Raises AnotherRun, StoreError."""
        if not self._value("SELECT pg_try_advisory_lock(%s)", [TEST_LISTS_LOCK]):
            raise AnotherRun(
                "Another run is updating the test lists of this database. Wait for it to end, or find it in "
                "pg_stat_activity (application_name analysis)."
            )

    def today(self) -> date:
        """The day it is now, in UTC, by the database's clock."""
        day: date = self._value("SELECT (now() AT TIME ZONE 'UTC')::date")
        return day

    def newest_day(self, before: date | None) -> date | None:
        """The last day before `before` (None: of all) that has rows or counters; None when there is none."""
        # Nearly always the day is within the last month or so, where one or two partitions answer.
        for statement in (statements.NEWEST_DAY_NEAR, statements.NEWEST_DAY)[before is None :]:
            day: date | None = self._value(statement, {"before": before})
            if day is not None:
                return day
        return None

    def newest_month(self, before: date | None) -> date | None:
        """First day of the last month before `before` (None: of all) that has counters; None when there is none."""
        month: date | None = self._value(statements.NEWEST_MONTH, {"before": before})
        return month

    def check(self, period: Period, start: date) -> Check:
        """Compare the counters of a day with its rows, or those of a month with those of its days, in one snapshot.

        Changes nothing. Raises StoreError.
        """

        def compare() -> list[TupleRow]:
            with self._connection.transaction():
                self._connection.execute(statements.NO_MOVES)
                parameters = {"start": start, "examples": EXAMPLES}
                return self._connection.execute(statements.CHECK[period], parameters).fetchall()

        rows = self._again(compare)
        measurements, counted = rows[0][:2]
        wrong: dict[str, int] = {}
        examples = []
        for _, _, table, number, *key, is_counted, is_actual in rows:
            if table is not None:
                wrong[table] = number
                shown = tuple(value for value in key if value is not None)
                examples.append(Difference(table, shown, tuple(is_counted), tuple(is_actual)))
        return Check(period, start, int(measurements), int(counted), wrong, tuple(examples))

    def repair(self, check: Check) -> int:
        """Correct the tables that a check found wrong; return how many counters were corrected.

        Readers see the day or month before or after, nothing between. Raises StoreError.
        """

        def correct() -> int:
            with self._connection.transaction():
                lock_to_repair(self._connection)
                self._connection.execute(statements.NO_MOVES)
                corrected = 0
                for table in statements.tables_of(check.period):
                    if table.name in check.wrong:
                        parameters = {"start": check.start}
                        corrected += self._connection.execute(statements.REPAIR[table.name], parameters).rowcount
                return corrected

        return self._again(correct)

    def drop_zeros(self, period: Period, start: date) -> int:
        """Delete the counters of a day or month that count nothing, and return how many. Raises StoreError.

        They count no measurement, but name the input of one that is gone.
        """

        def drop() -> int:
            with self._connection.transaction():
                return sum(
                    self._connection.execute(statements.DROP_ZEROS[table.name], {"start": start}).rowcount
                    for table in statements.tables_of(period)
                )

        return self._again(drop)

    def test_lists(self) -> set[Entry]:
        """All entries of all test lists. Raises StoreError."""
        rows = self._again(lambda: self._connection.execute(statements.TEST_LISTS).fetchall())
        return set(map(Entry._make, rows))

    def change_test_lists(self, gone: Collection[Entry], new: Collection[Entry]) -> None:
        """Remove and add entries of test lists in one transaction. Needs `test_lists_lock`. Raises StoreError."""

        def change() -> None:
            with self._connection.transaction():
                urls, countries = [entry.url for entry in gone], [entry.cc for entry in gone]
                self._connection.execute(statements.TEST_LIST_REMOVE, [urls, countries])
                columns = [[entry[number] for entry in new] for number in range(len(Entry._fields))]
                self._connection.execute(statements.TEST_LIST_ADD, columns)

        self._again(change)

    def ensure_partitions(self, months_ahead: int) -> int:
        """Make the monthly partitions from this month to `months_ahead` months from now; return how many are new.

        Raises StoreError.
        """
        return int(self._value(statements.ENSURE_PARTITIONS, [months_ahead + 1]))

    def missing_partitions(self, months_ahead: int) -> list[str]:
        """Names of the partitions that `ensure_partitions` would make; changes nothing. Raises StoreError."""
        rows = self._again(lambda: self._connection.execute(statements.MISSING_PARTITIONS, [months_ahead]).fetchall())
        return [name for (name,) in rows]

    def default_rows(self) -> int:
        """Number of rows in the default partition. Raises StoreError."""
        return int(self._value("SELECT count(*) FROM fastpath_default"))

    def _value(self, statement: LiteralString | sql.Composed, parameters: Params | None = None) -> Any:
        """The first column of the one row that `statement` returns."""

        def ask() -> Any:
            row = self._connection.execute(statement, parameters).fetchone()
            assert row is not None
            return row[0]

        return self._again(ask)

    def _again(self, work: Callable[[], T]) -> T:
        """Do `work`, again when another transaction was in its way."""
        for attempt in range(1, self._attempts + 1):
            try:
                with self._sentences():
                    return work()
            except _InTheWay as error:
                if attempt == self._attempts:
                    raise StoreError(
                        f"Other transactions were in the way {attempt} times ({error}). Look for long ones in "
                        "pg_stat_activity; the next run tries again."
                    ) from error
                log.warning("transaction repeated", attempt=attempt, error=str(error))
                time.sleep(RETRY_PAUSE_S * attempt)
        raise AssertionError("attempts is at least 1")

    @contextmanager
    def _sentences(self) -> Iterator[None]:
        """Turn the driver's errors into StoreError, core.db.DatabaseUnavailable, or _InTheWay."""
        try:
            yield
        except _IN_THE_WAY as error:
            raise _InTheWay(_first_line(error)) from error
        except (psycopg.errors.UndefinedTable, psycopg.errors.UndefinedFunction) as error:
            raise StoreError(
                f"The schema is too old: {_first_line(error)}. Bring it up to date with database_upgrade_schema."
            ) from error
        except psycopg.errors.InsufficientPrivilege as error:
            raise StoreError(
                f"The database refused: {_first_line(error)}. Use the role that owns the tables, or grant it the right "
                f"(now: {core.db.describe(self._dsn)})."
            ) from error
        except psycopg.errors.QueryCanceled as error:
            raise StoreError(
                f"A statement took too long: {_first_line(error)}. Raise the setting statement_timeout_s."
            ) from error
        except psycopg.Error as error:
            if core.db.is_unavailable(error):
                raise core.db.unavailable(self._dsn, error) from error
            raise StoreError(f"The database reported: {_first_line(error)}. Look into its log.") from error


class _InTheWay(Exception):
    """A lock was not to be had, or the transaction lost against another one."""


def _first_line(error: psycopg.Error) -> str:
    return str(error).strip().partition("\n")[0] or type(error).__name__
