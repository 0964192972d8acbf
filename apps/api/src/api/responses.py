"""Replies: JSON as the wire contract wants it, Cache-Control, cross-origin headers."""

import json
import math
import re
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from flask import Flask, Request, Response, request
from flask.json.provider import JSONProvider

NO_CACHE = "max-age=0, no-cache"
_HEADER_LIST = re.compile(r"[0-9A-Za-z!#$%&'*+.^_`|~, -]{1,1000}", re.ASCII)
_METHODS = "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"


def to_json(value: Any) -> str:
    """Serialise with sorted keys, compact, ASCII, ending in a newline; numbers that JSON lacks become null."""
    try:
        return _dumps(value) + "\n"
    except ValueError:
        return _dumps(_without_nan(value)) + "\n"


def _dumps(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False, default=_plain)


def _plain(value: Any) -> Any:
    if isinstance(value, datetime):
        text = value.isoformat()
        return text if value.tzinfo else text + "Z"
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return float(value)
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"{type(value).__name__} has no JSON form; convert it before it is sent.")


def _without_nan(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return value


class ContractJson(JSONProvider):
    """Flask's JSON provider with the output rules of the wire contract."""

    def dumps(self, obj: Any, **_kwargs: Any) -> str:
        """Serialise `obj`; see `to_json`."""
        return to_json(obj)

    def loads(self, s: str | bytes, **kwargs: Any) -> Any:
        """Parse JSON text."""
        return json.loads(s, **kwargs)

    def response(self, *args: Any, **kwargs: Any) -> Response:
        """Build a JSON reply; without arguments an empty object, since some clients reject null."""
        value = args[0] if len(args) == 1 else kwargs or (list(args) if args else {})
        return json_response(value)


def json_response(value: Any, *, status: int = 200, cache: str | None = None) -> Response:
    """Return a JSON reply with the given Cache-Control value."""
    response = Response(to_json(value), status=status, mimetype="application/json")
    if cache is not None:
        response.headers["Cache-Control"] = cache
    return response


def register(app: Flask) -> None:
    """Add cross-origin headers to every reply, errors included, and answer preflights."""

    @app.before_request
    def preflight() -> Response | None:
        if request.method == "OPTIONS" and "Access-Control-Request-Method" in request.headers:
            return _preflight_reply(request)
        return None

    @app.after_request
    def allow_any_origin(response: Response) -> Response:
        response.headers["Access-Control-Allow-Origin"] = "*"
        return response


def _preflight_reply(asked: Request) -> Response:
    response = Response(b"", status=200, mimetype="text/html")
    response.headers["Access-Control-Allow-Methods"] = _METHODS
    wanted = asked.headers.get("Access-Control-Request-Headers", "")
    if _HEADER_LIST.fullmatch(wanted):
        response.headers["Access-Control-Allow-Headers"] = wanted
    return response
