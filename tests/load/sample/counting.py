"""Fills the counter tables from rows, and compares the two. The tables are those that core.counters lists."""

from collections.abc import Sequence
from datetime import date
from pathlib import Path
from typing import LiteralString

from psycopg import Connection, sql
from psycopg.rows import TupleRow
from tests.load.sample.draw import next_month

from core.counters import COUNTS, TABLES, CounterTable

# What the columns of the counters are, in terms of those of fastpath.
_KEYS: dict[str, LiteralString] = {"test_name": "coalesce(test_name::text, test_name_other, '')"}
_SUMS: dict[str, LiteralString] = {
    "ok_count": "count(*) FILTER (WHERE NOT (anomaly OR confirmed OR msm_failure))",
    "anomaly_count": "count(*) FILTER (WHERE anomaly AND NOT confirmed AND NOT msm_failure)",
    "confirmed_count": "count(*) FILTER (WHERE confirmed AND NOT msm_failure)",
    "failure_count": "count(*) FILTER (WHERE msm_failure)",
    "measurement_count": "count(*)",
}


def gather(connection: Connection[TupleRow], rows: sql.Composable, month: date) -> None:
    """Add up the rows of a month, in temporary tables of the transaction: what `insert` and `differences` work with."""
    for table in TABLES:
        source = _source(table)
        if source is None:
            _gather_rows(connection, table, rows, month)
        elif any(_source(other) == table for other in TABLES):
            _make(connection, table, _rolled_up(table, source))


def insert(connection: Connection[TupleRow], table: CounterTable) -> int:
    """Add the gathered month to a counter table that has nothing of it yet; return the number of counters."""
    statement = sql.SQL("INSERT INTO {table} ({columns}) {facts} ORDER BY 1").format(
        table=sql.Identifier(table.name), columns=_columns(table), facts=_facts(table)
    )
    return connection.execute(statement).rowcount


def put_aside(connection: Connection[TupleRow], table: CounterTable, month: date) -> None:
    """Write the gathered month of a counter table into a file in the server's own directory, for `take_in`.

    The server has to be one of this machine, whose files this process may delete.
    """
    types = sql.SQL(", ").join(sql.SQL("{}::bigint").format(sql.Identifier(name)) for name in COUNTS)
    connection.execute(
        sql.SQL(
            "COPY (SELECT {time}, {keys}, {counts} FROM ({facts}) AS facts ORDER BY 1) TO {file} (FORMAT binary)"
        ).format(
            time=sql.Identifier(table.time_column),
            keys=_names(table.keys),
            counts=types,
            facts=_facts(table),
            file=sql.Literal(str(_file(connection, table, month))),
        )
    )


def take_in(connection: Connection[TupleRow], table: CounterTable, months: Sequence[date]) -> None:
    """Fill a counter table, which is emptied, with months that were put aside, in a transaction of the connection.

    FREEZE needs a table that was emptied in the same transaction. It leaves nothing to VACUUM, and where the server
    logs as little as it may (wal_level = minimal), nothing of this table is logged.
    """
    connection.execute(sql.SQL("TRUNCATE {}").format(sql.Identifier(table.name)))
    for month in months:
        file = _file(connection, table, month)
        connection.execute(
            sql.SQL("COPY {} ({}) FROM {} (FORMAT binary, FREEZE)").format(
                sql.Identifier(table.name), _columns(table), sql.Literal(str(file))
            )
        )
        file.unlink()


def _file(connection: Connection[TupleRow], table: CounterTable, month: date) -> Path:
    row = connection.execute("SHOW data_directory").fetchone()
    assert row is not None
    return Path(row[0]) / f"load_sample.{table.name}.{month:%Y%m}"


def _columns(table: CounterTable) -> sql.Composed:
    return _names((table.time_column, *table.keys, *COUNTS))


def forget(connection: Connection[TupleRow]) -> None:
    """Drop what was gathered, before the next month is gathered in the same transaction."""
    for table in TABLES:
        connection.execute(sql.SQL("DROP TABLE IF EXISTS pg_temp.{}").format(_gathered(table)))


