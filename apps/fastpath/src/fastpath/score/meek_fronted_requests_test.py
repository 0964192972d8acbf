"""meek_fronted_requests_test: Tor's domain fronting through content networks (the wire contract, 5.11)."""

from typing import Any

from fastpath.matcher import Matcher
from fastpath.score.common import base_scores
from fastpath.shape import JsonObject, Measurement, ShapeError, as_object, as_text, get_list, get_test_keys

FRONT_SERVER = "ECAcc "
"""Start of the `Server` header of the front; any other server means that someone else answered."""

_HEADERS = "test_keys.requests.response.headers"


def score(measurement: Measurement, _matcher: Matcher) -> JsonObject:
    """Blocked when a request has no answer or one other than 200; half a point per foreign server."""
    scores = base_scores()
    test_keys = get_test_keys(measurement)
    if not test_keys.get("requests"):
        scores["blocking_general"] = 1.0
        scores["accuracy"] = 0
        return scores
    for item in get_list(test_keys, "requests", "test_keys.requests"):
        response = as_object(item, "test_keys.requests").get("response", {})
        if response is None or as_object(response, "test_keys.requests.response").get("code", 0) != 200:
            scores["blocking_general"] = 1.0
            return scores
        if not as_text(_server(response.get("headers", {})), _HEADERS).startswith(FRONT_SERVER):
            scores["blocking_general"] += 0.5
    return scores


def _server(headers: Any) -> Any:
    """Return the `Server` header of an object, or of a list of [name, [value, ...]]."""
    if type(headers) is not list:
        return as_object(headers, _HEADERS).get("Server", "")
    server: Any = ""
    for element in headers:
        if not element:
            continue
        if not isinstance(element, list | str) or len(element) < 2:
            raise ShapeError(_HEADERS)
        name, values = element[0], element[1]
        if isinstance(name, list | dict) or not isinstance(values, list | str) or not values:
            raise ShapeError(_HEADERS)
        if name == "Server":
            server = values[0]
    return server
