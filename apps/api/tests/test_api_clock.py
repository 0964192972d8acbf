"""No two measurements of a host get the same time of receipt."""

import threading
from datetime import UTC, datetime, timedelta

import pytest

from api.clock import SET_BACK_S, SLOTS, TURNS, ClockWrong, ReceiptClock

FIXED = datetime(2024, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def test_times_increase_when_the_clock_stands_still_or_goes_back_a_little() -> None:
    times = iter([FIXED, FIXED, FIXED - timedelta(seconds=SET_BACK_S - 1), FIXED])
    clock = ReceiptClock(now=lambda: next(times))
    given = [clock.next() for _ in range(4)]
    assert given == sorted(set(given))
    assert (given[0] - FIXED).total_seconds() < SLOTS * TURNS / 1e6


def test_times_follow_a_clock_that_is_set_back() -> None:
    """Or measurements would be stamped with a day to come until it has come."""
    day = timedelta(days=1)
    times = iter([FIXED, FIXED + 2 * day, FIXED, FIXED, FIXED + day, FIXED])
    clock = ReceiptClock(7, now=lambda: next(times))
    given = [clock.next() for _ in range(6)]
    assert [time.date() - FIXED.date() for time in given] == [0 * day, 2 * day, 0 * day, 0 * day, day, 0 * day]
    assert len(set(given)) == len(given), "the same moment comes three times, its times do not"
    assert {time.microsecond % SLOTS for time in given} == {given[0].microsecond % SLOTS}, "each keeps to its slot"


@pytest.mark.parametrize("year", [1970, 1999, 3000])
def test_a_time_that_no_uid_can_have_is_refused_and_changes_nothing(year: int) -> None:
    times = iter([FIXED, FIXED.replace(year=year), FIXED, FIXED])
    clock = ReceiptClock(7, now=lambda: next(times))
    first = clock.next()
    with pytest.raises(ClockWrong, match=str(year)):
        clock.next()
    step = timedelta(microseconds=SLOTS * TURNS)
    assert [clock.next(), clock.next()] == [first + step, first + 2 * step]


def test_workers_never_meet() -> None:
    clocks = [ReceiptClock(slot, now=lambda: FIXED) for slot in range(SLOTS)]
    given = [clock.next() for clock in clocks for _ in range(20)]
    assert len(set(given)) == len(given)


def test_threads_never_meet() -> None:
    clock = ReceiptClock(3)
    given: list[datetime] = []

    def take() -> None:
        given.extend([clock.next() for _ in range(500)])

    threads = [threading.Thread(target=take) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(given)) == len(given) == 4000
