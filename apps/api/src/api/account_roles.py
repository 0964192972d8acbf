"""What admins do to accounts: give and take roles, and end everything that an account has open."""

import time

from flask import Blueprint, Response

from api.account_ids import normal_address
from api.errors import bad_request
from api.json_fields import Fields, json_or_form
from api.key_file import KeysUnavailable
from api.login import INVALID_ADDRESS, address_in
from api.responses import NO_CACHE, json_response
from api.roles import ADMIN, ROLES
from api.services import services
from api.signed_in import WRONG_ROLE, require_admin
from api.tokens import no_keys, refused
from api.writing import transaction, writing

NOT_FOUND = "Account not found"

_ROLE = "SELECT role FROM accounts WHERE account_id = %s"
_ADMINS = "SELECT account_id FROM accounts WHERE role = 'admin' ORDER BY account_id FOR UPDATE"
_SET_ROLE = """INSERT INTO accounts (account_id, role) VALUES (%s, %s)
    ON CONFLICT (account_id) DO UPDATE SET role = excluded.role"""
# A login link knows its time to the second, so the whole second counts as before this; links have the time of API
# hosts, so the clock counts that is ahead.
_END_SESSIONS = """UPDATE accounts SET session_generation = session_generation + 1,
        links_valid_from =
            date_trunc('second', greatest(clock_timestamp(), to_timestamp(%s))) + interval '1 second'
    WHERE account_id = %s RETURNING true"""
_REVOKE_TOKENS = "UPDATE access_tokens SET revoked_at = now() WHERE account_id = %s AND revoked_at IS NULL"

blueprint = Blueprint("account_roles", __name__)


@blueprint.post("/api/v1/set_account_role")
def set_account_role() -> Response:
    """Give an account a role; it counts from the next request on."""
    admin = require_admin()
    asked = json_or_form()
    account_id = _account_id(address_in(asked))
    role = _role_in(asked)
    with writing(admin) as work:
        # Locked, so that two admins who dismiss each other at the same moment do not leave nobody.
        admins = {found for (found,) in work.connection.execute(_ADMINS)}
        if admin.account_id not in admins:
            raise refused(WRONG_ROLE, "You are no admin any more.")
        if role != ADMIN and admins == {account_id}:
            raise bad_request(
                "This is the last admin.", hint="Make somebody else an admin first, with set_account_role."
            )
        row = work.connection.execute(_ROLE, [account_id]).fetchone()
        if row == (role,):
            work.nothing_to_record()
        else:
            work.connection.execute(_SET_ROLE, [account_id, role])
            work.record("account.set_role", account_id, role=role, before=row[0] if row else None)
    return json_response({}, cache=NO_CACHE)


@blueprint.get("/api/v1/get_account_role/<email>")
def get_account_role(email: str) -> Response:
    """Answer the role of an account."""
    require_admin()
    address = normal_address(email)
    if address is None:
        raise bad_request(INVALID_ADDRESS, hint="The path must end in an email address.")
    account_id = _account_id(address)
    with transaction() as connection:
        row = connection.execute(_ROLE, [account_id]).fetchone()
    if row is None:
        raise bad_request(NOT_FOUND, hint="Nobody has signed in with this email address, nor was it given a role.")
    return json_response({"role": row[0]}, cache=NO_CACHE)


@blueprint.post("/api/v1/set_session_expunge")
def set_session_expunge() -> Response:
    """End every session, login link and access token of an account."""
    admin = require_admin()
    account_id = _account_id(address_in(json_or_form()))
    with writing(admin) as work:
        if work.connection.execute(_END_SESSIONS, [time.time(), account_id]).fetchone() is None:
            raise bad_request(NOT_FOUND, hint="Nobody has signed in with this email_address. Is it written right?")
        revoked = work.connection.execute(_REVOKE_TOKENS, [account_id]).rowcount
        work.record("account.expunge", account_id, access_tokens=revoked)
    return json_response({}, cache=NO_CACHE)


def _role_in(asked: Fields) -> str:
    role = asked.raw("role")
    if not isinstance(role, str) or role not in ROLES:
        raise bad_request("Invalid role", hint=f"role must be one of: {', '.join(ROLES)}.")
    return role


def _account_id(address: str) -> str:
    try:
        return services().account_ids.of(address)
    except KeysUnavailable:
        raise no_keys() from None
