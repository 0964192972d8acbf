"""Run links, the newer routes: links that expire, with numbered revisions of what they run.

Only other tests make a revision; texts are changed in the latest one. Edits come one after the other. Who wants to be
sure that nobody else has edited a link meanwhile sends `if_date_updated`, the `date_updated` that the edit was made
from.
"""

from collections.abc import Mapping
from dataclasses import replace
from datetime import datetime
from typing import Any

from flask import Blueprint, Response, request

from api import run_link_store as store
from api.account_ids import normal_address
from api.daily_bounds import check_daily
from api.errors import ApiError
from api.json_fields import json_members
from api.key_file import KeysUnavailable
from api.params import Params
from api.responses import NO_CACHE, json_response
from api.run_link_errors import FieldError, detailed, refused_v2
from api.run_link_fields import V2, Content, content_of, moment_of
from api.run_link_paths import know_numbers
from api.run_link_store import Link
from api.run_link_views import is_mine, link_v2, same_nettests, time_v2
from api.services import services
from api.signed_in import Account, current_account, require_account
from api.tokens import no_keys
from api.writing import Work, writing

LINKS = "/api/v2/oonirun/links"
MOST_OFFSET = 1_000_000

blueprint = Blueprint("run_links_v2", __name__)
blueprint.record_once(know_numbers)


@blueprint.post(LINKS)
def create_run_link() -> Response:
    """Make a run link; it expires in 180 days unless it is said when."""
    account = require_account()
    body = json_members()
    content, expires_at = _read(body)
    if _is_foreign(body.get("author"), account, shown=""):
        raise detailed(400, "The author must be your own e-mail address, or be left out.")
    with writing(account) as work:
        link_id = store.insert(work, account, {**content, "author": ""}, expires_at)
        work.record("run_link.create", str(link_id), tests=len(content["nettests"]))
        link = store.locked(work, link_id)
    assert link is not None
    return _reply(link, account)


@blueprint.put(f"{LINKS}/<link:oonirun_link_id>")
def edit_run_link(oonirun_link_id: int) -> Response:
    """Edit a run link of one's own, or any as an admin: all of its members are replaced, but for its expiry."""
    account = require_account()
    body = json_members()
    content, expires_at = _read(body)
    made_from = None
    if body.get("if_date_updated") is not None:
        made_from = _moment(body, "if_date_updated")
    with writing(account) as work:
        link = _editable(store.locked(work, oonirun_link_id), account)
        if _is_foreign(body.get("author"), account, shown=link.content.get("author", "")):
            raise detailed(403, "The author must be your own e-mail address, or be left out.")
        if made_from is not None and made_from != link.edited_at:
            raise _changed_meanwhile(link)
        check_daily(work, account, "run_link.edit", store.MOST_EDITS)
        _change(work, link, {**content, "author": link.content.get("author", "")}, expires_at)
        edited = store.locked(work, oonirun_link_id)
    assert edited is not None
    return _reply(edited, account)


@blueprint.get(LINKS)
def list_run_links() -> Response:
    """List run links, the newest first: everybody's, or one's own; all, or only those that are expired or not."""
    params = Params(request)
    mine, expired, offset = params.boolean("is_mine"), params.boolean("is_expired"), _offset(params)
    account = current_account()
    if mine and account is None:
        return json_response({"oonirun_links": []}, cache=NO_CACHE)
    links = store.listed(creator=account.account_id if mine and account else None, expired=expired, offset=offset)
    return json_response({"oonirun_links": [link_v2(link, account) for link in links]}, cache=NO_CACHE)


@blueprint.get(f"{LINKS}/<link:oonirun_link_id>")
def run_link(oonirun_link_id: int) -> Response:
    """Return a run link in its latest revision."""
    account = current_account()
    return _reply(found(store.newest(oonirun_link_id)), account)


