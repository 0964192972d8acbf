"""Job `update-counters`: prove that the counters equal the rows, and correct those that do not.

Which days. Counters are kept by whoever writes rows, so in ordinary life there is nothing to do; errors come from rows
changed by hand, restored tables or defects, and can be on any day. Every run compares the window (the last days of
measurement start, where charts are looked at and rows arrive) and some days outside it, going round all of them with a
cursor kept in a file. So an error in the window is found by the next run, and any other one within (number of days) /
(days per run) runs. `--full` compares all days at once.

Which months. The counters of a month are compared with those of its days, each month once, after the days. To read a
month is much, so a run without dates takes the months of the window, those of days that were wrong, and one other in
turn, with a cursor of its own. A run with dates takes the months of its days, `--full` all, also those that have
counters and no days. A dry run leaves out those with a day that is wrong.

A counter that counts nothing says no wrong number, but names what a probe sent, also after a takedown. Each run that is
not a dry one deletes those of the days and months that it compares.

A day with counters but without rows is not touched unless `--empty-days` says so: its partition may just be detached.
Likewise a month with counters but without days.
"""

import tempfile
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import structlog

from analysis.config import AnalysisSettings
from analysis.metrics import Metrics
from analysis.store import Check, Difference, Store
from core.counters import Period
from core.log import quote

CURSOR_FILE = "update-counters.day"
MONTH_CURSOR_FILE = "update-counters.month"
CLOCK_AHEAD = timedelta(days=2)
"""Probes whose clock is ahead by no more than this belong to the window."""

SHOWN = 100
"""How many characters of each text are shown; probes choose these texts."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What one run shall do."""

    since: date | None = None
    until: date | None = None
    full: bool = False
    dry_run: bool = False
    empty_days: bool = False


@dataclass(slots=True)
class Summary:
    """What one run did. `refused`: days left alone because they have counters but no rows, and such months."""

    days: int = 0
    months: int = 0
    measurements: int = 0
    different: int = 0
    repaired: int = 0
    refused: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        """One sentence for the operator."""
        compared = f"compared {self.days} days with {self.measurements} measurements, and {self.months} months"
        if not self.different:
            return f"{compared}: counters equal rows"
        return f"{compared}: {self.different} counters were wrong, {self.repaired} corrected"


def update_counters(
    store: Store, settings: AnalysisSettings, metrics: Metrics, wanted: Wanted, show: "Show | None" = None
) -> Summary:
    """Compare and repair the days that `wanted` names; see the module for which these are without dates.

    `show` is told about every wrong counter that is looked at. Raises AnotherRun, StoreError, DatabaseUnavailable,
    OSError.
    """
    store.counters_lock()
    summary = Summary()
    months: set[date] = set()
    unsure: set[date] = set()
    in_turn = None if wanted.full or wanted.since or wanted.until else _Turn(store, settings)
    for day in _days(store, settings, wanted):
        check = _compare(store, "day", day, wanted, summary, show)
        summary.days += 1
        summary.measurements += check.measurements
        month = day.replace(day=1)
        if in_turn is None or check.wrong or in_turn.in_window(day):
            months.add(month)
        if check.wrong and wanted.dry_run:
            unsure.add(month)
        _report(summary, metrics)
    if wanted.full:
        months.update(_months(store))
    turn = in_turn.month(months) if in_turn is not None else None
    if turn is not None:
        months.add(turn)
    for month in sorted(months, reverse=True):
        if month in unsure:
            if show is not None:
                show.unsure(month)
            continue
        _compare(store, "month", month, wanted, summary, show)
        summary.months += 1
        _report(summary, metrics)
    if in_turn is not None and turn is not None and not wanted.dry_run:
        in_turn.cursor.write(turn)
    return summary


class Show:
    """Prints wrong counters, one line each."""

    def difference(self, check: Check, difference: Difference) -> None:
        """Print one of them, with the five counts before and after."""
        key = " ".join(quote(str(value)[:SHOWN]) for value in difference.key)
        before, after = ("/".join(map(str, counts)) for counts in (difference.counted, difference.actual))
        print(f"{check} {difference.table} {key}: {before} -> {after}")

    def more(self, check: Check, table: str, number: int) -> None:
        """Print how many there are that were not shown."""
        print(f"{check} {table}: {number} more")

    def unsure(self, month: date) -> None:
        """Print that a month cannot be compared as long as its days are wrong."""
        print(f"{str(month)[:7]}: not compared, because counters of its days are wrong")


def _compare(store: Store, period: Period, start: date, wanted: Wanted, summary: Summary, show: Show | None) -> Check:
    check = store.check(period, start)
    if check.wrong:
        _settle(store, check, wanted, summary, show)
    if not wanted.dry_run:
        store.drop_zeros(period, start)
    return check


