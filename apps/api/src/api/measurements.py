"""One measurement for readers: its metadata, its body."""

from typing import Any

from flask import Blueprint, Response, request
from werkzeug.exceptions import InternalServerError
from werkzeug.utils import redirect

from api.errors import bad_request
from api.params import Params, is_uid
from api.responses import NO_CACHE, json_response
from api.services import BodyUnreadable, services
from core.db import DatabaseUnavailable

VERIFICATION = {"t": "verified", "f": "failed", "u": "unverified"}
"""What the stored letters of column is_verified are on the wire; anything else is null."""

blueprint = Blueprint("measurements", __name__)


@blueprint.get("/api/v1/measurement_meta")
def measurement_meta() -> Response:
    """Metadata of one measurement; with `full` also its body, as text."""
    params = Params(request)
    full = params.flag("full")
    uid = params.measurement_uid()
    queries = services().queries
    if uid is not None:
        row = queries.meta_by_uid(uid)
        categorised = True
    else:
        report_id = _report_id(params)
        input_ = params.checked_input()
        row = queries.meta_by_report(report_id, input_)
        categorised = input_ is not None
    reply: dict[str, Any] = {}
    if row is not None:
        category = (queries.category(row["input"], row["probe_cc"]) or "") if categorised else None
        reply = _meta(row, category)
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
    report_id = _report_id(params)
    row = services().queries.meta_by_report(report_id, params.text("input"))
    if row is None:
        return _nothing_yet()
    body = _body_or_none(row["measurement_uid"])
    if body is None:
        raise InternalServerError("Measurement not found")
    return _raw_reply(body, row["measurement_uid"])


@blueprint.get("/api/v1/measurement/<uid>")
def measurement(uid: str) -> Response:
    """The body of one measurement (older form), optionally as a download."""
    download = (Params(request).text("download") or "").lower() == "true"
    body = _body_or_none(uid) if is_uid(uid) else None
    if body is None:
        raise bad_request("Incorrect or inexistent measurement_uid")
    response = _raw_reply(body, uid, "max-age=3600")
    if download:
        response.headers["Content-Disposition"] = f"attachment; filename=ooni_measurement-{uid}.json"
    return response


@blueprint.get("/api/v1/files")
def files() -> Response:
    """There was once a list of files here; who still asks gets an answer that says so."""
    return json_response({"msg": "not implemented"}, cache="max-age=86400")


@blueprint.get("/api/")
def documentation() -> Response:
    """Who looks around in a browser is led to the documentation."""
    return redirect("/apidocs/", 302, Response)  # type: ignore[return-value]  # of the class given


def _report_id(params: Params) -> str:
    # Applications from when the probe's database held no report ids send an empty one.
    if not params.text("report_id"):
        raise bad_request("Invalid report_id; give a measurement_uid, or the report_id of the measurement.")
    report_id = params.report_id(required=True)
    assert report_id is not None
    return report_id


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
    return {
        **{key: row[key] for key in copied},
        "category_code": category,
        "failure": row["msm_failure"],
        "verification_status": VERIFICATION.get(row["is_verified"]),
    }


def _raw_by_uid(uid: str, *, fall_back: bool) -> Response | None:
    """Return the reply to a lookup by uid, None when the report id should be tried."""
    parts = services()
    try:
        body = parts.body(uid)
        if body is not None:
            return _raw_reply(body, uid)
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
        return _nothing_yet()
    raise InternalServerError("Measurement not found")


def _raw_reply(body: bytes, uid: str, cache: str = "max-age=86400") -> Response:
    response = Response(body, mimetype="application/json")
    response.headers["Cache-Control"] = cache
    response.set_etag(uid)  # what was acknowledged under it never changes
    return response


def _nothing_yet() -> Response:
    # Who asks a moment too early, before the score, must not be told so from a cache for a day.
    return json_response({}, cache=NO_CACHE)


def _body_or_none(uid: str) -> bytes | None:
    try:
        return services().body(uid)
    except BodyUnreadable:
        return None


def _body_text(uid: str) -> str:
    body = _body_or_none(uid)
    return "" if body is None else body.decode("utf-8", "replace")
