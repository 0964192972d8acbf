#!/usr/bin/env python3
"""Measurements, counts and bodies from the measurement API, as pandas data frames.

A file to start from: copy it, it needs nothing but pandas and requests. In a notebook:

    from measurements import aggregation, measurements, raw

    frame = measurements(API, probe_cc="IT", test_name="web_connectivity", since="2024-01-01", until="2024-02-01")
    days = aggregation(API, axis_x="measurement_start_day", probe_cc="IT", since="2024-01-01", until="2024-02-01")
    body = raw(API, frame.measurement_uid[0])

or as a program: `python measurements.py --help`. Filters are the parameters of the API, see its page /apidocs/.
"""

import argparse
import json
import os
import random
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from itertools import islice
from typing import Any

import pandas as pd
import requests

API = os.environ.get("MEASUREMENT_API", "http://127.0.0.1:8080")
"""Base address of the instance to ask; the default is what `make run` starts."""

TOKEN = os.environ.get("MEASUREMENT_API_TOKEN", "")
"""Access token, for a quota of your own; it belongs into the environment, not into a file that others get."""

USER_AGENT = "measurements-example/1 (write here who you are and how to reach you)"
TIMEOUT_S = (10, 60)
"""Longest time to connect, and to wait for an answer, in seconds."""

ATTEMPTS = 6
LONGEST_WAIT_S = 900
"""If the server asks for more patience than this, who runs the program should know."""

SCORES = ("blocking_general", "blocking_global", "blocking_country", "blocking_isp", "blocking_local", "accuracy")
"""The numbers of `scores` that become columns; the whole of it stays, as JSON, in column `scores`."""

COLUMNS = {
    "measurement_uid": "string",
    "report_id": "string",
    "measurement_start_time": "datetime64[us, UTC]",
    "probe_cc": "string",
    "probe_asn": "int64",
    "test_name": "string",
    "input": "string",
    "anomaly": "bool",
    "confirmed": "bool",
    "failure": "bool",
    **dict.fromkeys(SCORES, "float64"),
    "blocking_type": "string",
    "scores": "string",
    "measurement_url": "string",
}
"""Columns of a frame of measurements, with their types."""

COUNTS = ("anomaly_count", "confirmed_count", "failure_count", "ok_count", "measurement_count")

Progress = Callable[[int, dict[str, Any]], None]
"""Is told how many measurements came so far, and the latest."""


