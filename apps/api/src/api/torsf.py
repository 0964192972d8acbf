"""`/api/v1/torsf_stats`: how Tor through Snowflake works, by day and country."""

import json
from datetime import UTC, datetime, timedelta

from flask import Blueprint, Response, request

from api.aggregation import written
from api.aggregation_body import turn
from api.aggregation_question import TIME, Question, countries
from api.params import Params
from api.responses import json_response, to_json

TEST_NAME = "torsf"
SETTLED = timedelta(hours=72)
"""Measurements of a time longer ago than this hardly change any more."""

_TICK = timedelta(microseconds=1)
_TOLD = (TIME, "probe_cc", "anomaly_count", "confirmed_count", "failure_count", "measurement_count")

blueprint = Blueprint("torsf", __name__)


@blueprint.get("/api/v1/torsf_stats")
def torsf_stats() -> Response:
    """Count the measurements of a test by day and country; `since` is exclusive, `until` inclusive."""
    params = Params(request)
    since, until = params.time("since"), params.time("until")
    codes = countries(params, "Invalid characters in parameter probe_cc; give codes like IT,FR.")
    question = Question(
        axes=(TIME, "probe_cc"),
        since=_after(since),
        until=_after(until),
        countries=codes,
        test_names=(TEST_NAME,),
    )
    settled = until is not None and until < datetime.now(UTC).replace(tzinfo=None) - SETTLED
    result = written(question, "JSON")
    with turn(len(result.lines)):
        rows = [
            {**{name: row[name] for name in _TOLD}, "anomaly_rate": row["anomaly_count"] / row["measurement_count"]}
            for row in json.loads(f"[{result.lines}]")
        ]
        return json_response({"result": rows, "v": 0}, cache="max-age=86400" if settled else None)


@blueprint.after_request
def with_version(response: Response) -> Response:
    """Give every error `v`, whoever found it: the parameters, the question, the quotas or the database."""
    if response.status_code >= 400:
        response.set_data(to_json({**response.get_json(), "v": 0}))
    return response


def _after(moment: datetime | None) -> datetime | None:
    """Return the first time after `moment`; the last one there is stays."""
    try:
        return None if moment is None else moment + _TICK
    except OverflowError:
        return moment
