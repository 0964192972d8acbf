"""Entries of the test lists as people send them: what each field may hold.

The lists are CSV files that people open in spreadsheets and review as text. So nothing gets in that a spreadsheet
would take for a formula, that breaks a line, or that makes text look like another (characters that turn its direction).
"""

import re
import unicodedata
from collections.abc import Mapping
from datetime import date
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from api.errors import ApiError
from api.typed_errors import typed_error
from core.testlists import CATEGORIES, checked_domain

LONGEST_SOURCE = 200
LONGEST_NOTES = 1000
LONGEST_COMMENT = 1000
"""Longest texts, in characters. URLs have at most `core.testlists.MAX_URL_BYTES`."""

GLOBAL_LIST = "global"
"""Name of the list that is for all countries."""

CATEGORY_DESCRIPTIONS: Mapping[str, str] = {
    "ALDR": "Alcohol & Drugs",
    "ANON": "Anonymization and circumvention tools",
    "COMM": "E-commerce",
    "COMT": "Communication Tools",
    "CTRL": "Control content",
    "CULTR": "Culture",
    "DATE": "Online Dating",
    "ECON": "Economics",
    "ENV": "Environment",
    "FILE": "File-sharing",
    "GAME": "Gaming",
    "GMB": "Gambling",
    "GOVT": "Government",
    "GRP": "Social Networking",
    "HACK": "Hacking Tools",
    "HATE": "Hate Speech",
    "HOST": "Hosting and Blogging Platforms",
    "HUMR": "Human Rights Issues",
    "IGO": "Intergovernmental Organizations",
    "LGBT": "LGBT",
    "MILX": "Terrorism and Militants",
    "MISC": "Miscellaneous content",
    "MMED": "Media sharing",
    "NEWS": "News Media",
    "POLR": "Political Criticism",
    "PORN": "Pornography",
    "PROV": "Provocative Attire",
    "PUBH": "Public Health",
    "REL": "Religion",
    "SRCH": "Search Engines",
    "XED": "Sex Education",
}
"""What the column category_description says of each category."""

_FIELDS = ("url", "category_code", "date_added", "source", "notes")
_DESCRIPTION = "category_description"
_LIST_NAME = re.compile(r"[a-z]{2}", re.ASCII)
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", re.ASCII)
# Also in their wide forms, which spreadsheets in some languages take for the same.
_FORMULA = tuple("=+-@＝＋－＠")
# They change the direction of what comes after them, beyond the end of a field.
_TURNING = re.compile("[\u202a-\u202e\u2066-\u2069]")
_BREAKING = {"Cc", "Cs", "Zl", "Zp"}


class ListEntry(NamedTuple):
    """One line of a list, without the description of its category."""

    url: str
    category_code: str
    date_added: str
    source: str
    notes: str


def list_name(code: str) -> str:
    """Return the name of a list: `global`, or a country in lower case. Raises ApiError `err_invalid_country_code`."""
    name = code.lower()
    if name != GLOBAL_LIST and not _LIST_NAME.fullmatch(name):
        raise typed_error("err_invalid_country_code", "Give the two letters of a country, such as IT, or global.")
    return name


def sent_entry(value: Any, name: str) -> ListEntry | None:
    """Return an entry as it was sent, None for none (absent, null or `{}`). Its fields are text; no more is checked.

    `category_description` may be there, since replies have it.

    Raises:
        ApiError: `err_request_params` when it does not have exactly these fields.
    """
    if value is None or value == {}:
        return None
    hint = f"Send {name} as an object with {', '.join(sorted(_FIELDS))}, and {_DESCRIPTION} if you like, all text."
    if not isinstance(value, dict) or set(value) - {_DESCRIPTION} != set(_FIELDS):
        raise typed_error("err_request_params", hint)
    if not all(isinstance(value[field], str) for field in _FIELDS):
        raise typed_error("err_request_params", hint)
    if not isinstance(value.get(_DESCRIPTION), str | None):
        raise typed_error("err_request_params", hint)
    return ListEntry(*(value[field] for field in _FIELDS))


def check_new(entry: ListEntry, sent: Mapping[str, Any]) -> None:
    """Check that an entry may be put into a list; `sent` is the object that it came as.

    Raises:
        ApiError: with the code of the first field that is wrong.
    """
    _check_url(entry.url)
    if entry.category_code not in CATEGORIES:
        raise typed_error("err_bad_category_code", f"Give as category_code one of {', '.join(sorted(CATEGORIES))}.")
    description = CATEGORY_DESCRIPTIONS[entry.category_code]
    if sent.get(_DESCRIPTION) not in {None, description}:
        raise typed_error("err_bad_category_description", f"Leave {_DESCRIPTION} out, or give: {description}")
    if not _is_date(entry.date_added):
        raise typed_error("err_bad_date", "Write date_added like 2024-01-31.")
    _check_text("source", entry.source, LONGEST_SOURCE)
    _check_text("notes", entry.notes, LONGEST_NOTES)


def checked_comment(value: Any) -> str:
    """Return the remark to a change on one line, without superfluous blanks. Raises ApiError `err_request_params`."""
    if value is None:
        return ""
    if not isinstance(value, str):
        raise typed_error("err_request_params", "Send comment as text.")
    comment = " ".join(value.split())
    if len(comment) > LONGEST_COMMENT:
        raise typed_error("err_request_params", f"Shorten comment to {LONGEST_COMMENT} characters.")
    if is_hostile(comment):
        raise typed_error("err_request_params", "Leave control characters out of comment.")
    return comment


def is_hostile(text: str) -> bool:
    """Whether a text holds characters that break lines, control something, or turn the direction of other text."""
    return bool(_TURNING.search(text)) or any(unicodedata.category(character) in _BREAKING for character in text)


def duplicate_url(url: str, name: str) -> ApiError:
    """Return the error for a URL that list `name` has already."""
    error = typed_error("err_duplicate_url", "Edit the entry that is there, or delete it first.", {"url": url})
    error.body["error"] = f"{url} is already in the list {name}"
    return error


def _check_url(url: str) -> None:
    try:
        checked_domain(url)
        if is_hostile(url):
            raise ValueError("the URL holds characters that cannot be seen")
        if not urlsplit(url).path.startswith("/"):
            raise ValueError("the URL has no path; put a slash after the host name")
    except ValueError as error:
        raise typed_error("err_bad_url", f"Correct url: {error}.") from None


def _is_date(text: str) -> bool:
    if not _DATE.fullmatch(text):
        return False
    try:
        date.fromisoformat(text)
    except ValueError:
        return False
    return True


def _check_text(name: str, text: str, longest: int) -> None:
    if len(text) > longest:
        raise typed_error("err_request_params", f"Shorten {name} to {longest} characters.")
    if is_hostile(text):
        raise typed_error("err_request_params", f"Leave line breaks, tabs and control characters out of {name}.")
    if text.lstrip().startswith(_FORMULA):
        raise typed_error(
            "err_request_params",
            f"Begin {name} with another character than = + - @, which spreadsheets calculate with.",
        )
