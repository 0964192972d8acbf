"""All SQL of the fastpath: rows with their counters in one transaction, and the fingerprints.

Rows travel by COPY into a temporary table and from there by `INSERT … ON CONFLICT DO NOTHING RETURNING`, which says
which of them are new; only those are counted, in the same transaction. So writing the same rows again changes nothing.
Rows and counters are locked in one order by everybody (`core.row_locks`, `core.counters`), so writers cannot deadlock.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime, timedelta
from operator import attrgetter
from typing import Any, LiteralString

import msgspec
import psycopg
from psycopg import sql
from psycopg.rows import class_row, dict_row

import core.db
from core.counters import TABLES
from core.counters_sql import compared, count, count_and_tell_emptied, counted_as, delete_emptied, facts
from core.row_locks import lock_to_change, lock_to_insert
from fastpath.openvpn_store import write_observations
from fastpath.row import Row

COLUMNS = (
    "measurement_uid",
    "report_id",
    "input",
    "domain",
    "probe_cc",
    "probe_asn",
    "test_name",
    "test_name_other",
    "test_start_time",
    "measurement_start_time",
    "scores",
    "anomaly",
    "confirmed",
    "msm_failure",
    "blocking_type",
    "platform",
    "architecture",
    "engine_name",
    "engine_version",
    "software_name",
    "software_version",
    "test_version",
    "test_runtime",
    "test_helper_address",
    "test_helper_type",
    "ooni_run_link_id",
    "is_verified",
    "reason",
)
"""The columns that are written, in the order of COPY; `update_time` is the database's."""

_values = attrgetter(*(column for column in COLUMNS if column != "test_name_other"))
_TEST_NAME = COLUMNS.index("test_name")

Fingerprint = Mapping[str, Any]
"""A row of a fingerprint table by column name."""

FINGERPRINT_COLUMNS = (
    "name",
    "scope",
    "other_names",
    "location_found",
    "pattern_type",
    "pattern",
    "confidence_no_fp",
    "expected_countries",
)

_RETRIED = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs of serialisation failure, deadlock and lock timeout."""

_DATA_CLASSES = ("22", "23", "54")
"""Classes of SQLSTATE that the rows themselves cause: data, constraint, limit exceeded."""


class ArchivedLine(msgspec.Struct, frozen=True):
    """One line of a jsonl object. `raw_…`: where in a postcan the body lies that the line does not give exactly."""

    linenum: int
    measurement_uid: str
    member_offset: int | None
    member_length: int | None
    raw_s3path: str | None
    raw_offset: int | None
    raw_length: int | None


class Unavailable(Exception):
    """The database cannot do the work at the moment; the same work may succeed later."""


class Conflict(Exception):
    """Another transaction was in the way; the same work succeeds when it is repeated."""


class RowsRefused(Exception):
    """The database refuses at least one of the rows for what it contains; repeating does not help."""


class Session:
    """One connection to the database, made when it is needed and again after it broke. For one thread at a time."""

    def __init__(self, dsn: str, *, statement_timeout_s: float = 30.0) -> None:
        """Use the database `dsn`; a statement that takes longer than `statement_timeout_s` fails."""
        self._dsn = dsn
        self._statement_timeout_s = statement_timeout_s
        self._connection: psycopg.Connection | None = None

    def close(self) -> None:
        """Close the connection, if any."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    @contextmanager
    def _transaction(self) -> Iterator[psycopg.Connection]:
        """Commit what the block does; turn what goes wrong into one of the three errors."""
        try:
            if self._connection is None:
                self._connection = self._connect()
            with self._connection.transaction():
                yield self._connection
        except core.db.DatabaseUnavailable as error:
            self.close()
            raise Unavailable(str(error)) from error
        except (psycopg.Error, UnicodeError, OverflowError) as error:
            known = _classify(error)
            if isinstance(known, Unavailable) or self._connection is None or self._connection.broken:
                self.close()
            raise known from error

    def _connect(self) -> psycopg.Connection:
        connection = core.db.connect(
            self._dsn,
            autocommit=True,
            statement_timeout_ms=int(self._statement_timeout_s * 1000),
            application_name="fastpath",
        )
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: psycopg.Connection) -> None:
        """Give a fresh connection what its statements need."""


