"""How long tests of circumvention tools take: median and 90th percentile by test, country and day.

Counters hold no runtimes, and six months of these tests are a tenth of all rows, so the percentiles of a day are worked
out once, from the rows of that day alone (their index leads there), and kept, with the number of its measurements and
the moment. What holds:

- A day with more or fewer measurements than when it was worked out (late ones, takedowns) is worked out anew before
  anything is answered. To find such days, whole months are compared first.
- What leaves the numbers alone does not show in them: a rerun that changes runtimes, or as many late measurements of a
  month as takedowns. So when a rerun or a takedown has finished, and after a week in any case, days are renewed: each
  request renews some, for about `RENEWAL_S`, and answers with what there is. Until a day's turn comes its values are
  those of the moment when it was worked out.
- While a rerun goes on, and when it never finishes, its new runtimes are found by the week alone.

Why here and not in a table: the API only reads the database, and a day costs milliseconds. The days are kept in memory,
and in a file of the state directory, which all workers of a host share and which may be deleted at any time. Only the
first request on a new host works out all days; with very many rows it takes several, which are told to come again.
"""

import json
import os
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import structlog

from api.errors import ApiError
from api.reading import Reader, Row
from api.statistics_asked import LATER, ONE_DAY, Days

TESTS = ("psiphon", "riseupvpn", "stunreachability", "tor", "torsf")
RUNTIME_COLUMNS = ("test_name", "probe_cc", "date", "p50", "p90", "count")

FILE_NAME = "runtimes.json"
BUDGET_S = 10.0
"""How long one request works out days before the next one has to go on."""

RENEWAL_S = 2.0
"""How long one request renews days that may have changed, while it could answer at once."""

LONGEST_AGE = timedelta(days=7)
"""Days that were worked out longer ago are renewed."""

MOST_WAITING = 2
"""Requests of a worker that wait for another one that works out days; more are told to come again."""

_PATIENCE_S = 5.0

_TIMEOUT_S = 20.0
_ROWS_AT_ONCE = 200_000

# By the clock of the database, before anything else is read.
_MOMENT = """
SELECT now() AS now, greatest((SELECT max(finished_at) FROM rerun), (SELECT max(finished_at) FROM takedown_audit)) AS
    changed"""

_MONTHS = """
SELECT measurement_start_month AS month, sum(measurement_count)::bigint AS counted FROM counters_month_country
WHERE test_name = ANY(%(tests)s) AND measurement_start_month BETWEEN date_trunc('month', %(since)s::date)::date
    AND %(until)s GROUP BY 1"""

_COUNTED = """
SELECT measurement_start_day AS day, sum(measurement_count)::bigint AS counted FROM counters_country
WHERE test_name = ANY(%(tests)s) AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s
GROUP BY 1 HAVING sum(measurement_count) > 0"""

# Rows without a runtime, and with one that is no time, are left out.
_RUNTIMES = """
SELECT measurement_start_time::date AS day, test_name::text AS test_name, probe_cc, count(*) AS count,
    percentile_cont(ARRAY[0.5, 0.9]) WITHIN GROUP (ORDER BY test_runtime) AS percentiles
FROM fastpath
WHERE test_name = ANY(%(tests)s::ootest[])
    AND measurement_start_time >= %(since)s AND measurement_start_time < %(until)s
    AND test_runtime >= 0 AND test_runtime < 'Infinity'
GROUP BY 1, 2, 3"""

log = structlog.get_logger(__name__)


class Found(msgspec.Struct, frozen=True, array_like=True):
    """The runtimes of one test in one country on one day, in seconds, and how many there are."""

    test_name: str
    probe_cc: str
    p50: float
    p90: float
    count: int


class OneDay(msgspec.Struct, frozen=True):
    """What is known of one day: how many measurements it was worked out from, with or without a runtime, and when."""

    counted: int
    moment: datetime
    found: list[Found]


class _File(msgspec.Struct, frozen=True):
    tests: tuple[str, ...]
    days: dict[date, OneDay]


