"""Look-ups of single measurements.

They go through the schema's own functions, which touch the few partitions around the day that the identifier names.
"""

from typing import Any

from api.conditions import TEST_NAME
from api.reading import Reader

_NARROW = "Try again in a minute."
_COLUMNS = f"""measurement_uid, report_id, probe_cc, probe_asn, {TEST_NAME} AS test_name, measurement_start_time,
    test_start_time, input, anomaly, confirmed, msm_failure, scores::text AS scores, is_verified"""


class MeasurementQueries:
    """Reads of single measurements. Methods raise as `Reader.rows` does."""

    def __init__(self, reader: Reader) -> None:
        """Take what runs queries for requests."""
        self._reader = reader

    def meta_by_uid(self, uid: str) -> dict[str, Any] | None:
        """Return the row of a measurement uid."""
        return self._first(f"SELECT {_COLUMNS} FROM fastpath_by_uid(%s) WHERE probe_asn <> 0 LIMIT 1", [uid])  # noqa: S608 constants

    def meta_by_report(self, report_id: str, input_: str | None) -> dict[str, Any] | None:
        """Return the first row of a report with this input; None looks for rows without an input."""
        statement = f"""SELECT {_COLUMNS} FROM fastpath_by_report_id(%s) WHERE input = %s AND probe_asn <> 0
            ORDER BY measurement_uid LIMIT 1"""  # noqa: S608 constants
        return self._first(statement, [report_id, input_ or ""])

    def category(self, url: str, country: str) -> str | None:
        """Return the category of a URL: of the country's own test list, else of the global one, else of any other.

        None when it is in no list.
        """
        statement = """SELECT category_code FROM citizenlab WHERE url = %s
            ORDER BY cc = lower(%s) DESC, cc = 'ZZ' DESC, cc LIMIT 1"""
        row = self._first(statement, [url, country])
        return None if row is None else str(row["category_code"])

    def _first(self, statement: str, values: list[Any]) -> dict[str, Any] | None:
        rows = self._reader.rows(statement, values, narrow=_NARROW)
        return rows[0] if rows else None
