"""Runtimes of past days: worked out once, kept on disk, and worked out anew when the measurements of a day change."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from statistics_sample import TOR_TESTS, Measured, database_day, make, window, write

import api.statistics_runtimes
from api.errors import ApiError
from api.read_slots import ReadSlots
from api.reading import Reader
from api.statistics_asked import Days
from api.statistics_runtimes import FILE_NAME, LONGEST_AGE, MOST_WAITING, Runtimes
from core.db import open_pool


class Counting(Reader):
    """A reader that tells how often rows of measurements were read."""

    def __init__(self, reader: Reader) -> None:
        self.reader = reader
        self.days: list[tuple[date, date]] = []
        self.later = timedelta(0)

    def rows(self, statement: Any, values: Any = (), **more: Any) -> Any:
        if "FROM fastpath" in statement:
            self.days.append((values["since"], values["until"]))
        found: list[Any] = self.reader.rows(statement, values, **more)
        return [{**row, "now": row["now"] + self.later} if "now" in row else row for row in found]


@pytest.fixture
def today(dsn: str) -> date:
    return database_day(dsn)


@pytest.fixture
def days(today: date) -> Days:
    return Days(today - timedelta(days=60), today - timedelta(days=1))


@pytest.fixture
def rows(dsn: str, today: date) -> list[Measured]:
    found = make(today, count=1000, tests=TOR_TESTS, countries=("IT", "DE"))
    write(dsn, found)
    return found


@pytest.fixture
def reader(dsn: str, rows: list[Measured]) -> Iterator[Counting]:
    pool = open_pool(dsn, application_name="test")
    yield Counting(Reader(pool, ReadSlots(8, 8)))
    pool.close()


def summary(rows: list[Measured], days: Days) -> dict[tuple[date, str, str], int]:
    found: dict[tuple[date, str, str], int] = {}
    for row in window(rows, *days):
        if row.runtime is not None and row.test in TOR_TESTS:
            key = row.day, row.test, row.cc
            found[key] = found.get(key, 0) + 1
    return found


def moved(row: Measured, day: date) -> Measured:
    return replace(row, start=row.start.replace(year=day.year, month=day.month, day=day.day))


def shown(runtimes: Runtimes, days: Days) -> dict[tuple[date, str, str], int]:
    return {(row["date"], row["test_name"], row["probe_cc"]): row["count"] for row in runtimes.rows(days)}


def test_a_day_is_read_once(reader: Counting, tmp_path: Path, rows: list[Measured], days: Days) -> None:
    runtimes = Runtimes(reader, tmp_path)
    assert shown(runtimes, days) == summary(rows, days)
    assert reader.days
    read = len(reader.days)
    assert shown(runtimes, days) == summary(rows, days)
    assert runtimes.reply(days) == runtimes.reply(days)
    assert len(reader.days) == read


def test_another_worker_uses_the_file(reader: Counting, tmp_path: Path, rows: list[Measured], days: Days) -> None:
    Runtimes(reader, tmp_path).rows(days)
    reader.days.clear()
    assert shown(Runtimes(reader, tmp_path), days) == summary(rows, days)
    assert not reader.days


def test_late_measurements_change_their_day_alone(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, dsn: str, today: date
) -> None:
    runtimes = Runtimes(reader, tmp_path)
    runtimes.rows(days)
    reply = runtimes.reply(days)
    reader.days.clear()
    day = today - timedelta(days=17)
    late = [moved(row, day) for row in rows[:20]]
    write(dsn, late, first=5000)
    assert shown(runtimes, days) == summary([*rows, *late], days)
    assert runtimes.reply(days) != reply
    assert reader.days == [(day, day + timedelta(days=1))]


def test_measurements_that_were_taken_out(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, dsn: str, today: date
) -> None:
    runtimes = Runtimes(reader, tmp_path)
    runtimes.rows(days)
    day = today - timedelta(days=30)
    assert any(row.day == day for row in rows)
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM fastpath WHERE measurement_start_time::date = %s", [day])
    write(dsn, [], first=0)
    assert shown(runtimes, days) == summary([row for row in rows if row.day != day], days)


def slower(dsn: str) -> None:
    """Do what a rerun does that finds other runtimes in the same measurements, without noting that it has finished."""
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE fastpath SET test_runtime = test_runtime + 1000")


def least_p50(runtimes: Runtimes, days: Days) -> float:
    return min(float(row["p50"]) for row in runtimes.rows(days))


@pytest.mark.parametrize(
    "finished",
    [
        "INSERT INTO rerun (parameters, parameters_digest, finished_at) VALUES ('{}', '', now())",
        (
            "INSERT INTO takedown_audit (report_id, measurement_uids, reason, host, finished_at)"
            " VALUES ('', '{}', '', '', now())"
        ),
    ],
)
def test_a_rerun_or_takedown_renews_all_days(
    reader: Counting, tmp_path: Path, days: Days, dsn: str, finished: str
) -> None:
    one, other = Runtimes(reader, tmp_path), Runtimes(reader, tmp_path)
    assert least_p50(one, days) < 1000
    assert least_p50(other, days) < 1000
    slower(dsn)
    with psycopg.connect(dsn) as connection:
        connection.execute(finished)
    assert least_p50(one, days) > 1000
    assert "[1" in one.reply(days)
    reader.days.clear()
    assert least_p50(one, days) > 1000
    assert least_p50(other, days) > 1000, "it takes what the other one has worked out"
    assert not reader.days


def test_renewing_leaves_the_rest_to_the_next_request(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = Runtimes(reader, tmp_path)
    runtimes.rows(days)
    monkeypatch.setattr(api.statistics_runtimes, "_ROWS_AT_ONCE", 1)
    monkeypatch.setattr(api.statistics_runtimes, "RENEWAL_S", 0.0)
    slower(dsn)
    reader.later = LONGEST_AGE + timedelta(hours=1)
    reader.days.clear()
    present = len({row.day for row in window(rows, *days)})
    assert present > 10
    for asked in range(1, present + 1):
        found = runtimes.rows(days)
        assert len(reader.days) == asked
        assert {(row["date"], row["test_name"], row["probe_cc"]): row["count"] for row in found} == summary(rows, days)
    assert min(row["p50"] for row in found) > 1000
    runtimes.rows(days)
    assert len(reader.days) == present


def test_what_cannot_be_renewed_is_answered_as_it_was(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtimes = Runtimes(reader, tmp_path)
    reply = runtimes.reply(days)
    reader.later = LONGEST_AGE + timedelta(hours=1)
    monkeypatch.setattr(api.statistics_runtimes, "_TIMEOUT_S", 0.0)
    monkeypatch.setattr(
        api.statistics_runtimes,
        "_RUNTIMES",
        api.statistics_runtimes._RUNTIMES.replace("FROM fastpath", "FROM pg_sleep(30), fastpath"),
    )
    assert runtimes.reply(days) == reply


def test_days_of_the_file_that_are_older_than_those_in_memory_are_left(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, dsn: str, today: date
) -> None:
    runtimes = Runtimes(reader, tmp_path)
    runtimes.rows(days)
    before = (tmp_path / FILE_NAME).read_bytes()
    first, second = today - timedelta(days=17), today - timedelta(days=9)
    late = [moved(row, first) for row in rows[:20]]
    write(dsn, late, first=5000)
    runtimes.rows(days)
    (tmp_path / FILE_NAME).write_bytes(before)
    later = [moved(row, second) for row in rows[20:40]]
    write(dsn, later, first=6000)
    reader.days.clear()
    assert shown(runtimes, days) == summary([*rows, *late, *later], days)
    assert reader.days == [(second, second + timedelta(days=1))]


def test_measurements_of_today_change_nothing(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, dsn: str, today: date
) -> None:
    runtimes = Runtimes(reader, tmp_path)
    reply = runtimes.reply(days)
    reader.days.clear()
    write(
        dsn,
        [replace(row, start=row.start.replace(year=today.year, month=today.month, day=today.day)) for row in rows[:5]],
        first=5000,
    )
    assert runtimes.reply(days) is reply
    assert not reader.days


def test_the_next_day_adds_one(reader: Counting, tmp_path: Path, rows: list[Measured], days: Days) -> None:
    runtimes = Runtimes(reader, tmp_path)
    before = Days(days.since - timedelta(days=1), days.until - timedelta(days=1))
    assert shown(runtimes, before) == summary(rows, before)
    reader.days.clear()
    assert shown(runtimes, days) == summary(rows, days)
    assert reader.days == [(before.until, days.until)]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        b"\xff",
        b'{"tests":["ndt"],"days":{"2024-01-01":{"counted":1,"found":[]}}}',
        b'{"tests":[],"days":1}',
    ],
)
def test_a_file_that_cannot_be_used(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, content: bytes
) -> None:
    (tmp_path / FILE_NAME).write_bytes(content)
    runtimes = Runtimes(reader, tmp_path)
    assert shown(runtimes, days) == summary(rows, days)
    reader.days.clear()
    assert shown(Runtimes(reader, tmp_path), days) == summary(rows, days)
    assert not reader.days


def test_a_directory_that_cannot_be_written(reader: Counting, tmp_path: Path, rows: list[Measured], days: Days) -> None:
    (tmp_path / "file").write_bytes(b"")
    runtimes = Runtimes(reader, tmp_path / "file" / "state")
    assert shown(runtimes, days) == summary(rows, days)


def test_too_much_for_one_request(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Requests go on where the one before stopped, also in another worker."""
    monkeypatch.setattr(api.statistics_runtimes, "_ROWS_AT_ONCE", 100)
    monkeypatch.setattr(api.statistics_runtimes, "BUDGET_S", 0.0)
    with pytest.raises(ApiError) as refused:
        Runtimes(reader, tmp_path).rows(days)
    assert refused.value.status == 503
    assert refused.value.headers["Retry-After"] == "10"
    monkeypatch.setattr(api.statistics_runtimes, "BUDGET_S", 0.001)
    for _ in range(1000):
        try:
            found = shown(Runtimes(reader, tmp_path), days)
            break
        except ApiError:
            continue
    assert found == summary(rows, days)
    assert len(reader.days) == len(set(reader.days))


