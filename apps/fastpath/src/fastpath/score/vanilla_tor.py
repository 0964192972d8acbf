"""vanilla_tor: how far Tor gets while starting (the wire contract, 5.14)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, failed_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, contains, get_test_keys

DONE = ("Bootstrapped 100%: Done", "Bootstrapped 100% (done): Done")


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Blocked unless the log or the progress says that Tor started; less so the further it came."""
    test_keys = get_test_keys(measurement)
    log = test_keys.get("tor_logs") or test_keys.get("tor_log")
    if log is None:
        return failed_scores()
    scores = base_scores()
    if any(contains(line, log, "test_keys.tor_log") for line in DONE):
        return scores
    progress = _progress(test_keys)
    if progress != 100.0:
        scores["blocking_general"] = 1.0 - progress * 0.004
    return scores


def _progress(test_keys: JsonObject) -> float:
    """Return `tor_progress` in percent, within 0 to 100; numbers written as text are accepted."""
    try:
        value = float(test_keys.get("tor_progress", 0))
    except (TypeError, ValueError, OverflowError):
        raise ShapeError("test_keys.tor_progress") from None
    return min(100.0, max(0.0, value))  # in this order not-a-number becomes 0
