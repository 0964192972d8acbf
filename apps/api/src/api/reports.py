"""Opening a report, submitting measurements to it, closing it (the path of most released probes)."""

import hashlib
import re
from datetime import UTC, datetime

from flask import Blueprint, Response, request

from api import metrics
from api.documents import check_submission
from api.errors import bad_request
from api.intake import Arrival
from api.json_fields import json_members
from api.params import check_query
from api.probe_place import compare_place
from api.responses import NO_CACHE, json_response
from api.services import services
from core.ids import IdentifierError, ReportId, measurement_uid_of, new_report_id, parse_report_id
from core.received import received_hash

BACKEND_VERSION = "1.3.5"
"""Value on the wire; probes of every generation know it."""

SUPPORTED_FORMATS = ("yaml", "json")
ROUTE = "report"

_ASN = re.compile(r"AS([0-9]{1,10})", re.ASCII)
_NOT_IN_IDS = re.compile(r"[^a-z0-9]+", re.ASCII)

blueprint = Blueprint("reports", __name__)


@blueprint.post("/report")
def open_report() -> Response:
    """Hand out a self-describing report id; nothing is stored."""
    asked = json_members()
    report_id = new_report_id(
        datetime.now(UTC),
        normalise_test_name(asked.get("test_name", "")),
        normalise_cc(asked.get("probe_cc", "ZZ")),
        normalise_asn(asked.get("probe_asn", "AS0")),
        services().settings.collector_id,
    )
    metrics.REPORTS_OPENED.inc()
    reply = {
        "backend_version": BACKEND_VERSION,
        "report_id": report_id,
        "supported_formats": list(SUPPORTED_FORMATS),
    }
    return json_response(reply, cache=NO_CACHE)


@blueprint.post("/report/<rid>")
def receive_measurement(rid: str) -> Response:
    """Store one measurement of a report durably and answer with its uid; one sent again has the uid it had."""
    try:
        report_id = parse_report_id(rid)
    except IdentifierError as error:
        metrics.MEASUREMENTS_DISCARDED.labels(ROUTE, "bad_report_id").inc()
        raise bad_request("Incorrect format", hint=str(error)) from None
    metrics.MEASUREMENTS_RECEIVED.labels(ROUTE).inc()
    reason = _reason_to_drop(report_id)
    if reason is not None:
        metrics.MEASUREMENTS_DISCARDED.labels(ROUTE, reason).inc()
        return json_response({}, cache=NO_CACHE)
    intake = services().intake
    sha512, key = hashlib.sha512(), received_hash(rid)
    with intake.body(request, ROUTE, sha512, key) as body:
        check_submission(body)

        def arrival_at(received_at: datetime) -> Arrival:
            uid = measurement_uid_of(received_at, report_id.cc, report_id.test_name, sha512.hexdigest())
            return Arrival(uid, rid, body)

        stored = intake.store(key.digest(), arrival_at, route=ROUTE)
    compare_place(report_id.cc, report_id.asn)
    return json_response({"measurement_uid": stored.uid}, cache=NO_CACHE)


@blueprint.post("/report/<rid>/close")
def close_report(rid: str) -> Response:  # noqa: ARG001 any id is accepted, since nothing about reports is stored
    """Acknowledge the end of a report."""
    return json_response({}, cache="max-age=3600")


@blueprint.get("/api/_/check_report_id")
def check_report_id() -> Response:
    """Say that a report exists, whatever its id, since old clients poll this; nothing about reports is stored.

    Raises:
        ApiError: 400 for a query that is no text.
    """
    check_query(request.query_string)
    return json_response({"v": 0, "found": True}, cache="max-age=1")


def normalise_asn(value: object) -> int:
    """Return the network number of a text like `AS1234`, 0 for anything else."""
    text = value.upper() if isinstance(value, str) else ""
    match = _ASN.fullmatch(text)
    return int(match[1]) if match and 3 <= len(text) <= 12 else 0


def normalise_cc(value: object) -> str:
    """Return a country code of two upper-case letters or digits, `ZZ` for anything else."""
    text = value.upper().replace("_", "") if isinstance(value, str) else ""
    return text if len(text) == 2 and text.isascii() and text.isalnum() else "ZZ"


def normalise_test_name(value: object) -> str:
    """Return the test name in lower case, without the characters that a report id cannot hold."""
    text = value.lower() if isinstance(value, str) else ""
    return _NOT_IN_IDS.sub("", text)[:100]


def _reason_to_drop(report_id: ReportId) -> str | None:
    """Measurements without a network or a country cannot be used; probes are not told."""
    if report_id.asn == 0:
        return "asn_0"
    return "cc_zz" if report_id.cc.upper() == "ZZ" else None
