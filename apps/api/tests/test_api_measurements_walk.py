"""What a page of the list costs the database: few partitions per statement, and months without rows are not visited."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg
import pytest
from list_sample import write
from psycopg.rows import dict_row

from api.list_filter import ListFilter
from api.list_order import ORDER_COLUMNS, Order
from api.list_walk import Walk

COLUMNS = "measurement_uid, measurement_start_time, input"
ALL_TIME: dict[str, Any] = {"since": datetime(1, 1, 1), "until": datetime(9999, 12, 31)}  # noqa: DTZ001 the column has no zone
MOST_PARTITIONS = 13
"""A year and the default partition."""


@pytest.fixture(scope="module")
def connection(module_dsn: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    plain: dict[str, Any] = {"domain": "", "probe_cc": "IT", "probe_asn": 1, "test": "ndt"}
    plain |= {"anomaly": False, "confirmed": False, "msm_failure": False, "input": ""}
    years = range(2013, 2025)
    rows = [{**plain, "measurement_start_time": datetime(year, 1 + year % 12, 5)} for year in years]  # noqa: DTZ001
    rows.append({**rows[3], "probe_cc": "DE", "confirmed": True, "input": "https://b.example/"})
    rows.append({**rows[0], "software_version": "1.2.3", "measurement_start_time": datetime(1970, 1, 1)})  # noqa: DTZ001
    with psycopg.connect(module_dsn) as writer:
        write(writer, rows)
    with psycopg.connect(module_dsn, row_factory=dict_row) as reader:
        yield reader


class Statements:
    """Runs statements and keeps which partitions each of them had to do with."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self._connection = connection
        self.partitions: list[set[str]] = []

    def run(self, statement: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        with self._connection.transaction():
            rows = self._connection.execute(statement.encode(), values).fetchall()
            locked = self._connection.execute(
                """SELECT DISTINCT relname FROM pg_locks JOIN pg_class ON pg_class.oid = relation
                   WHERE pid = pg_backend_pid() AND relispartition AND relkind = 'r'"""
            ).fetchall()
        if "FROM fastpath" in statement:
            self.partitions.append({row["relname"] for row in locked})
        return rows

    @property
    def visited(self) -> set[str]:
        return set().union(*self.partitions)


def walk(
    connection: psycopg.Connection[dict[str, Any]], wanted: ListFilter, column: str, *, descending: bool
) -> tuple[int, Statements]:
    statements = Statements(connection)
    found = Walk(statements.run, wanted, Order(column, descending), COLUMNS).take(101)
    return len(found), statements


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", ORDER_COLUMNS)
@pytest.mark.parametrize(
    ("filters", "expected"),
    [
        ({}, 14),
        ({"countries": ("IT",)}, 13),
        ({"countries": ("FR",)}, 0),
        ({"software_versions": ("1.2.3",)}, 1),
        ({"run_link_id": 5}, 0),
        ({"networks": (1,), "inputs": ("https://b.example/",)}, 1),
    ],
)
def test_no_statement_is_about_more_than_a_year(
    connection: psycopg.Connection[dict[str, Any]],
    column: str,
    descending: bool,
    filters: dict[str, Any],
    expected: int,
) -> None:
    wanted = ListFilter(**ALL_TIME, **filters)
    found, statements = walk(connection, wanted, column, descending=descending)
    assert found == expected
    assert max(map(len, statements.partitions), default=0) <= MOST_PARTITIONS
    assert len(statements.partitions) < 20


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("column", ORDER_COLUMNS)
@pytest.mark.parametrize(
    "filters", [{"countries": ("DE",)}, {"confirmed": True}, {"inputs": ("https://b.example/",), "networks": (1,)}]
)
def test_only_months_that_may_have_rows_are_visited(
    connection: psycopg.Connection[dict[str, Any]],
    column: str,
    descending: bool,
    filters: dict[str, Any],
) -> None:
    found, statements = walk(connection, ListFilter(**ALL_TIME, **filters), column, descending=descending)
    assert found == 1
    now = datetime.now()  # noqa: DTZ005 the month is all that matters, and its neighbours are allowed for
    recent = {f"fastpath_{year}{month:02}" for year in (now.year - 1, now.year) for month in range(1, 13)}
    assert statements.visited - recent <= {"fastpath_201601", "fastpath_default"}
    assert len(statements.visited & recent) <= 3
    assert "fastpath_201601" in statements.visited


def test_a_full_page_ends_the_walk(connection: psycopg.Connection[dict[str, Any]]) -> None:
    statements = Statements(connection)
    wanted = ListFilter(since=datetime(2012, 12, 1), until=datetime(2024, 12, 31))  # noqa: DTZ001
    found = Walk(statements.run, wanted, Order("measurement_start_time", descending=True), COLUMNS).take(1)
    assert [row["measurement_start_time"].year for row in found] == [2024]
    # Two months without asking, then the one that the counters name; the years before are left alone.
    assert statements.visited == {"fastpath_202412", "fastpath_202411", "fastpath_202409"}
