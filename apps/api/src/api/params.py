"""Query parameters: the parsing rules of the wire contract; what does not parse is a 400 in JSON."""

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from urllib.parse import unquote_to_bytes

from dateutil import parser as date_parser
from flask import Request
from werkzeug.exceptions import Forbidden

from api.errors import bad_request

MAX_VALUE_LENGTH = 8000
"""Longest value looked at, in characters; the server's request line is not much longer."""

MAX_ITEM_LENGTH = 512
"""Longest item of a comma list, in characters; names of hosts have at most 253."""

_MAX_LIST = 200
_MAX_ASN = 2**32 - 1
_ASN = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII)
_INTEGER = re.compile(r"[+-]?[0-9]{1,18}", re.ASCII)
_CC = re.compile(r"[0-9A-Za-z]{2}", re.ASCII)
_NAME = re.compile(r"[!-~]{1,64}", re.ASCII)
_REPORT_ID = re.compile(r"[0-9A-Za-z_]+", re.ASCII)
_UID = re.compile(r"[0-9A-Za-z._]+", re.ASCII)
_INPUT = re.compile(r"[0-9A-Za-z :/.\[\]_%+(){}=?#&!,$-]*", re.ASCII)
_NOT_ASCII = re.compile(r"[^\x00-\x7f]+")
_BOOLEANS = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}
# Two days that differ in the year: a text that leaves the year open parses to different results with them.
_DEFAULT_DAYS = (datetime(2000, 1, 1), datetime(2004, 1, 1))  # noqa: DTZ001 the zone is added after parsing


class Params:
    """The query parameters of one request; the first of repeated ones wins."""

    def __init__(self, request: Request) -> None:
        """Take the parameters of `request`. Raises ApiError 400 when one cannot be text in the database."""
        check_query(request.query_string)
        self._args = request.args

    def text(self, name: str) -> str | None:
        """Return a non-empty value as it is."""
        return self._args.get(name) or None

    def given(self, name: str) -> str | None:
        """Return a value as it is, also an empty one."""
        return self._args.get(name)

    def texts(self, name: str) -> list[str]:
        """Return a comma list: split, sorted, without duplicates and blanks."""
        values = sorted({item for item in self._args.get(name, "").split(",") if item.strip()})
        if len(values) > _MAX_LIST:
            raise bad_request(f"Too many values in parameter {name}; at most {_MAX_LIST} are allowed.")
        if any(len(value) > MAX_ITEM_LENGTH for value in values):
            raise bad_request(
                f"A value in parameter {name} is too long; at most {MAX_ITEM_LENGTH} characters are allowed."
            )
        return values

    def integer(self, name: str, default: int) -> int:
        """Return a whole number."""
        text = self._args.get(name)
        if text is None:
            return default
        if not _INTEGER.fullmatch(text):
            raise bad_request(f"Invalid integer in parameter {name}; give a whole number.")
        return int(text)

    def flag(self, name: str) -> bool:
        """Return whether a switch is on: true, 1 or yes in any case."""
        return self._args.get(name, "").lower() in {"true", "1", "yes"}

    def boolean(self, name: str) -> bool | None:
        """Return a filter on a boolean, None when there is none."""
        text = self._args.get(name, "")
        if not text:
            return None
        value = _BOOLEANS.get(text.lower())
        if value is None:
            raise bad_request(f"Invalid boolean in parameter {name}; give true or false.")
        return value

    def time(self, name: str) -> datetime | None:
        """Return a date or time in UTC without zone, None when absent; an empty value is an error."""
        text = self._args.get(name)
        return None if text is None else parse_time(text, name)

    def networks(self, name: str = "probe_asn") -> list[int]:
        """Return network numbers, each with an optional `AS` in front. Raises Forbidden for network 0."""
        numbers = []
        for item in self.texts(name):
            match = _ASN.fullmatch(item.strip())
            if match is None or int(match[1]) > _MAX_ASN:
                raise bad_request(f"Invalid ASN value in parameter {name}")
            numbers.append(int(match[1]))
        if 0 in numbers:
            raise Forbidden(f"Measurements whose {name} is 0 are not listed. Ask for other networks.")
        return sorted(set(numbers))

    def countries(self, name: str = "probe_cc") -> list[str]:
        """Return country codes of two letters or digits each. Raises Forbidden for `ZZ`."""
        codes = sorted({item.strip().upper() for item in self.texts(name)})
        if not all(map(_CC.fullmatch, codes)):
            raise bad_request(f"Invalid CC value in parameter {name}")
        if "ZZ" in codes:
            raise Forbidden(f"Measurements whose {name} is ZZ are not listed. Ask for other countries.")
        return codes

    def report_id(self, *, required: bool = False) -> str | None:
        """Return a report id of 15 to 100 letters, digits and underscores."""
        text = self._args.get("report_id")
        if not text:
            if required or text is not None:
                raise bad_request("Invalid report_id")
            return None
        if not 15 <= len(text) <= 100:
            raise bad_request("Invalid report_id field")
        if not _REPORT_ID.fullmatch(text):
            raise bad_request("Invalid characters in report_id field")
        return text

    def measurement_uid(self) -> str | None:
        """Return a measurement uid, None when there is none."""
        text = self._args.get("measurement_uid")
        if not text:
            return None
        if not is_uid(text):
            raise bad_request("Invalid measurement_uid field")
        return text

    def checked_input(self) -> str | None:
        """Return `input` when it holds only characters that addresses are made of."""
        text = self._args.get("input")
        if text and not _INPUT.fullmatch(_NOT_ASCII.sub("", text)):
            raise bad_request("Invalid characters in input field")
        return text or None


