"""tcp_connect (legacy): one TCP connection (the wire contract, 5.8)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, get_test_keys

LIKELY_FAILURES = ("generic_timeout_error", "connection_refused_error", "connect_error", "tcp_timed_out_error")


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """A failed connection is blocking, with less weight for failures that servers cause too."""
    if not measurement.get("input"):
        raise ShapeError("input")
    scores = base_scores()
    connection = get_test_keys(measurement).get("connection")
    if connection != "success":
        scores["blocking_general"] = 0.8 if connection in LIKELY_FAILURES else 1.0
    return scores
