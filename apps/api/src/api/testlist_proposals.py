"""How changes to the test lists become proposals: submitted, withdrawn, and looked after until the maintainers decide.

Nothing of the network happens inside a transaction. A submission first notes a branch of a random name in the database,
then pushes it, opens the proposal and notes that. Whatever cuts it off, the next submission takes up the same branch,
and finds the proposal when it was opened already; the next change of a list withdraws it.
"""

import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import structlog

from api import testlist_changes as stored
from api.daily_bounds import check_daily, refuse_used_up
from api.errors import ApiError
from api.forge import CALL_S, LONGEST_BODY, ForgeUnavailable, Opened
from api.metrics import TEST_LIST_SUBMISSIONS
from api.read_slots import taken as place_taken
from api.services import services
from api.signed_in import Account
from api.testlist_editing import ListEditing, repository_errors
from api.testlist_file import ListDamaged
from api.testlist_plan import Change, apply
from api.testlist_repository import Lists, RepositoryUnavailable
from api.typed_errors import typed_error
from api.writing import transaction, writing

BRANCHES = "test-list-changes"
"""What names of branches begin with. Nothing in a branch or commit tells who it is from, nor which others are."""

SUBMISSIONS_A_DAY = 20
"""Greatest number of submissions of one account in 24 hours; maintainers get a message for each."""

_WAIT_S = 0.3  # nobody holds a place among the readers meanwhile, so it has to be short
# The three calls that may follow are done before a submission counts as cut off.
_UNTIL_PUSHED_S = stored.SUBMISSION_S - 3 * CALL_S
_MOST_SHOWN = 20
_CHANGED_MEANWHILE = "Your own changes are others meanwhile. Load them again."

log = structlog.get_logger(__name__)


def current(account: Account) -> stored.Proposal:
    """Return the changes of an account and the proposal that they are in."""
    parts = services()
    with parts.read_slots.one(), parts.pool.connection() as connection:
        return stored.read(connection, account.account_id)


def under_way() -> ApiError:
    """Return the error for changes that are being submitted by another request."""
    text = "Your changes are being submitted. Load them again in some seconds."
    return ApiError(503, text, headers={"Retry-After": "10"})


def look_after(editing: ListEditing, account: Account) -> None:
    """Look, at most once a minute, whether a proposal was taken or refused; then its changes are forgotten.

    A forge that does not answer changes nothing.
    """
    with transaction() as connection:
        due = stored.due(connection, account.account_id)
    if due is None:
        return
    branch, proposal_id = due
    try:
        with _working(editing):
            is_open = editing.forge.is_open(branch, proposal_id)
    except (ForgeUnavailable, ApiError) as error:
        log.warning("proposal not looked at", branch=branch, error=str(error))
        return
    if not is_open:
        _forget(editing, account, branch, proposal_id)


def withdraw(editing: ListEditing, account: Account, seen: stored.Proposal) -> None:
    """Close the proposal of an account, if there is or may be one, so that its changes can be worked on.

    One that was taken or refused meanwhile is forgotten with its changes. From the moment that it is going to be closed
    here, changes are not forgotten because it is closed.

    Raises:
        ApiError: `err_cannot_close_pr`; 503 while another request submits or withdraws.
    """
    if seen.branch is None:
        return
    if seen.state == stored.PR_OPEN and not _is_open(editing, seen.branch, str(seen.proposal_id)):
        _forget(editing, account, seen.branch, str(seen.proposal_id))
        return
    with writing(account) as work:
        proposal = stored.lock(work.connection, account.account_id)
        if proposal.submitting:
            raise under_way()
        if proposal != seen:
            raise typed_error("err_cannot_close_pr", _CHANGED_MEANWHILE)
        attempt = stored.begin(work.connection, account.account_id, seen.branch)
        work.record("test_list.withdraw", seen.branch, proposal=seen.proposal_id)
    try:
        with _working(editing):
            editing.forge.close(seen.branch, seen.proposal_id)
    except (ForgeUnavailable, ApiError) as error:
        with transaction() as connection:
            stored.give_up(connection, account.account_id, attempt, keep_branch=True)
        raise _cannot_close(seen.branch, error) from error
    with transaction() as connection:
        stored.withdrawn(connection, account.account_id, attempt)


def submit(editing: ListEditing, account: Account) -> str:
    """Propose the changes of an account; returns the identifier of the proposal, that of an open one as it is.

    Raises:
        ApiError: `err_no_proposed_changes`, `err_cannot_update_list` when one does not apply any more; 429 and 503.
    """
    seen = current(account)
    if seen.state == stored.PR_OPEN:
        return str(seen.proposal_id)
    if seen.submitting:
        raise under_way()
    if not seen.changes:
        raise _nothing()
    refuse_used_up(account, "test_list.submit", SUBMISSIONS_A_DAY)
    with _failures_counted(), _working(editing), repository_errors():
        lists = editing.repository.fresh()
    files, changes = _files(lists, seen.changes)
    branch = seen.branch or f"{BRANCHES}/{secrets.token_hex(8)}"
    with writing(account) as work:
        check_daily(work, account, "test_list.submit", SUBMISSIONS_A_DAY)
        proposal = stored.lock(work.connection, account.account_id)
        if proposal.submitting:
            raise under_way()
        if proposal != seen:
            raise typed_error("err_cannot_update_list", _CHANGED_MEANWHILE)
        attempt = stored.begin(work.connection, account.account_id, branch)
        work.record("test_list.submit", branch, base=lists.commit, changes=len(changes))
    found = _pushed(editing, account, lists, files, changes, branch, attempt, is_new=seen.branch is None)
    with writing(account) as work:
        if not stored.opened(work.connection, account.account_id, attempt, branch, found.proposal_id, found.page_url):
            raise under_way()
        work.record("test_list.propose", branch, proposal=found.proposal_id)
    TEST_LIST_SUBMISSIONS.labels("opened").inc()
    return found.proposal_id


