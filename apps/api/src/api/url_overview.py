"""All entries of all lists with their priorities and how they fared in the last week, for people who tend the lists.

It reads a week of counters, so it is made at most every `KEPT_S`, by one request at a time; the others get the one
before, which also serves while the database is away. A failure is remembered for `FAILURE_KEPT_S`: a database that is
slow is not asked again by everybody who waited for the answer.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import structlog

from api.errors import ApiError
from api.priorities import Rules
from api.url_queries import UrlQueries
from core.db import DatabaseUnavailable

COLUMNS = ("domain", "url", "cc", "category_code", "msmt_cnt", "anomaly_perc", "priority")
KEPT_S = 300.0
FAILURE_KEPT_S = 60.0
DAYS = 7
PATIENCE_S = 2.0
"""Longest wait for an overview that somebody else makes."""

log = structlog.get_logger(__name__)

Row = dict[str, str | int]


class UrlOverview:
    """The overview of one worker process."""

    def __init__(self, queries: UrlQueries, *, now: Callable[[], float] = time.monotonic) -> None:
        """Read from `queries` when somebody asks."""
        self._queries = queries
        self._now = now
        self._making = threading.Lock()
        self._made: tuple[float, list[Row]] | None = None
        self._failed_at = float("-inf")

    def rows(self) -> list[Row]:
        """Return the rows by country, and by falling priority within it. Call it with a read slot.

        Raises:
            DatabaseUnavailable: there is none yet, and the database is away.
            ApiError: 503, the first one is still being made, or has just failed.
            psycopg.Error: there is none yet, and the query failed, for instance because it took too long.
        """
        made = self._made
        if made is not None and self._now() - made[0] < KEPT_S:
            return made[1]
        if not self._making.acquire(timeout=0 if made else PATIENCE_S):
            return self._before("The overview is still being made.")
        try:
            if self._made is not made and self._made is not None:
                return self._made[1]
            if self._now() - self._failed_at < FAILURE_KEPT_S:
                return self._before("The overview could not be made; the database is away or slow.")
            rows = self._make()
            self._made = (self._now(), rows)
            return rows
        except (DatabaseUnavailable, psycopg.Error) as error:
            self._failed_at = self._now()
            if made is None:
                raise
            log.error("overview of test lists is an old one; the database failed", error=type(error).__name__)
            return made[1]
        finally:
            self._making.release()

    def _before(self, reason: str) -> list[Row]:
        """Return the overview before; raise ApiError 503 with `reason` when there is none."""
        if self._made is not None:
            return self._made[1]
        raise ApiError(503, f"{reason} Try again in a minute.", headers={"Retry-After": "60"})

    def _make(self) -> list[Row]:
        tomorrow = datetime.now(UTC).date() + timedelta(days=1)
        rules = Rules(self._queries.rules())
        rows: list[Row] = []
        for entry, measurements, anomalies in self._queries.last_days(tomorrow - timedelta(days=DAYS), tomorrow):
            cc = entry.cc.upper()
            rows.append(
                {
                    "domain": entry.domain,
                    "url": entry.url,
                    "cc": cc,
                    "category_code": entry.category_code,
                    "msmt_cnt": measurements,
                    "anomaly_perc": anomalies * 100 // measurements if measurements else 0,
                    "priority": rules.priority(entry, cc),
                }
            )
        rows.sort(key=lambda row: (str(row["cc"]), -int(row["priority"])))
        return rows
