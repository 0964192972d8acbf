"""The SQL of the analysis jobs; `store` runs it."""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from core.counters import COUNTS, TABLES, CounterTable, Period
from core.counters_sql import ZEROS, add, compared, counted, counted_as, facts, names, summed

TEST_LISTS = "SELECT domain, url, cc, category_code FROM citizenlab"
TEST_LIST_REMOVE = """DELETE FROM citizenlab c USING unnest(%s::text[], %s::text[]) AS gone (url, cc)
    WHERE (c.url, c.cc) = (gone.url, gone.cc)"""
TEST_LIST_ADD = """INSERT INTO citizenlab (domain, url, cc, category_code)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])"""

NO_MOVES = "LOCK TABLE fastpath_default IN ACCESS SHARE MODE"

# Counters. Parameter `start` is a day, or the first day of a month. Tables of days are compared with rows, those of
# months with tables of days: adding up a month of rows takes too long.

_DAY_OF_ROWS: LiteralString = (
    "measurement_start_time >= %(start)s::date::timestamp AND measurement_start_time < (%(start)s::date + 1)::timestamp"
)
_DAYS_OF_MONTH: LiteralString = (
    "measurement_start_day >= %(start)s::date AND measurement_start_day < (%(start)s::date + interval '1 month')::date"
)
_KEYS: tuple[LiteralString, ...] = ("test_name", "probe_cc", "probe_asn", "domain", "input", "blocking_type")
_ROWS = facts("fastpath", where=_DAY_OF_ROWS)


def tables_of(period: Period) -> tuple[CounterTable, ...]:
    """The counter tables of days or of months, in the order in which they are written."""
    return tuple(table for table in TABLES if table.period == period)


def _facts_of(table: LiteralString) -> sql.Identifier:
    return sql.Identifier(f"facts_of_{table}")


def _select_all(name: sql.Identifier) -> sql.Composed:
    return sql.SQL("SELECT * FROM {}").format(name)


def _of_days(table: CounterTable) -> sql.Composed:
    """What the tables of days say about a month."""
    assert table.source is not None
    days = sql.SQL(
        "SELECT date_trunc('month', measurement_start_day::timestamp)::date AS measurement_start_month,"
        " {keys}, {counts} FROM {source} WHERE {month}"
    ).format(
        keys=names(table.keys),
        counts=names(COUNTS),
        source=sql.Identifier(table.source.name),
        month=sql.SQL(_DAYS_OF_MONTH),
    )
    return summed(table.columns, days)


def _should_be(table: CounterTable) -> sql.Composed:
    """What a table should say about the day or month."""
    return counted_as(table, _ROWS) if table.period == "day" else _of_days(table)


def _facts_of_all(period: Period) -> list[sql.Composed]:
    """What each table should say, as common table expressions; the rows of a day are read once."""
    if period == "month":
        return [
            sql.SQL("{} AS MATERIALIZED ({})").format(_facts_of(table.name), _of_days(table))
            for table in tables_of(period)
        ]
    made = [
        sql.SQL("{} AS MATERIALIZED ({})").format(_facts_of("rows"), counted(("measurement_start_day", *_KEYS), _ROWS))
    ]
    for table in tables_of(period):
        finer = _select_all(_facts_of(table.source.name if table.source else "rows"))
        if not table.counts_all_rows:
            finer = sql.SQL("{} WHERE blocking_type <> ''").format(finer)
        made.append(sql.SQL("{} AS MATERIALIZED ({})").format(_facts_of(table.name), summed(table.columns, finer)))
    return made


def _total(of: sql.Composable) -> sql.Composed:
    return sql.SQL("(SELECT coalesce(sum(measurement_count), 0) FROM {})").format(of)


def _of_period(table: CounterTable) -> sql.Composed:
    return sql.SQL("{} = %(start)s").format(sql.Identifier(table.time_column))


def _check(period: Period) -> sql.Composed:
    tables = tables_of(period)
    wrong = [
        sql.SQL("SELECT {place} AS place, {name} AS counters, {keys}, counted, actual FROM ({compared}) AS c").format(
            place=sql.Literal(place),
            name=sql.Literal(table.name),
            keys=sql.SQL(", ").join(_key_or_null(table, key) for key in _KEYS),
            compared=compared(table, _select_all(_facts_of(table.name)), f"{table.time_column} = %(start)s"),
        )
        for place, table in enumerate(tables)
    ]
    country = next(table for table in tables if table.keys == ("test_name", "probe_cc"))
    return sql.SQL(
        "WITH {facts}, wrong AS ({wrong}),"
        " numbered AS (SELECT *, count(*) OVER (PARTITION BY place) AS number,"
        "              row_number() OVER (PARTITION BY place) AS nth FROM wrong)"
        " SELECT totals.*, counters, number, {keys}, counted, actual"
        " FROM (SELECT {measurements} AS measurements, {in_counters} AS in_counters) AS totals"
        " LEFT JOIN numbered ON nth <= %(examples)s ORDER BY place, nth"
    ).format(
        facts=sql.SQL(", ").join(_facts_of_all(period)),
        wrong=sql.SQL(" UNION ALL ").join(wrong),
        keys=names(_KEYS),
        measurements=_total(_facts_of(country.name)),
        in_counters=_total(sql.SQL("{} WHERE {}").format(sql.Identifier(country.name), _of_period(country))),
    )


