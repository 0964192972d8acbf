"""Measurements for readers: the list, one measurement's metadata, one measurement's body."""

import math
import re
import time
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request
from werkzeug.exceptions import InternalServerError

from api.errors import bad_request
from api.params import Params, is_uid, one_of
from api.queries import ORDER_COLUMNS, ListFilter
from api.responses import NO_CACHE, json_response
from api.services import BodyUnreadable, services
from core.db import DatabaseUnavailable

DEFAULT_DAYS = 30
MAX_LIMIT = 100

_PATH = "/api/v1/measurements"
_RUN_LINK_ID = re.compile(r"[0-9]{1,20}", re.ASCII)

blueprint = Blueprint("measurements", __name__)


@blueprint.get(_PATH)
def list_measurements() -> Response:
    """Search measurements; offset-based pages, never counted in total."""
    if request.user_agent.string.startswith("okhttp"):
        return json_response(_OKHTTP_DUMMY, cache=NO_CACHE)
    started = time.perf_counter()
    params = Params(request)
    limit = _limit(params)
    offset = params.integer("offset", 0)
    if offset < 0:
        raise bad_request("Invalid offset; give 0 or more.")
    order = one_of(params.text("order") or "desc", ("asc", "desc"), "Invalid order; give asc or desc.")
    order_by = one_of(
        params.text("order_by") or "measurement_start_time",
        ORDER_COLUMNS,
        f"Invalid field for ordering: give one of {', '.join(ORDER_COLUMNS)} in parameter order_by.",
    )
    wanted = _filter(params)
    parts = services()
    rows = parts.queries.page(wanted, order_by=order_by, descending=order == "desc", limit=limit, offset=offset)
    base = parts.settings.base_url
    reply = {
        "metadata": _page_metadata(base, limit, offset, len(rows), time.perf_counter() - started),
        "results": [_list_item(row, base) for row in rows],
    }
    return json_response(reply, cache="max-age=60")


@blueprint.get("/api/v1/measurement_meta")
def measurement_meta() -> Response:
    """Metadata of one measurement; with `full` also its body, as text."""
    params = Params(request)
    full = params.flag("full")
    uid = params.measurement_uid()
    queries = services().queries
    if uid is not None:
        row = queries.meta_by_uid(uid)
        category: str | None = ""
    else:
        report_id = params.report_id(required=True)
        assert report_id is not None
        input_ = params.checked_input()
        row = queries.meta_by_report(report_id, input_)
        category = None if input_ is None else ""
    reply: dict[str, Any] = {} if row is None else _meta(row, category)
    if full:
        reply["raw_measurement"] = "" if row is None else _body_text(row["measurement_uid"])
    # Who looks a moment too early, between acknowledgement and score, must not be told so from a cache for a minute.
    return json_response(reply, cache=NO_CACHE if row is None else "max-age=60")


@blueprint.get("/api/v1/raw_measurement")
def raw_measurement() -> Response:
    """The measurement as the probe sent it; from the moment it was acknowledged."""
    params = Params(request)
    uid = params.text("measurement_uid")
    if uid is not None and is_uid(uid):
        response = _raw_by_uid(uid, fall_back=params.text("report_id") is not None)
        if response is not None:
            return response
    report_id = params.report_id(required=True)
    assert report_id is not None
    row = services().queries.meta_by_report(report_id, params.text("input"))
    if row is None:
        return _raw_reply(b"{}\n")
    body = _body_or_none(row["measurement_uid"])
    if body is None:
        raise InternalServerError("Measurement not found")
    return _raw_reply(body)


@blueprint.get("/api/v1/measurement/<uid>")
def measurement(uid: str) -> Response:
    """The body of one measurement (older form), optionally as a download."""
    download = (Params(request).text("download") or "").lower() == "true"
    body = _body_or_none(uid) if is_uid(uid) else None
    if body is None:
        raise bad_request("Incorrect or inexistent measurement_uid")
    response = Response(body, mimetype="application/json")
    response.headers["Cache-Control"] = "max-age=3600"
    if download:
        response.headers["Content-Disposition"] = f"attachment; filename=ooni_measurement-{uid}.json"
    return response


_OKHTTP_DUMMY = {
    "metadata": {
        "count": 1,
        "current_page": 1,
        "limit": 100,
        "next_url": None,
        "offset": 0,
        "pages": 1,
        "query_time": 0.001,
    },
    "results": [{"measurement_url": ""}],
}
"""Old mobile apps ask here whether a report was uploaded, and cannot take anything else."""


def _limit(params: Params) -> int:
    limit = params.integer("limit", MAX_LIMIT)
    if limit > MAX_LIMIT:
        raise bad_request(f"`limit` is only allowed up to {MAX_LIMIT}")
    if limit < 1:
        raise bad_request(f"Invalid limit; give 1 to {MAX_LIMIT}.")
    return limit


