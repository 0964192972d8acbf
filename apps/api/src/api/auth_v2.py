"""Sign-in of people as newer web interfaces ask for it; the same links and sessions as in `login`."""

import time
from datetime import UTC, datetime
from typing import Any

from flask import Blueprint, Response

from api.errors import ApiError
from api.json_fields import json_or_form
from api.login import begin_session, mail_link, refreshed
from api.responses import NO_CACHE, NO_STORE, json_response
from api.services import services
from api.sessions import LINK_LIFETIME_S
from api.signed_in import NOT_SIGNED_IN, current_account
from api.tokens import refused

ANONYMOUS: dict[str, Any] = {
    "session_token": "",
    "redirect_to": "",
    "email_address": "",
    "account_id": "",
    "role": "",
    "login_time": None,
    "is_logged_in": False,
}
"""What is answered about nobody."""

blueprint = Blueprint("auth_v2", __name__)


@blueprint.post("/api/v2/ooniauth/user-login")
def user_login() -> Response:
    """Mail a login link to who asks for it."""
    address = mail_link(json_or_form())
    expires = _moment(int(time.time()) + LINK_LIFETIME_S)
    return json_response({"email_address": address, "login_token_expiration": expires}, cache=NO_CACHE)


@blueprint.post("/api/v2/ooniauth/user-session")
def begin_or_refresh() -> Response:
    """Begin a session for who has a login link, else refresh the one of the request."""
    asked = json_or_form()
    token = asked.raw("login_token")
    if token is None or token == "":
        found = _refreshed()
        if found is None:
            hint = "Give the token of a login link as login_token, or send the header of a session."
            raise refused(NOT_SIGNED_IN, hint)
        return json_response(found, cache=NO_STORE)
    if not isinstance(token, str):
        raise asked.wrong("login_token", "must be text")
    try:
        return json_response(_begun(token), cache=NO_STORE)
    except ApiError as error:
        found = _refreshed() if error.status == 401 else None
        if found is None:
            raise
        return json_response(found, cache=NO_STORE)


@blueprint.get("/api/v2/ooniauth/user-session")
def user_session() -> Response:
    """Answer who is signed in, with a refreshed session, or nobody."""
    return json_response(_refreshed() or ANONYMOUS, cache=NO_STORE)


def _begun(token: str) -> dict[str, Any]:
    begun = begin_session(token)
    session = services().session_tokens.session(begun.bearer)
    return {
        "session_token": begun.bearer,
        "redirect_to": begun.link.redirect_to,
        "email_address": begun.link.email_address,
        "account_id": begun.link.account_id,
        "role": begun.role,
        "login_time": _moment(session.login_time),
        "is_logged_in": True,
    }


def _refreshed() -> dict[str, Any] | None:
    """Return the session of the request with a later token of it, None when there is none."""
    account = current_account()
    if account is None or account.session is None:
        return None
    return {
        "session_token": refreshed(account.session, account.role),
        "redirect_to": "",
        "email_address": account.session.email_address,
        "account_id": account.account_id,
        "role": account.role,
        "login_time": _moment(account.session.login_time),
        "is_logged_in": True,
    }


def _moment(unix_s: int) -> datetime:
    return datetime.fromtimestamp(unix_s, UTC).replace(tzinfo=None)