class ApiError(Exception):
    """The API refused; the text is its own and says what to change."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(f"{text} (HTTP {status})")
        self.status = status


def measurements(
    api: str, *, most: int | None = None, progress: Progress | None = None, **filters: object
) -> pd.DataFrame:
    """Return all measurements that `filters` let through, newest first; with `most`, no more than that.

    Raises:
        ApiError: the API refuses a filter, or cannot answer.
        requests.RequestException: the API cannot be reached.
    """
    rows = []
    for row in islice(each_measurement(api, **filters), most):
        rows.append(_flat(row))
        if progress is not None:
            progress(len(rows), row)
    return pd.DataFrame(rows, columns=list(COLUMNS)).astype(COLUMNS)


def each_measurement(api: str, **filters: object) -> Iterator[dict[str, Any]]:
    """Give each measurement as the API sends it, page after page; for more than fits into memory. Raises as above."""
    with _session() as session:
        url: str | None = f"{api}/api/v1/measurements"
        query: dict[str, object] = {"limit": 100, **filters}
        while url is not None:
            page = _get(session, url, query).json()
            yield from page["results"]
            # It has all filters in it, and where to go on.
            url, query = page["metadata"]["next_url"], {}


def aggregation(api: str, **parameters: object) -> pd.DataFrame:
    """Return counts of measurements, a row per value of `axis_x` (and `axis_y`), one row without. Raises as above."""
    with _session() as session:
        reply = _get(session, f"{api}/api/v1/aggregation", parameters).json()
    if "error" in reply:  # this route tells some of them with status 200
        raise ApiError(200, reply["error"])
    result = reply["result"]
    rows = [result] if isinstance(result, dict) else result
    axes = [str(parameters[axis]) for axis in ("axis_x", "axis_y") if parameters.get(axis)]
    frame = pd.DataFrame(rows, columns=[*axes, *COUNTS]).astype(dict.fromkeys(COUNTS, "int64"))
    if "measurement_start_day" in frame:
        frame["measurement_start_day"] = pd.to_datetime(frame["measurement_start_day"], utc=True, format="ISO8601")
    return frame


def raw(api: str, uid: str) -> dict[str, Any]:
    """Return the body of one measurement as the probe sent it. Raises LookupError when there is none, and as above."""
    with _session() as session:
        body: dict[str, Any] = _get(session, f"{api}/api/v1/raw_measurement", {"measurement_uid": uid}).json()
    if not body:
        raise LookupError(f"There is no measurement {uid}. Take a measurement_uid out of the list.")
    return body


def _session() -> requests.Session:
    session = requests.Session()
    session.headers["User-Agent"] = USER_AGENT
    if TOKEN:
        session.headers["Authorization"] = f"Bearer {TOKEN}"
    return session


def _get(session: requests.Session, url: str, query: dict[str, object]) -> requests.Response:
    """Ask until there is an answer: as often and as late as the server wants."""
    asked = {key: _text(value) for key, value in query.items() if value is not None}
    for attempt in range(1, ATTEMPTS + 1):
        try:
            reply = session.get(url, params=asked, timeout=TIMEOUT_S)
        except (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError):
            # Not there, too slow, or gone in the middle of the reply.
            if attempt == ATTEMPTS:
                raise
            wait = _backoff_s(attempt)
        else:
            if reply.ok:
                return reply
            # 504 means that the question is too large: it does not get smaller by asking again.
            if reply.status_code not in {429, 502, 503} or attempt == ATTEMPTS:
                raise ApiError(reply.status_code, _error_text(reply))
            wait = _retry_after_s(reply) or _backoff_s(attempt)
            if wait > LONGEST_WAIT_S:
                raise ApiError(reply.status_code, _error_text(reply))
        time.sleep(wait)
    raise AssertionError("the last attempt returns or raises")


def _text(value: object) -> str:
    """Return a filter as the API wants it: lists with commas, and true or false."""
    if isinstance(value, bool):
        return str(value).lower()
    return ",".join(map(str, value)) if isinstance(value, list | tuple | set) else str(value)


def _backoff_s(attempt: int) -> float:
    """1, 2, 4, … seconds, not quite so that many programs do not come again together."""
    return float(2 ** (attempt - 1)) * random.uniform(0.5, 1.5)  # noqa: S311 no secret


def _retry_after_s(reply: requests.Response) -> float | None:
    """Return what the server asks for, in seconds or as a date."""
    asked = reply.headers.get("Retry-After", "")
    if asked.isdigit():
        return float(asked)
    try:
        return max(0.0, (parsedate_to_datetime(asked) - datetime.now(UTC)).total_seconds())
    except (TypeError, ValueError):
        return None


def _error_text(reply: requests.Response) -> str:
    try:
        return str(reply.json()["error"])
    except (ValueError, KeyError, TypeError):
        return reply.reason or "The server gives no reason."


def _flat(row: dict[str, Any]) -> dict[str, Any]:
    """Return a measurement with its scores in columns, and its network as a number."""
    scores = row["scores"] if isinstance(row["scores"], dict) else {}
    analysis = scores.get("analysis")
    blocking = analysis.get("blocking_type") if isinstance(analysis, dict) else None
    return {
        **row,
        **{name: _number(scores.get(name)) for name in SCORES},
        "measurement_start_time": pd.Timestamp(row["measurement_start_time"]),
        "probe_asn": int(row["probe_asn"].removeprefix("AS")),
        "blocking_type": blocking if isinstance(blocking, str) else None,
        "scores": json.dumps(scores),
    }


def _number(score: object) -> float | None:
    """Return a score; those of years ago are not all numbers."""
    return float(score) if isinstance(score, int | float) else None


def _show(count: int, row: dict[str, Any]) -> None:
    if count % 100 == 0:
        print(f"\r{count} measurements, back to {row['measurement_start_time']}", end="", file=sys.stderr)


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Measurements as CSV.", epilog="Filters: see /apidocs/ of the API.")
    parser.add_argument("--api", default=API, help="base address of the API (default: MEASUREMENT_API or %(default)s)")
    parser.add_argument("--csv", metavar="FILE", help="write all rows there; without, a few are shown")
    parser.add_argument("--most", type=int, metavar="N", help="stop after N measurements")
    parser.add_argument("--raw", metavar="UID", help="print the body of this measurement instead")
    for axis in ("x", "y"):
        parser.add_argument(
            f"--axis-{axis}", metavar="AXIS", help="count instead, by probe_cc, measurement_start_day, …"
        )
    for name in ("probe_cc", "probe_asn", "test_name", "domain", "input", "category_code", "since", "until"):
        parser.add_argument(f"--{name.replace('_', '-')}", dest=name)
    for name in ("anomaly", "confirmed", "failure"):
        parser.add_argument(f"--{name}", choices=("true", "false"))
    return parser


def main() -> int:
    """Do what the command line says; return the exit code."""
    parser = _arguments()
    arguments = vars(parser.parse_args())
    if arguments["axis_y"] is not None and arguments["axis_x"] is None:
        parser.error("--axis-y needs --axis-x; give the one axis as --axis-x")
    api, csv, most, uid = (arguments.pop(name) for name in ("api", "csv", "most", "raw"))
    asked = {name: value for name, value in arguments.items() if value is not None}
    try:
        if uid is not None:
            print(json.dumps(raw(api, uid), indent=1))
            return 0
        if "axis_x" in asked:
            frame = aggregation(api, **asked)
        else:
            frame = measurements(api, most=most, progress=_show, **asked)
    except (ApiError, LookupError, requests.RequestException) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    print(f"\r{len(frame)} rows", file=sys.stderr)
    if csv is None:
        print(frame.to_string(max_rows=20, max_cols=8))
    else:
        frame.to_csv(csv, index=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