class Store(Session):
    """Rows with their counters, and fingerprints."""

    def __init__(self, dsn: str, *, statement_timeout_s: float = 30.0) -> None:
        """As Session."""
        super().__init__(dsn, statement_timeout_s=statement_timeout_s)
        self._known_names: frozenset[str] = frozenset()

    def insert(self, rows: Sequence[Row]) -> set[str]:
        """Write rows that do not exist yet and count them; return the uids of those that are new.

        Raises:
            Unavailable, Conflict, RowsRefused: nothing was written, unless the connection broke while the transaction
                was being committed, after which the same rows count as existing.
        """
        rows = _once(rows)
        with self._transaction() as connection:
            self._copy(connection, rows)
            lock_to_insert(connection, _uids(rows))
            write_observations(connection, rows)
            return self._insert_and_count(connection, len(rows))

    def insert_missing(self, rows: Sequence[Row]) -> set[str]:
        """Write the rows of measurements that have none yet and count them; return their uids.

        For reruns: unlike `insert`, it also leaves alone a measurement whose row has another start time, as it may have
        after the scorer changed. Raises as `insert`.
        """
        rows = _once(rows)
        with self._transaction() as connection:
            self._copy(connection, rows)
            lock_to_insert(connection, _uids(rows))
            for since, until in _windows(connection, rows):
                connection.execute(_SPARE, [since, until])
            write_observations(connection, rows)
            return self._insert_and_count(connection, len(rows))

    def replace(self, rows: Sequence[Row], *, keep_verified: bool = False) -> set[str]:
        """Write rows, each in place of the one with the same uid, and correct the counters by the difference.

        Returns the uids of the rows that were replaced. With `keep_verified`, a former `is_verified` stays, for bodies
        that do not tell it. For reruns. Raises as `insert`.
        """
        rows = _once(rows[::-1])
        with self._transaction() as connection:
            self._copy(connection, rows)
            lock_to_change(connection, _uids(rows))
            for since, until in _windows(connection, rows):
                connection.execute(_TAKE_OUT, [since, until])
            replaced = {uid for (uid,) in connection.execute("SELECT measurement_uid FROM fastpath_replaced")}
            if replaced:
                connection.execute(
                    "DELETE FROM fastpath_misdated m USING fastpath_replaced r"
                    " WHERE m.measurement_uid = r.measurement_uid"
                )
                if keep_verified:
                    connection.execute(
                        "UPDATE fastpath_incoming i SET is_verified = r.is_verified FROM fastpath_replaced r"
                        " WHERE i.measurement_uid = r.measurement_uid AND i.is_verified <> r.is_verified"
                    )
            self._insert_new(connection, len(rows))
            write_observations(connection, rows, replace=True)
            if replaced:
                _count_replaced(connection)
            else:
                _execute_all(connection, _COUNT_NEW)
        return replaced

    def _insert_and_count(self, connection: psycopg.Connection, sent: int) -> set[str]:
        new = self._insert_new(connection, sent)
        if new:
            _execute_all(connection, _COUNT_NEW)
        return new

    @staticmethod
    def _insert_new(connection: psycopg.Connection, sent: int) -> set[str]:
        """Insert what was copied, and leave only what is new among it to be counted; return the uids of that.

        A row that another transaction wrote in the meantime is not new, even to `replace`.
        """
        new = {uid for (uid,) in connection.execute(_INSERT)}
        if len(new) < sent:
            connection.execute("DELETE FROM fastpath_incoming WHERE measurement_uid <> ALL(%s)", [list(new)])
        return new

    def archived_lines(self, s3path: str) -> list[ArchivedLine]:
        """Return what the lines of a jsonl object are, by line; empty when the table does not know it.

        Raises Unavailable.
        """
        with self._transaction() as connection, connection.cursor(row_factory=class_row(ArchivedLine)) as cursor:
            return cursor.execute(_LINES, [s3path]).fetchall()

    def counters_difference(self) -> list[dict[str, Any]]:
        """Return every counter that differs from what the rows say; empty when all are right.

        Reads whole tables. Each entry has `table`, the time and the keys, and `counted` and `actual`: ok, anomaly,
        confirmed, failure and all measurements. Raises Unavailable.
        """
        with self._transaction() as connection, connection.cursor(row_factory=dict_row) as cursor:
            return [
                {"table": table, **difference}
                for table, statement in _DIFFERENCES.items()
                for difference in cursor.execute(statement).fetchall()
            ]

    def ping(self) -> None:
        """Return when the database answers and has the tables. Raises Unavailable."""
        with self._transaction() as connection:
            connection.execute("SELECT FROM fastpath LIMIT 0")

    def fingerprints(self) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """Return the rows of the DNS and of the HTTP fingerprints, by name. Raises Unavailable."""
        with self._transaction() as connection, connection.cursor(row_factory=dict_row) as cursor:
            dns, http = (cursor.execute(statement).fetchall() for statement in _FINGERPRINTS.values())
        return dns, http

    def replace_fingerprints(self, dns: Sequence[Fingerprint], http: Sequence[Fingerprint]) -> None:
        """Put these fingerprints in place of all others, in one transaction. Raises as `insert`."""
        with self._transaction() as connection:
            for table, rows in (("fingerprints_dns", dns), ("fingerprints_http", http)):
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(table)))
                statement = sql.SQL("COPY {} ({}) FROM STDIN").format(
                    sql.Identifier(table), _names(FINGERPRINT_COLUMNS)
                )
                with connection.cursor() as cursor, cursor.copy(statement) as copy:
                    for row in rows:
                        copy.write_row([row[column] for column in FINGERPRINT_COLUMNS])

    def _copy(self, connection: psycopg.Connection, rows: Sequence[Row]) -> None:
        known = self._known_names
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in sorted(rows, key=attrgetter("measurement_uid")):
                values = list(_values(row))
                name = values[_TEST_NAME]
                values[_TEST_NAME : _TEST_NAME + 1] = (name, None) if name in known else (None, name)
                copy.write_row(values)

    def _prepare(self, connection: psycopg.Connection) -> None:
        for statement in _TEMPORARY:
            connection.execute(statement)
        names = connection.execute("SELECT unnest(enum_range(NULL::ootest))::text").fetchall()
        self._known_names = frozenset(name for (name,) in names)


