"""The SQL of the analysis jobs; `store` runs it."""

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

COUNTERS: dict[LiteralString, tuple[LiteralString, ...]] = {
    "counters_input": ("test_name", "probe_cc", "probe_asn", "domain", "input"),
    "counters_network": ("test_name", "probe_cc", "probe_asn"),
    "counters_country": ("test_name", "probe_cc"),
}
"""The counter tables in the order in which everybody writes them, with what each counts by, apart from the day."""

COUNTS: tuple[LiteralString, ...] = (
    "ok_count",
    "anomaly_count",
    "confirmed_count",
    "failure_count",
    "measurement_count",
)


def _names(columns: Sequence[LiteralString]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(column) for column in columns)


TEST_LISTS = "SELECT domain, url, cc, category_code FROM citizenlab"
TEST_LIST_REMOVE = """DELETE FROM citizenlab c USING unnest(%s::text[], %s::text[]) AS gone (url, cc)
    WHERE (c.url, c.cc) = (gone.url, gone.cc)"""
TEST_LIST_ADD = """INSERT INTO citizenlab (domain, url, cc, category_code)
    SELECT * FROM unnest(%s::text[], %s::text[], %s::text[], %s::text[])"""

NO_MOVES = "LOCK TABLE fastpath_default IN ACCESS SHARE MODE"

_TEST_NAME: LiteralString = "coalesce(test_name::text, test_name_other, '')"

# Counts that exclude each other, and their sum: the definition of the counters.
_SUMS: LiteralString = """
    count(*) FILTER (WHERE NOT (anomaly OR confirmed OR msm_failure)) AS ok_count,
    count(*) FILTER (WHERE anomaly AND NOT confirmed AND NOT msm_failure) AS anomaly_count,
    count(*) FILTER (WHERE confirmed AND NOT msm_failure) AS confirmed_count,
    count(*) FILTER (WHERE msm_failure) AS failure_count,
    count(*) AS measurement_count"""

_OF_THE_DAY: LiteralString = """
    measurement_start_time >= %(day)s::date::timestamp AND measurement_start_time < (%(day)s::date + 1)::timestamp"""

_ZEROS: LiteralString = "array[0, 0, 0, 0, 0]::bigint[]"


def _facts(table: LiteralString) -> sql.Composed:
    """What the rows of the day say, grouped as the counter table `table` is."""
    keys = COUNTERS[table]
    rest = [key for key in keys if key != "test_name"]
    return sql.SQL(
        "SELECT {test_name} AS test_name, {rest}, {sums} FROM fastpath WHERE {day} GROUP BY 1, {rest}"
    ).format(test_name=sql.SQL(_TEST_NAME), rest=_names(rest), sums=sql.SQL(_SUMS), day=sql.SQL(_OF_THE_DAY))


def _rolled_up(table: LiteralString, finer: LiteralString) -> sql.Composed:
    """The same, out of the finer facts, so that the rows are read once."""
    keys = COUNTERS[table]
    sums = sql.SQL(", ").join(sql.SQL("sum({0})::bigint AS {0}").format(sql.Identifier(count)) for count in COUNTS)
    return sql.SQL("SELECT {keys}, {sums} FROM {finer} GROUP BY {keys}").format(
        keys=_names(keys), sums=sums, finer=sql.Identifier(f"facts_of_{finer}")
    )


def _compared(table: LiteralString, facts: sql.Composable) -> sql.Composed:
    """Every wrong counter of the day: its key, `counted` and `actual` as arrays."""
    return sql.SQL(
        "SELECT {keys}, coalesce(counted, {zeros}) AS counted, coalesce(actual, {zeros}) AS actual"
        " FROM (SELECT {keys}, array[{counts}]::bigint[] AS actual FROM {facts} AS facts) AS says"
        " FULL JOIN (SELECT {keys}, array[{counts}]::bigint[] AS counted FROM {table}"
        "            WHERE measurement_start_day = %(day)s) AS has"
        " USING ({keys}) WHERE coalesce(counted, {zeros}) <> coalesce(actual, {zeros})"
    ).format(
        keys=_names(COUNTERS[table]),
        counts=_names(COUNTS),
        zeros=sql.SQL(_ZEROS),
        facts=facts,
        table=sql.Identifier(table),
    )


