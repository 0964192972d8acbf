"""torsf: Tor through snowflake (the wire contract, 5.17)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, as_text, get_test_keys

BROKEN_SOFTWARE = ("ooniprobe-android", "3.8.3")
"""Start of the software name, and version, of a release whose results cannot be trusted."""


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Any failure is blocking, except from the broken release."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    name, version = BROKEN_SOFTWARE
    if measurement.get("software_version", "unknown") == version and as_text(
        measurement.get("software_name", "unknown"), "software_name"
    ).startswith(name):
        scores["accuracy"] = 0.0
    elif test_keys.get("failure"):
        scores["blocking_general"] = 1.0
    else:
        scores["extra"] = {
            "bootstrap_time": test_keys.get("bootstrap_time"),
            "test_runtime": measurement.get("test_runtime"),
        }
    return scores