def _classify(error: Exception) -> Unavailable | Conflict | RowsRefused:
    sqlstate = error.sqlstate if isinstance(error, psycopg.Error) else None
    text = " ".join(str(error).split())[:300] or type(error).__name__
    if sqlstate in _RETRIED:
        return Conflict(text)
    if sqlstate is not None and sqlstate[:2] in _DATA_CLASSES:
        return RowsRefused(f"{text} ({sqlstate})")
    if sqlstate is None and not isinstance(error, psycopg.OperationalError | psycopg.InterfaceError):
        return RowsRefused(text)  # the driver could not even encode a value
    return Unavailable(text)


def _once(rows: Sequence[Row]) -> Sequence[Row]:
    """The rows without those whose uid came before; one transaction counts each measurement once."""
    found = {row.measurement_uid: row for row in reversed(rows)}
    return rows if len(found) == len(rows) else list(found.values())


def _uids(rows: Sequence[Row]) -> Iterator[str]:
    return (row.measurement_uid for row in rows)


def _execute_all(connection: psycopg.Connection, statements: Sequence[sql.Composed]) -> None:
    """Execute the statements in their order without waiting for each one's answer."""
    with connection.pipeline():
        for statement in statements:
            connection.execute(statement)


def _count_replaced(connection: psycopg.Connection) -> None:
    """Correct the counters, and delete those that count nothing any more: a takedown would not find their texts."""
    with connection.pipeline():
        told = [connection.execute(statement) for statement in _COUNT_REPLACED]
        emptied = [answer.fetchall() for answer in told]
    for statement, counters in zip(_DELETE_EMPTIED, emptied, strict=True):
        if counters:  # this transaction has their locks already, so the order does not matter
            connection.execute(statement, [[start for start, _ in counters], [key for _, key in counters]])


Window = tuple[datetime, datetime]
"""The first and the last moment: what comes after December 9999 is no datetime."""


