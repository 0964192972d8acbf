"""The list of measurements: every filter and order, pages by offset and by cursor."""

import math
import re
import time
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlencode

from flask import Blueprint, Response, request

from api import cursor
from api.config import REQUEST_LINE_LIMIT
from api.cursor import Cursor
from api.errors import bad_request
from api.list_filter import START, ListFilter
from api.list_order import ORDER_COLUMNS, Order, Position
from api.list_queries import Page
from api.measurements import VERIFICATION
from api.params import Params, one_of
from api.responses import NO_CACHE, json_response
from api.services import services

PATH = "/api/v1/measurements"
DEFAULT_DAYS = 30
MAX_LIMIT = 100

MAX_OFFSET = 10_000
"""How many rows a reader may have skipped; each of them is read. With a cursor none is, so there is no bound then."""

_LARGEST_OFFSET = 10**18 - 1
_RUN_LINK_ID = re.compile(r"[0-9]{1,20}", re.ASCII)
_CATEGORY = re.compile(r"[A-Z]{1,16}", re.ASCII)
_PAGING = {"limit", "offset", "cursor"}
_SAFE = "/:,?=@"
"""Characters that stand for themselves in a query; quoted, each would be three."""

blueprint = Blueprint("measurement_list", __name__)


@dataclass(frozen=True, slots=True)
class _Asked:
    """What a request asks for; `open_since` and `open_until` are bounds that it left open."""

    wanted: ListFilter
    category: str | None
    order: Order
    limit: int
    offset: int
    after: Position | None
    open_since: datetime | None
    open_until: datetime | None


@blueprint.get(PATH)
def list_measurements() -> Response:
    """Search measurements; pages of at most 100, never counted in total."""
    if request.user_agent.string.startswith("okhttp"):
        return json_response(_OKHTTP_DUMMY, cache=NO_CACHE)
    started = time.perf_counter()
    asked = _asked(Params(request))
    parts = services()
    page = parts.measurement_list.page(
        asked.wanted,
        asked.order,
        category=asked.category,
        limit=asked.limit,
        offset=asked.offset,
        after=asked.after,
    )
    base = parts.settings.base_url
    reply = {
        "metadata": _metadata(base, asked, page, time.perf_counter() - started),
        "results": [_item(row, base) for row in page.rows],
    }
    return json_response(reply, cache="max-age=60", volatile=("metadata.query_time",))


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


def _asked(params: Params) -> _Asked:
    direction = one_of(params.text("order") or "desc", ("asc", "desc"), "Invalid order; give asc or desc.")
    column = one_of(
        params.text("order_by") or START,
        ORDER_COLUMNS,
        f"Invalid field for ordering: give one of {', '.join(ORDER_COLUMNS)} in parameter order_by.",
    )
    order = Order(column, direction == "desc")
    limit = _limit(params)
    text = params.text("cursor")
    place = None if text is None else cursor.decode(text, order)
    offset = _offset(params, bounded=place is None)
    wanted = _filter(params)
    since, until = params.time("since"), params.time("until")
    open_since = open_until = None
    if wanted.report_id is None:
        # A walk that lasts over midnight stays in the window that it began with.
        if until is None:
            open_until = until = (place and place.until) or _tomorrow()
        if since is None:
            open_since = since = (place and place.since) or _earlier(until)
    return _Asked(
        wanted=replace(wanted, since=since or datetime.min, until=until or datetime.max),  # noqa: DTZ901 no bound
        category=_category(params),
        order=order,
        limit=limit,
        offset=offset,
        after=None if place is None else place.position,
        open_since=open_since,
        open_until=open_until,
    )


def _limit(params: Params) -> int:
    limit = params.integer("limit", MAX_LIMIT)
    if limit > MAX_LIMIT:
        raise bad_request(f"`limit` is only allowed up to {MAX_LIMIT}")
    if limit < 1:
        raise bad_request(f"Invalid limit; give 1 to {MAX_LIMIT}.")
    return limit


def _offset(params: Params, *, bounded: bool) -> int:
    offset = params.integer("offset", 0)
    if not 0 <= offset <= _LARGEST_OFFSET:
        raise bad_request("Invalid offset; give 0 or more.")
    if bounded and offset > MAX_OFFSET:
        raise bad_request(
            f"`offset` is only allowed up to {MAX_OFFSET} without a cursor. Follow metadata.next_url; "
            "it has a cursor, with which every page is as fast as the first. Or narrow since and until."
        )
    return offset


def _tomorrow() -> datetime:
    return datetime.now(UTC).replace(hour=0, minute=0, second=0, microsecond=0, tzinfo=None) + timedelta(days=1)


def _earlier(until: datetime) -> datetime:
    try:
        return until - timedelta(days=DEFAULT_DAYS)
    except OverflowError:
        raise bad_request("Invalid date in parameter until; give a later one.") from None


def _category(params: Params) -> str | None:
    category = params.text("category_code")
    if category is None or params.text("input") is not None:
        return None
    if not _CATEGORY.fullmatch(category):
        raise bad_request("Invalid characters in parameter category_code; give one category, such as NEWS.")
    return category


def _filter(params: Params) -> ListFilter:
    """Return all filters but those on the time and the category."""
    input_ = params.text("input")
    run_link = params.text("ooni_run_link_id")
    if run_link is not None and not _RUN_LINK_ID.fullmatch(run_link):
        raise bad_request("Invalid ooni_run_link_id; give a number.")
    test_name = params.given("test_name")
    return ListFilter(
        report_id=params.report_id(),
        inputs=() if input_ is None else (input_,),
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


def _metadata(base: str, asked: _Asked, page: Page, seconds: float) -> dict[str, Any]:
    limit, offset = asked.limit, asked.offset
    known = offset + len(page.rows)
    metadata: dict[str, Any] = {
        "count": -1 if page.more else known,
        "current_page": math.ceil(offset / limit) + 1,
        "limit": limit,
        "next_url": None,
        "offset": offset,
        "pages": -1 if page.more else math.ceil(known / limit),
        "query_time": round(seconds, 6),
    }
    if page.more:
        place = Cursor(Position.of(page.rows[-1]), asked.open_since, asked.open_until)
        own = [(name, value) for name, value in request.args.items(multi=True) if name not in _PAGING]
        paging = [("offset", offset + limit), ("limit", limit), ("cursor", place.encode(asked.order))]
        metadata["next_url"] = base + _link([*own, *paging])
    return metadata


def _link(query: list[tuple[str, Any]]) -> str:
    """Return the path of a page, which can be asked for as it is."""
    link = f"{PATH}?{urlencode(query, safe=_SAFE)}"
    if len(f"HEAD {link} HTTP/1.1\r\n") > REQUEST_LINE_LIMIT:
        raise bad_request(
            "The query is too long for the address of the next page, metadata.next_url. "
            "Shorten it: give fewer or shorter values, or ask in several requests."
        )
    return link


def _item(row: dict[str, Any], base: str) -> dict[str, Any]:
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
        "verification_status": VERIFICATION.get(row["is_verified"]),
    }