def _key_or_null(table: CounterTable, key: LiteralString) -> sql.Composable:
    if key in table.keys:
        return sql.Identifier(key)
    return sql.SQL("NULL::{} AS {}").format(sql.SQL("bigint" if key == "probe_asn" else "text"), sql.Identifier(key))


def _repair(table: CounterTable) -> sql.Composed:
    """Add the differences."""
    changes = sql.SQL(", ").join(
        sql.SQL("actual[{0}] - counted[{0}] AS {1}").format(sql.Literal(number), sql.Identifier(name))
        for number, name in enumerate(COUNTS, start=1)
    )
    return add(
        table,
        sql.SQL("SELECT {columns}, {changes} FROM ({compared}) AS compared").format(
            columns=names(table.columns),
            changes=changes,
            compared=compared(table, _should_be(table), f"{table.time_column} = %(start)s"),
        ),
    )


def _drop_zeros(table: CounterTable) -> sql.Composed:
    """Delete what counts nothing, since it holds what a probe sent; what somebody is just adding to is left."""
    return sql.SQL(
        "DELETE FROM {table} AS c USING (SELECT key FROM {table} WHERE {period}"
        " AND array[{counts}] = {zeros} FOR UPDATE SKIP LOCKED) AS z"
        " WHERE {period} AND c.key = z.key"
    ).format(table=sql.Identifier(table.name), counts=names(COUNTS), zeros=ZEROS, period=_of_period(table))


def _newest(tables: Sequence[CounterTable], since: LiteralString, rows: LiteralString = "") -> sql.Composed:
    """The last start before `before` that is in one of the tables, or that the query `rows` gives."""
    found = [
        sql.SQL(
            "(SELECT {time} AS start FROM {table} WHERE {time} < {before} AND {time} >= {since}"
            " ORDER BY 1 DESC LIMIT 1)"
        ).format(
            time=sql.Identifier(table.time_column),
            table=sql.Identifier(table.name),
            before=sql.SQL(_BEFORE),
            since=sql.SQL(since),
        )
        for table in tables
    ]
    if rows:
        found.append(sql.SQL(rows).format(before=sql.SQL(_BEFORE), since=sql.SQL(since)))
    return sql.SQL("SELECT max(start) FROM ({}) AS starts").format(sql.SQL(" UNION ALL ").join(found))


_BEFORE: LiteralString = "coalesce(%(before)s::date, 'infinity'::date)"
_DAY_WITH_ROWS: LiteralString = (
    "(SELECT measurement_start_time::date FROM fastpath WHERE measurement_start_time < {before}::timestamp"
    " AND measurement_start_time >= {since}::timestamp ORDER BY measurement_start_time DESC LIMIT 1)"
)

CHECK: dict[Period, sql.Composed] = {"day": _check("day"), "month": _check("month")}
REPAIR = {table.name: _repair(table) for table in TABLES}
DROP_ZEROS = {table.name: _drop_zeros(table) for table in TABLES}
NEWEST_DAY_NEAR = _newest(tables_of("day"), "(%(before)s::date - 40)", _DAY_WITH_ROWS)
NEWEST_DAY = _newest(tables_of("day"), "'-infinity'::date", _DAY_WITH_ROWS)
NEWEST_MONTH = _newest(tables_of("month"), "'-infinity'::date")

_THIS_MONTH: LiteralString = "date_trunc('month', now() AT TIME ZONE 'UTC')::date"
ENSURE_PARTITIONS = sql.SQL(
    "SELECT fastpath_ensure_partitions(first, (first + make_interval(months => %s))::date)"
    " FROM (SELECT {} AS first) AS months"
).format(sql.SQL(_THIS_MONTH))
MISSING_PARTITIONS = sql.SQL(
    "SELECT name FROM (SELECT 'fastpath_' || to_char(first + make_interval(months => number), 'YYYYMM') AS name"
    " FROM (SELECT {} AS first) AS now, generate_series(0, %s) AS number) AS months"
    " WHERE to_regclass(name) IS NULL ORDER BY name"
).format(sql.SQL(_THIS_MONTH))