def _check() -> sql.Composed:
    all_keys = COUNTERS["counters_input"]
    parts: list[sql.Composed] = []
    for table, keys in COUNTERS.items():
        shown = sql.SQL(", ").join(
            sql.Identifier(key) if key in keys else sql.SQL("NULL AS {}").format(sql.Identifier(key))
            for key in all_keys
        )
        parts.append(
            sql.SQL(
                "SELECT {place} AS place, {name} AS counters, {shown}, counted, actual FROM ({compared}) AS c"
            ).format(
                place=sql.Literal(len(parts)),
                name=sql.Literal(table),
                shown=shown,
                compared=_compared(table, sql.Identifier(f"facts_of_{table}")),
            )
        )
    return sql.SQL(
        "WITH facts_of_counters_input AS MATERIALIZED ({input}),"
        " facts_of_counters_network AS MATERIALIZED ({network}),"
        " facts_of_counters_country AS MATERIALIZED ({country}),"
        " wrong AS ({wrong}),"
        " numbered AS (SELECT *, count(*) OVER (PARTITION BY place) AS number,"
        "              row_number() OVER (PARTITION BY place) AS nth FROM wrong)"
        " SELECT totals.*, counters, number, {keys}, counted, actual"
        " FROM (SELECT (SELECT coalesce(sum(measurement_count), 0) FROM facts_of_counters_country) AS measurements,"
        "              (SELECT coalesce(sum(measurement_count), 0) FROM counters_country"
        "               WHERE measurement_start_day = %(day)s) AS in_counters) AS totals"
        " LEFT JOIN numbered ON nth <= %(examples)s ORDER BY place, nth"
    ).format(
        input=_facts("counters_input"),
        network=_rolled_up("counters_network", "counters_input"),
        country=_rolled_up("counters_country", "counters_network"),
        wrong=sql.SQL(" UNION ALL ").join(parts),
        keys=_names(all_keys),
    )


def _repair(table: LiteralString) -> sql.Composed:
    """Add the differences. Counters are locked in the order in which the fastpath locks them: no deadlocks."""
    keys = COUNTERS[table]
    texts = [sql.SQL('{} COLLATE "C"').format(sql.Identifier(key)) for key in keys if key != "probe_asn"]
    numbers = [sql.Identifier(key) for key in keys if key == "probe_asn"]
    return sql.SQL(
        "INSERT INTO {table} AS c (measurement_start_day, {keys}, {counts})"
        " SELECT %(day)s, {keys}, {changes} FROM ({compared}) AS compared ORDER BY {order}"
        " ON CONFLICT (measurement_start_day, key) DO UPDATE SET {additions}"
    ).format(
        table=sql.Identifier(table),
        keys=_names(keys),
        counts=_names(COUNTS),
        changes=sql.SQL(", ").join(
            sql.SQL("actual[{0}] - counted[{0}]").format(sql.Literal(number)) for number in range(1, len(COUNTS) + 1)
        ),
        compared=_compared(table, sql.SQL("({})").format(_facts(table))),
        order=sql.SQL(", ").join([*numbers, *texts]),
        additions=sql.SQL(", ").join(
            sql.SQL("{0} = c.{0} + excluded.{0}").format(sql.Identifier(count)) for count in COUNTS
        ),
    )


def _drop_zeros(table: LiteralString) -> sql.Composed:
    """Delete what counts nothing any more; a counter that somebody is just adding to is left for the next repair."""
    return sql.SQL(
        "DELETE FROM {table} AS c USING (SELECT key FROM {table} WHERE measurement_start_day = %(day)s"
        " AND array[{counts}] = {zeros} FOR UPDATE SKIP LOCKED) AS z"
        " WHERE c.measurement_start_day = %(day)s AND c.key = z.key"
    ).format(table=sql.Identifier(table), counts=_names(COUNTS), zeros=sql.SQL(_ZEROS))


def _newest_day(since: LiteralString) -> sql.Composed:
    before = sql.SQL("coalesce(%(before)s::date, 'infinity'::date)")
    of_table = sql.SQL(
        "(SELECT measurement_start_day AS day FROM {table} WHERE measurement_start_day < {before}"
        " AND measurement_start_day >= {since} ORDER BY 1 DESC LIMIT 1)"
    )
    of_rows = sql.SQL(
        "(SELECT measurement_start_time::date FROM fastpath WHERE measurement_start_time < {before}::timestamp"
        " AND measurement_start_time >= {since}::timestamp ORDER BY measurement_start_time DESC LIMIT 1)"
    )
    days = [of_table.format(table=sql.Identifier(table), before=before, since=sql.SQL(since)) for table in COUNTERS]
    days.append(of_rows.format(before=before, since=sql.SQL(since)))
    return sql.SQL("SELECT max(day) FROM ({}) AS days").format(sql.SQL(" UNION ALL ").join(days))


CHECK = _check()
REPAIR = {table: _repair(table) for table in COUNTERS}
DROP_ZEROS = {table: _drop_zeros(table) for table in COUNTERS}
NEWEST_DAY_NEAR = _newest_day("(%(before)s::date - 40)")
NEWEST_DAY = _newest_day("'-infinity'::date")

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
