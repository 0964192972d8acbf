"""All SQL of the fastpath: rows with their counters in one transaction, and the fingerprints.

Rows travel by COPY into a temporary table and from there by `INSERT … ON CONFLICT DO NOTHING RETURNING`, which says
which of them are new; only those are counted, in the same transaction. So writing the same rows again changes nothing.
Counters are touched in one order by everybody, table by table and sorted by key, so that writers cannot deadlock.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.rows import dict_row

import core.db
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

COUNTERS: Mapping[LiteralString, tuple[LiteralString, ...]] = {
    "counters_input": ("test_name", "probe_cc", "probe_asn", "domain", "input"),
    "counters_network": ("test_name", "probe_cc", "probe_asn"),
    "counters_country": ("test_name", "probe_cc"),
}
"""The counter tables in the order in which they are written, with what each counts by, apart from the day."""

_RETRIED = frozenset({"40001", "40P01", "55P03"})
"""SQLSTATEs of serialisation failure, deadlock and lock timeout."""

_DATA_CLASSES = ("22", "23", "54")
"""Classes of SQLSTATE that the rows themselves cause: data, constraint, limit exceeded."""


class Unavailable(Exception):
    """The database cannot do the work at the moment; the same work may succeed later."""


class Conflict(Exception):
    """Another transaction was in the way; the same work succeeds when it is repeated."""


class RowsRefused(Exception):
    """The database refuses at least one of the rows for what it contains; repeating does not help."""


class Store:
    """One connection to the database, made when it is needed and again after it broke. For one thread at a time."""

    def __init__(self, dsn: str, *, statement_timeout_s: float = 30.0) -> None:
        """Use the database `dsn`; a statement that takes longer than `statement_timeout_s` fails."""
        self._dsn = dsn
        self._statement_timeout_s = statement_timeout_s
        self._connection: psycopg.Connection | None = None
        self._known_names: frozenset[str] = frozenset()

    def insert(self, rows: Sequence[Row]) -> set[str]:
        """Write rows that do not exist yet and count them; return the uids of those that are new.

        Raises:
            Unavailable, Conflict, RowsRefused: nothing was written, unless the connection broke while the transaction
                was being committed, after which the same rows count as existing.
        """
        with self._transaction() as connection:
            self._copy(connection, rows)
            new = {uid for (uid,) in connection.execute(_INSERT)}
            if len(new) < len(rows):
                connection.execute("DELETE FROM fastpath_incoming WHERE measurement_uid <> ALL(%s)", [list(new)])
            if new:
                for statement in _COUNT_NEW:
                    connection.execute(statement)
        return new

    def replace(self, rows: Sequence[Row]) -> None:
        """Write rows, each in place of the one with the same uid, and correct the counters by the difference.

        For reruns. Raises as `insert`.
        """
        with self._transaction() as connection:
            self._copy(connection, rows)
            connection.execute(_TAKE_OUT)
            connection.execute(
                "DELETE FROM fastpath_misdated m USING fastpath_replaced r WHERE m.measurement_uid = r.measurement_uid"
            )
            connection.execute(_INSERT)
            for statement in _COUNT_REPLACED:
                connection.execute(statement)

    def counters_difference(self) -> list[dict[str, Any]]:
        """Return every counter that differs from what the rows say; empty when all are right.

        Reads whole tables. Each entry has `table`, the key fields, and `counted` and `actual`: ok, anomaly, confirmed,
        failure and all measurements. Raises Unavailable.
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

    def close(self) -> None:
        """Close the connection, if any."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _copy(self, connection: psycopg.Connection, rows: Sequence[Row]) -> None:
        known = self._known_names
        with connection.cursor() as cursor, cursor.copy(_COPY) as copy:
            for row in sorted(rows, key=attrgetter("measurement_uid")):
                values = list(_values(row))
                name = values[_TEST_NAME]
                values[_TEST_NAME : _TEST_NAME + 1] = (name, None) if name in known else (None, name)
                copy.write_row(values)

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
            for statement in _TEMPORARY:
                connection.execute(statement)
            names = connection.execute("SELECT unnest(enum_range(NULL::ootest))::text").fetchall()
        except BaseException:
            connection.close()
            raise
        self._known_names = frozenset(name for (name,) in names)
        return connection


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

# The former rows are found by uid through the window of dates that a uid implies; asking all partitions would be slow.
_TAKE_OUT = sql.SQL(
    "WITH former AS MATERIALIZED ("
    " SELECT f.measurement_uid, f.measurement_start_time"
    " FROM fastpath_incoming i, LATERAL fastpath_by_uid(i.measurement_uid) f ORDER BY 1, 2),"
    " gone AS (DELETE FROM fastpath f USING former"
    " WHERE f.measurement_uid = former.measurement_uid"
    " AND f.measurement_start_time = former.measurement_start_time RETURNING {0})"
    " INSERT INTO fastpath_replaced ({1}) SELECT {1} FROM gone"
).format(_names(COLUMNS, "f"), _names(COLUMNS))

# The four first counts exclude each other; `change` is 1 for a row that came and -1 for one that went.
_SUMS: LiteralString = """
    coalesce(sum(change) FILTER (WHERE NOT (anomaly OR confirmed OR msm_failure)), 0) AS ok_count,
    coalesce(sum(change) FILTER (WHERE anomaly AND NOT confirmed AND NOT msm_failure), 0) AS anomaly_count,
    coalesce(sum(change) FILTER (WHERE confirmed AND NOT msm_failure), 0) AS confirmed_count,
    coalesce(sum(change) FILTER (WHERE msm_failure), 0) AS failure_count,
    sum(change) AS measurement_count"""
_FACTS: LiteralString = """
    SELECT measurement_start_time::date AS measurement_start_day,
        coalesce(test_name::text, test_name_other, '') AS test_name, probe_cc, probe_asn, domain, input,
        anomaly, confirmed, msm_failure, {change} AS change FROM {table}"""
_COUNTS = ("ok_count", "anomaly_count", "confirmed_count", "failure_count", "measurement_count")


def _facts(table: LiteralString, change: int) -> sql.Composed:
    return sql.SQL(_FACTS).format(change=sql.Literal(change), table=sql.Identifier(table))


def _sorted_by(keys: Sequence[LiteralString]) -> sql.Composed:
    """An order that does not depend on a collation, so that it is everybody's."""
    texts = [key for key in keys if key != "probe_asn"]
    numbers = [sql.Identifier(key) for key in keys if key == "probe_asn"]
    collated = [sql.SQL('{} COLLATE "C"').format(sql.Identifier(key)) for key in texts]
    return sql.SQL(", ").join([sql.Identifier("measurement_start_day"), *numbers, *collated])


