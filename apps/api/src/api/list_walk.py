"""Walks through the measurements in one of the orders, month by month, until there are enough.

The table has a partition for each of some 180 months. A statement on all of them takes 0.1 s to plan and locks
thousands of relations, so each statement here names a few months, those where there may be rows. Why:
docs/adr/0017-the-list-goes-month-by-month.md.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import count as counting
from typing import Any

from api.list_counters import (
    Month,
    Run,
    Value,
    first_of_month,
    months_with_rows,
    values_know_all,
    values_with_rows,
)
from api.list_filter import START, Conditions, ListFilter
from api.list_names import Form, NameForms
from api.list_order import VALUE, Order, Position

Row = dict[str, Any]

_UNASKED = 2
"""Months at the begin of a walk that are visited without asking whether there is anything: mostly there is."""

_MONTHS_IN_STATEMENT = 12
_SPANS = (24, 96)
"""How many months the first questions are about; the last one is about the rest."""

_FEW_MONTHS = 3
"""A window of so many months is sorted by the database in one statement."""

_FIRST_READ = 500
_FEW_ROWS = 3_000
"""So many rows are sorted year by year, instead of looked for value by value."""

_MANY_ROWS = 50_000
"""So many rows can be sorted by the name of the test, for which there is no index."""

_SAFELY_SORTED, _SORTED_IF_RELATED = 2_000, 20_000
"""So many rows per statement are found by the filters and sorted then, instead of looked for in their order."""

_UNKNOWN = 2**62


class Walk:
    """One walk; its rows have the given columns, uid, start time and input among them, and the order's value."""

    def __init__(self, run: Run, wanted: ListFilter, order: Order, columns: str) -> None:
        """Take what runs statements, what is wanted, in which order, and columns as SQL."""
        self._run = run
        self._wanted = wanted
        self._order = order
        self._columns = columns
        self._names = NameForms(run)
        last_month = first_of_month(datetime.now(UTC).replace(day=1) - timedelta(days=1))
        self._recent = {last_month, _month(_number(last_month) + 1)}

    def take(self, count: int, after: Position | None = None) -> list[Row]:
        """Return the first `count` rows after a position, or fewer when there are no more."""
        if self._wanted.report_id is not None:
            return self._statement(Conditions(), count, after)
        if self._order.by_time:
            return self._by_time(count, after)
        low, high = self._whole_window()
        if self._order.column != "test_name" and high - low < _FEW_MONTHS:
            few = self._wanted.is_selective() and self._are_few(self._counted_months(low, high, None))
            return self._statement(Conditions(), count, after, all_first=few)
        return self._by_value(count, after)

    def _by_time(
        self,
        count: int,
        after: Position | None,
        value: str | int | None = None,
        known: Sequence[Month] | None = None,
    ) -> list[Row]:
        """Return rows in the order of time, all of them with the value if there is one."""
        rows: list[Row] = []
        months = known if known is not None else self._months(after, value)
        for group in self._groups(months, lambda: count - len(rows)):
            where = Conditions()
            _within(where, group)
            values = None if value is None else [value]
            rows.extend(self._statement(where, count - len(rows), after, values=values))
            if len(rows) >= count:
                break
        return rows

    def _by_value(self, count: int, after: Position | None) -> list[Row]:
        """Return rows in the order of the values, by the cheaper of two ways."""
        by_name = self._order.column == "test_name"
        if not self._wanted.is_selective() or (self._order.column == "probe_cc" and self._is_counted_by_value()):
            return self._value_by_value(count, after)
        months = list(self._counted_months(*self._whole_window(), None))
        likely = sum(month.likely for month in months)
        if by_name and not self._wanted.has_versions():
            sort = likely <= _MANY_ROWS  # there is no index that gives the order of names
        else:
            sort = likely <= _FEW_ROWS or not self._is_counted_by_value()
        return self._merged(months, count, after) if sort else self._value_by_value(count, after)

    def _are_few(self, months: Iterable[Month]) -> bool:
        """Return whether the matching rows of these months are better looked up all than looked for in their order."""
        # A country has networks of its own, so they are anywhere in the order of networks but in proportion.
        related = (self._order.column == "probe_asn" and self._wanted.countries) or (
            self._order.column == "probe_cc" and self._wanted.networks
        )
        return sum(month.likely for month in months) <= (_SORTED_IF_RELATED if related else _SAFELY_SORTED)

    def _is_counted_by_value(self) -> bool:
        return values_know_all(self._wanted, self._order) and not self._wanted.is_loosely_counted()

    def _merged(self, months: Sequence[Month], count: int, after: Position | None) -> list[Row]:
        """Return rows that the database sorts year by year, by whichever index suits the filters."""
        rows: list[Row] = []
        for begin in range(0, len(months), _MONTHS_IN_STATEMENT):
            group = months[begin : begin + _MONTHS_IN_STATEMENT]
            where = Conditions()
            _within(where, [month.first_day for month in group])
            rows += self._statement(where, count, after, all_first=self._are_few(group))
        values = list({row[VALUE] for row in rows})
        if values and isinstance(values[0], str):
            values = [row["v"] for row in self._run("SELECT v FROM unnest(%s::text[]) AS v ORDER BY v", [values])]
        else:
            values.sort()
        self._sort(rows, values[::-1] if self._order.descending else values)
        return rows[:count]

    def _value_by_value(self, count: int, after: Position | None) -> list[Row]:
        """Return rows of one value after the other; the counters tell which there are."""
        rows: list[Row] = []
        bound = None
        if after is not None:
            bound = after.value
            rows = self._by_time(count, after, bound)
        for round_ in counting():
            if len(rows) >= count:
                return rows[:count]
            at_most = _FIRST_READ << min(round_, 4)
            values, everything = values_with_rows(self._run, self._wanted, self._order, bound, at_most)
            while values and len(rows) < count:
                fitting = _fitting(values, count - len(rows))
                if fitting:
                    rows += self._all_of(values[:fitting])
                else:
                    known = self._months_of(values[0]) if values[0].complete else None
                    rows += self._by_time(count - len(rows), None, values[0].value, known)
                bound = values[max(fitting, 1) - 1].value
                del values[: max(fitting, 1)]
            if everything:
                return rows[:count]
        raise AssertionError("the loop above has no end")

    def _months_of(self, value: Value) -> list[Month]:
        days = sorted(value.months, reverse=self._order.descending)
        return [Month(day, value.months[day], value.months[day]) for day in days]

    def _all_of(self, values: Sequence[Value]) -> list[Row]:
        """Return all rows with one of the values, which are not many."""
        months = sorted({month for value in values for month in value.months})
        rows: list[Row] = []
        for begin in range(0, len(months), _MONTHS_IN_STATEMENT):
            where = Conditions()
            _within(where, months[begin : begin + _MONTHS_IN_STATEMENT])
            rows += self._statement(where, None, None, values=[value.value for value in values])
        self._sort(rows, [value.value for value in values])
        return rows

    def _sort(self, rows: list[Row], values: Sequence[str | int]) -> None:
        """Sort rows, of which each month is sorted, by the order of their values and by time."""
        ranks = {value: rank for rank, value in enumerate(values)}
        # Both sorts leave rows as they are that do not differ here: those of one time differ in the uid.
        rows.sort(key=lambda row: row[START], reverse=self._order.descending)
        rows.sort(key=lambda row: ranks[row[VALUE]])

    def _statement(
        self,
        where: Conditions,
        count: int | None,
        after: Position | None,
        *,
        values: Sequence[str | int] | None = None,
        all_first: bool = False,
    ) -> list[Row]:
        """Return rows in the order of the walk, with one of the values if they are given.

        With `all_first` all that match, which are not many, are looked up. Without, the database may go through rows in
        their order until enough of them match. It knows nothing of what goes together, such as networks and countries,
        so for few matches it may go through nearly all.
        """
        order, category = self._order, self._wanted.category
        first = "" if order.by_time else f"{VALUE} {order.direction}, "
        sorting = f"ORDER BY {first}{START} {order.direction}, measurement_uid {order.direction}"
        limit = "" if count is None else f"LIMIT {count}"
        forms, choices = [Form.ANY], self._test_names(values)
        in_order = count is not None and not all_first and category is None and self._wanted.report_id is None
        if choices and in_order:
            # Alternatives in a condition would cost the order of the index on names, so each form is read alone.
            forms = self._names.forms(*choices)
        parts: list[str] = []
        placed: list[Any] = []
        for form in forms:
            all_of = self._conditions(where, after, values, form)
            source = "fastpath" if self._wanted.report_id is None else "fastpath_by_report_id(%s) AS fastpath"
            columns = f"{self._columns}, {order.on_rows} AS {VALUE}"
            parts.append(f"SELECT {columns} FROM {source} WHERE {all_of}")  # noqa: S608 constants
            placed += ([] if self._wanted.report_id is None else [self._wanted.report_id]) + all_of.values
        statement = parts[0] if len(parts) == 1 else " UNION ALL ".join(f"({part} {sorting} {limit})" for part in parts)
        if all_first or category is not None:
            # OFFSET 0 keeps the outer conditions and the limit from changing how the rows are found.
            inner = f"{statement} {'' if all_first else sorting} OFFSET 0"
            statement = f"SELECT * FROM ({inner}) AS matching"  # noqa: S608 constants
        if category is not None:
            # Out here the URLs are gathered once, not for each partition. As a join, which IS TRUE prevents, they would
            # cost the order of the rows, so that all of them had to be sorted.
            statement += " WHERE (input IN (SELECT url FROM citizenlab WHERE category_code = %s)) IS TRUE"
            placed.append(category)
        return self._run(f"{statement} {sorting} {limit}", placed)

    def _conditions(
        self, where: Conditions, after: Position | None, values: Sequence[str | int] | None, form: Form
    ) -> Conditions:
        """Return all conditions on rows of fastpath, on those whose test has its name in this form."""
        all_of = self._wanted.on_rows()
        if self._wanted.since != datetime.min:  # noqa: DTZ901 stands for no bound
            all_of.add(f"{START} > %s", self._wanted.since)
        if self._wanted.until != datetime.max:  # noqa: DTZ901 stands for no bound
            all_of.add(f"{START} <= %s", self._wanted.until)
        for names in self._test_names(values):
            named = self._names.equal(names, form)
            all_of.add(str(named), *named.values)
        if values is not None and self._order.column != "test_name":
            all_of.equal(self._order.on_rows, values)
        all_of.add(str(where), *where.values)
        if after is not None:
            self._order.after(all_of, after, same_value=values is not None)
        return all_of

    def _test_names(self, values: Sequence[str | int] | None) -> list[Sequence[str]]:
        """Return the choices of names that a row must be in: those wanted, and the values if they are names."""
        choices: list[Sequence[str]] = [self._wanted.test_names] if self._wanted.test_names else []
        if values is not None and self._order.column == "test_name":
            choices.append([str(value) for value in values])
        return choices

    def _groups(self, months: Iterator[Month] | Sequence[Month], needed: Callable[[], int]) -> Iterator[list[date]]:
        """Yield months in groups that one statement each is made for; `needed` is how many rows are still missing."""
        least = _UNASKED
        group: list[date] = []
        most = 0
        for month in months:
            group.append(month.first_day)
            most += month.most
            if len(group) == _MONTHS_IN_STATEMENT or (len(group) >= least and most >= needed()):
                before = needed()
                yield group
                # A month is enough when the counters were right. When they cannot know all filters, take more and more.
                disappointed = most < _UNKNOWN and before - needed() < min(before, most)
                least = min(2 * least, _MONTHS_IN_STATEMENT) if disappointed else 1
                group, most = [], 0
        if group:
            yield group

    def _whole_window(self) -> tuple[int, int]:
        """Return the numbers of the first and the last month of the window."""
        return _number(first_of_month(self._wanted.since)), _number(first_of_month(self._wanted.until))

    def _window(self, after: Position | None) -> tuple[int, int]:
        """Return the numbers of the first and the last month that are left, in the order of time, after a position."""
        low, high = self._whole_window()
        if after is None:
            return low, high
        reached = _number(first_of_month(after.start))
        return (low, min(high, reached)) if self._order.descending else (max(low, reached), high)

    def _months(self, after: Position | None, value: str | int | None) -> Iterator[Month]:
        """Yield the months that may have rows, in the order of the walk."""
        low, high = self._window(after)
        if value is None:
            months = range(low, high + 1)
            for number in months[: -_UNASKED - 1 : -1] if self._order.descending else months[:_UNASKED]:
                yield Month(_month(number), _UNKNOWN, _UNKNOWN)
            low, high = (low, high - _UNASKED) if self._order.descending else (low + _UNASKED, high)
        yield from self._counted_months(low, high, value)

    def _counted_months(self, low: int, high: int, value: str | int | None) -> Iterator[Month]:
        """Yield those from `low` to `high` that the counters have rows in, asking for more and more at a time."""
        spans = iter(_SPANS)
        while low <= high:
            span = next(spans, high - low + 1)
            descending = self._order.descending
            first, last = (max(low, high - span + 1), high) if descending else (low, min(high, low + span - 1))
            found, reached = self._asked(_month(first), _month(last), value)
            yield from found
            low, high = (low, _number(reached) - 1) if descending else (_number(reached) + 1, high)

    def _asked(self, first: date, last: date, value: str | int | None) -> tuple[list[Month], date]:
        """Return the months that the counters have rows in, and recent ones; and the month that this reaches to."""
        sorted_by = None if value is None else (self._order, value)
        descending = self._order.descending
        found, reached = months_with_rows(
            self._run, self._wanted, first, last, descending=descending, sorted_by=sorted_by
        )
        months = {month.first_day: month for month in found}
        if value is None:
            # While hosts are upgraded one after the other, some still write rows without counting them by month.
            low, high = (reached, last) if descending else (first, reached)
            months = {month: Month(month, 0, 0) for month in self._recent if low <= month <= high} | months
        return [months[day] for day in sorted(months, reverse=descending)], reached


def _fitting(values: Sequence[Value], size: int) -> int:
    """Return how many values at the begin have `size` rows at most, taken together."""
    total = 0
    for number, value in enumerate(values):
        total += value.most
        if total > size or not value.complete:
            return number
    return len(values)


def _within(where: Conditions, months: Sequence[date]) -> None:
    """Add that rows start in one of the months."""
    ranges: list[list[int]] = []
    for number in sorted(map(_number, months)):
        if ranges and ranges[-1][1] == number:
            ranges[-1][1] = number + 1
        else:
            ranges.append([number, number + 1])
    texts: list[str] = []
    values: list[date] = []
    for low, high in ranges:
        # No start time that can be read is later than the last month of the calendar.
        texts.append(f"({START} >= %s AND {START} < %s)" if high <= _LAST_MONTH else f"({START} >= %s)")
        values += [_month(low), _month(high)] if high <= _LAST_MONTH else [_month(low)]
    where.add(f"({' OR '.join(texts)})", *values)


def _number(first_day: date) -> int:
    """Return the number of a month, counted through."""
    return first_day.year * 12 + first_day.month - 1


def _month(number: int) -> date:
    return date(number // 12, number % 12 + 1, 1)


_LAST_MONTH = _number(date.max)
