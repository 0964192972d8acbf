"""openvpn: a handshake with a VPN endpoint (the wire contract, 5.18)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, get_test_keys


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Blocked when `success` is exactly false; without it, a fault."""
    scores = base_scores()
    success = get_test_keys(measurement).get("success")
    if success is False:
        scores["blocking_general"] = 1.0
    elif success is None:
        scores["accuracy"] = 0.0
    scores["extra"] = {"test_runtime": measurement.get("test_runtime")}
    return scores
