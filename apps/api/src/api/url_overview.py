"""All entries of all lists with their priorities and how they fared in the last week, for people who tend the lists.

It reads a week of counters, so it is made at most every `KEPT_S`, by one request at a time; the others get the one
before, which also serves while the database is away.
"""

import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import structlog

from api.errors import ApiError
from api.priorities import Rules
from api.url_queries import UrlQueries
from core.db import DatabaseUnavailable

COLUMNS = ("domain", "url", "cc", "category_code", "msmt_cnt", "anomaly_perc", "priority")
KEPT_S = 300.0
DAYS = 7
_PATIENCE_S = 20.0

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

    def rows(self) -> list[Row]:
        """Return the rows by country, and by falling priority within it.

        Raises:
            DatabaseUnavailable: there is none yet, and the database is away.
            ApiError: 503, the first one is still being made.
            psycopg.Error: the query failed, for instance because it took too long.
        """
        made = self._made
        if made is not None and self._now() - made[0] < KEPT_S:
            return made[1]
        if not self._making.acquire(timeout=0 if made else _PATIENCE_S):
            if made:
                return made[1]
            raise ApiError(
                503, "The overview is still being made. Try again in a minute.", headers={"Retry-After": "60"}
            )
        try:
            if self._made is not made and self._made is not None:
                return self._made[1]
            rows = self._make()
            self._made = (self._now(), rows)
            return rows
        except DatabaseUnavailable as error:
            if made is None:
                raise
            log.error("overview of test lists is an old one; the database is away", error=str(error))
            return made[1]
        finally:
            self._making.release()

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
