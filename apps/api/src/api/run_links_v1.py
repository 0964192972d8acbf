"""Run links, the older routes: descriptors, and versions of them that are named by when they were made.

What these routes call archived is an expired link of the newer ones; a version here is a revision there. Tests, icon
and author make a new version when they change; texts do not.
"""

import re
from datetime import datetime

from flask import Blueprint, Response, request

from api import run_link_store as store
from api.account_ids import normal_address
from api.daily_bounds import check_daily
from api.errors import ApiError, bad_request
from api.json_fields import json_members
from api.params import Params
from api.responses import NO_CACHE, json_response
from api.run_link_errors import FieldError, refused_v1, wrong
from api.run_link_fields import V1, Content, content_of
from api.run_link_paths import know_numbers
from api.run_link_views import descriptor_v1, is_mine, row_v1, same_nettests
from api.signed_in import Account, current_account, require_account
from api.writing import Work, writing
from api.written_text import line

LONGEST_AUTHOR = 200

_CACHE = "max-age=3600"
_MOMENT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z?", re.ASCII)
_NUMBER = re.compile(r"[0-9]{1,18}", re.ASCII)

blueprint = Blueprint("run_links_v1", __name__)
blueprint.record_once(know_numbers)


@blueprint.post("/api/_/ooni_run/create")
def create_descriptor() -> Response:
    """Make a run link, or edit the one whose number is in `ooni_run_link_id`."""
    account = require_account()
    link_id = _number(Params(request))
    try:
        content = _content(json_members())
    except FieldError as error:
        raise refused_v1(error) from None
    with writing(account) as work:
        if link_id is None:
            link_id = store.insert(work, account, content, store.NEVER)
            work.record("run_link.create", str(link_id), tests=len(content["nettests"]))
        else:
            _edit(work, account, link_id, content)
    return json_response({"ooni_run_link_id": link_id, "v": 1}, cache=NO_CACHE)


@blueprint.post("/api/_/ooni_run/archive/<link:ooni_run_link_id>")
def archive_descriptor(ooni_run_link_id: int) -> Response:
    """Archive a run link of one's own, or any as an admin; that there is none to archive is no error."""
    account = require_account()
    with writing(account) as work:
        if store.archive(work, ooni_run_link_id, account):
            work.record("run_link.archive", str(ooni_run_link_id))
        else:
            work.nothing_to_record()
    return json_response({"v": 1}, cache=NO_CACHE)


@blueprint.get("/api/_/ooni_run/fetch/<link:ooni_run_link_id>")
def fetch_descriptor(ooni_run_link_id: int) -> Response:
    """Return a run link, in the version that was made at `creation_time` if there is one, else in its newest."""
    moment = _creation_time(Params(request))
    account = current_account()
    link = store.newest(ooni_run_link_id) if moment is None else store.made_at(ooni_run_link_id, moment)
    if link is None:
        hint = f"There is no run link {ooni_run_link_id}"
        hint += "." if moment is None else ", or no version of it with this creation_time."
        raise bad_request("oonirun descriptor not found", hint=hint)
    reply = {
        "archived": link.expired,
        "descriptor": descriptor_v1(link, account),
        "descriptor_creation_time": link.revised_at,
        "mine": is_mine(link, account),
        "translation_creation_time": link.edited_at,
        "v": 1,
    }
    return json_response(reply, cache=_CACHE)


@blueprint.get("/api/_/ooni_run/list")
def list_descriptors() -> Response:
    """List versions of run links, the oldest first."""
    params = Params(request)
    link_id, only_mine, only_latest = _number(params), params.flag("only_mine"), params.flag("only_latest")
    expired = None if params.flag("include_archived") else False
    account = current_account()
    if only_mine and account is None:
        return json_response({"descriptors": [], "v": 1}, cache=NO_CACHE)
    links = store.listed_v1(
        creator=account.account_id if only_mine and account else None,
        expired=expired,
        link_id=link_id,
        only_latest=only_latest,
    )
    return json_response({"descriptors": [row_v1(link, account) for link in links], "v": 1}, cache=NO_CACHE)


def _edit(work: Work, account: Account, link_id: int, content: Content) -> None:
    link = store.locked(work, link_id)
    if link is None or not is_mine(link, account):
        raise _not_found()
    if link.expired:
        raise bad_request("This run link is archived and cannot be edited.", hint="Make a new one.")
    kept = link.content
    check_daily(work, account, "run_link.edit", store.MOST_EDITS)
    if same_nettests(kept, content) and all(kept.get(name, "") == content[name] for name in ("author", "icon")):
        store.replace(work, link, content)
    else:
        store.add_revision(work, link, content)
    work.record("run_link.edit", str(link_id), made_from=link.revision)


def _content(body: Content) -> Content:
    content = content_of(body, V1)
    try:
        author = "" if body.get("author") is None else line(body["author"], LONGEST_AUTHOR)
    except ValueError as error:
        raise wrong(body["author"], ("author",), str(error)) from None
    # An address would be stored: its owner sees it nevertheless, see `run_link_views`.
    return {**content, "author": "" if normal_address(author) else author}


def _number(params: Params) -> int | None:
    text = params.text("ooni_run_link_id")
    if text is None:
        return None
    if not _NUMBER.fullmatch(text):
        raise bad_request("Invalid ooni_run_link_id; give a number.")
    return int(text)


def _creation_time(params: Params) -> datetime | None:
    text = params.text("creation_time")
    if text is None:
        return None
    try:
        if not _MOMENT.fullmatch(text):
            raise ValueError
        return datetime.fromisoformat(text.rstrip("Z"))
    except ValueError:
        raise bad_request("Invalid creation_time; write it like 2024-01-31T12:00:00.000Z.") from None


def _not_found() -> ApiError:
    return bad_request("OONIRun descriptor not found", hint="Give the number of a run link of your own.")
