"""whatsapp: registration server, web client and endpoints (the wire contract, 5.4)."""

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, count_endpoints, has_unknown_failure
from fastpath.shape import JsonObject, Measurement, ShapeError, as_object, contains, get_list, get_test_keys

WEB_URL = "https://web.whatsapp.com/"
REGISTRATION_URL = "https://v.whatsapp.net/v2/register"
PROBE_DEFECT = "unknown_failure 'ascii' co"
"""Start of an encoding error inside old probes, which says nothing about the network."""


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Blocked when registration or the web client fails, or when no endpoint can be reached."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    if has_unknown_failure(test_keys):
        scores["accuracy"] = 0.0
    web_failure = test_keys.get("whatsapp_web_failure", "")
    if (web_failure and contains(PROBE_DEFECT, web_failure, "test_keys.whatsapp_web_failure")) or not test_keys.get(
        "requests"
    ):
        if not measurement.get("report_id"):
            raise ShapeError("report_id")
        scores["accuracy"] = 0.0
        return scores

    web, registration = _reachability(test_keys)
    if web is None or registration is None:
        scores["accuracy"] = 0.0
        return scores
    if not (web and registration):
        scores["blocking_general"] = 1.0
        return scores
    endpoints = count_endpoints(test_keys)
    if not endpoints.accessible:
        if endpoints.unreachable:
            scores["blocking_general"] = 1.0
        else:
            scores["accuracy"] = 0.0
    scores["analysis"] = {
        "registration_server_accessible": registration,
        "whatsapp_web_accessible": web,
        "whatsapp_endpoints_accessible": endpoints.accessible > 0,
    }
    return scores


def _reachability(test_keys: JsonObject) -> tuple[bool | None, bool | None]:
    """Return whether the web client and the registration server answered; None where they were never asked."""
    web = registration = None
    for item in get_list(test_keys, "requests", "test_keys.requests"):
        entry = as_object(item, "test_keys.requests")
        url = as_object(entry.get("request", {}), "test_keys.requests.request").get("url", "")
        if url == WEB_URL:
            web = entry.get("failure", True) in (None, "", False)
        elif url == REGISTRATION_URL:
            registration = entry.get("failure") is None
    return web, registration