def _count(table: LiteralString, facts: sql.Composed) -> sql.Composed:
    keys = COUNTERS[table]
    return sql.SQL(
        "INSERT INTO {table} AS c (measurement_start_day, {keys}, {counts})"
        " SELECT * FROM (SELECT measurement_start_day, {keys}, {sums} FROM ({facts}) facts"
        " GROUP BY measurement_start_day, {keys}) sums ORDER BY {order}"
        " ON CONFLICT (measurement_start_day, key) DO UPDATE SET {additions}"
    ).format(
        table=sql.Identifier(table),
        keys=_names(keys),
        counts=_names(_COUNTS),
        sums=sql.SQL(_SUMS),
        facts=facts,
        order=_sorted_by(keys),
        additions=sql.SQL(", ").join(
            sql.SQL("{0} = c.{0} + excluded.{0}").format(sql.Identifier(count)) for count in _COUNTS
        ),
    )


def _difference(table: LiteralString) -> sql.Composed:
    keys = COUNTERS[table]
    return sql.SQL(
        "SELECT measurement_start_day, {keys}, counted.counts AS counted, actual.counts AS actual"
        " FROM (SELECT measurement_start_day, {keys}, array[{counts}]::bigint[] AS counts FROM {table}"
        "       WHERE measurement_count <> 0 OR array[{counts}] <> array[0, 0, 0, 0, 0]::bigint[]) counted"
        " FULL JOIN (SELECT measurement_start_day, {keys}, array[{counts}]::bigint[] AS counts"
        "            FROM (SELECT measurement_start_day, {keys}, {sums} FROM ({facts}) facts"
        "                  GROUP BY measurement_start_day, {keys}) sums) actual"
        " USING (measurement_start_day, {keys}) WHERE counted.counts IS DISTINCT FROM actual.counts"
    ).format(
        table=sql.Identifier(table),
        keys=_names(keys),
        counts=_names(_COUNTS),
        sums=sql.SQL(_SUMS),
        facts=_facts("fastpath", 1),
    )


_COUNT_NEW = [_count(table, _facts("fastpath_incoming", 1)) for table in COUNTERS]
_COUNT_REPLACED = [
    _count(
        table,
        sql.SQL("{} UNION ALL {}").format(_facts("fastpath_incoming", 1), _facts("fastpath_replaced", -1)),
    )
    for table in COUNTERS
]
_DIFFERENCES = {table: _difference(table) for table in COUNTERS}
_FINGERPRINTS = {
    table: sql.SQL("SELECT {} FROM {} ORDER BY name").format(_names(FINGERPRINT_COLUMNS), sql.Identifier(table))
    for table in ("fingerprints_dns", "fingerprints_http")
}
