"""Names of tests that joined the database's type after rows were written, or that only the type knows."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from api.list_filter import ListFilter
from api.list_order import Order
from api.list_walk import Walk
from core.testnames import KNOWN_TEST_NAMES

COLUMNS = "measurement_uid, measurement_start_time, input, coalesce(test_name::text, test_name_other) AS test"
MONTH = {"since": datetime(2024, 2, 29), "until": datetime(2024, 3, 31)}  # noqa: DTZ001 the column has no zone
EARLIER, NEWER = "ndt", "not_of_this_release"
AS_TEXT, AS_VALUE = 5, 400


@pytest.fixture(scope="module")
def connection(module_dsn: str) -> Iterator[psycopg.Connection[dict[str, Any]]]:
    """A month with many rows of one test and a few of two others, of which five came before their names were known."""
    assert NEWER not in KNOWN_TEST_NAMES
    with psycopg.connect(module_dsn, autocommit=True) as writer:
        writer.execute(f"ALTER TYPE ootest ADD VALUE '{NEWER}'".encode())
        for name, count, as_text in (
            ("web_connectivity", 20_000, False),
            *((name, AS_VALUE, False) for name in (EARLIER, NEWER)),
            *((name, AS_TEXT, True) for name in (EARLIER, NEWER, "never_heard_of")),
        ):
            writer.execute(
                """INSERT INTO fastpath (measurement_uid, report_id, input, probe_cc, probe_asn, test_name,
                       test_name_other, measurement_start_time, scores, anomaly, confirmed, msm_failure)
                   SELECT %(name)s || %(text)s::text || n, '', '', 'IT', 1,
                       CASE WHEN NOT %(text)s THEN %(name)s::text::ootest END,
                       CASE WHEN %(text)s THEN %(name)s::text END,
                       '2024-03-01'::timestamp + n * interval '27 days' / %(count)s, '{}', false, false, false
                   FROM generate_series(1, %(count)s) AS n""",
                {"name": name, "text": as_text, "count": count},
            )
        writer.execute("ANALYZE fastpath_202403")
    with psycopg.connect(module_dsn, row_factory=dict_row) as reader:
        yield reader


class Explained:
    """Runs statements and keeps how many rows of fastpath each of them read."""

    def __init__(self, connection: psycopg.Connection[dict[str, Any]]) -> None:
        self._connection = connection
        self.rows_read: list[int] = []

    def run(self, statement: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        (plan,) = self._connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {statement}".encode(), values).fetchall()
        self.rows_read.append(read_by(plan["QUERY PLAN"][0]["Plan"]))
        return self._connection.execute(statement.encode(), values).fetchall()


def read_by(node: dict[str, Any]) -> int:
    """How many rows the scans below read, those thrown away included."""
    own = 0
    if str(node.get("Relation Name", "")).startswith("fastpath"):
        rows = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
        own = round(rows * node["Actual Loops"])
    return own + sum(map(read_by, node.get("Plans", [])))


@pytest.mark.parametrize("name", [EARLIER, NEWER])
@pytest.mark.parametrize("descending", [True, False])
def test_rows_are_found_in_both_forms_and_in_order(
    connection: psycopg.Connection[dict[str, Any]], name: str, descending: bool
) -> None:
    wanted = ListFilter(**MONTH, test_names=(name,))
    found = Walk(Explained(connection).run, wanted, Order("measurement_start_time", descending), COLUMNS).take(1000)
    assert len(found) == AS_TEXT + AS_VALUE
    assert {row["test"] for row in found} == {name}
    times = [row["measurement_start_time"] for row in found]
    assert times == sorted(times, reverse=descending)


@pytest.mark.parametrize(("name", "most"), [(EARLIER, 2), (NEWER, 2), ("web_connectivity", 2), ("never_heard_of", 1)])
def test_a_page_of_one_test_reads_little_more_than_itself(
    connection: psycopg.Connection[dict[str, Any]], name: str, most: int
) -> None:
    explained = Explained(connection)
    order = Order("measurement_start_time", descending=True)
    found = Walk(explained.run, ListFilter(**MONTH, test_names=(name,)), order, COLUMNS).take(20)
    assert len(found) == (AS_TEXT if name == "never_heard_of" else 20)
    assert sum(explained.rows_read) <= 20 * most
