"""http_invalid_request_line: does a middlebox touch malformed requests to an echo helper? (the wire contract, 5.7)"""

from typing import Any

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, failed_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, get_test_keys


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Anything echoed differently is blocking; missing answers are not, and the probe's `tampering` is not read."""
    test_keys = get_test_keys(measurement)
    sent = _sequence(test_keys.get("sent", []), "test_keys.sent")
    received = _sequence(test_keys.get("received", []), "test_keys.received")
    if not sent and not received:
        return failed_scores()
    scores = base_scores()
    if any(one != other for one, other in zip(sent, received, strict=False)):
        scores["blocking_general"] = 1.0
    return scores


def _sequence(value: Any, place: str) -> list[Any]:
    # Text and objects are compared by characters and keys, as everything that can be walked through is.
    if isinstance(value, list | str | dict):
        return list(value)
    raise ShapeError(place)
