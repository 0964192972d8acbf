"""dns_consistency (legacy): stored but never scored (the wire contract, 5.10)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement


def score(_measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Return the scores of a clean measurement."""
    return base_scores()
