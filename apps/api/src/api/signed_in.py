"""Who the current request is from: the account behind its `Authorization: Bearer` header.

    account = current_account()          # None for anybody
    account = require_account()          # a user or an admin, else 401
    account = require_admin()            # an admin in a session, else 401
    account = require_session()          # a user or an admin in a session: what no program may do for people

The role, and whether the session or token still counts, are looked up in the database for each request: a role that is
taken away, a logout and an expunge count at once. Replies to signed-in people are for nobody else's cache.
"""

from dataclasses import dataclass
from typing import Literal

import jwt
from flask import Flask, Response, g, request

from api.access_tokens import WRITE, hash_of, is_access_token
from api.errors import ApiError
from api.key_file import KeysUnavailable
from api.roles import ADMIN, USER
from api.services import services
from api.sessions import Session
from api.tokens import no_keys

NOT_SIGNED_IN = "Authentication required"
WRONG_ROLE = "Role not authorized"

_CHALLENGE = {"WWW-Authenticate": "Bearer"}
_CHECKOUT_S = 3.0
_STATEMENT_TIMEOUT_MS = 5_000

_OF_SESSION = """SELECT role FROM accounts
    WHERE account_id = %s AND session_generation = %s
    AND NOT EXISTS (SELECT FROM ended_sessions WHERE session_id = %s)"""
_BY_HASH = """SELECT t.account_id, t.token_id, t.scope FROM access_tokens t
    WHERE t.token_hash = %s AND t.revoked_at IS NULL AND t.expires_at > now()"""


@dataclass(frozen=True, slots=True)
class Account:
    """Who is signed in."""

    account_id: str
    role: str
    """`user` or `admin`; always `user` for access tokens."""
    via: Literal["session", "token"]
    may_write: bool
    session: Session | None = None
    """What the session token says; None for access tokens."""
    token_id: int | None = None
    """Number of the access token."""

    @property
    def is_admin(self) -> bool:
        """Whether everything is allowed."""
        return self.role == ADMIN

    @property
    def email_address(self) -> str:
        """The address that the session began with, for comparisons, stored nowhere; empty for access tokens."""
        return self.session.email_address if self.session else ""


def current_account() -> Account | None:
    """Return who the current request is from, None without a credential that counts; looked up once per request.

    Raises:
        ApiError: 503, there are no keys to check it with, or no place for the query.
        DatabaseUnavailable: the database cannot say whether the credential still counts.
    """
    if "account" not in g:
        token = credential()
        g.account = _account(token) if token else None
    account: Account | None = g.account
    return account


def require_account() -> Account:
    """Return who is signed in; access tokens of scope `read` may only read.

    Raises:
        ApiError: 401 for anybody else; see `current_account`.
    """
    account = current_account()
    if account is None:
        raise _refused(NOT_SIGNED_IN, "Log in and send: Authorization: Bearer TOKEN.")
    if request.method not in {"GET", "HEAD"} and not account.may_write:
        raise _refused(WRONG_ROLE, "This access token may only read. Make one with the scope write.")
    return account


def require_session() -> Account:
    """Return who is signed in by a session; raises ApiError 401 for anybody else and for access tokens."""
    account = require_account()
    if account.via != "session":
        raise _refused(WRONG_ROLE, "Access tokens may not do this. Log in, and send the token of the session.")
    return account


def require_admin() -> Account:
    """Return the admin who is signed in by a session; raises ApiError 401 for everybody else."""
    account = require_session()
    if not account.is_admin:
        raise _refused(WRONG_ROLE, "Only admins may do this. `ooni-api make-admin` on the host makes the first one.")
    return account


def register(app: Flask) -> None:
    """Keep replies that depend on who asks out of shared caches."""

    @app.after_request
    def keep_private(response: Response) -> Response:
        if "account" in g:
            response.vary.add("Authorization")
            if g.account is not None:
                response.cache_control.no_cache = True
                response.cache_control.private = True
        return response


def _refused(message: str, hint: str) -> ApiError:
    return ApiError(401, message, body={"hint": hint}, headers=_CHALLENGE)


def credential() -> str:
    """Return what the current request shows as `Authorization: Bearer`, empty when it shows nothing."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def _account(token: str) -> Account | None:
    if is_access_token(token):
        return _of_token(token)
    try:
        session = services().session_tokens.session(token)
    except KeysUnavailable:
        raise no_keys() from None
    except jwt.InvalidTokenError:
        return None
    rows = _look_up(_OF_SESSION, (session.account_id, session.generation, session.session_id))
    return Account(session.account_id, rows[0][0], "session", may_write=True, session=session) if rows else None


def _of_token(token: str) -> Account | None:
    rows = _look_up(_BY_HASH, (hash_of(token),))
    if not rows:
        return None
    account_id, token_id, scope = rows[0]
    return Account(account_id, USER, "token", may_write=scope == WRITE, token_id=token_id)


def _look_up(statement: str, values: tuple[object, ...]) -> list[tuple[str, int, str]]:
    parts = services()
    with parts.read_slots.one(), parts.pool.connection(_CHECKOUT_S) as connection:
        connection.execute(f"SET LOCAL statement_timeout = {_STATEMENT_TIMEOUT_MS}")
        return connection.execute(statement.encode(), values).fetchall()
