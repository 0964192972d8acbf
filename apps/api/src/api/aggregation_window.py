"""How a window of time is covered by counters of months, counters of days, and single rows.

Whole months come from tables of months where the question allows it, days from tables of days. A bound with a time of
day splits its day: the smaller part of that day is read from the rows, and is added or taken off.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from typing import Literal

_NOON = time(12)
_DAY = timedelta(days=1)

Source = Literal["month", "day", "rows"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Measurements that started in [start, end), None being no bound.

    Attributes:
        source: where they are counted. The bounds are dates for days, first days for months, times for rows.
        sign: 1 for what counts, -1 for what another piece counts too much.
    """

    source: Source
    start: date | None
    end: date | None
    sign: Literal[1, -1] = 1


def pieces(since: datetime | None, until: datetime | None, *, months: bool) -> list[Piece]:
    """Return what [since, until) consists of; with `months` whole months may be taken together."""
    if since is not None and until is not None and since.date() == until.date():
        return _rows(since, until)
    first, before = (None, []) if since is None else _first_day(since)
    end, after = (None, []) if until is None else _end_of_days(until)
    return [*_days(first, end, months=months), *before, *after]


def _first_day(since: datetime) -> tuple[date, list[Piece]]:
    """Return the first day that is taken as a whole, and what that makes too little or too much."""
    day = since.date()
    midnight = datetime.combine(day, time.min)
    if since.time() <= _NOON or day == date.max:
        return day, _rows(midnight, since, sign=-1)
    return day + _DAY, _rows(since, midnight + _DAY)


def _end_of_days(until: datetime) -> tuple[date, list[Piece]]:
    """Return the day before which days are taken as a whole, and what that makes too little or too much."""
    day = until.date()
    midnight = datetime.combine(day, time.min)
    if until.time() <= _NOON or day == date.max:
        return day, _rows(midnight, until)
    return day + _DAY, _rows(until, midnight + _DAY, sign=-1)


def _rows(start: datetime, end: datetime, sign: Literal[1, -1] = 1) -> list[Piece]:
    return [Piece("rows", start, end, sign)] if start < end else []


def _days(first: date | None, end: date | None, *, months: bool) -> Iterator[Piece]:
    first_month = None if first is None else _month_from(first)
    end_month = None if end is None else end.replace(day=1)
    if not months or (first_month is not None and end_month is not None and first_month >= end_month):
        if first is None or end is None or first < end:
            yield Piece("day", first, end)
        return
    yield Piece("month", first_month, end_month)
    if first is not None and first != first_month:
        yield Piece("day", first, first_month)
    if end is not None and end != end_month:
        yield Piece("day", end_month, end)


def _month_from(day: date) -> date:
    """Return the first day of the first month that does not begin before `day`."""
    if day.day == 1:
        return day
    if (day.year, day.month) == (date.max.year, date.max.month):
        return date.max  # there is no next month; no month has this first day either, and no measurement starts on it
    return (day.replace(day=28) + timedelta(days=4)).replace(day=1)
