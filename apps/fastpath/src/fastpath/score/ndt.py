"""ndt: a speed test, not scored (the wire contract, 5.10)."""

from fastpath.matcher import Matcher
from fastpath.shape import JsonObject, Measurement


def score(_measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Return no scores at all: neither anomaly nor failure."""
    return {}
