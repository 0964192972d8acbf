"""Sign-in of people: a link by e-mail, the session that it begins, refresh and logout.

Whether an account exists is not looked up before the reply to who asks for a link, and makes no difference to what is
done. What a session is: see `sessions`; how requests are known by it: see `signed_in`.
"""

from typing import NamedTuple

import jwt
import structlog
from flask import Blueprint, Response, request

from api.account_ids import normal_address
from api.errors import ApiError, bad_request
from api.json_fields import Fields, json_or_form
from api.key_file import KeysUnavailable
from api.login_mail import login_mail
from api.login_redirects import LONGEST
from api.login_store import (
    MOST_MAILS,
    MOST_MAILS_TO_ALL,
    LinkSpent,
    TooManyMails,
    count_mail,
    end_session,
    follow,
    uncount_mail,
)
from api.mail import MailBusy, MailFailed
from api.metrics import LOGIN_MAILS, LOGINS
from api.params import Params
from api.responses import NO_CACHE, NO_STORE, json_response
from api.services import services
from api.sessions import DAY_S, Link, Session
from api.signed_in import current_account, require_session
from api.tokens import no_keys, refused
from api.writing import writing

INVALID = "Invalid request"
INVALID_ADDRESS = "Invalid email address"
NO_MAIL = "Unable to send the email"

_ASK_AGAIN = "Ask for a new link at /api/v1/user_register."

blueprint = Blueprint("login", __name__)

log = structlog.get_logger(__name__)


class Begun(NamedTuple):
    """A session that has just begun."""

    link: Link
    bearer: str
    role: str


@blueprint.post("/api/v1/user_register")
def user_register() -> Response:
    """Mail a login link to who asks for it."""
    mail_link(json_or_form())
    return json_response({"msg": "ok"}, cache=NO_CACHE)


@blueprint.get("/api/v1/user_login")
def user_login() -> Response:
    """Begin a session for who has a login link."""
    begun = begin_session(Params(request).text("k") or "")
    reply = {
        "bearer": begun.bearer,
        "redirect_to": begun.link.redirect_to,
        "email_address": begun.link.email_address,
    }
    return json_response(reply, cache=NO_STORE)


@blueprint.get("/api/v1/user_refresh_token")
def user_refresh_token() -> Response:
    """Answer a later token of the same session."""
    account = require_session()
    assert account.session is not None
    return json_response({"bearer": refreshed(account.session, account.role)}, cache=NO_STORE)


@blueprint.route("/api/v1/user_logout", methods=["GET", "POST"])
def user_logout() -> Response:
    """End the session of the request, if there is one."""
    account = current_account()
    if account is not None and account.session is not None:
        with writing(account) as work:
            end_session(account.session, work, longest_s=services().settings.login_expiry_days * DAY_S)
    return json_response({}, cache=NO_CACHE)


@blueprint.get("/api/_/account_metadata")
def account_metadata() -> Response:
    """Answer whether somebody is signed in, and in which role."""
    account = current_account()
    if account is None:
        # The web interface reads this very body, so it has no text under `error`.
        response = json_response({"logged_in": False}, status=401, cache="no-cache")
        response.headers["WWW-Authenticate"] = "Bearer"
        return response
    return json_response({"logged_in": True, "role": account.role}, cache=NO_CACHE)


def mail_link(asked: Fields) -> str:
    """Mail a login link, unless this account has had too many lately; return the address it is for.

    Raises:
        ApiError: 400 for a wrong address or redirect, or when the mail cannot be sent; 503 when too many are being sent
            or there are no keys.
    """
    address = address_in(asked)
    redirect_to = asked.raw("redirect_to")
    origin = services().redirect_hosts.origin_of(redirect_to) if isinstance(redirect_to, str) else None
    if origin is None:
        raise bad_request(
            INVALID,
            hint=f"redirect_to must be an https address of at most {LONGEST} characters, without blanks and quotes, at "
            "one of the web interfaces that this server knows (its setting login_redirect_hosts).",
        )
    try:
        account_id = services().account_ids.of(address)
        token = services().session_tokens.new_link(account_id, address, redirect_to)
    except KeysUnavailable:
        raise no_keys() from None
    try:
        counted = count_mail(account_id)
    except TooManyMails:
        LOGIN_MAILS.labels("too_many").inc()
        log.error("no more login mails to anybody for now", most_per_hour=MOST_MAILS_TO_ALL)
        raise bad_request(NO_MAIL, hint="Too many people ask for links at the moment. Try again in an hour.") from None
    if not counted:
        LOGIN_MAILS.labels("held_back").inc()
        log.warning("no more login mails to this account for now", account_id=account_id, most_per_hour=MOST_MAILS)
        return address
    try:
        services().mail.send(login_mail(address, origin, token))
    except MailFailed as error:
        uncount_mail(account_id)
        raise _not_sent(error) from None
    LOGIN_MAILS.labels("sent").inc()
    return address


def address_in(asked: Fields) -> str:
    """Return the e-mail address in a body, in lower case. Raises ApiError 400."""
    value = asked.raw("email_address")
    if value is None or value == "":
        raise bad_request(INVALID, hint="Give an e-mail address as email_address.")
    address = normal_address(value) if isinstance(value, str) else None
    if address is None:
        raise bad_request(
            INVALID_ADDRESS,
            hint="email_address must be one address: letters, digits and _.+- before the @, after it a domain with a "
            "dot.",
        )
    return address


def begin_session(token: str) -> Begun:
    """Follow a login link.

    Raises:
        ApiError: 401 when it is none that works, 503 when there are no keys.
    """
    try:
        link = _link(token)
        who = follow(link)
        bearer = services().session_tokens.begin(link.account_id, link.email_address, who.role, who.generation)
    except KeysUnavailable:
        raise no_keys() from None
    except LinkSpent as spent:
        LOGINS.labels("refused").inc()
        raise refused("Expired token", str(spent)) from None
    LOGINS.labels("ok").inc()
    return Begun(link, bearer, who.role)


def refreshed(session: Session, role: str) -> str:
    """Return a later token of a session. Raises ApiError 503 when there are no keys."""
    try:
        return services().session_tokens.refresh(session, role)
    except KeysUnavailable:
        raise no_keys() from None


def _link(token: str) -> Link:
    """Return what a link says. Raises ApiError 401, KeysUnavailable."""
    try:
        return services().session_tokens.link(token)
    except jwt.InvalidSignatureError:  # a special case of the error for what is no token
        message, hint = "Invalid credential signature", f"This server did not make this link. {_ASK_AGAIN}"
    except jwt.ExpiredSignatureError:
        message, hint = "Expired token", f"Links work for 24 hours. {_ASK_AGAIN}"
    except jwt.MissingRequiredClaimError:
        message, hint = "Invalid token type", f"The parameter k must be the token of a login link. {_ASK_AGAIN}"
    except jwt.InvalidTokenError:
        message, hint = "Invalid credentials", f"The parameter k must be the token of a login link. {_ASK_AGAIN}"
    LOGINS.labels("refused").inc()
    raise refused(message, hint)


def _not_sent(error: MailFailed) -> ApiError:
    if isinstance(error, MailBusy):
        LOGIN_MAILS.labels("busy").inc()
        text = "Too many login links are being mailed at the moment. Try again in a minute."
        return ApiError(503, text, headers={"Retry-After": "60"})
    LOGIN_MAILS.labels("failed").inc()
    log.error("login link not mailed", problem=str(error))
    return bad_request(NO_MAIL, hint="The server cannot send mail at the moment. Try again later.")