def _filter(params: Params) -> ListFilter:
    report_id = params.report_id()
    since, until = params.time("since"), params.time("until")
    if until is None and report_id is None:
        today = datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None)
        until = today + timedelta(days=1)
    if since is None and report_id is None and until is not None:
        try:
            since = until - timedelta(days=DEFAULT_DAYS)
        except OverflowError:
            raise bad_request("Invalid date in parameter until; give a later one.") from None
    input_ = params.text("input")
    if input_ is None and params.text("category_code") is not None:
        raise bad_request("category_code is not available on this server yet; leave it out and filter by domain.")
    run_link = params.text("ooni_run_link_id")
    if run_link is not None and not _RUN_LINK_ID.fullmatch(run_link):
        raise bad_request("Invalid ooni_run_link_id; give a number.")
    test_name = params.given("test_name")
    return ListFilter(
        report_id=report_id,
        since=since,
        until=until,
        input=input_,
        domains=() if input_ is not None else tuple(params.texts("domain")),
        countries=tuple(params.countries()),
        networks=tuple(params.networks()),
        # An empty test_name is a filter on the empty name, unlike the other parameters.
        test_names=() if test_name is None else tuple(params.texts("test_name")) or ("",),
        confirmed=params.boolean("confirmed"),
        anomaly=params.boolean("anomaly"),
        failure=params.boolean("failure"),
        software_versions=tuple(params.texts("software_version")),
        test_versions=tuple(params.texts("test_version")),
        engine_versions=tuple(params.texts("engine_version")),
        run_link_id=None if run_link is None else int(run_link),
    )


def _page_metadata(base: str, limit: int, offset: int, found: int, seconds: float) -> dict[str, Any]:
    full = found >= limit
    metadata: dict[str, Any] = {
        "count": -1 if full else offset + found,
        "current_page": math.ceil(offset / limit) + 1,
        "limit": limit,
        "next_url": None,
        "offset": offset,
        "pages": -1 if full else math.ceil((offset + found) / limit),
        "query_time": round(seconds, 6),
    }
    if full:
        own = [(name, value) for name, value in request.args.items(multi=True) if name not in {"limit", "offset"}]
        query = urlencode([*own, ("offset", offset + limit), ("limit", limit)])
        metadata["next_url"] = f"{base}{_PATH}?{query}"
    return metadata


def _list_item(row: dict[str, Any], base: str) -> dict[str, Any]:
    uid = row["measurement_uid"]
    return {
        "anomaly": row["anomaly"],
        "confirmed": row["confirmed"],
        "failure": row["msm_failure"],
        "input": row["input"] or None,
        "measurement_start_time": row["measurement_start_time"],
        "measurement_uid": uid,
        "measurement_url": f"{base}/api/v1/raw_measurement?{urlencode({'measurement_uid': uid})}",
        "probe_asn": f"AS{row['probe_asn']}",
        "probe_cc": row["probe_cc"],
        "report_id": row["report_id"],
        "scores": row["scores"],
        "test_name": row["test_name"],
    }


def _meta(row: dict[str, Any], category: str | None) -> dict[str, Any]:
    copied = (
        "anomaly",
        "confirmed",
        "input",
        "measurement_start_time",
        "measurement_uid",
        "probe_asn",
        "probe_cc",
        "report_id",
        "scores",
        "test_name",
        "test_start_time",
    )
    return {**{key: row[key] for key in copied}, "category_code": category, "failure": row["msm_failure"]}


def _raw_by_uid(uid: str, *, fall_back: bool) -> Response | None:
    """Return the reply to a lookup by uid, None when the report id should be tried."""
    parts = services()
    try:
        body = parts.body(uid)
        if body is not None:
            return _raw_reply(body)
        row = parts.queries.meta_by_uid(uid)
    except BodyUnreadable:
        if fall_back:
            return None
        raise InternalServerError("Measurement not found") from None
    except DatabaseUnavailable:
        if fall_back:
            return None
        raise
    if fall_back:
        return None
    if row is None:
        return _raw_reply(b"{}\n")
    raise InternalServerError("Measurement not found")


def _raw_reply(body: bytes) -> Response:
    response = Response(body, mimetype="application/json")
    response.headers["Cache-Control"] = "max-age=86400"
    return response


def _body_or_none(uid: str) -> bytes | None:
    try:
        return services().body(uid)
    except BodyUnreadable:
        return None


def _body_text(uid: str) -> str:
    body = _body_or_none(uid)
    return "" if body is None else body.decode("utf-8", "replace")
