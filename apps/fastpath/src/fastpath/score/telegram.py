"""telegram: access points over TCP and HTTP, and the web client (the wire contract, 5.3)."""

from typing import Any

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores, count_endpoints, failed_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, as_object, get_list, get_test_keys

WEB_URLS = ("https://web.telegram.org/", "http://web.telegram.org/")


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Add the failing shares of TCP and HTTP and the web client's verdict; no data counts as half blocked."""
    test_keys = get_test_keys(measurement)
    endpoints = count_endpoints(test_keys)
    web_failure: Any = None
    http_success = http_failure = 0
    for item in get_list(test_keys, "requests", "test_keys.requests"):
        entry = as_object(item, "test_keys.requests")
        if "request" not in entry:
            return failed_scores()
        request = as_object(entry["request"], "test_keys.requests.request")
        if "url" not in request:
            return failed_scores()
        if "failure" not in entry:
            raise ShapeError("test_keys.requests.failure")
        failure = entry["failure"]
        if request["url"] in WEB_URLS:
            if failure is not None:
                web_failure = failure
        elif failure is None:
            http_success += 1
        else:
            http_failure += 1

    scores = base_scores()
    scores["blocking_general"] = (
        _failing_share(endpoints.unreachable, endpoints.accessible)
        + _failing_share(http_failure, http_success)
        + (1.0 if test_keys.get("telegram_web_status") == "blocked" else 0.0)
    )
    scores["web_failure"] = web_failure
    scores["accessible_endpoints"] = endpoints.accessible
    scores["unreachable_endpoints"] = endpoints.unreachable
    scores["http_success_cnt"] = http_success
    scores["http_failure_cnt"] = http_failure
    if web_failure is not None:
        scores["msg"] = f"failure: {web_failure}"
    return scores


def _failing_share(failed: int, succeeded: int) -> float:
    total = failed + succeeded
    return failed / total if total else 0.5
