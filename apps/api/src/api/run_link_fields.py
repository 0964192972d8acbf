"""What a run link says and runs, as people send it: each field is bounded, and what is kept is what was given.

Both generations of routes read links here; they differ in how long a name may be. Kept is a JSON object with the names
of the wire; `run_link_views` makes of it what each generation of routes replies. Unknown members are ignored, and null
is the same as absent.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from api.run_link_errors import EMPTY_TRANSLATION, MISSING, FieldError, Loc, wrong
from api.written_text import line, lines

Content = dict[str, Any]
"""What is kept of a link, or of one of its tests."""

WEBSITES = "websites_list_prioritized"
"""The one name of targets that there is: the URLs that the probe would get from a check-in."""

FLAGS = ("is_background_run_enabled", "is_manual_run_enabled")
"""What probes read; people set them under these names or with `_default` behind. Unset means true."""

TEXTS = ("name", "short_description", "description")
"""What can be translated: the members with `_intl` behind."""

LONGEST_DESCRIPTION = 64 * 1024
"""Longest description, in bytes."""
LONGEST_ICON = 200
LONGEST_INPUT = 2000
MOST_CONTENT_BYTES = 512 * 1024
"""Most bytes that a link takes, with everything in it."""
MOST_INPUTS = 2000
MOST_LANGUAGES = 100
MOST_NETTESTS = 100
MOST_DYNAMIC = 3
"""Tests of a link whose inputs are chosen for each probe: a reply holds thousands of URLs for each of them."""

DEEPEST = 5
MOST_VALUES = 1000
"""How deep options may be nested, and how many values they may have altogether."""

_LARGEST = 2**53
_EARLIEST = datetime(2000, 1, 1)  # noqa: DTZ001 UTC without a zone, as everywhere here
_TEST_NAME = re.compile(r"[0-9A-Za-z][0-9A-Za-z_.@-]{0,99}", re.ASCII)
_LANGUAGE = re.compile(r"[A-Za-z]{2,3}(?:[-_][0-9A-Za-z]{2,8}){0,3}", re.ASCII)
_COLOR = re.compile(r"#[0-9A-Fa-f]{6}", re.ASCII)


@dataclass(frozen=True, slots=True)
class Lengths:
    """How many characters the short texts of a link may have, from and to; 0 for those that may be absent."""

    name: tuple[int, int]
    short_description: tuple[int, int]


V1 = Lengths((1, 200), (0, 1000))
V2 = Lengths((2, 50), (2, 200))


def content_of(body: Mapping[str, Any], lengths: Lengths) -> Content:
    """Return what is to be kept of the link in a body, all but its author.

    Raises:
        FieldError: a field is missing or wrong.
    """
    found: Content = {}
    bounds = {"name": lengths.name, "short_description": lengths.short_description}
    for name in TEXTS:
        least, most = bounds.get(name, (0, 0))
        value, translated = body.get(name), body.get(f"{name}_intl")
        if value is not None or least > 0:
            found[name] = _text(value, (name,), least, most)
        if translated is not None:
            found[f"{name}_intl"] = _translations(translated, f"{name}_intl", most)
    found["icon"] = "" if body.get("icon") is None else _text(body["icon"], ("icon",), 0, LONGEST_ICON)
    if body.get("color") is not None:
        found["color"] = _matching(body["color"], ("color",), _COLOR, "must be # and six hexadecimal digits")
    found["nettests"] = _nettests(body.get("nettests"))
    if size_of(found) > MOST_CONTENT_BYTES:
        raise FieldError((), f"The run link takes more than {MOST_CONTENT_BYTES} bytes. Shorten its texts or inputs.")
    return found


def size_of(content: Content) -> int:
    """Return how many bytes a link takes."""
    return len(json.dumps(content, ensure_ascii=False).encode())


def moment_of(value: object, name: str) -> datetime:
    """Return a moment as UTC without a zone, in whole milliseconds. Raises FieldError."""
    try:
        if not isinstance(value, str):
            raise ValueError
        found = datetime.fromisoformat(value)
        found = found.astimezone(UTC).replace(tzinfo=None) if found.tzinfo else found
    except (ValueError, OverflowError):
        raise wrong(value, (name,), "must be a date and time, such as 2024-01-31T12:00:00Z") from None
    if found < _EARLIEST:
        raise FieldError((name,), "must not be before the year 2000")
    return found.replace(microsecond=found.microsecond // 1000 * 1000)


def _text(value: object, loc: Loc, least: int, most: int) -> str:
    """Return one line of `least` to `most` characters, or several lines for a description, which has no `most`."""
    try:
        text = line(value, most) if most else lines(value, LONGEST_DESCRIPTION)
    except ValueError as error:
        raise wrong(value, loc, str(error)) from None
    if least and not text:
        raise FieldError(loc, "must not be empty", MISSING)
    if len(text) < least:
        raise FieldError(loc, f"must have at least {least} characters")
    return text


def _translations(value: object, name: str, most: int) -> dict[str, str]:
    if not isinstance(value, dict):
        raise FieldError((name,), "must be an object of language codes and texts")
    if len(value) > MOST_LANGUAGES:
        raise FieldError((name,), f"has more than {MOST_LANGUAGES} languages")
    found = {}
    for language, translation in value.items():
        if not _LANGUAGE.fullmatch(language):
            raise FieldError((name,), "must have language codes as keys, such as it or pt-BR")
        text = "" if translation is None else _text(translation, (name, language), 0, most)
        if not text.strip():
            raise FieldError((name, language), "must not be empty", EMPTY_TRANSLATION)
        found[language] = text
    return found


def _nettests(value: object) -> list[Content]:
    if not isinstance(value, list):
        raise wrong(value, ("nettests",), "must be a list of tests")
    if len(value) > MOST_NETTESTS:
        raise FieldError(("nettests",), f"has more than {MOST_NETTESTS} tests")
    found = [_nettest(each, ("nettests", number)) for number, each in enumerate(value)]
    if sum("targets_name" in each for each in found) > MOST_DYNAMIC:
        raise FieldError(("nettests",), f"has more than {MOST_DYNAMIC} tests with a targets_name")
    return found


def _nettest(value: object, loc: Loc) -> Content:
    if not isinstance(value, dict):
        raise FieldError(loc, "must be an object")
    given = {name: each for name, each in value.items() if each is not None}
    name = _matching(
        given.get("test_name"), (*loc, "test_name"), _TEST_NAME, "must be a test, such as web_connectivity"
    )
    found: Content = {"test_name": name, **_targets(given, loc)}
    for option in ("options", "backend_options"):
        if option in given:
            if not isinstance(given[option], dict):
                raise FieldError((*loc, option), "must be an object")
            found[option] = _bounded(given[option], (*loc, option))
    for flag in (form for plain in FLAGS for form in (plain, f"{plain}_default")):
        if flag in given:
            if not isinstance(given[flag], bool):
                raise FieldError((*loc, flag), "must be true or false")
            found[flag] = given[flag]
    return found


def _targets(given: Mapping[str, Any], loc: Loc) -> Content:
    """Return the inputs of a test, or the name of where they come from."""
    found: Content = {}
    for name in ("inputs", "inputs_extra"):
        if name not in given:
            continue
        if not isinstance(given[name], list):
            raise FieldError((*loc, name), "must be a list")
        if len(given[name]) > MOST_INPUTS:
            raise FieldError((*loc, name), f"has more than {MOST_INPUTS} items")
    if "inputs" in given:
        places = ((*loc, "inputs", number) for number in range(len(given["inputs"])))
        found["inputs"] = [_text(each, at, 1, LONGEST_INPUT) for each, at in zip(given["inputs"], places, strict=True)]
    if "inputs_extra" in given:
        if len(given["inputs_extra"]) != len(given.get("inputs", ())):
            raise FieldError((*loc, "inputs_extra"), "must have as many items as inputs")
        if not all(isinstance(each, dict) for each in given["inputs_extra"]):
            raise FieldError((*loc, "inputs_extra"), "must be a list of objects, one for each input")
        found["inputs_extra"] = [_bounded(each, (*loc, "inputs_extra")) for each in given["inputs_extra"]]
    if "targets_name" in given:
        if given["targets_name"] != WEBSITES:
            raise FieldError((*loc, "targets_name"), f"must be {WEBSITES}, the only list of targets that there is")
        if given.get("inputs"):
            raise FieldError((*loc, "targets_name"), "must not be there together with inputs; leave out one of them")
        found["targets_name"] = WEBSITES
    return found


def _bounded(value: object, loc: Loc) -> Any:
    """Return any JSON, when it is small, flat, and the same after it was stored. Raises FieldError."""
    left = MOST_VALUES

    def checked(item: object, depth: int) -> None:
        nonlocal left
        left -= 1
        if left < 0 or depth > DEEPEST:
            raise FieldError(loc, f"must have at most {MOST_VALUES} values, nested at most {DEEPEST} deep")
        if isinstance(item, str):
            _text(item, loc, 0, 0)
        elif isinstance(item, int | float) and not abs(item) <= _LARGEST:  # NaN, too
            raise FieldError(loc, "must have no numbers above 2 to the power of 53")
        elif isinstance(item, list):
            for each in item:
                checked(each, depth + 1)
        elif isinstance(item, dict):
            for key, each in item.items():
                _text(key, loc, 0, 100)
                checked(each, depth + 1)

    checked(value, 1)
    return value


def _matching(value: object, loc: Loc, pattern: re.Pattern[str], what: str) -> str:
    if not isinstance(value, str) or not pattern.fullmatch(value):
        raise wrong(value, loc, what)
    return value