class _Made(NamedTuple):
    """What is answered for a window: its days that have measurements, and the reply as text."""

    days: Days
    known: dict[date, OneDay]
    reply: str


class Runtimes:
    """The days of one worker process."""

    def __init__(self, reader: Reader, directory: Path) -> None:
        """Read from the database with `reader`, and keep a file in `directory`."""
        self._reader = reader
        self._path = directory / FILE_NAME
        self._lock = threading.Lock()
        self._waiting = threading.BoundedSemaphore(MOST_WAITING)
        self._days: dict[date, OneDay] = {}
        # The window that was compared last, with the measurements of each of its months.
        self._checked: tuple[Days, dict[date, int]] | None = None
        self._made: _Made | None = None

    def rows(self, days: Days) -> list[dict[str, Any]]:
        """Return what there is for `days`, by day, test and country, with the keys `RUNTIME_COLUMNS`.

        Raises:
            ApiError: 503 when days are still being worked out, 504 when one takes too long.
            DatabaseUnavailable, psycopg.Error: the database is away, or a query failed.
        """
        known = self._current(days).known
        return [
            {"date": day, **{name: getattr(found, name) for name in RUNTIME_COLUMNS if name != "date"}}
            for day in sorted(known)
            for found in sorted(known[day].found, key=lambda found: (found.test_name, found.probe_cc))
        ]

    def reply(self, days: Days) -> str:
        """Return the whole reply as JSON: every test with every country and day that occurs. Raises as `rows`."""
        return self._current(days).reply

    def _current(self, days: Days) -> _Made:
        """Return what there is for `days`, as the counters have it now, or had when another request looked just now."""
        made = self._made
        usable = made is not None and made.days == days
        if not self._take_lock(wait=not usable):
            if usable and made is not None:
                return made
            raise _unfinished()
        try:
            self._refresh(days)
            if self._made is None or self._made.days != days:
                known = {day: known for day, known in self._days.items() if days.since <= day < days.until}
                self._made = _Made(days, known, _as_json(known))
            return self._made
        finally:
            self._lock.release()

    def _take_lock(self, *, wait: bool) -> bool:
        """Take the lock; wait for it if that is wanted and few others do, since who waits occupies a thread."""
        if self._lock.acquire(blocking=False):
            return True
        if not wait or not self._waiting.acquire(blocking=False):
            return False
        try:
            return self._lock.acquire(timeout=_PATIENCE_S)
        finally:
            self._waiting.release()

    def _refresh(self, days: Days) -> None:
        (moment,) = self._reader.rows(_MOMENT)
        values = {"tests": list(TESTS), **days._asdict()}
        months = {row["month"]: row["counted"] for row in self._reader.rows(_MONTHS, values)}
        since = days.since
        if self._checked is not None and self._checked[0] == days:
            before = self._checked[1]
            changed = [month for month in months.keys() | before.keys() if months.get(month) != before.get(month)]
            since = max(since, min(changed, default=days.until))
        else:
            self._days = {day: known for day, known in self._days.items() if day >= since}
        if since < days.until:
            self._refresh_days(Days(since, days.until), moment["now"])
        self._checked = days, months
        least = moment["now"] - LONGEST_AGE
        self._renew(days, moment["now"], least if moment["changed"] is None else max(least, moment["changed"]))

    def _refresh_days(self, days: Days, now: datetime) -> None:
        rows = self._reader.rows(_COUNTED, {"tests": list(TESTS), **days._asdict()})
        counted = {row["day"]: row["counted"] for row in rows}
        stale = self._stale(counted)
        if stale and self._load(stale):
            stale = self._stale(counted)
        gone = [day for day in self._days if days.since <= day < days.until and day not in counted]
        for day in gone:
            del self._days[day]
        if not (stale or gone):
            return
        self._made = None
        started = time.monotonic()
        try:
            for batch in _batches(stale, counted):
                if time.monotonic() - started > BUDGET_S:
                    raise _unfinished()
                self._work_out(batch, counted, now)
        finally:
            self._save()

    def _renew(self, days: Days, now: datetime, least: datetime) -> None:
        """Work out anew what was worked out before `least`, for a while: the rest is left to the requests to come."""
        old = self._older(days, least)
        if old and self._load(old):
            old = self._older(days, least)
        if not old:
            return
        started = time.monotonic()
        counted = {day: self._days[day].counted for day in old}
        try:
            for batch in _batches(old, counted):
                self._made = None
                self._work_out(batch, counted, now)
                if time.monotonic() - started > RENEWAL_S:
                    break
        except ApiError as error:
            # Nobody has to go without an answer for it.
            log.warning("runtimes could not be renewed now", error=str(error))
        finally:
            self._save()

    def _older(self, days: Days, least: datetime) -> list[date]:
        return sorted(
            day for day, known in self._days.items() if days.since <= day < days.until and known.moment <= least
        )

    def _stale(self, counted: dict[date, int]) -> list[date]:
        return sorted(day for day, n in counted.items() if day not in self._days or self._days[day].counted != n)

    def _work_out(self, batch: list[date], counted: dict[date, int], now: datetime) -> None:
        values = {"tests": list(TESTS), "since": batch[0], "until": batch[-1] + ONE_DAY}
        by_day = defaultdict[date, list[Found]](list)
        for row in self._reader.rows(_RUNTIMES, values, timeout_s=_TIMEOUT_S, narrow=LATER):
            by_day[row["day"]].append(_found(row))
        self._days.update({day: OneDay(counted[day], now, by_day[day]) for day in batch})

    def _load(self, wanted: list[date]) -> bool:
        """Take over from the file those of the days that were worked out later there; return whether there are any."""
        try:
            read = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return False
        except (OSError, msgspec.MsgspecError) as error:
            log.warning("runtimes on disk cannot be used; they are worked out anew", error=type(error).__name__)
            return False
        if read.tests != TESTS:
            return False
        newer = {
            day: read.days[day]
            for day in wanted
            if day in read.days and (day not in self._days or read.days[day].moment > self._days[day].moment)
        }
        if newer:
            self._made = None
            self._days.update(newer)
        return bool(newer)

    def _save(self) -> None:
        draft = self._path.with_name(f".{FILE_NAME}.{os.getpid()}.tmp")
        try:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            draft.write_bytes(msgspec.json.encode(_File(TESTS, self._days)))
            draft.replace(self._path)
        except OSError as error:
            log.warning("runtimes cannot be kept on disk", error=type(error).__name__)


