"""All entries of all lists with their priorities and how they fared in the last week, for people who tend the lists.

It reads a week of counters, so it is made at most every `KEPT_S`, see `kept`.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from api.kept import Kept
from api.priorities import Rules
from api.url_queries import UrlQueries

COLUMNS = ("domain", "url", "cc", "category_code", "msmt_cnt", "anomaly_perc", "priority")
KEPT_S = 300.0
DAYS = 7

Row = dict[str, str | int]


class UrlOverview:
    """The overview of one worker process."""

    def __init__(self, queries: UrlQueries, *, now: Callable[[], float] = time.monotonic) -> None:
        """Read from `queries` when somebody asks."""
        self._queries = queries
        self._kept = Kept("overview of test lists", self._make, kept_s=KEPT_S, now=now)

    def rows(self) -> list[Row]:
        """Return the rows by country, and by falling priority within it. Call it with a read slot; raises as `Kept`."""
        return self._kept.value()

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
