"""dash: a video streaming performance test; failures are faults of the measurement, never blocking (5.9)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, contains, get_test_keys

NETWORK_FAILURES = (
    "connection_aborted",
    "json_parse_error",
    "eof_error",
    "json_processing_error",
    "http_request_failed",
    "connect_error",
    "generic_timeout_error",
    "broken_pipe",
    "connection_refused",
)


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Mark failed runs as failed; a network failure also leaves a trace of 0.1."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    if not test_keys:
        scores["accuracy"] = 0.0
        return scores
    failure = test_keys.get("failure")
    if failure is None:
        return scores
    if failure in NETWORK_FAILURES or contains("ssl_error", failure, "test_keys.failure"):
        scores["blocking_general"] = 0.1
    else:
        scores["msg"] = "Probe error"
    scores["accuracy"] = 0.0
    return scores
