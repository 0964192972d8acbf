"""Access tokens, for programs that read or write on behalf of an account: made, listed and revoked by people.

The token itself is told once; what is kept is its hash. Only sessions get here: a token that could make tokens would
outlive its own revocation.
"""

import re

from flask import Blueprint, Response, request

from api.access_tokens import READ, SCOPES, hash_of, new_token
from api.daily_bounds import check_daily
from api.errors import ApiError, bad_request
from api.json_fields import Fields, json_object
from api.params import Params
from api.responses import NO_CACHE, NO_STORE, json_response
from api.services import services
from api.signed_in import NOT_SIGNED_IN, Account, require_admin, require_session
from api.tokens import refused
from api.writing import Work, writing
from api.written_text import line

MOST_LIVE = 20
"""Tokens of one account that count at the same time."""

MOST_A_DAY = 200
"""Tokens that one account may make in a day; each leaves a line in the audit log."""

MOST_DEAD = 80
"""Tokens of one account that are listed though they count no more; the oldest are forgotten when new ones are made."""

LONGEST_NAME = 100
DEFAULT_DAYS, MOST_DAYS = 90, 365

_ACCOUNT_ID = re.compile(r"[0-9a-f]{32}", re.ASCII)
_ADDRESS = re.compile(r"\S@\S")

# Whoever ends the sessions of an account changes this row before its tokens, so either waits for the other.
_LOCK = "SELECT session_generation FROM accounts WHERE account_id = %s FOR UPDATE"
_COUNT = """SELECT count(*) FROM access_tokens
    WHERE account_id = %s AND revoked_at IS NULL AND expires_at > now()"""
_FORGET = """DELETE FROM access_tokens WHERE token_id IN (
        SELECT token_id FROM access_tokens
        WHERE account_id = %s AND (revoked_at IS NOT NULL OR expires_at <= now())
        ORDER BY token_id DESC OFFSET %s)"""
_CREATE = """INSERT INTO access_tokens (account_id, token_hash, name, scope, expires_at)
    VALUES (%s, %s, %s, %s, now() + make_interval(days => %s))
    RETURNING token_id, created_at AT TIME ZONE 'UTC', expires_at AT TIME ZONE 'UTC'"""
_LIST = """SELECT token_id, name, scope, created_at AT TIME ZONE 'UTC' AS created_at,
        expires_at AT TIME ZONE 'UTC' AS expires_at, last_used_on, revoked_at AT TIME ZONE 'UTC' AS revoked_at
    FROM access_tokens WHERE account_id = %s ORDER BY token_id DESC"""
_REVOKE = """UPDATE access_tokens SET revoked_at = now()
    WHERE token_id = %s AND account_id = %s AND revoked_at IS NULL RETURNING name"""
_EXISTS = "SELECT FROM access_tokens WHERE token_id = %s AND account_id = %s"

blueprint = Blueprint("access_tokens", __name__)


@blueprint.post("/api/v1/access_tokens")
def create() -> Response:
    """Make a token for the account of the session, and tell it this once."""
    account = require_session()
    asked = json_object()
    name, scope, days = _name(asked), _scope(asked), _days(asked)
    token = new_token()
    with writing(account) as work:
        check_daily(work, account, "access_token.create", MOST_A_DAY)
        _make_room(work, account)
        row = work.connection.execute(_CREATE, [account.account_id, hash_of(token), name, scope, days]).fetchone()
        assert row is not None
        work.record("access_token.create", str(row[0]), name=name, scope=scope, expires_in_days=days)
    reply = {
        "token": token,
        "token_id": row[0],
        "name": name,
        "scope": scope,
        "created_at": row[1],
        "expires_at": row[2],
    }
    return json_response(reply, cache=NO_STORE)


@blueprint.get("/api/v1/access_tokens")
def list_tokens() -> Response:
    """List the tokens of the account of the session, newest first, without what they are; admins name any account."""
    rows = services().reader.rows(_LIST, [_whose(require_session())], timeout_s=5, narrow="Try again later.")
    return json_response({"access_tokens": rows}, cache=NO_CACHE)


@blueprint.delete("/api/v1/access_tokens/<int(max=9223372036854775807):token_id>")
def revoke(token_id: int) -> Response:
    """End a token of the account of the session, at once; admins name any account."""
    account = require_session()
    owner = _whose(account)
    with writing(account) as work:
        row = work.connection.execute(_REVOKE, [token_id, owner]).fetchone()
        if row is not None:
            work.record("access_token.revoke", str(token_id), name=row[0], account_id=owner)
        elif work.connection.execute(_EXISTS, [token_id, owner]).fetchone() is not None:
            work.nothing_to_record()
        else:
            raise ApiError(404, "There is no such access token. GET /api/v1/access_tokens lists yours.")
    return json_response({}, cache=NO_CACHE)


def _make_room(work: Work, account: Account) -> None:
    """Let one more token be made, by one request of the account at a time.

    Raises:
        ApiError: 401 when the session was ended meanwhile, 400 when there are too many tokens.
    """
    row = work.connection.execute(_LOCK, [account.account_id]).fetchone()
    if account.session is None or row is None or row[0] != account.session.generation:
        raise refused(NOT_SIGNED_IN, "This session was ended. Log in again.")
    counted = work.connection.execute(_COUNT, [account.account_id]).fetchone()
    assert counted is not None
    if counted[0] >= MOST_LIVE:
        raise bad_request(
            f"This account has {MOST_LIVE} access tokens, which is as many as there may be.",
            hint="Revoke one that is not needed: DELETE /api/v1/access_tokens/<token_id>.",
        )
    work.connection.execute(_FORGET, [account.account_id, MOST_DEAD - 1])


def _whose(account: Account) -> str:
    """Return the account asked about: that of the session, or for admins the one that `account_id` names.

    Raises:
        ApiError: 400 when it is no account_id, 401 when it is another's and this is no admin.
    """
    asked = Params(request).text("account_id")
    if asked is None or asked == account.account_id:
        return account.account_id
    require_admin()
    if not _ACCOUNT_ID.fullmatch(asked):
        raise bad_request("Invalid value in parameter account_id: it must be 32 hexadecimal digits, in lower case.")
    return asked


def _name(asked: Fields) -> str:
    given = asked.raw("name")
    try:
        name = line("" if given is None else given, LONGEST_NAME)
    except ValueError as error:
        raise asked.wrong("name", str(error)) from error
    if not name:
        raise asked.wrong("name", "must say what the token is for, so that you know later which one to revoke")
    if _ADDRESS.search(name):
        raise asked.wrong("name", "looks like it holds an e-mail address, and none is stored here")
    return name


def _scope(asked: Fields) -> str:
    scope = asked.text("scope", READ)
    if scope not in SCOPES:
        raise asked.wrong("scope", f"must be one of {', '.join(SCOPES)}")
    return scope


def _days(asked: Fields) -> int:
    days = asked.raw("expires_in_days")
    if days is None:
        return DEFAULT_DAYS
    if not isinstance(days, int) or isinstance(days, bool) or not 1 <= days <= MOST_DAYS:
        raise asked.wrong("expires_in_days", f"must be a whole number from 1 to {MOST_DAYS}")
    return days
