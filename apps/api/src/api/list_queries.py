"""Pages of the list of measurements."""

from dataclasses import dataclass, replace
from typing import Any

from api.conditions import TEST_NAME
from api.list_filter import ListFilter
from api.list_order import Order, Position
from api.list_walk import Walk
from api.reading import Reader

BUDGET_S = 8.0
"""How long the database may work on one page, in seconds, over all statements."""

NARROW = (
    "Narrow it with since and until, or with probe_cc, probe_asn, test_name, domain or input, "
    "or leave order_by at measurement_start_time."
)

_COLUMNS = f"""measurement_uid, report_id, probe_cc, probe_asn, {TEST_NAME} AS test_name,
    measurement_start_time, input, anomaly, confirmed, msm_failure, scores, is_verified"""
_KEYS = "measurement_uid, measurement_start_time, input"
_SMALL_CATEGORY = 500


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a page, and whether rows follow."""

    rows: list[dict[str, Any]]
    more: bool


class MeasurementList:
    """Pages of the list.

    Methods raise ApiError 504 when the database needs too long, 503 when too many readers are at work,
    DatabaseUnavailable when it is away, and psycopg errors when a query fails.
    """

    def __init__(self, reader: Reader) -> None:
        """Take what runs queries for requests."""
        self._reader = reader

    def page(
        self, wanted: ListFilter, order: Order, *, category: str | None, limit: int, offset: int, after: Position | None
    ) -> Page:
        """Return `limit` rows after a position, or after skipping `offset` rows from the start."""
        budget = self._reader.budget(BUDGET_S, narrow=NARROW)
        if category is not None:
            urls = [
                row["url"]
                for row in budget.rows(
                    "SELECT DISTINCT url FROM citizenlab WHERE category_code = %s LIMIT %s",
                    [category, _SMALL_CATEGORY + 1],
                )
            ]
            if not urls:
                return Page([], more=False)
            if len(urls) <= _SMALL_CATEGORY:
                wanted = replace(wanted, inputs=tuple(urls))
            else:
                wanted = replace(wanted, category=category)
        if after is None and offset:
            skipped = Walk(budget.rows, wanted, order, _KEYS).take(offset)
            if len(skipped) < offset:
                return Page([], more=False)
            after = Position.of(skipped[-1])
        rows = Walk(budget.rows, wanted, order, _COLUMNS).take(limit + 1, after)
        return Page(rows[:limit], more=len(rows) > limit)
