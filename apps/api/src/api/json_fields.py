"""JSON bodies of small requests, and their fields: what has the wrong type is a 400 that names the field."""

from typing import Any
from urllib.parse import parse_qsl

from flask import request

from api.errors import ApiError, bad_request
from api.request_body import BodyLimits, read_body
from core.envelope import DocumentError, decode_json

MAX_BODY_BYTES = 1024 * 1024
"""Largest body of a small request, in bytes, as received and decompressed."""

FORM = "application/x-www-form-urlencoded"
_MOST_FORM_FIELDS = 100

_limits = BodyLimits(MAX_BODY_BYTES, MAX_BODY_BYTES, 1)


class Fields:
    """The fields of a JSON object; null and absent are the same, unknown ones are ignored."""

    def __init__(self, values: dict[str, Any], prefix: str = "") -> None:
        """Take the members of an object; `prefix` comes before their names in errors."""
        self._values = values
        self._prefix = prefix

    def text(self, name: str, default: str = "", *, longest: int = 200) -> str:
        """Return printable text of at most `longest` characters. Raises ApiError 400."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, str):
            raise self.wrong(name, "must be text")
        if len(value) > longest:
            raise self.wrong(name, f"is longer than {longest} characters")
        if not value.isprintable():
            raise self.wrong(name, "holds characters that cannot be printed")
        return value

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return true or false. Raises ApiError 400."""
        value = self._values.get(name)
        if value is None:
            return default
        if not isinstance(value, bool):
            raise self.wrong(name, "must be true or false")
        return value

    def object(self, name: str) -> "Fields":
        """Return the fields of an object inside this one. Raises ApiError 400."""
        value = self._values.get(name)
        if value is None:
            value = {}
        if not isinstance(value, dict):
            raise self.wrong(name, "must be an object")
        return Fields(value, f"{self._prefix}{name}.")

    def raw(self, name: str) -> Any:
        """Return a value of any type, None when absent."""
        return self._values.get(name)

    def wrong(self, name: str, what: str) -> ApiError:
        """Return the 400 that says what is wrong with a field."""
        return bad_request(f"Invalid value in parameter {self._prefix}{name}: it {what}.")


def json_object() -> Fields:
    """Return the fields of the current request's body, see `json_members`."""
    return Fields(json_members())


def json_members() -> dict[str, Any]:
    """Return the members of the JSON object in the current request's body, whatever its content type says.

    Raises:
        ApiError: 400 `JSON expected` when it is no JSON object, otherwise as `read_body`.
    """
    return _members(small_body())


def json_or_form() -> Fields:
    """Return the fields of the current request's body, a JSON object or what forms send; none when there is no body.

    Of fields that a form repeats, the first counts.

    Raises:
        ApiError: 400 when it is neither, otherwise as `read_body`.
    """
    raw = small_body()
    if not raw:
        return Fields({})
    if request.mimetype != FORM or raw.lstrip().startswith(b"{"):  # `curl -d` calls everything a form
        return Fields(_members(raw))
    try:
        pairs = parse_qsl(raw.decode(), keep_blank_values=True, errors="strict", max_num_fields=_MOST_FORM_FIELDS)
    except ValueError:  # not UTF-8, or too many
        raise bad_request("Form expected", hint="Send the fields in UTF-8, or as a JSON object.") from None
    return Fields(dict(reversed(pairs)))


def small_body() -> bytes:
    """Return the current request's body, at most `MAX_BODY_BYTES`. Raises ApiError as `read_body`."""
    with _limits.place() as place:
        return read_body(request.environ, _limits, place, lambda _size: None)


def _members(raw: bytes) -> dict[str, Any]:
    try:
        value = decode_json(raw)
    except DocumentError:
        value = None
    if not isinstance(value, dict):
        raise ApiError(400, "JSON expected")
    return value
