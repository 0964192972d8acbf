"""stunreachability: one STUN server (the wire contract, 5.16)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, get_test_keys


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Any failure is blocking."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    scores["extra"] = {"endpoint": test_keys.get("endpoint")}
    failure = test_keys.get("failure")
    if failure:
        scores["blocking_general"] = 1.0
        scores["extra"]["failure"] = failure
    return scores
