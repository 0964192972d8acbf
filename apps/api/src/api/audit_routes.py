"""What people changed: the lines of the audit log, for admins."""

import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from api.csv_text import harmless
from api.errors import bad_request
from api.params import Params
from api.responses import NO_CACHE, json_response
from api.services import services
from api.signed_in import require_admin
from api.statistics_replies import csv_reply, wants_csv

PATH = "/api/v1/audit_log"
DEFAULT_LIMIT, MOST_LINES = 100, 1000
LONGEST_SUBJECT = 500
TIMEOUT_S = 10.0

COLUMNS = ("audit_id", "happened_at", "account_id", "role", "via", "action", "subject", "detail")
"""The columns of a line, as CSV names them too."""

_ACCOUNT = re.compile(r"[0-9a-f]{32}|[a-z]{1,20}", re.ASCII)
_ACTION = re.compile(r"[a-z0-9_]{1,50}\.[a-z0-9_]{1,50}", re.ASCII)

_LINES = """SELECT audit_id, happened_at AT TIME ZONE 'UTC' AS happened_at, account_id, role, via, action, subject,
        detail
    FROM audit_log WHERE true"""
_FILTERS: Mapping[str, str] = {
    "account_id": "account_id = %(account_id)s",
    "action": "action = %(action)s",
    "subject": "subject = %(subject)s",
    "since": "happened_at >= %(since)s",
    "until": "happened_at < %(until)s",
    "before": "audit_id < %(before)s",
}
_NEWEST = "ORDER BY audit_id DESC LIMIT %(limit)s"

blueprint = Blueprint("audit", __name__)


@blueprint.get(PATH)
def audit_log() -> Response:
    """List what people changed, newest first; `since` is inclusive and `until` exclusive."""
    require_admin()
    params = Params(request)
    as_csv = wants_csv(params)
    limit, filters = _limit(params), _filters(params)
    statement = " AND ".join([_LINES, *(_FILTERS[name] for name in filters)]) + f" {_NEWEST}"
    rows = services().reader.rows(
        statement,
        {**filters, "limit": limit + 1},
        timeout_s=TIMEOUT_S,
        narrow="Narrow it with account_id, subject or before.",
    )
    more, rows = len(rows) > limit, rows[:limit]
    if as_csv:
        return csv_reply([_cells(row) for row in rows], COLUMNS, cache=NO_CACHE)
    metadata = {"limit": limit, "next_url": _next_url(rows[-1]["audit_id"]) if more else None}
    return json_response({"metadata": metadata, "results": rows}, cache=NO_CACHE)


def _limit(params: Params) -> int:
    limit = params.integer("limit", DEFAULT_LIMIT)
    if not 1 <= limit <= MOST_LINES:
        raise bad_request(f"Invalid value in parameter limit: give a number from 1 to {MOST_LINES}.")
    return limit


def _filters(params: Params) -> dict[str, object]:
    """Return what is asked for by the names of `_FILTERS`. Raises ApiError 400."""
    account_id, action, subject = params.text("account_id"), params.text("action"), params.text("subject")
    if account_id is not None and not _ACCOUNT.fullmatch(account_id):
        raise bad_request("Invalid value in parameter account_id: give 32 hexadecimal digits, or `command` for a host.")
    if action is not None and not _ACTION.fullmatch(action):
        raise bad_request("Invalid value in parameter action: it is written like incident.publish.")
    if subject is not None and len(subject) > LONGEST_SUBJECT:
        raise bad_request(f"Invalid value in parameter subject: it is longer than {LONGEST_SUBJECT} characters.")
    asked = {
        "account_id": account_id,
        "action": action,
        "subject": subject,
        "since": _in_utc(params.time("since")),
        "until": _in_utc(params.time("until")),
        "before": params.integer("before", 0) if params.text("before") else None,
    }
    return {name: value for name, value in asked.items() if value is not None}


def _in_utc(moment: datetime | None) -> datetime | None:
    return None if moment is None else moment.replace(tzinfo=UTC)


def _next_url(last: int) -> str:
    asked = {name: value for name, value in request.args.items() if name in {*_FILTERS, "limit"}}
    return f"{services().settings.base_url}{PATH}?{urlencode({**asked, 'before': last})}"


def _cells(row: Mapping[str, Any]) -> dict[str, object]:
    """Return a line as cells of CSV: the detail as JSON, times as in JSON."""
    detail = json.dumps(row["detail"], sort_keys=True, separators=(",", ":"))
    cells = {**row, "happened_at": f"{row['happened_at'].isoformat()}Z", "detail": detail}
    return {name: harmless(value) for name, value in cells.items()}