def differences(connection: Connection[TupleRow], table: CounterTable, month: date) -> tuple[int, int]:
    """Compare a counter table with the gathered month: (counters compared, how many are wrong, missing or too many)."""
    statement = sql.SQL(
        "WITH says AS ({facts}), has AS (SELECT {time}, {keys}, {counts} FROM {table}"
        "  WHERE {time} >= %s AND {time} < %s)"
        " SELECT count(*), count(*) FILTER (WHERE (says.ok_count, says.anomaly_count, says.confirmed_count,"
        " says.failure_count, says.measurement_count) IS DISTINCT FROM (has.ok_count, has.anomaly_count,"
        " has.confirmed_count, has.failure_count, has.measurement_count))"
        " FROM says FULL JOIN has USING ({time}, {keys})"
    ).format(
        facts=_facts(table),
        time=sql.Identifier(table.time_column),
        keys=_names(table.keys),
        counts=_names(COUNTS),
        table=sql.Identifier(table.name),
    )
    row = connection.execute(statement, [month, next_month(month)]).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def totals(connection: Connection[TupleRow], table: CounterTable) -> tuple[int, int]:
    """Return how many counters a table has, and the sum of their measurements."""
    row = connection.execute(
        sql.SQL("SELECT count(*), coalesce(sum(measurement_count), 0) FROM {}").format(sql.Identifier(table.name))
    ).fetchone()
    assert row is not None
    return int(row[0]), int(row[1])


def _source(table: CounterTable) -> CounterTable | None:
    """Return the coarsest counters by day that a table can be added up from; None when it takes the rows.

    Those with the fewest keys are the coarsest, and of equal ones those that come later.
    """
    if _only_some_rows(table):
        return None
    days = [other for other in TABLES if other.period == "day" and other != table and not _only_some_rows(other)]
    finer = [
        (len(other.keys), -TABLES.index(other), other)
        for other in days
        if set(table.keys) < set(other.keys) or (table.period == "month" and table.keys == other.keys)
    ]
    return min(finer)[2] if finer else None


def _only_some_rows(table: CounterTable) -> bool:
    """Whether a table counts only rows that have a blocking type."""
    return "blocking_type" in table.keys


def _gather_rows(connection: Connection[TupleRow], table: CounterTable, rows: sql.Composable, month: date) -> None:
    keys = [
        sql.SQL("{} AS {}").format(sql.SQL(_KEYS[key]) if key in _KEYS else sql.Identifier(key), sql.Identifier(key))
        for key in table.keys
    ]
    sums = [sql.SQL("({})::integer AS {}").format(sql.SQL(_SUMS[name]), sql.Identifier(name)) for name in COUNTS]
    query = sql.SQL(
        "SELECT measurement_start_time::date AS {time}, {columns} FROM {rows}"
        " WHERE measurement_start_time >= {since} AND measurement_start_time < {until} AND {which}"
        " GROUP BY {groups} ORDER BY 1"
    ).format(
        time=sql.Identifier(table.time_column),
        columns=sql.SQL(", ").join([*keys, *sums]),
        rows=rows,
        since=sql.Literal(month),
        until=sql.Literal(next_month(month)),
        which=sql.SQL("blocking_type <> ''" if _only_some_rows(table) else "true"),
        groups=sql.SQL(", ").join(sql.Literal(number + 1) for number in range(len(keys) + 1)),
    )
    _make(connection, table, query)


def _make(connection: Connection[TupleRow], table: CounterTable, query: sql.Composed) -> None:
    name = _gathered(table)
    connection.execute(sql.SQL("CREATE TEMPORARY TABLE {} ON COMMIT DROP AS {}").format(name, query))
    connection.execute(sql.SQL("ANALYZE {}").format(name))


def _gathered(table: CounterTable) -> sql.Identifier:
    return sql.Identifier(f"sample_{table.name}")


def _facts(table: CounterTable) -> sql.Composed:
    """What a counter table must say about the gathered month."""
    source = _source(table)
    if source is None:
        return sql.SQL("SELECT {}, {}, {} FROM {}").format(
            sql.Identifier(table.time_column), _names(table.keys), _names(COUNTS), _gathered(table)
        )
    return _rolled_up(table, source)


def _rolled_up(table: CounterTable, source: CounterTable) -> sql.Composed:
    time = sql.Identifier(source.time_column)
    return sql.SQL("SELECT {time} AS {column}, {keys}, {sums} FROM {source} GROUP BY 1, {keys}").format(
        time=time if table.period == "day" else sql.SQL("date_trunc('month', {})::date").format(time),
        column=sql.Identifier(table.time_column),
        keys=_names(table.keys),
        # Integers: PostgreSQL adds those up far faster than bigint, whose sum may be larger than a bigint.
        sums=sql.SQL(", ").join(sql.SQL("sum({0})::integer AS {0}").format(sql.Identifier(name)) for name in COUNTS),
        source=_gathered(source),
    )


def _names(names: tuple[LiteralString, ...]) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.Identifier, names))
