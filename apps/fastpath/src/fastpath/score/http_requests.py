"""http_requests (legacy): a site with and without Tor (the wire contract, 5.20)."""

from fastpath.fingerprints import Fingerprint
from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.score.matching import check_count, match_response, record_matches
from fastpath.shape import JsonObject, Measurement, as_object, get_list, get_object, get_test_keys


def score(measurement: Measurement, matcher: Matcher) -> JsonObject:
    """Compare lengths and headers, and look for block pages; those confirm without adding to `blocking_general`."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    length_match = test_keys.get("body_length_match")
    headers_match = test_keys.get("headers_match")
    failed = measurement.get("control_failure") or measurement.get("experiment_failure")
    if failed or length_match is None or headers_match is None:
        scores["accuracy"] = 0.0
        return scores
    if not (length_match and headers_match):
        scores["blocking_general"] = 1.0
    matches = _matches(test_keys, matcher)
    if matches:
        record_matches(scores, matches, measurement.get("probe_cc", ""))
    return scores


def _matches(test_keys: JsonObject, matcher: Matcher) -> list[Fingerprint]:
    matches: list[Fingerprint] = []
    for item in get_list(test_keys, "requests", "test_keys.requests"):
        entry = as_object(item, "test_keys.requests")
        if _over_tor(entry):
            continue
        matches.extend(match_response(get_object(entry, "response", "test_keys.requests.response"), matcher))
        check_count(matches)
    return matches


def _over_tor(entry: JsonObject) -> bool:
    request = get_object(entry, "request", "test_keys.requests.request")
    return bool(get_object(request, "tor", "test_keys.requests.request.tor").get("is_tor"))
