"""`/api/v1/aggregation`: how many measurements there are, by up to two axes; as JSON or CSV."""

import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import structlog
from flask import Blueprint, Response, request
from psycopg import errors as pg_errors

from api.aggregation_body import in_ascii, turn
from api.aggregation_question import TIME, Asked, Question, check_axes, grain_of, read
from api.aggregation_sql import Form, Statement, statement
from api.errors import ApiError, bad_request
from api.front import leave_cache
from api.metrics import DATABASE_FAILURES
from api.params import Params
from api.read_slots import TURN_WAIT_S, taken
from api.responses import json_response, tag_of, to_json
from api.services import services
from core.counters import COUNTS

PATH = "/api/v1/aggregation"

MAX_COMBINATIONS = 200_000
"""Most combinations of the axes in one reply."""

MAX_BYTES = 16 * 2**20
"""Most bytes of them; reached at some 100,000 combinations of a time and an input, which may be of any length."""

TIMEOUT_S = 20.0
"""How long the database may work on one question, in seconds."""

_NOTHING: Mapping[Form, str] = {
    "JSON": to_json(dict.fromkeys(COUNTS, 0)).rstrip(),
    "CSV": ",".join("0" for _ in COUNTS),
}

# Rows of years lie in well over a hundred partitions, each of which a query locks together with its indexes. The
# database has room for a bounded number of locks, for readers and writers together: one such question per worker.
_one_of_many_partitions = threading.BoundedSemaphore(1)

blueprint = Blueprint("aggregation", __name__)
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Written:
    """A result as the database wrote it.

    Attributes:
        lines: the combinations: JSON objects with commas in between, or lines of CSV with line ends in between.
        rows_read: the number of counters and rows that went into it.
    """

    lines: str
    rows_read: int


@blueprint.get(PATH)
def aggregation() -> Response:
    """Count measurements by up to two axes. What cannot be read at all is told with status 200, as clients expect."""
    started = time.perf_counter()
    params = Params(request)
    try:
        asked = read(params)
    except ApiError as error:
        return json_response({"error": error.body["error"], "v": 0})
    question = _checked(asked)
    response = _csv(question) if asked.csv else _json(question, started)
    if asked.download:
        suffix = "csv" if asked.csv else "json"
        response.headers["Content-Disposition"] = f"attachment; filename=ooni-aggregate-data.{suffix}"
    return response


@blueprint.get(f"{PATH}/observations")
@blueprint.get(f"{PATH}/analysis")
def not_kept() -> Response:
    """Say that there is nothing about single connections here, and where counts of measurements are."""
    Params(request)
    raise ApiError(
        404,
        "This server keeps no observations of single connections, only scored measurements. "
        f"Ask {PATH} for counts of measurements, with the same filters.",
    )


def written(question: Question, form: Form) -> Written:
    """Return the combinations of the axes with their counts, sorted by the axes; one line when there is no axis.

    Raises:
        ApiError: 400 for too many combinations or bytes, 504 when it takes too long, 503 when there are too many
            readers.
        DatabaseUnavailable: the database is away.
        psycopg.Error: the query fails.
    """
    if question.is_void:
        return Written("" if question.axes else _NOTHING[form], 0)
    asked = statement(question, most=MAX_COMBINATIONS + 1)
    found = _found(asked, asked.as_lines(form, most_bytes=MAX_BYTES), question)
    if found["combinations"] > MAX_COMBINATIONS:
        raise _too_large(f"more than {MAX_COMBINATIONS} combinations of {' and '.join(question.axes)}", question)
    if found["lines"] is None:
        raise _too_large(f"more than {MAX_BYTES} bytes", question)
    return Written(found["lines"], found["rows_read"])


def _checked(asked: Asked) -> Question:
    question = asked.question
    check_axes(question.axes)
    if TIME not in question.axes:
        return question
    return replace(question, grain=grain_of(asked.time_grain, question.since, question.until))


def _json(question: Question, started: float) -> Response:
    result = written(question, "JSON")
    with turn(len(result.lines)):
        lines = in_ascii(result.lines)
        # Read and sent: rows and bytes, in the form that clients know.
        stats = {
            "bytes": len(lines),
            "elapsed_seconds": round(time.perf_counter() - started, 6),
            "row_count": result.rows_read,
            "total_row_count": result.rows_read,
        }
        start, end = (b"[", b"]") if question.axes else (b"", b"")
        dimensions = b'"dimension_count":%d,"result":' % len(question.axes)
        answer = b"".join((dimensions, start, lines, end, b',"v":0}\n'))
        response = Response([b'{"db_stats":%b,' % _bytes(stats), answer], mimetype="application/json")
        response.set_etag(tag_of(answer), weak=True)
    return response


def _csv(question: Question) -> Response:
    result = written(question, "CSV")
    with turn(len(result.lines)):
        header = ",".join(sorted((*question.axes, *COUNTS))).encode("ascii")
        body = b"".join((header, b"\r\n", result.lines.encode(), b"\r\n" if result.lines else b""))
        response = Response(body, content_type="text/csv")
        response.set_etag(tag_of(body), weak=True)
    return response


def _found(asked: Statement, sql: str, question: Question) -> dict[str, Any]:
    with _turn(asked):
        try:
            (found,) = services().reader.rows(sql, asked.values, timeout_s=TIMEOUT_S, narrow=_narrow(question))
        except pg_errors.ProgramLimitExceeded as error:
            # Something on the way to the counts is longer than a value may be, 1 GB.
            DATABASE_FAILURES.labels("refused").inc()
            raise _too_large("more than the database can hold", question) from error
        except (pg_errors.ProgrammingError, pg_errors.DataError, pg_errors.InternalError) as error:
            DATABASE_FAILURES.labels("query").inc()
            log.error("query failed", sqlstate=error.sqlstate, error=type(error).__name__)
            raise bad_request("Database query error", v=0) from error
    return found


@contextmanager
def _turn(asked: Statement) -> Iterator[None]:
    """Let only one question of many partitions at a time through. Raises ApiError 503 when there is no turn."""
    if not asked.many_partitions:
        yield
        return
    leave_cache()  # so that it gives its turn away when its client leaves
    busy = "Another question about single measurements of years is being answered. Narrow it, or try again soon."
    with taken(_one_of_many_partitions, TURN_WAIT_S, busy):
        yield


def _too_large(size: str, question: Question) -> ApiError:
    return bad_request(f"The result has {size}. {_narrow(question)}", v=0)


def _narrow(question: Question) -> str:
    """Return what to do about a question that is too much, for its own shape."""
    axes, ways = question.axes, []
    if question.since is None or question.until is None:
        ways.append("give since and until")
    else:
        ways.append("bring since and until closer together")
    if TIME in axes and question.grain in {"hour", "day"}:
        ways.append("take a coarser time_grain")
    filters: Sequence[tuple[str, object]] = (
        ("probe_cc", question.countries),
        ("test_name", question.test_names),
        ("domain", question.domains or question.input),
        ("probe_asn", question.networks),
    )
    missing = [name for name, given in filters if not given]
    if missing:
        ways.append(f"filter by {' or '.join(missing[:3])}")
    if len(axes) == 2:
        ways.append("leave out an axis")
    return f"Narrow it: {', or '.join(ways)}."


def _bytes(value: object) -> bytes:
    return to_json(value).rstrip().encode("ascii")
