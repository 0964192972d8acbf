"""http_header_field_manipulation: does anything on the path change request headers? (the wire contract, 5.6)"""

from typing import Any

from core.envelope import DocumentError, decode_json
from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, failed_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, as_object

_HEADERS_DICT = "test_keys.requests.response.body.headers_dict"
_REQUEST_HEADERS = "test_keys.requests.request.headers"


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Compare the headers that the probe sent with those that the helper says it received; first request only."""
    if "report_id" not in measurement:
        raise ShapeError("report_id")
    entry = _first_request(measurement.get("test_keys"))
    response = None if entry is None else entry.get("response", {})
    if entry is None or response is None:
        return failed_scores()
    scores = base_scores()
    body = as_object(response, "test_keys.requests.response").get("body")
    if body is None:
        scores["total_tampering"] = True
        return _blocked(scores, 1.0, "Empty body")
    received = _helper_headers(body)
    if received is None:
        return _blocked(scores, 1.0, "Malformed ctrl_headers")
    changes = len(_received_pairs(received) ^ _sent_pairs(entry))
    if changes:
        return _blocked(scores, 1.1, f"{changes} unexpected header change")
    return scores


def _blocked(scores: JsonObject, blocking: float, message: str) -> JsonObject:
    scores["blocking_general"] = blocking
    scores["msg"] = message
    return scores


def _first_request(test_keys: Any) -> JsonObject | None:
    """Return the first request; None where there is none (no test keys, no list, or an empty one)."""
    requests = test_keys.get("requests") if type(test_keys) is dict else None
    if not requests or not isinstance(requests, list | str):
        return None
    return as_object(requests[0], "test_keys.requests")


def _helper_headers(body: Any) -> Any:
    """Return the helper's `headers_dict`; None where the body is not its JSON answer."""
    if not isinstance(body, str):
        return None
    try:
        answer = decode_json(body.encode("utf-8", "surrogatepass"))
    except DocumentError:
        return None
    if type(answer) is not dict or "headers_dict" not in answer:
        return None
    headers = answer["headers_dict"]
    if headers is None:
        raise ShapeError(_HEADERS_DICT)
    return headers


def _received_pairs(headers: Any) -> set[tuple[str, Any]]:
    pairs = set()
    for name, values in as_object(headers, _HEADERS_DICT).items():
        if not isinstance(values, list | str) or not values:
            raise ShapeError(_HEADERS_DICT)
        pairs.add((name, _scalar(values[0], _HEADERS_DICT)))
    pairs.discard(("Connection", "close"))
    return pairs


def _sent_pairs(entry: JsonObject) -> set[tuple[str, Any]]:
    request = as_object(entry.get("request", {}), "test_keys.requests.request")
    headers = as_object(request.get("headers", {}), _REQUEST_HEADERS)
    pairs = {(name, _scalar(value, _REQUEST_HEADERS)) for name, value in headers.items()}
    pairs.discard(("Connection", "close"))
    return pairs


def _scalar(value: Any, place: str) -> Any:
    if isinstance(value, list | dict):
        raise ShapeError(place)
    return value
