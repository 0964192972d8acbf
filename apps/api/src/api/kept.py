"""An answer that takes long to make and is good for minutes: one request makes it, the others get the one before.

It also serves while the database is away. A failure is remembered for `FAILURE_KEPT_S`: a database that is slow is not
asked again by everybody who waited for the answer.
"""

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Generic, TypeVar

import psycopg
import structlog

from api.errors import ApiError
from core.db import DatabaseUnavailable

FAILURE_KEPT_S = 60.0
PATIENCE_S = 2.0
"""Longest wait for a first answer that somebody else makes."""

log = structlog.get_logger(__name__)

T = TypeVar("T")


class Kept(Generic[T]):
    """The answer of one worker process."""

    def __init__(
        self,
        name: str,
        make: Callable[[], T],
        *,
        kept_s: float,
        now: Callable[[], float] = time.monotonic,
        waiting: Callable[[], AbstractContextManager[None]] = nullcontext,
    ) -> None:
        """Take what makes the answer, how it is called in texts, and for how many seconds it is good.

        `waiting` gives what to hold while somebody else makes the first answer.
        """
        self._name = name
        self._make = make
        self._kept_s = kept_s
        self._now = now
        self._waiting = waiting
        self._making = threading.Lock()
        self._made: tuple[float, T] | None = None
        self._failed_at = float("-inf")

    def value(self) -> T:
        """Return the answer.

        Raises:
            DatabaseUnavailable: there is none yet, and the database is away.
            ApiError: 503, the first one is still being made, or has just failed; 504, it took too long.
            psycopg.Error: there is none yet, and the query failed, for instance because it took too long.
        """
        made = self._made
        if made is not None and self._now() - made[0] < self._kept_s:
            return made[1]
        if not self._making.acquire(blocking=False):
            if made is not None:
                return made[1]
            with self._waiting():
                if not self._making.acquire(timeout=PATIENCE_S):
                    return self._before(f"The {self._name} is still being made.")
        try:
            if self._made is not made and self._made is not None:
                return self._made[1]
            if self._now() - self._failed_at < FAILURE_KEPT_S:
                return self._before(f"The {self._name} could not be made; the database is away or slow.")
            value = self._make()
            self._made = (self._now(), value)
            return value
        except (DatabaseUnavailable, psycopg.Error, ApiError) as error:
            if isinstance(error, ApiError) and error.status < 500:  # whoever made it has left
                raise
            self._failed_at = self._now()
            if made is None:
                raise
            log.error("an old answer is given; the database failed", answer=self._name, error=type(error).__name__)
            return made[1]
        finally:
            self._making.release()

    def _before(self, reason: str) -> T:
        """Return the answer before; raise ApiError 503 with `reason` when there is none."""
        if self._made is not None:
            return self._made[1]
        raise ApiError(503, f"{reason} Try again in a minute.", headers={"Retry-After": "60"})
