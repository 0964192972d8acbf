"""What people change about findings: each action in one transaction, with a line in the audit log.

Who created a finding stays its author, whoever edits it. Only admins publish: what a user writes is a draft, and a user
who edits what was published takes it back. Deleting hides; nothing is removed from the table. Changes of one finding
wait for each other, and who edits what has been changed meanwhile is told, if the request says what was edited.
"""

import secrets
import zlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from psycopg import errors as pg_errors

from api import incident_fields as fields
from api import incident_store as store
from api.daily_bounds import check_daily
from api.errors import ApiError, bad_request
from api.own_address import check_own_address
from api.reading import Row
from api.services import services
from api.signed_in import Account, require_admin
from api.typed_errors import typed_error
from api.writing import Work, writing

MOST_DRAFTS = 100
"""Findings of one user that are not published; admins may have more."""

MOST_CREATED = 50
"""Findings that one user may create in a day."""

MOST_UPDATED = 1_000
"""Times that one user may change findings in a day."""

CREATED, UPDATED = "incident.create", "incident.update"

_ATTEMPTS = 50  # the first one nearly always does: numbers are random, but slugs are not


def not_found() -> ApiError:
    """Return the error for a finding that is not there, or that is not for who asks."""
    return bad_request("Incident not found", hint="Give the id or the slug of one that search shows you.")


def _create(account: Account, members: Mapping[str, Any]) -> dict[str, Any]:
    check_own_address(account, members.get("email_address"))
    values = {**fields.DEFAULTS, **fields.checked(members)}
    fields.whole(values)
    if values["published"] and not account.is_admin:
        raise _only_admins_publish()
    chosen = values["slug"]
    slugs = [chosen] if chosen else fields.slugs(values["title"], values["start_time"])
    with writing(account) as work:
        if not account.is_admin:
            _check_room(work, account)
        number = store.insert(work.connection, account.account_id, values, _new_numbers(), slugs)
        if number is None:
            raise _slug_taken(chosen)
        work.record(CREATED, str(number), published=values["published"])
        if values["published"]:
            work.record("incident.publish", str(number))
    return _done(number)


def _update(account: Account, members: Mapping[str, Any]) -> dict[str, Any]:
    number = fields.one("id", members.get("id"), fields.number)
    check_own_address(account, members.get("email_address"))
    sent = fields.checked(members)
    try:
        with writing(account) as work:
            _change(work, account, number, members, sent)
    except pg_errors.UniqueViolation:
        raise _slug_taken(sent.get("slug")) from None
    return _done(number)


def _change(work: Work, account: Account, number: int, members: Mapping[str, Any], sent: Mapping[str, Any]) -> None:
    if not account.is_admin:
        check_daily(work, account, UPDATED, MOST_UPDATED)
    row = _own(work, account, number, members)
    before = store.fields_of(row)
    values = {**before, **sent}
    if values["published"] and not account.is_admin:
        raise _only_admins_publish()
    fields.whole(values)
    changed = sorted(name for name, value in values.items() if value != before[name])
    if not changed:
        work.nothing_to_record()
        return
    store.update(work.connection, number, values)
    work.record(UPDATED, str(number), revision=row["revision"] + 1, changed=changed)
    if "published" in changed:
        work.record(f"incident.{'publish' if values['published'] else 'unpublish'}", str(number))


def _delete(account: Account, members: Mapping[str, Any]) -> dict[str, Any]:
    number = fields.one("id", members.get("id"), fields.number)
    check_own_address(account, members.get("email_address"))
    with writing(account) as work:
        row = _own(work, account, number, members)
        store.delete(work.connection, number)
        work.record("incident.delete", str(number), published=row["published"])
    return {}


def _publish(_account: Account, members: Mapping[str, Any]) -> dict[str, Any]:
    return _set_published(members, published=True)


def _unpublish(_account: Account, members: Mapping[str, Any]) -> dict[str, Any]:
    return _set_published(members, published=False)


def _set_published(members: Mapping[str, Any], *, published: bool) -> dict[str, Any]:
    account = require_admin()
    number = fields.one("id", members.get("id"), fields.number)
    with writing(account) as work:
        row = _own(work, account, number, members)
        if row["published"] == published:
            work.nothing_to_record()
        else:
            store.publish(work.connection, number, published=published)
            work.record(f"incident.{'publish' if published else 'unpublish'}", str(number))
    return _done(number)


ACTIONS: Mapping[str, Callable[[Account, Mapping[str, Any]], dict[str, Any]]] = {
    "create": _create,
    "update": _update,
    "delete": _delete,
    "publish": _publish,
    "unpublish": _unpublish,
}


def _own(work: Work, account: Account, number: int, members: Mapping[str, Any]) -> Row:
    """Return the finding that somebody wants to change, locked; checks that they may, and know what is in it now."""
    row = store.locked(work.connection, number)
    if row is None:
        raise not_found()
    if not account.is_admin and row["creator_account_id"] != account.account_id:
        raise typed_error("err_ownership", "Only its author and admins may change it.")
    _check_current(row, members)
    return row


def _check_current(row: Row, members: Mapping[str, Any]) -> None:
    """Check the `revision` or `update_time` that somebody edited; without either, the last one to write wins.

    The web interface sends back the revision that it was shown, as all else but `update_time` and `mine`.
    """
    revision, update_time = members.get("revision"), members.get("update_time")
    if revision is not None and (not isinstance(revision, int) or isinstance(revision, bool)):
        raise fields.wrong("revision", "must be the number that show answered, or left out")
    edited = None if update_time is None else fields.one("update_time", update_time, fields.moment)
    if revision not in (None, row["revision"]) or edited not in (None, row["update_time"]):
        hint = f"Revision {row['revision']} is there now. Without revision and update_time the last one to write wins."
        raise typed_error("err_changed_meanwhile", hint, {"revision": row["revision"]})


def _check_room(work: Work, account: Account) -> None:
    check_daily(work, account, CREATED, MOST_CREATED)
    if store.drafts(work.connection, account.account_id) >= MOST_DRAFTS:
        hint = f"You have {MOST_DRAFTS} findings that are not published. Delete some, or wait until they are."
        raise typed_error("err_generic_ooni_exception", hint)


def _new_numbers() -> Iterator[int]:
    """Yield numbers to try: 32 random bits, and two digits that tell the collectors of a deployment apart."""
    collector = services().settings.collector_id
    digits = int(collector) % 100 if collector.isdecimal() else zlib.crc32(collector.encode()) % 100
    for _ in range(_ATTEMPTS):
        yield (1 + secrets.randbelow(2**32 - 1)) * 100 + digits


def _done(number: int) -> dict[str, Any]:
    return {"id": str(number), "r": 1}


def _slug_taken(slug: object) -> ApiError:
    return fields.wrong("slug", f"is taken: {slug}; choose another one, or leave it out")


def _only_admins_publish() -> ApiError:
    return fields.wrong(
        "published", "may be true for admins only; send false to make it a draft, which an admin publishes"
    )
