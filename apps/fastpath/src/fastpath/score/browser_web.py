"""browser_web: a page load inside a browser (the wire contract, 5.19)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, get_test_keys


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """An error is blocking; anything but ok or error, a fault."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    result = test_keys.get("result", "")
    if result == "error":
        scores["blocking_general"] = 1.0
    elif result != "ok":
        scores["accuracy"] = 0.0
    browser_name, load_time = test_keys.get("browser_name"), test_keys.get("load_time_ms")
    scores["extra"] = {
        "browser_name": "" if browser_name is None else browser_name,
        "load_time_ms": 0 if load_time is None else load_time,
    }
    return scores
