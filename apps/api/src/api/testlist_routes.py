"""Test-list editing over HTTP: a list with one's own changes, one more change, and the proposal of all of them.

What is changed is kept in the database, so any host can answer, see docs/adr/0019-proposed-changes-in-the-database.md.
"""

from collections.abc import Sequence
from typing import Any

from flask import Blueprint, Response

from api import testlist_changes as stored
from api import testlist_proposals as proposals
from api.daily_bounds import check_daily, refuse_used_up
from api.errors import ApiError
from api.json_fields import json_members
from api.responses import NO_CACHE, json_response
from api.services import services
from api.signed_in import require_account
from api.testlist_editing import ListEditing, repository_errors
from api.testlist_entries import (
    CATEGORY_DESCRIPTIONS,
    GLOBAL_LIST,
    ListEntry,
    check_new,
    checked_comment,
    list_name,
    sent_entry,
)
from api.testlist_plan import Applied, Change, apply, with_change
from api.testlist_repository import Lists
from api.typed_errors import typed_error
from api.writing import writing

blueprint = Blueprint("testlist_editing", __name__)

CHANGES_A_DAY = 2000
"""Greatest number of changes of one account in 24 hours."""


@blueprint.get("/api/_/url-submission/test-list/<cc>")
def test_list(cc: str) -> Response:
    """Return a list as it is with the changes of who asks, all of those changes, and how far they are."""
    account = require_account()
    name = list_name(cc)
    editing = _editing()
    proposals.look_after(editing, account)
    proposal = proposals.current(account)
    lists = _lists(editing)
    with repository_errors():
        changed = {
            each: apply(lists.entries, each, proposal.changes)
            for each in sorted({name, *(change.cc for change in proposal.changes)})
        }
    shown = {each: found for each, applied in changed.items() if (found := _shown(applied))}
    is_open = proposal.state == stored.PR_OPEN
    reply = {
        "changes": shown,
        "pr_url": _page(proposal) if is_open else None,
        "state": stored.PR_OPEN if is_open else stored.IN_PROGRESS if shown else stored.CLEAN,
        "test_list": [_as_sent(entry) for entry in changed[name].entries] if name in lists.blobs else None,
    }
    return json_response(reply, cache=NO_CACHE)


@blueprint.post("/api/v1/url-submission/update-url")
def update_url() -> Response:
    """Add, edit or delete an entry in the changes of who asks; a proposal that is open is withdrawn first."""
    account = require_account()
    body = json_members()
    code = body.get("country_code")
    if not isinstance(code, str):
        raise typed_error("err_request_params", "Send country_code: two letters, or global.")
    name = list_name(code)
    comment = checked_comment(body.get("comment"))
    old, new = sent_entry(body.get("old_entry"), "old_entry"), sent_entry(body.get("new_entry"), "new_entry")
    if new is not None:
        check_new(new, body["new_entry"])
    editing = _editing()
    lists = _lists(editing)
    if name not in lists.blobs:
        raise typed_error("err_country_not_supported", "There is no list of this country. Add the URL to global.")
    _prepare(lists, name)
    change = Change(name, old, new, comment, lists.commit)
    with repository_errors():
        before = proposals.current(account)
        # So that nothing is withdrawn for what is refused.
        with_change(lists.entries, before.changes, change)
        refuse_used_up(account, "test_list.change", CHANGES_A_DAY)
        proposals.withdraw(editing, account, before)
        with writing(account) as work:
            check_daily(work, account, "test_list.change", CHANGES_A_DAY)
            now = stored.lock(work.connection, account.account_id)
            if now.submitting:
                raise proposals.under_way()
            if now.branch is not None:
                raise typed_error("err_cannot_close_pr", "Your changes were submitted meanwhile. Load them again.")
            stored.save(work.connection, account.account_id, with_change(lists.entries, now.changes, change))
            work.record("test_list.change", name, kind=change.action, url=change.shown.url)
    entry: dict[str, str] = {}
    if new is not None:
        entry = {**_as_sent(new), "category_description": CATEGORY_DESCRIPTIONS[new.category_code]}
    return json_response({"updated_entry": entry}, cache=NO_CACHE)


@blueprint.post("/api/v1/url-submission/submit")
def submit() -> Response:
    """Propose the changes of who asks to the maintainers of the lists."""
    account = require_account()
    return json_response({"pr_id": proposals.submit(_editing(), account)}, cache=NO_CACHE)


def _editing() -> ListEditing:
    editing = services().testlist_editing
    if editing is None:
        hint = (
            "Whoever runs this server can set test_lists_repository. Until then, propose changes where the lists are."
        )
        raise ApiError(400, "Test lists cannot be edited on this server.", body={"hint": hint})
    return editing


def _lists(editing: ListEditing) -> Lists:
    """The lists; who waits for the first clone does so in a place for readers."""
    with services().read_slots.place():
        return editing.lists()


def _page(proposal: stored.Proposal) -> str | None:
    """The page of a proposal for people; a branch alone has none."""
    if proposal.page_url is None and proposal.proposal_id is not None and "://" in proposal.proposal_id:
        return proposal.proposal_id
    return proposal.page_url


def _prepare(lists: Lists, name: str) -> None:
    """Have the lists that a change to `name` is compared with in memory before the database is asked."""
    with repository_errors():
        for each in (name, GLOBAL_LIST):
            lists.entries(each)


def _as_sent(entry: ListEntry) -> dict[str, str]:
    return entry._asdict()


def _shown(applied: Applied) -> list[dict[str, Any]]:
    """The changes of one list; `applies` is there for those that do not, until they are deleted or made anew."""
    return [
        *({**_as_sent(change.shown), "action": change.action} for change in applied.pending),
        *_stale(applied.stale),
    ]


def _stale(changes: Sequence[Change]) -> list[dict[str, Any]]:
    return [{**_as_sent(change.shown), "action": change.action, "applies": False} for change in changes]