def _settle(store: Store, check: Check, wanted: Wanted, summary: Summary, show: Show | None) -> None:
    """Show what is wrong, and repair it unless that was not wanted."""
    period = check.period
    wrong = sum(check.wrong.values())
    summary.different += wrong
    if show is not None:
        for difference in check.examples:
            show.difference(check, difference)
        for table, number in check.wrong.items():
            shown = sum(difference.table == table for difference in check.examples)
            if number > shown:
                show.more(check, table, number - shown)
    if check.rows_are_gone and not wanted.empty_days:
        summary.refused.append(str(check))
        log.error(_REFUSED[period], **{period: str(check)}, counted=check.counted)
        return
    if not wanted.dry_run:
        repaired = store.repair(check)
        summary.repaired += repaired
        log.warning(
            "counters corrected",
            **{period: str(check)},
            wrong=wrong,
            corrected=repaired,
            measurements=check.measurements,
        )


_REFUSED: dict[Period, str] = {
    "day": "day has counters but no rows and is left alone; attach its partition, or repeat with --full --empty-days",
    "month": "month has counters but none of its days has, and is left alone; if it has no rows, repeat with --full "
    "--empty-days",
}


def _report(summary: Summary, metrics: Metrics) -> None:
    metrics.counters_checked_days.set(summary.days)
    metrics.counters_checked_months.set(summary.months)
    metrics.counters_different_rows.set(summary.different)
    metrics.counters_repaired_rows.set(summary.repaired)
    metrics.counters_refused_days.set(len(summary.refused))


def _months(store: Store) -> Iterator[date]:
    """All months that have counters of the month, newest first."""
    month = store.newest_month(None)
    while month is not None:
        yield month
        month = store.newest_month(month)


def _days(store: Store, settings: AnalysisSettings, wanted: Wanted) -> Iterator[date]:
    """The days to compare, newest first. The cursor moves on after the day that it names was compared."""
    if wanted.full:
        yield from _down(store, None, None)
        return
    if wanted.since or wanted.until:
        yield from _down(store, wanted.until + timedelta(days=1) if wanted.until else None, wanted.since)
        return
    today = store.today()
    oldest, newest = _window(today, settings)
    yield from _down(store, newest + timedelta(days=1), oldest)
    cursor = Cursor(settings.state_root / CURSOR_FILE)
    for day in _sweep(store, cursor.read(), settings.counters_sweep_days, oldest, newest):
        yield day
        if not wanted.dry_run:
            cursor.write(day)


def _window(today: date, settings: AnalysisSettings) -> tuple[date, date]:
    """The first and the last day that every run compares."""
    return today - timedelta(days=settings.counters_window_days - 1), today + CLOCK_AHEAD


class _Turn:
    """Which month, of those that have days outside the window, is compared by a run without dates."""

    def __init__(self, store: Store, settings: AnalysisSettings) -> None:
        self._store = store
        self._sweeps = settings.counters_sweep_days > 0
        self._window = _window(store.today(), settings)
        self.cursor = Cursor(settings.state_root / MONTH_CURSOR_FILE)

    def in_window(self, day: date) -> bool:
        return self._window[0] <= day <= self._window[1]

    def month(self, others: Collection[date]) -> date | None:
        """The next month downwards from the cursor, then round from the top, that is not among `others`."""
        if not self._sweeps:
            return None
        last = self.cursor.read()
        for before in (last, None)[last is None :]:
            day = self._store.newest_day(before)
            while day is not None and day.replace(day=1) in others:
                day = self._store.newest_day(day.replace(day=1))
            if day is not None:
                return day.replace(day=1)
        return None


def _down(store: Store, before: date | None, oldest: date | None) -> Iterator[date]:
    day = store.newest_day(before)
    while day is not None and (oldest is None or day >= oldest):
        yield day
        day = store.newest_day(day)


def _sweep(store: Store, cursor: date | None, number: int, oldest: date, newest: date) -> Iterator[date]:
    """At most `number` days outside the window, downwards from `cursor`, then round from the top; none twice."""
    before, wrapped = cursor, cursor is None
    for _ in range(number):
        day = store.newest_day(before)
        if day is not None and oldest <= day <= newest:
            day = store.newest_day(oldest)
        if day is None and not wrapped:
            wrapped = True
            day = store.newest_day(None)
            if day is not None and oldest <= day <= newest:
                day = store.newest_day(oldest)
        if day is None or (wrapped and cursor is not None and day < cursor):
            return
        yield day
        before = day


class Cursor:
    """A day in a small file; an absent or damaged file counts as none, which only begins a new round."""

    def __init__(self, path: Path) -> None:
        """Keep it in `path`."""
        self._path = path

    def read(self) -> date | None:
        """Return the day, if any."""
        try:
            return date.fromisoformat(self._path.read_text("utf-8").strip())
        except (OSError, ValueError):
            return None

    def write(self, day: date) -> None:
        """Replace the file. Raises OSError."""
        descriptor, temporary = tempfile.mkstemp(dir=self._path.parent, prefix=f".{self._path.name}.")
        try:
            with open(descriptor, "w", encoding="utf-8") as file:
                file.write(f"{day.isoformat()}\n")
            Path(temporary).replace(self._path)
        except OSError:
            Path(temporary).unlink(missing_ok=True)
            raise
