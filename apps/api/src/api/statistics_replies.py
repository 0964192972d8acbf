"""Replies of statistics: JSON as the wire contract has it, or the list in it as CSV when `format` says so."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import urlencode

from flask import Response

from api.params import Params, one_of
from api.responses import json_response
from api.services import services
from api.statistics_asked import Page

MAX_AGE_0 = "max-age=0"
HOUR = "max-age=3600"
TWO_HOURS = "max-age=7200"
DAY = "max-age=86400"


def wants_csv(params: Params) -> bool:
    """Return whether `format` is CSV, in any case. Raises ApiError 400 when it is neither JSON nor CSV."""
    asked = params.text("format") or "json"
    return one_of(asked, ("json", "csv"), "Invalid value in parameter format; give JSON or CSV.") == "csv"


def list_reply(
    rows: Sequence[Mapping[str, Any]], columns: Iterable[str], whole: object, *, as_csv: bool, cache: str
) -> Response:
    """Return `whole` as JSON, or `rows` as CSV.

    Args:
        rows: the list that `whole` holds.
        columns: the keys of each row.
        whole: the reply in JSON.
        as_csv: what `wants_csv` said; it is asked before the database is.
        cache: the value of Cache-Control.
    """
    return csv_reply(rows, columns, cache=cache) if as_csv else json_response(whole, cache=cache)


def page_metadata(path: str, part: Page, found: int, total: int, **asked: object) -> dict[str, object]:
    """Return the metadata of a page with `found` of `total` items; `asked` are the parameters to repeat in its link."""
    following = None
    if found == part.limit:
        query = urlencode({"limit": part.limit, "offset": part.offset + part.limit, **asked})
        following = f"{services().settings.base_url}{path}?{query}"
    return {
        "offset": part.offset,
        "limit": part.limit,
        "current_page": part.number,
        "total_count": total,
        "next_url": following,
    }


def csv_reply(rows: Iterable[Mapping[str, Any]], columns: Iterable[str], *, cache: str) -> Response:
    """Return rows as CSV: a line of names, columns in alphabetical order, lines that end in CR LF."""
    text = io.StringIO()
    writer = csv.DictWriter(text, sorted(columns), lineterminator="\r\n")
    writer.writeheader()
    writer.writerows(rows)
    # Not as `mimetype`, to which a character set would be added.
    response = Response(text.getvalue(), content_type="text/csv")
    response.headers["Cache-Control"] = cache
    return response