def check_query(query: bytes) -> None:
    """Check that names and values are UTF-8 of a sensible length without NUL, which the database cannot hold.

    Raises:
        ApiError: 400, naming the parameter.
    """
    for pair in query.split(b"&"):
        name, _, value = (_decoded(part) for part in pair.partition(b"="))
        if name is None or "\x00" in name or len(name) > MAX_VALUE_LENGTH:
            raise bad_request("Invalid characters in the name of a parameter")
        shown = name if _NAME.fullmatch(name) else "with an unusual name"
        if value is None or "\x00" in value:
            raise bad_request(f"Invalid characters in parameter {shown}; give text in UTF-8.")
        if len(value) > MAX_VALUE_LENGTH:
            raise bad_request(
                f"The value of parameter {shown} is too long; give at most {MAX_VALUE_LENGTH} characters."
            )


def is_uid(text: str) -> bool:
    """Return whether `text` can be a measurement uid of any generation: 10 to 100 letters, digits, `.` and `_`."""
    return 10 <= len(text) <= 100 and _UID.fullmatch(text) is not None


def one_of(value: str, allowed: Sequence[str], message: str) -> str:
    """Return `value` in lower case when it is allowed. Raises ApiError 400 with `message`."""
    lowered = value.lower()
    if lowered not in allowed:
        raise bad_request(message)
    return lowered


def parse_time(text: str, name: str) -> datetime:
    """Parse a date or time of many forms into UTC without zone.

    The year must be in it; a missing month or day is the first. Relative words are refused.

    Raises:
        ApiError: 400 when it is no such date.
    """
    if not text.isascii() or len(text) > 64:
        raise _bad_date(name)
    try:
        first, second = (date_parser.parse(text, default=day, tzinfos=_zone).replace(fold=0) for day in _DEFAULT_DAYS)
        if first != second:
            raise _bad_date(name)
        return first.astimezone(UTC).replace(tzinfo=None) if first.tzinfo else first
    except (ValueError, OverflowError, TypeError, AttributeError):
        # The parser's own slips on odd text are not ValueErrors; all mean that it is no date.
        raise _bad_date(name) from None


def _bad_date(name: str) -> Exception:
    return bad_request(f"Invalid date in parameter {name}; write it like 2024-01-31 or 2024-01-31T12:00:00Z.")


def _zone(name: str | None, offset_s: int | None) -> tzinfo | None:
    if offset_s is not None:
        return timezone(timedelta(seconds=offset_s))
    if name is None:
        return None
    raise ValueError(f"unknown time zone {name}")


def _decoded(part: bytes) -> str | None:
    """Return a name or value of a query as text, None when it is not UTF-8."""
    try:
        return unquote_to_bytes(part.replace(b"+", b" ")).decode("utf-8")
    except UnicodeDecodeError:
        return None
