"""A question of the benchmark: as a request to the API, and in the SQL of the yardstick."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

Digest = Sequence[Any]
"""What an answer says, in a form that the other side's answer can be compared with."""

LIST, AGGREGATION, STATISTIC = "list", "aggregation", "statistic"
GOALS_MS = {LIST: 200.0, AGGREGATION: 150.0, STATISTIC: 200.0}
"""p95 of one client that no question should exceed, in milliseconds."""

COUNTS = ("measurement_count", "ok_count", "anomaly_count", "confirmed_count", "failure_count")

COUNTED = """count() AS measurement_count, countIf(anomaly='f' AND confirmed='f' AND msm_failure='f') AS ok_count,
 countIf(anomaly='t' AND confirmed='f' AND msm_failure='f') AS anomaly_count,
 countIf(confirmed='t' AND msm_failure='f') AS confirmed_count, countIf(msm_failure='t') AS failure_count"""


@dataclass(frozen=True, slots=True)
class Question:
    """One line of the benchmark.

    `sql`: the same question to the yardstick; None when the route asks the database nothing, or answers from a body.
    `of_reply`, `of_rows`: what is compared of the two answers.
    """

    name: str
    group: str
    path: str
    sql: str | None = None
    of_reply: Callable[[Any], Digest] | None = None
    of_rows: Callable[[list[list[Any]]], Digest] | None = None


def path(route: str, **parameters: object) -> str:
    """Return a route with its parameters; those that are None are left out."""
    given = {name: value for name, value in parameters.items() if value is not None}
    return f"{route}?{urlencode(given)}" if given else route


def text(value: object) -> str:
    """Return a literal of the yardstick's SQL."""
    return "'" + str(value).replace("\\", "\\\\").replace("'", "\\'") + "'"


def sums(rows: list[list[Any]]) -> Digest:
    """Return the number of rows that end with the five counts, and the sums of these."""
    return [len(rows), *(sum(int(row[column - 5]) for row in rows) for column in range(5))]


def sums_of(objects: list[dict[str, Any]]) -> Digest:
    """Return the same of objects with the five counts."""
    return [len(objects), *(sum(item[name] for item in objects) for name in COUNTS)]
