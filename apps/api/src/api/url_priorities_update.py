"""Changing the rules that say which URLs are wanted most: for admins.

Whoever changes a rule tells what it was. Of two who change the same one at the same time, one finds it gone. Workers
notice new rules within half a minute, see `url_selection`.
"""

import re
from collections.abc import Mapping
from typing import Any

from flask import Blueprint, Response
from psycopg import Connection
from psycopg.rows import TupleRow

from api.json_fields import json_members
from api.priorities import ANY, Rule
from api.responses import NO_CACHE, json_response
from api.signed_in import require_admin
from api.testlist_entries import is_hostile
from api.typed_errors import typed_error
from api.writing import writing
from core.testlists import CATEGORIES, MAX_URL_BYTES, checked_domain

blueprint = Blueprint("url_priorities_update", __name__)

GREATEST_PRIORITY = 100_000
"""Priorities lie between this and its negative; sums of many rules stay far from the limits of numbers."""

DONE = 1
"""The body of the reply, which the wire contract wants."""

_FIELDS = ("category_code", "cc", "domain", "url")
_KEYS = {*_FIELDS, "priority"}
_LONGEST_SUBJECT = 500
_COUNTRY = re.compile(r"[A-Z]{2}|\*", re.ASCII)

# Rules written by hand may have an empty text for "any", and countries in lower case. A rule is deleted by the form in
# which the list shows it; one that would mean the same as another is not added.
_DELETE = """DELETE FROM url_priorities
    WHERE coalesce(nullif(category_code, ''), '*') = %(category_code)s AND coalesce(nullif(cc, ''), '*') = %(cc)s
    AND coalesce(nullif(domain, ''), '*') = %(domain)s AND coalesce(nullif(url, ''), '*') = %(url)s
    AND priority = %(priority)s"""
_SIMILAR = """SELECT FROM url_priorities
    WHERE coalesce(nullif(category_code, ''), '*') = %(category_code)s
    AND upper(coalesce(nullif(cc, ''), '*')) = %(cc)s
    AND coalesce(nullif(domain, ''), '*') = %(domain)s AND coalesce(nullif(url, ''), '*') = %(url)s"""
_INSERT = """INSERT INTO url_priorities (category_code, cc, domain, url, priority)
    VALUES (%(category_code)s, %(cc)s, %(domain)s, %(url)s, %(priority)s)
    ON CONFLICT DO NOTHING"""


@blueprint.post("/api/_/url-priorities/update")
def update() -> Response:
    """Put `new_entry` in place of the rule `old_entry`; either may be absent: then a rule is added or deleted."""
    account = require_admin()
    body = json_members()
    old, new = _rule(body.get("old_entry"), "old_entry"), _rule(body.get("new_entry"), "new_entry")
    if new is not None:
        new = _checked(new)
    if old == new:
        raise typed_error("err_no_proposed_changes", "Send old_entry, new_entry, or both, and let them differ.")
    with writing(account) as work:
        if old is not None:
            _delete(work.connection, old)
        if new is not None:
            _insert(work.connection, new)
        shown = new or old
        assert shown is not None
        subject = " ".join(shown[:4])[:_LONGEST_SUBJECT]
        work.record("url_priority.update", subject, old=_as_json(old), new=_as_json(new))
    return json_response(DONE, cache=NO_CACHE)


def _delete(connection: Connection[TupleRow], rule: Rule) -> None:
    if connection.execute(_DELETE, rule._asdict()).rowcount == 0:
        raise typed_error(
            "err_rule_not_found", "Load the rules again: the old_entry is not, or not any more, one of them."
        )


def _insert(connection: Connection[TupleRow], rule: Rule) -> None:
    values = rule._asdict()
    similar = connection.execute(_SIMILAR, values).fetchone()
    if similar is not None or connection.execute(_INSERT, values).rowcount == 0:
        hint = "To change its priority, send it as old_entry as well, with the priority that it has."
        raise typed_error("err_duplicate_rule", hint, values)


def _rule(value: Any, name: str) -> Rule | None:
    """Return a rule as it was sent, None for none; what is left open is `*`. Raises ApiError `err_request_params`."""
    if value is None or value == {}:
        return None
    hint = f"Send {name} as an object with category_code, cc, domain, url (* for any) and priority."
    if not isinstance(value, dict) or not set(value) <= _KEYS:
        raise typed_error("err_request_params", hint)
    texts = {field: _text(value, field, name) for field in _FIELDS}
    priority = value.get("priority")
    if not isinstance(priority, int) or isinstance(priority, bool) or abs(priority) > 2**31 - 1:
        raise typed_error("err_request_params", f"Send {name}.priority as a whole number.")
    return Rule(**texts, priority=priority)


def _text(value: Mapping[str, Any], field: str, name: str) -> str:
    text = value.get(field)
    if text is None or text == "":
        return ANY
    hint = f"Send {name}.{field} as text of at most {MAX_URL_BYTES} bytes without control characters, or *."
    if not isinstance(text, str) or "\x00" in text or len(text.encode("utf-8", "replace")) > MAX_URL_BYTES:
        raise typed_error("err_bad_url" if field == "url" else "err_request_params", hint)
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise typed_error("err_request_params", hint) from None
    return text


def _checked(rule: Rule) -> Rule:
    """Return a rule that may be put in, its country in upper case. Raises ApiError with the code of what is wrong."""
    if rule.category_code != ANY and rule.category_code not in CATEGORIES:
        raise typed_error(
            "err_bad_category_code", f"Give as category_code * or one of {', '.join(sorted(CATEGORIES))}."
        )
    cc = rule.cc.upper()
    if not _COUNTRY.fullmatch(cc):
        raise typed_error("err_invalid_country_code", "Give as cc two letters, ZZ for the global list, or *.")
    if rule.url != ANY:
        try:
            checked_domain(rule.url)
            if is_hostile(rule.url):
                raise ValueError("the URL holds characters that cannot be seen")
        except ValueError as error:
            raise typed_error("err_bad_url", f"Correct url, or give *: {error}.") from None
    if rule.domain != ANY and not _is_domain(rule.domain):
        raise typed_error("err_request_params", "Give domain as it is in URLs, such as www.example.org, or *.")
    if abs(rule.priority) > GREATEST_PRIORITY:
        limits = f"{-GREATEST_PRIORITY} to {GREATEST_PRIORITY}"
        raise typed_error("err_request_params", f"Give a priority from {limits}.")
    return rule._replace(cc=cc)


def _is_domain(text: str) -> bool:
    try:
        return checked_domain(f"http://{text}/") == text
    except ValueError:
        return False


def _as_json(rule: Rule | None) -> dict[str, str | int] | None:
    return None if rule is None else rule._asdict()