def _windows(connection: psycopg.Connection, rows: Sequence[Row]) -> list[Window]:
    """Return the stretches of time, apart from each other, in which former rows of these measurements can be.

    The database looks for the row of a uid around the day that the uid names, and notes which rows are elsewhere (see
    `fastpath_by_uid`); hence a statement visits, and locks, few partitions.
    """
    windows = [_around(day) for day in {_uid_day(row.measurement_uid) for row in rows} if _UID_DAY.fullmatch(day)]
    windows.extend(connection.execute(_MISDATED_MONTHS).fetchall())
    merged: list[Window] = []
    for since, until in sorted(windows):
        if merged and since <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(until, merged[-1][1]))
        else:
            merged.append((since, until))
    return merged


_TICK = timedelta(microseconds=1)
_UID_DAY = re.compile("[12][0-9]{3}(0[1-9]|1[0-2])(0[1-9]|[12][0-9]|3[01])", re.ASCII)
_MISDATED_MONTHS: LiteralString = (
    "SELECT month, month + interval '1 month' - interval '1 microsecond'"
    " FROM (SELECT DISTINCT date_trunc('month', m.measurement_start_time) AS month"
    " FROM fastpath_incoming i JOIN fastpath_misdated m USING (measurement_uid)) months"
)


def _uid_day(uid: str) -> str:
    """The day of a uid as `fastpath_id_day` sees it."""
    return uid[2:10] if uid.startswith("01") else uid[:8]


def _around(day: str) -> Window:
    """The window of a day as `fastpath_window_start` sees it; a day such as 31 June counts on into July."""
    since = datetime(int(day[:4]), int(day[4:6]), 1) + timedelta(days=int(day[6:]) - 32)  # noqa: DTZ001 UTC without zone, like the column
    return since, since + timedelta(days=34) - _TICK


def _names(columns: Sequence[str], prefix: str | None = None) -> sql.Composed:
    names = [sql.Identifier(prefix, column) if prefix else sql.Identifier(column) for column in columns]
    return sql.SQL(", ").join(names)


_COPY = sql.SQL("COPY fastpath_incoming ({}) FROM STDIN").format(_names(COLUMNS))
_INSERT = sql.SQL(
    "INSERT INTO fastpath ({0}) SELECT {0} FROM fastpath_incoming ON CONFLICT DO NOTHING RETURNING measurement_uid"
).format(_names(COLUMNS))
_TEMPORARY = [
    sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DELETE ROWS AS SELECT {} FROM fastpath WITH NO DATA").format(
        sql.Identifier(table), _names(COLUMNS)
    )
    for table in ("fastpath_incoming", "fastpath_replaced")
]

_TAKE_OUT = sql.SQL(
    "WITH gone AS (DELETE FROM fastpath f USING fastpath_incoming i WHERE f.measurement_uid = i.measurement_uid"
    " AND f.measurement_start_time >= %s AND f.measurement_start_time <= %s RETURNING {0})"
    " INSERT INTO fastpath_replaced ({1}) SELECT {1} FROM gone"
).format(_names(COLUMNS, "f"), _names(COLUMNS))
_SPARE: LiteralString = (
    "DELETE FROM fastpath_incoming i USING fastpath f WHERE f.measurement_uid = i.measurement_uid"
    " AND f.measurement_start_time >= %s AND f.measurement_start_time <= %s"
)
_LINES: LiteralString = (
    "SELECT linenum, measurement_uid, member_offset, member_length, raw_s3path, raw_offset, raw_length"
    " FROM jsonl WHERE s3path = %s ORDER BY linenum"
)

_NEW = facts("fastpath_incoming")
_CHANGED = sql.SQL("{} UNION ALL {}").format(_NEW, facts("fastpath_replaced", -1))
_COUNT_NEW = [count(table, _NEW) for table in TABLES]
_COUNT_REPLACED = [count_and_tell_emptied(table, _CHANGED) for table in TABLES]
_DELETE_EMPTIED = [delete_emptied(table) for table in TABLES]
_DIFFERENCES = {table.name: compared(table, counted_as(table, facts("fastpath"))) for table in TABLES}
_FINGERPRINTS = {
    table: sql.SQL("SELECT {} FROM {} ORDER BY name").format(_names(FINGERPRINT_COLUMNS), sql.Identifier(table))
    for table in ("fingerprints_dns", "fingerprints_http")
}
