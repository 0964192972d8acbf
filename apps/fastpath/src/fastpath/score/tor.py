"""tor: reachability of directory authorities and bridges (the wire contract, 5.13)."""

from typing import Any

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, failed_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, as_object, get_test_keys


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Return the share of targets that failed; all kinds of target weigh the same."""
    targets = get_test_keys(measurement).get("targets", {})
    if not targets or type(targets) is list:
        return failed_scores()
    blocked = reached = 0
    for target in as_object(targets, "test_keys.targets").values():
        if _is_incomplete(target):
            return failed_scores()
        failure = as_object(target, "test_keys.targets")["failure"]
        if failure == "":
            raise ShapeError("test_keys.targets.failure")
        if failure is None:
            reached += 1
        elif failure is not False:  # false: the target was not tried
            blocked += 1
    scores = base_scores()
    if blocked + reached:
        scores["blocking_general"] = blocked / (blocked + reached)
    else:
        scores["accuracy"] = 0.0
    scores["extra"] = {"test_runtime": measurement.get("test_runtime")}
    return scores


def _is_incomplete(target: Any) -> bool:
    if not isinstance(target, dict | list | str):
        raise ShapeError("test_keys.targets")
    return "failure" not in target or "network_events" not in target
