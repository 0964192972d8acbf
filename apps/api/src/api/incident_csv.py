"""Findings as CSV, for spreadsheets."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from flask import Response

from api.csv_text import harmless
from api.responses import NO_CACHE
from api.statistics_replies import csv_reply

COLUMNS = (
    *("id", "slug", "title", "short_description", "event_type", "reported_by", "published", "revision"),
    *("start_time", "end_time", "create_time", "update_time"),
    *("CCs", "ASNs", "domains", "links", "tags", "test_names", "themes"),
)


def incidents_csv(found: Sequence[Mapping[str, Any]]) -> Response:
    """Return findings, as they are sent in JSON, as CSV; lists with blanks between, tags with commas."""
    rows = [{name: _cell(row[name], ", " if name == "tags" else " ") for name in COLUMNS} for row in found]
    return csv_reply(rows, COLUMNS, cache=NO_CACHE)


def _cell(value: object, between: str) -> object:
    if isinstance(value, list):
        value = between.join(map(str, value))
    elif isinstance(value, datetime):
        value = f"{value.isoformat()}Z"
    elif isinstance(value, bool):
        value = str(value).lower()
    return harmless(value)
