"""The test keys of old reports in today's form: HTTP requests and DNS queries (the wire contract, 12.5 and 12.6).

Functions change the objects they are given; what does not have the shape of its time raises TypeError, ValueError,
LookupError or AttributeError, and the measurement is left out.
"""

import re
from typing import Any

from fastpath.shape import JsonObject

HTTP_FAMILY = frozenset(
    {
        "http_requests",
        "meek_fronted_requests",
        "domclass_collector",
        "http_keyword_filtering",
        "http_uk_mobile_networks",
        "http_header_field_manipulation",
        "http_url_list",
        "http_host",
        "squid",
        "captive_portal",
        "psiphon",
        "tor_http_requests_test",
    }
)
DNS_FAMILY = frozenset({"dns_consistency", "dns_injection", "captive_portal"})

MAX_HEADER_VALUE = 10_000
"""A measurement with a header value this long is left out, in characters."""


class NotUsable(Exception):
    """A measurement that is left out; `reason` is machine readable."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"The measurement is left out: {reason}.")
        self.reason = reason


def normalise_http(entry: JsonObject, keys: JsonObject) -> None:
    """Bring requests, their order, and the input of a test of the HTTP family into today's form."""
    if entry["input"] is None:
        entry["input"] = _url_option(entry["options"])
    requests = list(keys.get("requests") or [])
    if keys.get("request") and keys.get("response"):
        requests.append({"request": keys.pop("request"), "response": keys.pop("response")})
    for item in requests:
        _normalise_request(item)
    keys["requests"] = _in_order(requests)
    if "headers_diff" in keys and keys["headers_diff"] is not None:
        keys["headers_diff"] = list(keys["headers_diff"])


def _url_option(options: Any) -> Any:
    found = None
    for name in ("--url", "-u"):  # the latter wins
        if isinstance(options, list) and name in options[:-1]:
            found = options[options.index(name) + 1]
    return found


def _normalise_request(item: JsonObject) -> None:
    request = item["request"]
    request["body"] = _text(request.get("body"))
    request["headers"] = _headers(request.get("headers"))
    request["tor"] = _tor(request)
    response = item.get("response")
    if not isinstance(response, dict):
        response = item["response"] = {}
    response["body"] = _text(response.get("body"))
    response["headers"] = _headers(response.get("headers"))
    lengths = (value for name, value in response["headers"].items() if name.lower() == "content-length")
    item["response_length"] = next(lengths, None)


def _text(value: Any) -> Any:
    if isinstance(value, bytes):
        value = value.decode("utf-8", "backslashreplace")
    return value.replace("\0", "") if isinstance(value, str) else value


def _headers(pairs: Any) -> JsonObject:
    headers: JsonObject = {}
    for name, value in pairs.items() if isinstance(pairs, dict) else pairs or ():
        for _ in range(2):
            if isinstance(value, list):
                value = value[0]
        value = _text(value)
        if len(value) >= MAX_HEADER_VALUE:
            raise NotUsable("header_too_long")
        headers[_text(name)] = value
    return headers


def _tor(request: JsonObject) -> JsonObject:
    given = request.get("tor")
    if request["url"].startswith("shttp"):
        request["url"] = request["url"].replace("shttp://", "http://", 1)
        return {"is_tor": True, "exit_ip": None, "exit_name": None}
    if isinstance(given, dict) and given.get("is_tor") is True:
        return {"is_tor": True, "exit_ip": given.get("exit_ip"), "exit_name": given.get("exit_name")}
    return {"is_tor": given is True, "exit_ip": None, "exit_name": None}


def _in_order(requests: list[JsonObject]) -> list[JsonObject]:
    """The first without Tor, the first over Tor, the others without, the others over it."""
    plain = [item for item in requests if not item["request"]["tor"]["is_tor"]]
    tor = [item for item in requests if item["request"]["tor"]["is_tor"]]
    return [*plain[:1], *tor[:1], *plain[1:], *tor[1:]]


def normalise_dns(keys: JsonObject, test_name: str) -> None:
    """Bring queries, answers and the verdict of a test of the DNS family into today's form."""
    keys.pop("test_resolvers", None)
    tampering = keys.pop("tampering", None)
    if tampering:
        # Of a mapping this takes the first letters of its keys: what readers of these data have always been given.
        keys["errors"] = tampering
        keys["successful"] = [item[0] for item in tampering if item[1] is False]
        keys["failed"] = [item[0] for item in tampering if item[1] is not True]
        keys["inconsistent"] = [item[0] for item in tampering if item[1] is True]
    elif test_name == "dns_consistency":
        keys |= {"errors": {}, "successful": [], "failed": [], "inconsistent": []}
    for query in keys.get("queries") or ():
        _normalise_query(query)


_HOSTNAME = re.compile(r"\[Query\('(.*)'")


def _normalise_query(query: JsonObject) -> None:
    text = query.pop("query", None)
    query["hostname"] = _first(_HOSTNAME, text) if isinstance(text, str) else None
    resolver = query.pop("resolver", None)
    pair = resolver if isinstance(resolver, list | tuple) and len(resolver) == 2 else (None, None)
    query["resolver_hostname"], query["resolver_port"] = pair
    query.pop("addrs", None)
    query["answers"] = [_answer(*pair) for pair in query.get("answers") or ()]
    failure = query.get("failure")
    query["failure"] = failure or (None if query["answers"] else "no_answer")


_TTL = re.compile(r"ttl=(\d+)")
_TYPE = re.compile(r"type=([A-Za-z]+)")
_ADDRESS = re.compile(r"address=(\d+\.\d+\.\d+\.\d+)")
_PREFERENCE = re.compile(r"preference=(\d+)")
_NAME = re.compile(r"name=([^\s>]*)")
_SOA = {
    "responsible_name": re.compile(r"rname=([^\s>]*)"),
    "hostname": re.compile(r"mname=([^\s>]*)"),
    "serial_number": re.compile(r"serial=(\d+)"),
    "refresh_interval": re.compile(r"refresh=(\d+)"),
    "retry_interval": re.compile(r"retry=(\d+)"),
    "minimum_ttl": re.compile(r"minimum=(\d+)"),
    "expiration_limit": re.compile(r"expire=(\d+)"),
}


def _answer(record: str, data: str) -> JsonObject:
    kind = _first(_TYPE, record)
    answer: JsonObject = {"ttl": _first(_TTL, record), "answer_type": kind}
    if kind == "A":
        answer["ipv4"] = _first(_ADDRESS, data)
    elif kind == "MX":
        answer |= {"hostname": _first(_ADDRESS, data), "preference": _first(_PREFERENCE, data)}
    elif kind in ("PTR", "CNAME"):
        answer["hostname"] = _first(_NAME, data)
    elif kind == "SOA":
        answer |= {key: _first(pattern, data) for key, pattern in _SOA.items()}
    return answer


def _first(pattern: re.Pattern[str], text: str) -> str:
    match = pattern.search(text)
    return match[1] if match else ""
