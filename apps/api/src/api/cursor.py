"""Cursors: the place in the list where the next page begins, as text for links.

A cursor holds the position of the last row given out, the order that the position is in, and the time window if the
caller left it open, so that a walk which lasts over midnight stays in the window it began with. It is not secret and
not signed: everything in it is checked like any other parameter.
"""

import base64
import binascii
import json
from dataclasses import dataclass
from datetime import datetime

from api.errors import ApiError, bad_request
from api.list_order import Order, Position

_VERSION = 1
_MAX_LENGTH = 4000
_MAX_TEXT = 200
_MAX_UID = 1000
_ASN_LIMIT = 2**63


@dataclass(frozen=True, slots=True)
class Cursor:
    """A position, and the bounds of the window it was found in."""

    position: Position
    since: datetime | None
    until: datetime | None

    def encode(self, order: Order) -> str:
        """Return the text for links: letters, digits, `-` and `_`."""
        place = self.position
        fields = [
            _VERSION,
            order.column,
            order.direction,
            place.value,
            _written(place.start),
            place.uid,
            _written(self.since),
            _written(self.until),
        ]
        raw = json.dumps(fields, separators=(",", ":"), ensure_ascii=False).encode()
        return base64.urlsafe_b64encode(raw).rstrip(b"=").decode()


def decode(text: str, order: Order) -> Cursor:
    """Return the cursor behind `text`, made for this order.

    Raises:
        ApiError: 400 when it is none, or one of another order.
    """
    try:
        version, column, direction, value, start, uid, since, until = _fields(text)
        if version != _VERSION:
            raise ValueError("another version")
        if (column, direction) != (order.column, order.direction):
            raise _refused("The cursor belongs to another order_by or order.")
        return Cursor(Position(_value(value, order), _time(start), _text(uid, _MAX_UID)), _bound(since), _bound(until))
    except (ValueError, TypeError, RecursionError):
        raise _refused("Invalid cursor.") from None


def _refused(reason: str) -> ApiError:
    return bad_request(f"{reason} Start again from the first page, and follow next_url from there.")


def _fields(text: str) -> list[object]:
    if len(text) > _MAX_LENGTH:
        raise ValueError("too long")
    padded = text.encode("ascii") + b"=" * (-len(text) % 4)
    try:
        fields = json.loads(base64.b64decode(padded, altchars=b"-_", validate=True))
    except binascii.Error:
        raise ValueError("not base64") from None
    if not isinstance(fields, list):
        raise TypeError("not a list")
    return fields


def _value(value: object, order: Order) -> str | int | None:
    if order.by_time:
        if value is not None:
            raise ValueError("a value in the order of time")
        return None
    if order.column == "probe_asn":
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < _ASN_LIMIT:
            raise ValueError("not a network")
        return value
    return _text(value, _MAX_TEXT)


def _text(value: object, longest: int) -> str:
    if not isinstance(value, str) or len(value) > longest or "\x00" in value:
        raise ValueError("not text of that length")
    value.encode()  # lone surrogates are no text for the database
    return value


def _bound(value: object) -> datetime | None:
    return None if value is None else _time(value)


def _time(value: object) -> datetime:
    if not isinstance(value, str):
        raise TypeError("not a time")
    found = datetime.fromisoformat(value)
    if found.tzinfo is not None:
        raise ValueError("a time with a zone")
    return found


def _written(moment: datetime | None) -> str | None:
    return None if moment is None else moment.isoformat()