class Held(Counting):
    """A reader whose queries wait until the test lets them go."""

    def __init__(self, reader: Reader) -> None:
        super().__init__(reader)
        self.asked, self.go = threading.Event(), threading.Event()

    def rows(self, statement: Any, values: Any = (), **more: Any) -> Any:
        self.asked.set()
        assert self.go.wait(30)
        return super().rows(statement, values, **more)


def test_one_request_works_and_few_wait(reader: Counting, tmp_path: Path, rows: list[Measured], days: Days) -> None:
    held = Held(reader.reader)
    runtimes = Runtimes(held, tmp_path)
    found: list[dict[tuple[date, str, str], int]] = []
    threads = [threading.Thread(target=lambda: found.append(shown(runtimes, days))) for _ in range(1 + MOST_WAITING)]
    for thread in threads:
        thread.start()
    assert held.asked.wait(30)
    while runtimes._waiting._value:  # until all have come
        time.sleep(0.01)
    with pytest.raises(ApiError) as refused:
        runtimes.rows(days)
    assert refused.value.status == 503
    held.go.set()
    for thread in threads:
        thread.join()
    assert found == [summary(rows, days)] * len(threads)
    assert len(held.days) == len(set(held.days))


def test_nobody_waits_for_what_there_was_a_moment_ago(
    reader: Counting, tmp_path: Path, rows: list[Measured], days: Days
) -> None:
    held = Held(reader.reader)
    held.go.set()
    runtimes = Runtimes(held, tmp_path)
    reply = runtimes.reply(days)
    held.go.clear()
    held.asked.clear()
    looking = threading.Thread(target=runtimes.reply, args=(days,))
    looking.start()
    assert held.asked.wait(30)
    assert runtimes.reply(days) is reply
    held.go.set()
    looking.join()


def test_times_that_are_none_are_left_out(reader: Counting, tmp_path: Path, days: Days, dsn: str, today: date) -> None:
    day = today - timedelta(days=3)
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM fastpath")
        connection.execute(
            "INSERT INTO fastpath (measurement_uid, probe_cc, test_name, measurement_start_time, anomaly, confirmed,"
            " msm_failure, scores, test_runtime) SELECT n::text, 'IT', 'tor', %s, false, false, false, '{}', t"
            " FROM unnest(array['NaN', 'Infinity', '-Infinity', '-1', NULL, '0', '2']::float8[])"
            " WITH ORDINALITY AS odd (t, n)",
            [day],
        )
    write(dsn, [])
    assert Runtimes(reader, tmp_path).rows(days) == [
        {"date": day, "test_name": "tor", "probe_cc": "IT", "p50": 1.0, "p90": 1.8, "count": 2}
    ]
