"""The fields of a finding as people send them: each checked, with its limits.

    sent = checked(members)            # what is there, under the names of the wire contract
    whole({**DEFAULTS, **sent})        # what must be there, and what must fit together

Unknown keys are ignored, as are those that the server sets (`creator_account_id`, `create_time`): the web interface
sends back all that it was shown.
"""

import json
import re
import unicodedata
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from itertools import chain, count
from secrets import token_hex
from typing import Any
from urllib.parse import urlsplit

from api.domain_names import is_domain
from api.errors import ApiError
from api.typed_errors import typed_error
from api.written_text import line, lines

Check = Callable[[object], Any]

LONGEST_TITLE = 300
LONGEST_DESCRIPTION = 1_000
"""Longest short description, in bytes."""
LONGEST_TEXT = 64 * 1024
"""Longest text, in bytes."""
LONGEST_REST = 256 * 1024
"""What all else of a finding may take together, in bytes of its JSON: lists of findings hold it."""
LONGEST_SLUG = 64
LONGEST_LINK = 2_000
LONGEST_TAG = 50
LONGEST_DOMAIN = 260
MOST_ITEMS: Mapping[str, int] = {
    "CCs": 250,
    "ASNs": 500,
    "domains": 200,
    "tags": 50,
    "test_names": 50,
    "links": 100,
    "themes": 20,
}
"""The longest that each list may be."""

_MOST_ASN = 2**32 - 1
_YEARS = range(1990, 2100)
_CC = re.compile(r"[A-Z]{2}", re.ASCII)
_NAME = re.compile(r"[a-z0-9_]{1,50}", re.ASCII)
_THEME = re.compile(r"[a-z_]{1,50}", re.ASCII)
_TIME = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z", re.ASCII)
_SLUG = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*", re.ASCII)
_NUMBER = re.compile(r"[1-9][0-9]{0,17}", re.ASCII)
_LINK = re.compile(r"[!-~\u00a1-\U0010ffff]+")
_NUMBERED_SLUGS = 9


def wrong(name: str, what: str) -> ApiError:
    """Return the error for a field; `what` is the rest of a sentence about it."""
    return typed_error("err_request_params", f"Parameter {name} {what}.")