def _pushed(
    editing: ListEditing,
    account: Account,
    lists: Lists,
    files: dict[str, bytes],
    changes: Sequence[Change],
    branch: str,
    attempt: int,
    *,
    is_new: bool,
) -> Opened:
    """Push the branch and open the proposal; after a failure, ApiError 503, the next attempt can begin at once."""
    title, body = _title(changes), _body(changes)
    message = f"{title}\n" if editing.forge.has_discussion else f"{title}\n\n{body}\n"
    untouched = is_new
    deadline = time.monotonic() + _UNTIL_PUSHED_S
    try:
        with _working(editing):
            untouched = False
            editing.repository.push(lists, files, message, branch)
            if time.monotonic() > deadline:
                raise ForgeUnavailable("pushing took so long that another attempt may begin")
            return editing.forge.open(branch, title, body)
    except (RepositoryUnavailable, ForgeUnavailable, ApiError) as error:
        with transaction() as connection:
            stored.give_up(connection, account.account_id, attempt, keep_branch=not untouched)
        TEST_LIST_SUBMISSIONS.labels("failed").inc()
        log.error("changes to the test lists not submitted", branch=branch, error=str(error))
        text = "The changes could not be submitted now. They are kept; submit them again in a minute."
        raise ApiError(503, text, headers={"Retry-After": "60"}) from error


@contextmanager
def _working(editing: ListEditing) -> Iterator[None]:
    """Hold a place for work that goes over the network. Raises ApiError 503 without one. Not for use around queries."""
    busy = "Many people submit changes at the moment. Try again soon."
    # In this order: otherwise those who wait for others' work would hold the places of all readers.
    with place_taken(editing.at_work, _WAIT_S, busy), services().read_slots.place():
        yield


@contextmanager
def _failures_counted() -> Iterator[None]:
    try:
        yield
    except ApiError:
        TEST_LIST_SUBMISSIONS.labels("failed").inc()
        raise


def _is_open(editing: ListEditing, branch: str, proposal_id: str) -> bool:
    try:
        with _working(editing):
            return editing.forge.is_open(branch, proposal_id)
    except ForgeUnavailable as error:
        raise _cannot_close(branch, error) from error


def _cannot_close(branch: str, error: Exception) -> ApiError:
    log.error("proposal not withdrawn", branch=branch, error=str(error))
    return typed_error("err_cannot_close_pr", "Try again in a minute.")


def _forget(editing: ListEditing, account: Account, branch: str, proposal_id: str) -> None:
    with transaction() as connection:
        stored.taken(connection, account.account_id, branch, proposal_id)
    editing.repository.refresh_soon()


def _nothing() -> ApiError:
    return typed_error("err_no_proposed_changes", "Change an entry first.")


def _files(lists: Lists, changes: Sequence[Change]) -> tuple[dict[str, bytes], list[Change]]:
    """Return the changed lists, and the changes that are not in them already.

    Raises:
        ApiError: `err_no_proposed_changes`, `err_cannot_update_list`; 503 when a list cannot be read.
    """
    files: dict[str, bytes] = {}
    pending: list[Change] = []
    with repository_errors():
        for name in sorted({change.cc for change in changes}):
            applied = apply(lists.entries, name, changes)
            file = lists.file(name)
            stale = applied.stale or (applied.pending if file is None else [])
            if stale:
                TEST_LIST_SUBMISSIONS.labels("conflict").inc()
                args = {"country_code": name, "urls": sorted({each.shown.url for each in stale})[:_MOST_SHOWN]}
                hint = "Load the list again. Delete the changes that do not apply any more, or make them anew."
                raise typed_error("err_cannot_update_list", hint, args)
            if applied.pending and file is not None:
                try:
                    files[name] = file.changed(applied.replaced, applied.added)
                except ListDamaged as error:
                    raise RepositoryUnavailable(f"the list {name} is damaged: {error}") from error
                pending += applied.pending
    if not pending:
        raise _nothing()
    return files, pending


def _title(changes: Sequence[Change]) -> str:
    names = sorted({change.cc for change in changes})
    shown = ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
    return f"Changes to the test lists: {shown}"


def _body(changes: Sequence[Change]) -> str:
    """Tell the changes as an indented block, in which a forge neither sees markup nor names of people."""
    lines = []
    for change in changes:
        lines.append(f"    {change.cc}: {change.action} {change.shown.url}")
        if change.comment:
            lines.append(f"        {change.comment}")
    text = "\n".join(lines)
    return text if len(text) <= LONGEST_BODY else f"{text[:LONGEST_BODY]}\n    (and more)"
