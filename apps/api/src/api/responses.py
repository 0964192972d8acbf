"""Replies: JSON as the wire contract wants it, with Cache-Control and a tag for conditional requests.

A member that differs each time although the answer is the same would make its tag worthless. Name it:

    json_response(reply, cache="max-age=60", volatile=("metadata.query_time",))
    json_response(reply, volatile=("db_stats",))

A reply that is known by an identifier and never changes is tagged by it: `response.set_etag(uid)`.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from datetime import date, datetime
from decimal import Decimal
from typing import Any

from flask import Response
from flask.json.provider import JSONProvider

NO_CACHE = "max-age=0, no-cache"

NO_STORE = f"{NO_CACHE}, no-store"
"""For replies with a credential in them, which must not get on the disk of a shared computer."""


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


def json_response(value: Any, *, status: int = 200, cache: str | None = None, volatile: Sequence[str] = ()) -> Response:
    """Return a JSON reply.

    Args:
        value: what to send.
        status: its status.
        cache: the value of Cache-Control; None for none.
        volatile: members that the tag does not depend on, as `key` or `key.key`; `value` must be an object then.
    """
    if volatile:
        text, stable = _without(value, volatile)
        response = Response(text, status=status, mimetype="application/json")
        response.set_etag(tag_of(stable.encode("ascii")), weak=True)
    else:
        response = Response(to_json(value), status=status, mimetype="application/json")
    if cache is not None:
        response.headers["Cache-Control"] = cache
    return response


def tag_of(body: bytes) -> str:
    """Return the tag of a body: the same for the same bytes, on every host."""
    return hashlib.blake2b(body, digest_size=15).hexdigest()


def _without(value: dict[str, Any], volatile: Sequence[str]) -> tuple[str, str]:
    """Return an object as JSON, whole and without its volatile members; only what holds one is serialised twice."""
    whole, stable = [], []
    for key in sorted(value):
        name = json.dumps(key) + ":"
        member = value[key]
        text = name + to_json(member).rstrip("\n")
        whole.append(text)
        inner = {path.removeprefix(f"{key}.") for path in volatile if path.startswith(f"{key}.")}
        if inner:
            rest = {name: item for name, item in member.items() if name not in inner}
            stable.append(name + to_json(rest))
        elif key not in volatile:
            stable.append(text)
    return "{" + ",".join(whole) + "}\n", ",".join(stable)
