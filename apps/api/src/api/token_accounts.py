"""Whose access token a request carries, for accounting alone: whose quota it uses, and on which day it was last used.

What a token may do is asked of the database for each request, see `signed_in`. Here an answer is remembered for a
minute, also that a text is no token, so that not every request costs a query. While nobody can tell, because the
database is away or slow, requests with tokens are charged to their addresses like all others.
"""

import threading
import time
from typing import NamedTuple

import psycopg
import structlog
from flask import Flask, g

from api.access_tokens import hash_of, is_access_token
from api.services import EXTENSION
from api.signed_in import credential
from core.db import DatabaseUnavailable, Pool

REMEMBERED_S = 60.0
"""How long an answer is remembered, in seconds; shorter if the token expires or the day ends before."""

MOST_REMEMBERED = 4096
"""Answers of each kind that a worker remembers; the oldest goes first."""

# A question takes a connection that readers leave to others (`read_slots.RESERVED`), hence one at a time, and briefly.
# Made-up tokens must not occupy threads that submissions need: nobody waits for longer than the usual question takes.
_WAIT_S = 0.05
_CHECKOUT_S = 1.0
_STATEMENT_TIMEOUT_MS = 1_000
_RETRY_S = 5.0  # after a question without an answer
_DAY_S = 86_400

_OWNER = """SELECT account_id, token_id, extract(epoch FROM expires_at - now())::float8,
        last_used_on IS DISTINCT FROM current_date
    FROM access_tokens WHERE token_hash = %s AND revoked_at IS NULL AND expires_at > now()"""
# Who holds the row is creating, revoking or doing just this: nobody waits for it.
_USED_TODAY = """UPDATE access_tokens SET last_used_on = current_date WHERE token_id = (
        SELECT token_id FROM access_tokens WHERE token_id = %s AND last_used_on IS DISTINCT FROM current_date
        FOR UPDATE SKIP LOCKED)"""

log = structlog.get_logger(__name__)


class _Answer(NamedTuple):
    account_id: str | None
    until: float  # of the monotonic clock


class TokenAccounts:
    """Knows the accounts of the tokens that were used lately; for all threads of a worker."""

    def __init__(self, pool: Pool) -> None:
        """Take where to ask."""
        self._pool = pool
        self._asking = threading.Lock()  # also held to change what follows
        self._tokens: dict[bytes, _Answer] = {}
        self._others: dict[bytes, _Answer] = {}  # apart, so that made-up tokens do not drive out real ones
        self._retry_at = 0.0

    def account_of(self, token: str) -> str | None:
        """Return the account of a token that counts, or did a minute ago; None when it has none or nobody can tell."""
        digest = hash_of(token)
        answer = self._remembered(digest)
        if answer is None and self._asking.acquire(timeout=_WAIT_S):
            try:
                answer = self._remembered(digest) or self._ask(digest)  # another thread may have asked the same
            finally:
                self._asking.release()
        return None if answer is None else answer.account_id

    def _remembered(self, digest: bytes) -> _Answer | None:
        answer = self._tokens.get(digest) or self._others.get(digest)
        return answer if answer is not None and time.monotonic() < answer.until else None

    def _ask(self, digest: bytes) -> _Answer | None:
        if time.monotonic() < self._retry_at:
            return None
        try:
            with self._pool.connection(_CHECKOUT_S) as connection:
                connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")
                row = connection.execute(_OWNER, [digest]).fetchone()
                if row is not None and row[3]:
                    connection.execute(_USED_TODAY, [row[1]])
        except (DatabaseUnavailable, psycopg.Error) as error:
            self._retry_at = time.monotonic() + _RETRY_S
            log.warning("requests with access tokens are charged to their addresses", error=type(error).__name__)
            return None
        self._tokens.pop(digest, None)
        self._others.pop(digest, None)
        if row is None:
            return _keep(self._others, digest, _Answer(None, time.monotonic() + REMEMBERED_S))
        lasts_s = min(REMEMBERED_S, row[2], _DAY_S - time.time() % _DAY_S)
        return _keep(self._tokens, digest, _Answer(row[0], time.monotonic() + lasts_s))


def register(app: Flask) -> None:
    """Find the account of each request with an access token; before the quotas, which charge it."""
    accounts = TokenAccounts(app.extensions[EXTENSION].pool)

    @app.before_request
    def find_account() -> None:
        token = credential()
        g.token_account = accounts.account_of(token) if is_access_token(token) else None


def _keep(answers: dict[bytes, _Answer], digest: bytes, answer: _Answer) -> _Answer:
    if len(answers) >= MOST_REMEMBERED:
        del answers[next(iter(answers))]
    answers[digest] = answer
    return answer
