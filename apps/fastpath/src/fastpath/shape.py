"""Reading values out of documents that may have any shape: one exception and a few typed accessors.

Scoring rules are written for well-formed documents. Whatever is not of the type that a rule needs raises ShapeError
with the place (never the value), which becomes the machine-readable reason `scorer_type_error:<place>`.

Throughout, null counts as absent, and where a list is read an empty string or object counts as an empty list, as in the
wire contract.
"""

import binascii
from typing import Any, TypeAlias

JsonObject: TypeAlias = dict[str, Any]
Measurement: TypeAlias = JsonObject


class ShapeError(Exception):
    """A value of the document has a type that the rule cannot work with; `place` is its dotted path."""

    def __init__(self, place: str) -> None:
        super().__init__(f"The value of {place} has a type that cannot be scored. Look at the document's source.")
        self.place = place


class Base64Error(ValueError):
    """Base64 text is truncated or wrongly padded."""


def as_object(value: Any, place: str) -> JsonObject:
    """Return `value`, which must be an object."""
    if type(value) is dict:
        return value
    raise ShapeError(place)


def as_text(value: Any, place: str) -> str:
    """Return `value`, which must be text."""
    if type(value) is str:
        return value
    raise ShapeError(place)


def get_object(parent: JsonObject, key: str, place: str) -> JsonObject:
    """Return the object `parent[key]`; {} where it is absent or null. `place` names it in the error."""
    value = parent.get(key)
    if type(value) is dict:
        return value
    if value is None:
        return {}
    raise ShapeError(place)


def get_list(parent: JsonObject, key: str, place: str) -> list[Any]:
    """Return the list `parent[key]`; [] where it is absent, null, or an empty string or object."""
    value = parent.get(key)
    if type(value) is list:
        return value
    if value is None or value in ("", {}):
        return []
    raise ShapeError(place)


def get_test_keys(measurement: Measurement) -> JsonObject:
    """Return the `test_keys` object; {} where it is absent or null."""
    return get_object(measurement, "test_keys", "test_keys")


def contains(text: str, value: Any, place: str) -> bool:
    """Tell whether `text` is a substring of a string, an element of a list or a key of an object."""
    if isinstance(value, str | list | dict):
        return text in value
    raise ShapeError(place)


def decode_base64(data: Any, place: str) -> bytes:
    """Decode base64 leniently: characters outside the alphabet are ignored.

    Raises:
        ShapeError: `data` is not text, or holds characters other than ASCII.
        Base64Error: the padding or the length is wrong.
    """
    if type(data) is not str or not data.isascii():
        raise ShapeError(place)
    try:
        return binascii.a2b_base64(data)
    except binascii.Error as error:
        raise Base64Error(str(error)) from None