def _batches(days: list[date], counted: dict[date, int]) -> Iterator[list[date]]:
    """Divide ascending days into runs without gaps that are not too large for one query."""
    batch: list[date] = []
    size = 0
    for day in days:
        if batch and (day != batch[-1] + ONE_DAY or size + counted[day] > _ROWS_AT_ONCE):
            yield batch
            batch, size = [], 0
        batch.append(day)
        size += counted[day]
    if batch:
        yield batch


def _found(row: Row) -> Found:
    p50, p90 = row["percentiles"]
    return Found(row["test_name"], row["probe_cc"], p50, p90, row["count"])


def _as_json(days: dict[date, OneDay]) -> str:
    """Return the reply as text: of hundreds of thousands of entries it is made in a fraction of the usual time."""
    values = {
        (day, found.test_name, found.probe_cc): f"[{found.p50!r},{found.p90!r},{found.count}]"
        for day, known in days.items()
        for found in known.found
    }
    present = sorted({day for day, _, _ in values})
    tests = sorted({test for _, test, _ in values})
    countries = [(cc, json.dumps(cc)) for cc in sorted({cc for _, _, cc in values})]
    results = ",".join(
        f'{{"date":"{day}","probe_cc":{quoted},"test_name":"{test}","v":{values.get((day, test, cc), "[]")}}}'
        for day in present
        for test in tests
        for cc, quoted in countries
    )
    return f'{{"results":[{results}],"v":0}}\n'


def _unfinished() -> ApiError:
    return ApiError(
        503,
        "Runtimes of past days are still being worked out. Try again in ten seconds.",
        headers={"Retry-After": "10"},
    )
