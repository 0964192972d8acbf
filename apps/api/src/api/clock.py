"""Times of receipt that no two measurements share on one host.

Two identical bodies received in the same microsecond would get the same uid, and the second would silently become the
first. Inside a worker process times therefore strictly increase; between the workers of a host each owns its own
residue of the microseconds (its slot).
"""

import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

SLOTS = 64
"""Number of worker processes that can be told apart; times are late by at most this many microseconds."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


class ReceiptClock:
    """Strictly increasing UTC times for one worker process."""

    def __init__(self, slot: int = 0, now: Callable[[], datetime] | None = None) -> None:
        """Take the worker's slot, 0 to SLOTS-1, and where time comes from."""
        self._slot = slot % SLOTS
        self._now = now or (lambda: datetime.now(UTC))
        self._last = 0
        self._lock = threading.Lock()

    def next(self) -> datetime:
        """Return the current time, moved on by microseconds so that it is new and in the slot."""
        with self._lock:
            earliest = max((self._now() - _EPOCH) // _MICROSECOND, self._last + 1)
            self._last = earliest + (self._slot - earliest) % SLOTS
            return _EPOCH + timedelta(microseconds=self._last)
