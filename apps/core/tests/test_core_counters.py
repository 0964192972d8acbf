"""The statements of the counters, on rows of any time that the column holds."""

from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from core.counters import TABLES, CounterTable
from core.counters_sql import (
    compared,
    count,
    count_and_tell_emptied,
    counted_as,
    delete_emptied,
    facts,
    uncount,
)

TIMES = (
    "-infinity",
    "4713-01-01 00:00:00 BC",
    "0044-03-15 12:00:00 BC",
    "0001-01-01 00:00:00",
    "2024-02-29 23:59:59.999999",
    "2024-03-01 00:00:00",
    "9999-12-31 23:59:59.999999",
    "294276-12-31 23:59:59",
    "infinity",
)


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    """A session in a zone far from UTC: days and months must not depend on it."""
    with psycopg.connect(dsn, autocommit=True, options="-c timezone=Pacific/Kiritimati") as connection:
        for number, time in enumerate(TIMES):
            for blocking in ("", "dns", None):
                connection.execute(
                    "INSERT INTO fastpath (measurement_uid, measurement_start_time, scores, anomaly, confirmed,"
                    " msm_failure, blocking_type) VALUES (%s, %s::timestamp, '{}', %s, false, false, %s)",
                    [f"{number}{blocking}", time, bool(blocking), blocking],
                )
        yield connection


def _wrong(connection: psycopg.Connection) -> list[str]:
    return [
        table.name
        for table in TABLES
        if connection.execute(
            sql.SQL("SELECT FROM ({}) AS wrong").format(compared(table, counted_as(table, facts("fastpath"))))
        ).fetchall()
    ]


def test_rows_of_any_time_are_counted_compared_and_taken_out(connection: psycopg.Connection) -> None:
    assert _wrong(connection) == [table.name for table in TABLES]
    for table in TABLES:
        connection.execute(count(table, facts("fastpath")))
    assert _wrong(connection) == []
    days = connection.execute(
        "SELECT measurement_start_day::text, anomaly_count, measurement_count FROM counters_country ORDER BY 1"
    ).fetchall()
    assert len(days) == len(TIMES)
    assert {(anomalies, all_rows) for _, anomalies, all_rows in days} == {(1, 3)}
    assert ("2024-02-29", 1, 3) in days
    months = [
        month for (month,) in connection.execute("SELECT measurement_start_month::text FROM counters_month_country")
    ]
    assert {"2024-02-01", "2024-03-01", "9999-12-01", "0044-03-01 BC", "infinity", "-infinity"} <= set(months)
    for table in TABLES:
        with connection.transaction():
            for statement in uncount(table, facts("fastpath", -1)):
                connection.execute(statement)
        assert connection.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table.name))).fetchall() == []


def test_taking_out_makes_no_counter_that_was_missing(connection: psycopg.Connection) -> None:
    for table in TABLES:
        with connection.transaction():
            for statement in uncount(table, facts("fastpath", -1)):
                connection.execute(statement)
        assert connection.execute(sql.SQL("SELECT FROM {}").format(sql.Identifier(table.name))).fetchall() == []


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_each_table_but_two_is_a_sum_of_an_earlier_one_of_days(table: CounterTable) -> None:
    if table.name in ("counters_input", "counters_blocking"):
        assert table.source is None
    else:
        assert table.source is not None
        assert table.source in TABLES[: TABLES.index(table)]
        assert table.source.period == "day"
        assert set(table.keys) <= set(table.source.keys)


def test_what_counting_down_emptied_is_told_and_deleted(connection: psycopg.Connection) -> None:
    for table in TABLES:
        connection.execute(count(table, facts("fastpath")))
        kept = facts("fastpath", -1, "measurement_start_time <> '2024-03-01' AND measurement_start_time > '-infinity'")
        told = connection.execute(count_and_tell_emptied(table, kept)).fetchall()
        counters = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name))
        before = connection.execute(counters).fetchone()
        assert before is not None
        assert 0 < len(told) < before[0]
        connection.execute(delete_emptied(table), [[start for start, _ in told], [key for _, key in told]])
        assert connection.execute(counters).fetchone() == (before[0] - len(told),)
        left = sql.SQL("SELECT DISTINCT {}::text FROM {}").format(
            sql.Identifier(table.time_column), sql.Identifier(table.name)
        )
        assert set(connection.execute(left).fetchall()) == {("-infinity",), ("2024-03-01",)}


MANY = 20_000


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_what_goes_is_found_by_key(connection: psycopg.Connection, table: CounterTable) -> None:
    connection.execute("SET random_page_cost = 1.1")
    keys = sql.SQL(", ").join(
        sql.SQL("number") if key == "probe_asn" else sql.SQL("'text ' || number") for key in table.keys
    )
    connection.execute(
        sql.SQL("INSERT INTO {} ({}) SELECT '2024-02-01', {} FROM generate_series(1, %s) AS number").format(
            sql.Identifier(table.name), sql.SQL(", ").join(map(sql.Identifier, table.columns)), keys
        ),
        [MANY],
    )
    connection.execute(count(table, facts("fastpath")))
    connection.execute(sql.SQL("ANALYZE {}").format(sql.Identifier(table.name)))
    [key] = connection.execute(
        sql.SQL("SELECT key::text FROM {} LIMIT 1").format(sql.Identifier(table.name))
    ).fetchall()
    explain = sql.SQL("EXPLAIN {}").format(delete_emptied(table))
    plans = ["\n".join(line for (line,) in connection.execute(explain, [["2024-02-01"], list(key)]))]
    with connection.transaction():
        for statement in uncount(table, facts("fastpath", -1)):
            plan = sql.SQL("EXPLAIN {}").format(statement)
            if statement.as_string(connection).startswith(("WITH", "DELETE")):
                plans.append("\n".join(line for (line,) in connection.execute(plan)))
            connection.execute(statement)
    assert len(plans) == 3
    for text in plans:
        assert f"Seq Scan on {table.name} c" not in text, text
        assert f"{table.name}_pkey" in text, text
    assert connection.execute(sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(table.name))).fetchone() == (
        MANY,
    )
