"""The SQL of the counters: one definition of what is counted, and of how counters are changed and compared.

Facts are what counters need of a row of fastpath: time, keys, flags, and `change`, 1 for a row that came and -1 for one
that went. Statements that change counters run in the transaction that changes the rows, one per table of
`core.counters.TABLES`, in that order; each locks its counters in the order of `CounterTable.order`.
"""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from core.counters import COUNTS, CounterTable

ROW_COLUMNS: tuple[LiteralString, ...] = (
    "measurement_start_time",
    "test_name",
    "test_name_other",
    "probe_cc",
    "probe_asn",
    "domain",
    "input",
    "blocking_type",
    "anomaly",
    "confirmed",
    "msm_failure",
)
"""The columns of table fastpath that facts are made of."""

_FACTS: LiteralString = """
    SELECT measurement_start_time::date AS measurement_start_day,
        date_trunc('month', measurement_start_time)::date AS measurement_start_month,
        coalesce(test_name::text, test_name_other, '') AS test_name, probe_cc, probe_asn, domain, input,
        coalesce(blocking_type, '') AS blocking_type, anomaly, confirmed, msm_failure, {change} AS change
    FROM {rows} WHERE {where}"""

# The first four exclude each other, and the last is their sum: the definition of the counters.
_SUMS: LiteralString = """
    coalesce(sum(change) FILTER (WHERE NOT (anomaly OR confirmed OR msm_failure)), 0) AS ok_count,
    coalesce(sum(change) FILTER (WHERE anomaly AND NOT confirmed AND NOT msm_failure), 0) AS anomaly_count,
    coalesce(sum(change) FILTER (WHERE confirmed AND NOT msm_failure), 0) AS confirmed_count,
    coalesce(sum(change) FILTER (WHERE msm_failure), 0) AS failure_count,
    sum(change) AS measurement_count"""

ZEROS = sql.SQL("array[0, 0, 0, 0, 0]::bigint[]")
"""Counts of nothing, as an array in the order of COUNTS."""


def names(columns: Sequence[LiteralString], prefix: LiteralString | None = None) -> sql.Composed:
    """The columns, separated by commas, each with `prefix` and a dot before it if given."""
    quoted = [sql.Identifier(prefix, column) if prefix else sql.Identifier(column) for column in columns]
    return sql.SQL(", ").join(quoted)


def facts(rows: LiteralString, change: int = 1, where: LiteralString = "true") -> sql.Composed:
    """The facts of the rows of table `rows`, which has ROW_COLUMNS."""
    return sql.SQL(_FACTS).format(change=sql.Literal(change), rows=sql.Identifier(rows), where=sql.SQL(where))


def counted(columns: Sequence[LiteralString], of: sql.Composable, where: LiteralString = "true") -> sql.Composed:
    """The facts `of` grouped by `columns` and counted, as COUNTS."""
    return sql.SQL("SELECT {columns}, {sums} FROM ({of}) AS facts WHERE {where} GROUP BY {columns}").format(
        columns=names(columns), sums=sql.SQL(_SUMS), of=of, where=sql.SQL(where)
    )


def counted_as(table: CounterTable, of: sql.Composable) -> sql.Composed:
    """What the facts `of` add to each row of `table`."""
    return counted(table.columns, of, "true" if table.counts_all_rows else "blocking_type <> ''")


def summed(columns: Sequence[LiteralString], of: sql.Composable) -> sql.Composed:
    """The counts in `of` (a query with COUNTS) summed by `columns`."""
    sums = sql.SQL(", ").join(sql.SQL("sum({0})::bigint AS {0}").format(sql.Identifier(count)) for count in COUNTS)
    return sql.SQL("SELECT {columns}, {sums} FROM ({of}) AS finer GROUP BY {columns}").format(
        columns=names(columns), sums=sums, of=of
    )


def add(table: CounterTable, changes: sql.Composable) -> sql.Composed:
    """Add `changes` (a query with the columns and counts of `table`) to its rows; what would change nothing is left."""
    return sql.SQL(
        "INSERT INTO {table} AS c ({columns}, {counts}) SELECT {columns}, {counts} FROM ({changes}) AS changes"
        " WHERE ({counts}) <> (0, 0, 0, 0, 0) ORDER BY {order}"
        " ON CONFLICT ({time}, key) DO UPDATE SET {additions}"
    ).format(
        table=sql.Identifier(table.name),
        columns=names(table.columns),
        counts=names(COUNTS),
        changes=changes,
        order=_order(table),
        time=sql.Identifier(table.time_column),
        additions=sql.SQL(", ").join(
            sql.SQL("{0} = c.{0} + excluded.{0}").format(sql.Identifier(count)) for count in COUNTS
        ),
    )