def checked(members: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields that are there, checked; null is the same as absent but for `end_time`, which it takes away.

    Raises:
        ApiError: `err_request_params` with a hint that names the field.
    """
    found: dict[str, Any] = {}
    for name, check in FIELDS.items():
        value = members.get(name)
        if value is not None:
            found[name] = one(name, value, check)
        elif name == "end_time" and name in members:
            found[name] = None
    return found


def one(name: str, value: object, check: Check) -> Any:
    """Return one value, checked. Raises ApiError as `checked`."""
    try:
        return check(value)
    except ValueError as error:
        raise wrong(name, str(error)) from None


def whole(values: Mapping[str, Any]) -> None:
    """Raise ApiError `err_request_params` when something is missing, or does not fit together."""
    for name in ("title", "text"):
        if not any(each.isprintable() and not each.isspace() for each in values.get(name) or ""):
            raise wrong(name, "must not be empty")
    if values.get("start_time") is None:
        raise wrong("start_time", "is missing; write it like 2024-01-31T00:00:00Z")
    rest = {name: values.get(name) for name in FIELDS if name != "text"}
    if len(json.dumps(rest, default=str)) > LONGEST_REST:
        raise wrong("links", f"and all others but text take more than {LONGEST_REST} bytes; leave some items out")
    if values["end_time"] is not None and values["end_time"] < values["start_time"]:
        raise wrong("end_time", "is before start_time; give a later one, or null while it goes on")


def number(value: object) -> int:
    """Return the number of a finding, which is text on the wire. Raises ValueError."""
    if not isinstance(value, str) or not _NUMBER.fullmatch(value):
        raise ValueError('must be the id of a finding, as text: "123456789001"')
    return int(value)


def is_slug(text: str) -> bool:
    """Return whether text can be a slug, and is not taken for a number."""
    return len(text) <= LONGEST_SLUG and not text.isdigit() and _SLUG.fullmatch(text) is not None


def slugs(title: str, start: datetime) -> Iterator[str]:
    """Yield slugs for a new finding, the best first, without end: `2024-title-words`, `2024-title-words-2`, …"""
    plain = unicodedata.normalize("NFKD", title.lower()).encode("ascii", "ignore").decode("ascii")
    words = re.findall("[a-z0-9]+", plain.replace("'", "")) or ["finding"]
    base = f"{start:%Y}-{'-'.join(words)}"
    numbered = (str(each) for each in range(2, _NUMBERED_SLUGS + 1))
    for suffix in chain([""], numbered, (token_hex(4) for _ in count())):
        end = f"-{suffix}" if suffix else ""
        yield base[: LONGEST_SLUG - len(end)].rstrip("-") + end


def moment(value: object) -> datetime | None:
    """Return a time in UTC without zone, None for empty text. Raises ValueError."""
    if value == "":
        return None
    if isinstance(value, str) and _TIME.fullmatch(value):
        try:
            found = datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ")  # noqa: DTZ007 UTC without zone, as everywhere
        except ValueError:
            found = None
        if found is not None and found.year in _YEARS:
            return found
    raise ValueError("must be a time in UTC like 2024-01-31T00:00:00Z")


def yes_or_no(value: object) -> bool:
    """Return true or false. Raises ValueError."""
    if not isinstance(value, bool):
        raise ValueError("must be true or false")
    return value


def theme(value: object) -> str:
    """Return a theme; those of the web interface are human_rights, social_media, im, circumvention, news_media."""
    return _form(value, _THEME, "must be lower-case letters and underscores, such as social_media")


def country(value: object) -> str:
    """Return a country code. Raises ValueError."""
    return _form(value, _CC, "must be two capital letters, such as IT")


def network(value: object) -> int:
    """Return the number of a network. Raises ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= _MOST_ASN:
        raise ValueError("must be a whole number from 1 to 4294967295, without AS")
    return value


def domain(value: object) -> str:
    """Return a domain in lower case. Raises ValueError."""
    text = line(value, LONGEST_DOMAIN)
    # The rule for domains drops invisible characters before it looks.
    if not text.isprintable() or not is_domain(text):
        raise ValueError("must be a domain, such as www.example.org")
    return text.lower()


def link(value: object) -> str:
    """Return an address of the web; others, such as javascript:, would run where it is shown. Raises ValueError."""
    text = line(value, LONGEST_LINK)
    try:
        parts = urlsplit(text)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and "@" not in parts.netloc
        good = good and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good or not _LINK.fullmatch(text) or set(text) & set('\\"<>`'):
        raise ValueError(
            "must be an address that begins with http:// or https://, such as https://www.example.org/report"
        )
    return text


def _slug(value: object) -> str | None:
    if value == "":
        return None
    if not isinstance(value, str) or not is_slug(value):
        raise ValueError(f"must be lower-case letters, digits and single -, at most {LONGEST_SLUG}; or leave it out")
    return value


def _form(value: object, form: re.Pattern[str], described: str) -> str:
    text = value.strip() if isinstance(value, str) else ""
    if not form.fullmatch(text):
        raise ValueError(described)
    return text


def _list_of(name: str, check: Check) -> Check:
    most = MOST_ITEMS[name]

    def items(value: object) -> list[Any]:
        if not isinstance(value, list):
            raise ValueError("must be a list")
        if len(value) > most:
            raise ValueError(f"has more than {most} items; leave some out")
        found = []
        for item in value:
            if item == "":  # what forms make of an empty field
                continue
            try:
                found.append(check(item))
            except ValueError as error:
                raise ValueError(f"has an item that {error}") from None
        return list(dict.fromkeys(found))

    return items


FIELDS: Mapping[str, Check] = {
    "slug": _slug,
    "title": lambda value: line(value, LONGEST_TITLE),
    "short_description": lambda value: lines(value, LONGEST_DESCRIPTION).strip(),
    "text": lambda value: lines(value, LONGEST_TEXT),
    "event_type": lambda value: line(value, 50),
    "reported_by": lambda value: line(value, 200),
    "start_time": moment,
    "end_time": moment,
    "published": yes_or_no,
    "CCs": _list_of("CCs", country),
    "ASNs": _list_of("ASNs", network),
    "domains": _list_of("domains", domain),
    "tags": _list_of("tags", lambda value: line(value, LONGEST_TAG)),
    "test_names": _list_of("test_names", lambda value: _form(value, _NAME, "must be a test, such as web_connectivity")),
    "links": _list_of("links", link),
    "themes": _list_of("themes", theme),
}
"""Every field that people set, under its name on the wire."""

DEFAULTS: Mapping[str, Any] = {
    "slug": None,
    "title": "",
    "short_description": "",
    "text": "",
    "event_type": "incident",
    "reported_by": "",
    "start_time": None,
    "end_time": None,
    "published": False,
    **{name: [] for name in MOST_ITEMS},
}
"""What a new finding has where nothing was sent."""
