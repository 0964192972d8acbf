"""Job `update-counters`: prove that the counters equal the rows, and correct those that do not.

Which days. Counters are kept by whoever writes rows, so in ordinary life there is nothing to do; errors come from rows
changed by hand, restored tables or defects, and can be on any day. Every run compares the window (the last days of
measurement start, where charts are looked at and rows arrive) and some days outside it, going round all of them with a
cursor kept in a file. So an error in the window is found by the next run, and any other one within (number of days) /
(days per run) runs. `--full` compares all days at once.

A day with counters but without rows is not touched unless `--empty-days` says so: its partition may just be detached.
"""

import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import date, timedelta
from pathlib import Path

import structlog

from analysis.config import AnalysisSettings
from analysis.metrics import Metrics
from analysis.store import Difference, Store
from core.log import quote

CURSOR_FILE = "update-counters.day"
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
    """What one run did. `refused`: days left alone because they have counters but no rows."""

    days: int = 0
    measurements: int = 0
    different: int = 0
    repaired: int = 0
    refused: list[date] = field(default_factory=list)

    def __str__(self) -> str:
        """One sentence for the operator."""
        compared = f"compared {self.days} days with {self.measurements} measurements"
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
    for day in _days(store, settings, wanted):
        _compare(store, day, wanted, summary, show)
        metrics.counters_checked_days.set(summary.days)
        metrics.counters_different_rows.set(summary.different)
        metrics.counters_repaired_rows.set(summary.repaired)
        metrics.counters_refused_days.set(len(summary.refused))
    return summary


class Show:
    """Prints wrong counters, one line each."""

    def difference(self, day: date, difference: Difference) -> None:
        """Print one of them, with the five counts before and after."""
        key = " ".join(quote(str(value)[:SHOWN]) for value in difference.key)
        before, after = ("/".join(map(str, counts)) for counts in (difference.counted, difference.actual))
        print(f"{day} {difference.table} {key}: {before} -> {after}")

    def more(self, day: date, table: str, number: int) -> None:
        """Print how many there are that were not shown."""
        print(f"{day} {table}: {number} more")


def _compare(store: Store, day: date, wanted: Wanted, summary: Summary, show: Show | None) -> None:
    check = store.check_day(day)
    summary.days += 1
    summary.measurements += check.measurements
    if not check.wrong:
        return
    wrong = sum(check.wrong.values())
    summary.different += wrong
    if show is not None:
        for difference in check.examples:
            show.difference(day, difference)
        for table, number in check.wrong.items():
            shown = sum(difference.table == table for difference in check.examples)
            if number > shown:
                show.more(day, table, number - shown)
    if check.rows_are_gone and not wanted.empty_days:
        summary.refused.append(day)
        log.error(
            "day has counters but no rows and is left alone; attach its partition, or repeat with --full --empty-days",
            day=str(day),
            counted=check.counted,
        )
        return
    if wanted.dry_run:
        return
    repaired = store.repair_day(day)
    summary.repaired += repaired
    log.warning("counters corrected", day=str(day), wrong=wrong, corrected=repaired, measurements=check.measurements)


def _days(store: Store, settings: AnalysisSettings, wanted: Wanted) -> Iterator[date]:
    """The days to compare, newest first. The cursor moves on after the day that it names was compared."""
    if wanted.full:
        yield from _down(store, None, None)
        return
    if wanted.since or wanted.until:
        yield from _down(store, wanted.until + timedelta(days=1) if wanted.until else None, wanted.since)
        return
    today = store.today()
    newest, oldest = today + CLOCK_AHEAD, today - timedelta(days=settings.counters_window_days - 1)
    yield from _down(store, newest + timedelta(days=1), oldest)
    cursor = Cursor(settings.state_root / CURSOR_FILE)
    for day in _sweep(store, cursor.read(), settings.counters_sweep_days, oldest, newest):
        yield day
        if not wanted.dry_run:
            cursor.write(day)


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
