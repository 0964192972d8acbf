"""psiphon: does the circumvention tool start? (the wire contract, 5.12)"""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, get_test_keys


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Any failure is blocking; without a bootstrap time, or from probes too old to tell their resolver, a fault."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    bootstrap_time = test_keys.get("bootstrap_time", 0)
    scores["accuracy"] = 1.0
    if test_keys.get("failure") is not None:
        scores["blocking_general"] = 1.0
    elif bootstrap_time == 0:
        scores["accuracy"] = 0.0
    if "resolver_ip" not in measurement:
        scores["accuracy"] = 0.0
    scores["extra"] = {"test_runtime": measurement.get("test_runtime"), "bootstrap_time": bootstrap_time}
    return scores
