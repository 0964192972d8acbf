"""No two measurements of a host get the same time of receipt."""

import threading
from datetime import UTC, datetime

from api.clock import SLOTS, ReceiptClock

FIXED = datetime(2024, 1, 1, 12, 30, 15, 123456, tzinfo=UTC)


def test_times_increase_when_the_clock_stands_still_or_goes_back() -> None:
    times = iter([FIXED, FIXED, FIXED.replace(year=2020), FIXED])
    clock = ReceiptClock(now=lambda: next(times))
    given = [clock.next() for _ in range(4)]
    assert given == sorted(set(given))
    assert (given[0] - FIXED).total_seconds() < SLOTS / 1e6


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
