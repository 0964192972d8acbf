"""The SQL of test-list editing: the changes of each account, and the proposal that they are in.

The line of an account in `test_list_proposals` is locked while its changes are worked on, so that two requests of one
account come one after the other.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from api.testlist_entries import ListEntry
from api.testlist_plan import Change

CLEAN, IN_PROGRESS, PR_OPEN = "CLEAN", "IN_PROGRESS", "PR_OPEN"

LOOK_AGAIN_S = 60
"""Least time between two looks whether a proposal is still open, in seconds."""

SUBMISSION_S = 110
"""Time after which a submission or withdrawal counts as cut off, in seconds: longer than one can take."""

_FIRST = "INSERT INTO test_list_proposals (account_id) VALUES (%s) ON CONFLICT DO NOTHING"
_PROPOSAL = """SELECT state, branch, proposal_id, page_url, attempt, submitting_until > now()
    FROM test_list_proposals WHERE account_id = %s"""
_LOCKED = f"{_PROPOSAL} FOR UPDATE"
_CHANGES = """SELECT cc, old_entry, new_entry, comment, base_commit
    FROM test_list_changes WHERE account_id = %s ORDER BY position"""
_FORGET = "DELETE FROM test_list_changes WHERE account_id = %s"
_ADD = """INSERT INTO test_list_changes (account_id, position, cc, action, old_entry, new_entry, comment, base_commit)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s)"""
_SET_STATE = "UPDATE test_list_proposals SET state = %s WHERE account_id = %s"
_DUE = """UPDATE test_list_proposals SET looked_at = now()
    WHERE account_id = %s AND state = 'PR_OPEN' AND looked_at < now() - make_interval(secs => %s)
    RETURNING branch, proposal_id"""
_TAKEN = """UPDATE test_list_proposals SET state = 'CLEAN', branch = NULL, proposal_id = NULL, page_url = NULL
    WHERE account_id = %s AND state = 'PR_OPEN' AND branch = %s AND proposal_id = %s"""
_BEGIN = """UPDATE test_list_proposals SET attempt = attempt + 1, state = 'IN_PROGRESS', branch = %s,
        submitting_until = now() + make_interval(secs => %s)
    WHERE account_id = %s RETURNING attempt"""
_WITHDRAWN = """UPDATE test_list_proposals
    SET branch = NULL, proposal_id = NULL, page_url = NULL, submitting_until = '-infinity'
    WHERE account_id = %s AND attempt = %s"""
_GIVE_UP = """UPDATE test_list_proposals SET submitting_until = '-infinity', branch = CASE WHEN %s THEN branch END
    WHERE account_id = %s AND attempt = %s"""
_OPENED = """UPDATE test_list_proposals SET state = 'PR_OPEN', proposal_id = %s, page_url = %s, looked_at = now(),
        submitting_until = '-infinity'
    WHERE account_id = %s AND attempt = %s AND branch = %s"""


@dataclass(frozen=True, slots=True)
class Proposal:
    """What the database has of an account."""

    state: str = CLEAN
    branch: str | None = None
    """Where the changes are, or may be after a submission that was cut off."""
    proposal_id: str | None = None
    page_url: str | None = None
    attempt: int = 0
    submitting: bool = False
    """Whether a submission or withdrawal is under way."""
    changes: tuple[Change, ...] = ()


def read(connection: Connection[TupleRow], account_id: str) -> Proposal:
    """Return the changes of an account as they are now."""
    return _with_changes(connection, account_id, connection.execute(_PROPOSAL, [account_id]).fetchone())


def lock(connection: Connection[TupleRow], account_id: str) -> Proposal:
    """Return the same, and keep others from changing it until the end of the transaction."""
    connection.execute(_FIRST, [account_id])
    return _with_changes(connection, account_id, connection.execute(_LOCKED.encode(), [account_id]).fetchone())


def save(connection: Connection[TupleRow], account_id: str, changes: Sequence[Change]) -> None:
    """Put `changes` in place of those of a locked account that has no proposal."""
    connection.execute(_FORGET, [account_id])
    rows = [
        (
            account_id,
            position,
            change.cc,
            change.action,
            _stored(change.old),
            _stored(change.new),
            change.comment,
            change.base_commit,
        )
        for position, change in enumerate(changes)
    ]
    with connection.cursor() as cursor:
        cursor.executemany(_ADD, rows)
    connection.execute(_SET_STATE, [IN_PROGRESS if changes else CLEAN, account_id])


def due(connection: Connection[TupleRow], account_id: str) -> tuple[str, str] | None:
    """Return branch and identifier of an open proposal not looked at for a while; it counts as looked at now."""
    return connection.execute(_DUE, [account_id, LOOK_AGAIN_S]).fetchone()


def taken(connection: Connection[TupleRow], account_id: str, branch: str, proposal_id: str) -> None:
    """Forget the changes of a proposal that the maintainers took or refused, unless it is withdrawn meanwhile."""
    if connection.execute(_TAKEN, [account_id, branch, proposal_id]).rowcount > 0:
        connection.execute(_FORGET, [account_id])


def begin(connection: Connection[TupleRow], account_id: str, branch: str) -> int:
    """Note that a submission of a locked account begins, or a withdrawal; returns the number of the attempt.

    Until it ends, nobody else changes, submits or withdraws anything of that account, for `SUBMISSION_S` at most.
    """
    row = connection.execute(_BEGIN, [branch, SUBMISSION_S, account_id]).fetchone()
    assert row is not None
    return int(row[0])


def withdrawn(connection: Connection[TupleRow], account_id: str, attempt: int) -> None:
    """Note that an attempt closed the proposal."""
    connection.execute(_WITHDRAWN, [account_id, attempt])


def give_up(connection: Connection[TupleRow], account_id: str, attempt: int, *, keep_branch: bool) -> None:
    """Note that an attempt failed; the branch is kept when there may be something."""
    connection.execute(_GIVE_UP, [keep_branch, account_id, attempt])


def opened(
    connection: Connection[TupleRow],
    account_id: str,
    attempt: int,
    branch: str,
    proposal_id: str,
    page_url: str | None,
) -> bool:
    """Note what an attempt led to; returns False when another attempt began meanwhile."""
    values = [proposal_id, page_url, account_id, attempt, branch]
    return connection.execute(_OPENED, values).rowcount > 0


def _with_changes(connection: Connection[TupleRow], account_id: str, row: TupleRow | None) -> Proposal:
    if row is None:
        return Proposal()
    found = connection.execute(_CHANGES, [account_id]).fetchall()
    changes = tuple(
        Change(cc, _entry(old), _entry(new), comment, base_commit) for cc, old, new, comment, base_commit in found
    )
    state, branch, proposal_id, page_url, attempt, submitting = row
    return Proposal(state, branch, proposal_id, page_url, attempt, submitting, changes)


def _stored(entry: ListEntry | None) -> Jsonb | None:
    return None if entry is None else Jsonb(entry._asdict())


def _entry(stored: dict[str, Any] | None) -> ListEntry | None:
    return None if stored is None else ListEntry(**stored)