def count(table: CounterTable, of: sql.Composable) -> sql.Composed:
    """Count the facts `of` in `table`."""
    return add(table, counted_as(table, of))


def count_and_tell_emptied(table: CounterTable, of: sql.Composable) -> sql.Composed:
    """Count the facts `of` in `table`; return time and key, as texts, of each counter that reached zero thereby."""
    return sql.SQL(
        "WITH changed AS ({add} RETURNING {time}, key, {counts})"
        " SELECT {time}::text, key::text FROM changed WHERE ({counts}) = (0, 0, 0, 0, 0)"
    ).format(add=count(table, of), time=sql.Identifier(table.time_column), counts=names(COUNTS))


def delete_emptied(table: CounterTable) -> sql.Composed:
    """Delete counters that count nothing, since they hold what the probe sent.

    Parameters: the times and the keys that `count_and_tell_emptied` returned in this transaction, as arrays of texts.
    """
    return sql.SQL(
        "DELETE FROM {table} AS c USING unnest(%s::text[], %s::text[]) AS e (start, key)"
        " WHERE c.{time} = e.start::date AND c.key = e.key::uuid AND ({counts}) = (0, 0, 0, 0, 0)"
    ).format(table=sql.Identifier(table.name), time=sql.Identifier(table.time_column), counts=names(COUNTS, "c"))


def uncount(table: CounterTable, of: sql.Composable) -> list[sql.Composed]:
    """Statements that take the facts `of`, with `change` -1, out of the rows that `table` has; once per transaction.

    The last deletes those of them that reach zero, since they hold what the probe sent. None is made: a counter that
    should have been there is not written for the sake of a measurement that goes.
    """
    # The temporary table makes the keys as the counters do, and its statistics say how few they are: so the counters
    # are found by primary key.
    gone = sql.Identifier(f"gone_from_{table.name}")
    same_key = sql.SQL("c.{time} = g.{time} AND c.key = g.key").format(time=sql.Identifier(table.time_column))
    values = {"table": sql.Identifier(table.name), "gone": gone, "same_key": same_key}
    return [
        sql.SQL("CREATE TEMPORARY TABLE {gone} (LIKE {table} INCLUDING GENERATED) ON COMMIT DROP").format(**values),
        sql.SQL("INSERT INTO {gone} ({columns}, {counts}) {sums}").format(
            **values, columns=names(table.columns), counts=names(COUNTS), sums=counted_as(table, of)
        ),
        sql.SQL("ANALYZE {gone}").format(**values),
        sql.SQL(
            "WITH held AS MATERIALIZED (SELECT g.* FROM {table} AS c JOIN {gone} AS g ON {same_key}"
            " ORDER BY {order} FOR UPDATE OF c)"
            " UPDATE {table} AS c SET {additions} FROM held AS g WHERE {same_key}"
        ).format(
            **values,
            order=sql.SQL(", ").join(sql.SQL("g.{}").format(sql.SQL(part)) for part in table.order),
            additions=sql.SQL(", ").join(
                sql.SQL("{0} = c.{0} + g.{0}").format(sql.Identifier(count)) for count in COUNTS
            ),
        ),
        sql.SQL("DELETE FROM {table} AS c USING {gone} AS g WHERE {same_key} AND ({counts}) = (0, 0, 0, 0, 0)").format(
            **values, counts=names(COUNTS, "c")
        ),
    ]


def compared(table: CounterTable, says: sql.Composable, where: LiteralString = "true") -> sql.Composed:
    """Every row of `table` with `where` that differs from `says`, a query with its columns and counts.

    Gives the columns, and `counted` and `actual`: arrays of COUNTS as they are and as they should be.
    """
    return sql.SQL(
        "SELECT {columns}, coalesce(counted, {zeros}) AS counted, coalesce(actual, {zeros}) AS actual"
        " FROM (SELECT {columns}, array[{counts}]::bigint[] AS actual FROM ({says}) AS says) AS should"
        " FULL JOIN (SELECT {columns}, array[{counts}]::bigint[] AS counted FROM {table} WHERE {where}) AS has"
        " USING ({columns}) WHERE coalesce(counted, {zeros}) <> coalesce(actual, {zeros})"
    ).format(
        columns=names(table.columns),
        zeros=ZEROS,
        counts=names(COUNTS),
        says=says,
        table=sql.Identifier(table.name),
        where=sql.SQL(where),
    )


def _order(table: CounterTable) -> sql.Composed:
    return sql.SQL(", ").join(map(sql.SQL, table.order))