@blueprint.get(f"{LINKS}/<link:oonirun_link_id>/full-descriptor/<revision:revision>")
def run_link_descriptor(oonirun_link_id: int, revision: int | None) -> Response:
    """Return a run link as it is now, with the tests of a revision; with none when there is no such revision."""
    account = current_account()
    link = found(store.newest(oonirun_link_id))
    reply = link_v2(link, account)
    if revision is not None and revision != link.revision:
        then = store.revision(oonirun_link_id, revision)
        nettests = [] if then is None else link_v2(then, account)["nettests"]
        reply |= {"nettests": nettests, "revision": str(revision)}
    return json_response(reply, cache=NO_CACHE)


@blueprint.get(f"{LINKS}/<link:oonirun_link_id>/revisions")
def run_link_revisions(oonirun_link_id: int) -> Response:
    """Return the numbers of the revisions of a run link, the latest first."""
    numbers = store.numbers(oonirun_link_id)
    if not numbers:
        raise not_found()
    return json_response({"revisions": [str(number) for number in numbers]}, cache=NO_CACHE)


def found(link: Link | None) -> Link:
    """Return a link that is there. Raises ApiError 404."""
    if link is None:
        raise not_found()
    return link


def not_found() -> ApiError:
    """Return the 404 of a link that is not there."""
    return detailed(404, "There is no such run link. Check its number.")


def _reply(link: Link, account: Account | None) -> Response:
    return json_response(link_v2(link, account), cache=NO_CACHE)


def _read(body: Mapping[str, Any]) -> tuple[Content, datetime | None]:
    try:
        content = content_of(body, V2)
    except FieldError as error:
        raise refused_v2(error) from None
    return content, None if body.get("expiration_date") is None else _moment(body, "expiration_date")


def _moment(body: Mapping[str, Any], name: str) -> datetime:
    try:
        return moment_of(body[name], name)
    except FieldError as error:
        raise refused_v2(error) from None


def _offset(params: Params) -> int:
    offset = params.integer("offset", 0)
    if not 0 <= offset <= MOST_OFFSET:
        raise detailed(400, f"Invalid integer in parameter offset; give a number from 0 to {MOST_OFFSET}.")
    return offset


def _is_foreign(author: object, account: Account, *, shown: str) -> bool:
    """Return whether an author is somebody else: neither the account's own address nor what everybody is `shown`.

    Nothing is stored of it, so it may be left out; it is compared by its account, which also programs have.
    """
    if author is None or author == shown or (isinstance(author, str) and not author.strip()):
        return False
    if not isinstance(author, str):
        raise refused_v2(FieldError(("author",), "must be your e-mail address"))
    address = normal_address(author)
    try:
        return address is None or services().account_ids.of(address) != account.account_id
    except KeysUnavailable:
        raise no_keys() from None


def _editable(link: Link | None, account: Account) -> Link:
    link = found(link)
    if not is_mine(link, account) and not account.is_admin:
        raise detailed(403, "This run link belongs to somebody else. Make one of your own.")
    if link.expired:
        raise detailed(403, "This run link is expired and cannot be edited. Make a new one.")
    return link


def _changed_meanwhile(link: Link) -> ApiError:
    text = "The run link was edited in the meantime. Fetch it again, and edit what it is now."
    hint = f"It was last edited at {time_v2(link.edited_at)}, which is not if_date_updated."
    return ApiError(409, text, body={"detail": text, "hint": hint})


def _change(work: Work, link: Link, content: Content, expires_at: datetime | None) -> None:
    expires = expires_at is not None and expires_at != link.expires_at
    revised = not same_nettests(link.content, content)
    if revised:
        store.add_revision(work, link, content)
    elif expires or link_v2(replace(link, content=content), None) != link_v2(link, None):
        store.replace(work, link, content)
    else:
        work.nothing_to_record()
        return
    if expires_at is not None and expires:
        store.expire(work, link, expires_at)
    work.record("run_link.edit", str(link.link_id), made_from=link.revision, revised=revised, expires=expires)
