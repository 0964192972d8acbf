"""Times of receipt that no two measurements share on one host.

Two identical bodies received in the same microsecond would get the same uid, and the second would silently become the
first. Inside a worker process times therefore strictly increase; between the workers of a host each owns its own
residue of the microseconds (its slot).

When the clock is set back, times follow it: otherwise a worker whose clock was two days ahead for a moment would go on
stamping what arrives with a day that has not come. The hour that comes again gets other residues (the turn).
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SLOTS = 64
"""Number of worker processes that can be told apart."""

TURNS = 4
"""So often the clock may be set back before residues come again; times are late by at most SLOTS * TURNS µs."""

SET_BACK_S = 60
"""A clock that is behind by less is slewed or read out of order: times go on increasing until it has caught up."""

EARLIEST, LATEST = datetime(2000, 1, 1, tzinfo=UTC), datetime(2999, 12, 31, tzinfo=UTC)
"""The uid of a measurement begins with its year, and that with a 2 (see `core.ids`)."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_STEP = SLOTS * TURNS


class ClockWrong(Exception):
    """The host's clock shows a time that no uid can have, such as 1970."""


class ReceiptClock:
    """UTC times for one worker process, all different; strictly increasing but for a clock that is set back."""

    def __init__(self, slot: int = 0, now: Callable[[], datetime] | None = None) -> None:
        """Take the worker's slot, 0 to SLOTS-1, and where time comes from."""
        self._residue = slot % SLOTS
        self._now = now or (lambda: datetime.now(UTC))
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> datetime:
        """Return the current time, moved on by microseconds so that it is new and in the slot.

        Raises:
            ClockWrong: the host's clock is before EARLIEST or after LATEST.
        """
        with self._lock:
            shown = self._now()
            if not EARLIEST <= shown < LATEST:
                raise ClockWrong(f"The host's clock shows {shown:%Y-%m-%d}.")
            now = (shown - _EPOCH) // _MICROSECOND
            if self._last - now > SET_BACK_S * 1_000_000:
                self._residue = (self._residue + SLOTS) % _STEP
                self._last = 0
            earliest = max(now, self._last + 1)
            self._last = earliest + (self._residue - earliest) % _STEP
            return _EPOCH + timedelta(microseconds=self._last)
