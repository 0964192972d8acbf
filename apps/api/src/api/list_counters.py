"""Where rows of the list may be, from the counters of whole months: no month is visited that has none.

The counters are exact at every moment. What comes from here is an upper bound, since not every filter is counted.
"""

from collections.abc import Callable, Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from api.list_filter import Conditions, ListFilter
from api.list_order import Order
from core.counters import TABLES, CounterTable

Run = Callable[[str, Sequence[Any]], list[dict[str, Any]]]
"""Runs a statement with values and returns its rows."""

_MONTH = "measurement_start_month"
_SMALLEST_FIRST = sorted((table for table in TABLES if table.period == "month"), key=lambda table: len(table.keys))
_MONTHS_AT_ONCE = 400
"""Bounds what rows with impossible dates can cost; there are fewer months with possible ones."""


@dataclass(frozen=True, slots=True)
class Month:
    """A month, by its first day, and how many matching rows it has: at most, and about."""

    first_day: date
    most: int
    likely: int


@dataclass(slots=True)
class Value:
    """A value of the column that rows are sorted by, and its months; `complete` is false when some may be missing."""

    value: str | int
    months: dict[date, int]
    complete: bool

    @property
    def most(self) -> int:
        """How many matching rows it has at most."""
        return sum(self.months.values())


def months_with_rows(
    run: Run,
    wanted: ListFilter,
    first: date,
    last: date,
    *,
    descending: bool,
    sorted_by: tuple[Order, str | int] | None = None,
) -> tuple[list[Month], date]:
    """Return months from `first` to `last` that may have matching rows, in the order asked for.

    With `sorted_by`, only of rows with this value. Also returns the month that the answer reaches to: where there are
    very many months, ask again from there on.
    """
    needed = wanted.counted_columns() | ({sorted_by[0].column} if sorted_by else set())
    found: dict[date, Month] | None = None
    reached = first if descending else last
    for table in _tables(needed):
        where = _conditions(table, wanted, first, last)
        if sorted_by is not None and sorted_by[0].column in table.keys:
            where.equal(sorted_by[0].on_counters, [sorted_by[1]])
        direction = "DESC" if descending else "ASC"
        statement = f"""SELECT {_MONTH} AS month, sum({wanted.counted()})::bigint AS most,
                sum({wanted.counted(likely=True)})::bigint AS likely FROM {table.name}
            WHERE {where} GROUP BY 1 ORDER BY 1 {direction} LIMIT {_MONTHS_AT_ONCE}"""  # noqa: S608 constants
        rows = run(statement, where.values)
        months = {row["month"]: Month(row["month"], row["most"], row["likely"]) for row in rows}
        if len(months) == _MONTHS_AT_ONCE:
            reached = max(reached, min(months)) if descending else min(reached, max(months))
        if found is None:
            found = months
        else:
            found = {day: min(found[day], months[day], key=lambda month: month.most) for day in found if day in months}
    assert found is not None
    within = [month for day, month in found.items() if (day >= reached if descending else day <= reached)]
    return within, reached


def values_with_rows(
    run: Run, wanted: ListFilter, order: Order, after: str | int | None, at_most: int
) -> tuple[list[Value], bool]:
    """Return values that rows are sorted by, from the first one after `after` (None: from the start), in their order.

    About `at_most` rows of counters are read for it. The last value may be incomplete. Also returns whether these are
    all values that there are.
    """
    required = {order.column}
    if order.column == "test_name" and wanted.category is not None:
        required.add("input")  # most tests have no inputs, so none of any category
    table = _covering(wanted.counted_columns(), required)
    where = _conditions(table, wanted, wanted.since.date().replace(day=1), wanted.until.date())
    value = order.on_counters
    if after is not None:
        where.add(f"{value} {order.beyond} %s", after)
    statement = f"""SELECT {value} AS value, {_MONTH} AS month, {wanted.counted()} AS most FROM {table.name}
        WHERE {where} ORDER BY {value} {order.direction} LIMIT {at_most}"""  # noqa: S608 constants
    rows = run(statement, where.values)
    found: list[Value] = []
    for row in rows:
        if not found or found[-1].value != row["value"]:
            found.append(Value(row["value"], {}, complete=True))
        months = found[-1].months
        months[row["month"]] = months.get(row["month"], 0) + row["most"]
    everything = len(rows) < at_most
    if found and not everything:
        found[-1].complete = False
    return found, everything


def values_know_all(wanted: ListFilter, order: Order) -> bool:
    """Return whether `values_with_rows` takes all counted filters into account."""
    return wanted.counted_columns() <= set(_covering(wanted.counted_columns(), {order.column}).keys)


def _conditions(table: CounterTable, wanted: ListFilter, first: date, last: date) -> Conditions:
    where = wanted.on_counters(table.keys)
    where.add(f"{_MONTH} >= %s AND {_MONTH} <= %s", first, last)
    where.add(f"{wanted.counted()} > 0")
    return where


def _tables(needed: set[str]) -> Iterator[CounterTable]:
    """Yield the tables that together know most of the columns; none has both networks and inputs."""
    table = _covering(needed)
    yield table
    rest = needed - set(table.keys)
    if rest:
        yield _covering(needed - {"probe_asn"} if "probe_asn" in table.keys else needed - {"domain", "input"}, rest)


def _covering(needed: AbstractSet[str], required: AbstractSet[str] = frozenset()) -> CounterTable:
    """Return the smallest table with the required columns and as many of the needed ones as possible."""
    suited = [table for table in _SMALLEST_FIRST if required <= set(table.keys)]
    return max(suited, key=lambda table: len(needed & set(table.keys)))


def first_of_month(moment: datetime | date) -> date:
    """Return the first day of a month."""
    return date(moment.year, moment.month, 1)
