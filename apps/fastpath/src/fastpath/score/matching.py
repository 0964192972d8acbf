"""Looking for fingerprints in the DNS answers and HTTP responses of a measurement (the wire contract, 4.3 to 4.5)."""

from collections.abc import Iterable
from typing import Any

from fastpath.fingerprints import Fingerprint
from fastpath.matcher import Matcher
from fastpath.shape import JsonObject, ShapeError, as_object, as_text, decode_base64, get_list

MAX_MATCHES = 2000
"""Most matches listed for one measurement; a document made to exceed it is refused, since the list would be stored."""

_ANSWERS = "test_keys.queries.answers"
_RESPONSE = "test_keys.requests.response"
_BODY = "test_keys.requests.response.body"
_HEADERS = "test_keys.requests.response.headers"


def match_dns(test_keys: JsonObject, matcher: Matcher) -> list[Fingerprint]:
    """Return the fingerprints of all DNS answers, once per answer that matches.

    Of each answer one address counts: `ipv4` where that key exists (even null), else `hostname`, else `ipv6`.
    """
    matches: list[Fingerprint] = []
    for query in get_list(test_keys, "queries", "test_keys.queries"):
        for answer in _answers(as_object(query, "test_keys.queries")):
            if type(answer) is not dict:
                _check_other_answer(answer)
                continue
            if "ipv4" in answer:
                address = answer["ipv4"]
            elif "hostname" in answer:
                address = answer["hostname"]
            else:
                address = answer.get("ipv6")
            if type(address) is str:
                matches.extend(matcher.dns(address))
    check_count(matches)
    return matches


def match_response(response: JsonObject, matcher: Matcher) -> list[Fingerprint]:
    """Return the fingerprints of one HTTP response's body and headers.

    Raises:
        ShapeError: body or headers have a type that cannot be read.
        Base64Error: a binary body or header is truncated or wrongly padded.
    """
    body = _body(response.get("body"))
    matches = [] if body is None else matcher.body(body)
    headers = response.get("headers")
    if headers:
        matches.extend(matcher.headers(as_object(headers, _HEADERS)))
    return matches


def match_requests(test_keys: JsonObject, matcher: Matcher) -> list[Fingerprint]:
    """Return the fingerprints of every response in `requests`, redirects included."""
    matches: list[Fingerprint] = []
    for request in get_list(test_keys, "requests", "test_keys.requests"):
        response = as_object(request, "test_keys.requests").get("response")
        if response is not None:
            matches.extend(match_response(as_object(response, _RESPONSE), matcher))
            check_count(matches)
    return matches


def check_count(matches: list[Fingerprint]) -> None:
    """Refuse a document with more than MAX_MATCHES matches."""
    if len(matches) > MAX_MATCHES:
        raise ShapeError("fingerprint_matches")


def record_matches(scores: JsonObject, matches: list[Fingerprint], probe_cc: Any) -> None:
    """List the matches in `scores` and set the localities and `confirmed` where one of them confirms blocking."""
    scores["fingerprints"] = [fingerprint.listing() for fingerprint in matches]
    country = as_text(probe_cc, "probe_cc").upper()
    for fingerprint in matches:
        if fingerprint.confirms(country):
            scores[fingerprint.locality] = 1.0
            scores["confirmed"] = True


def _answers(query: JsonObject) -> Iterable[Any]:
    answers = query.get("answers")
    if answers is None:
        return ()
    if isinstance(answers, list | str | dict):
        return answers
    raise ShapeError(_ANSWERS)


def _check_other_answer(answer: Any) -> None:
    # Text and lists are answers without an address, unless they hold the name of one.
    if not isinstance(answer, str | list) or any(key in answer for key in ("ipv4", "hostname", "ipv6")):
        raise ShapeError(_ANSWERS)


def _body(body: Any) -> str | bytes | None:
    if body is None or type(body) is str:
        return body
    binary = as_object(body, _BODY)
    if "data" in binary and binary.get("format") == "base64":
        return decode_base64(binary["data"], _BODY)
    return None
