"""web_connectivity: a site as seen from the probe's network, compared with a control (the wire contract, 5.2)."""

from fastpath.fingerprints import Fingerprint
from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, has_unknown_failure
from fastpath.score.matching import check_count, match_dns, match_requests, record_matches
from fastpath.shape import Base64Error, JsonObject, Measurement, ShapeError, get_test_keys

BLOCKING_TYPES = ("tcp_ip", "dns", "http-diff", "http-failure")


def score(measurement: Measurement, matcher: Matcher) -> JsonObject:
    """Combine the probe's own verdict (`blocking`) with matches of known block pages."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    if "probe_cc" not in measurement:
        raise ShapeError("probe_cc")
    undecodable = False
    try:
        matches = _matches(test_keys, matcher)
    except Base64Error:
        undecodable, matches = True, []
    if matches:
        record_matches(scores, matches, measurement["probe_cc"])

    if test_keys.get("title_match") in (None, True, False):
        _apply_verdict(scores, test_keys, matched=bool(matches))
    else:
        scores["accuracy"] = 0.0
    if undecodable:
        scores["accuracy"] = 0.0
    return scores


def _matches(test_keys: JsonObject, matcher: Matcher) -> list[Fingerprint]:
    matches = match_dns(test_keys, matcher)
    matches.extend(match_requests(test_keys, matcher))
    check_count(matches)
    return matches


def _apply_verdict(scores: JsonObject, test_keys: JsonObject, *, matched: bool) -> None:
    blocking = test_keys.get("blocking")
    if blocking in BLOCKING_TYPES:
        scores["blocking_general"] = 1.0
        scores["analysis"] = {"blocking_type": blocking}
    elif blocking is None:
        if not matched:
            scores["accuracy"] = 0.0
    elif blocking != False:  # noqa: E712 the numbers 0 and 0.0 count as false too, empty text does not
        scores["analysis"] = {"msg": "Unsupported blocking type"}
        scores["accuracy"] = 0.0
    if has_unknown_failure(test_keys):
        scores["accuracy"] = 0.0
    scores["blocking_general"] += (
        scores["blocking_country"] + scores["blocking_global"] + scores["blocking_isp"] + scores["blocking_local"]
    )
    if not matched and "accessible" in test_keys and test_keys["accessible"] is None:
        scores["accuracy"] = 0.0
