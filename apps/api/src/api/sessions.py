"""Tokens of people: the link that is mailed to them, and the session that following it begins.

A session is a JWT with an end of its own, refreshed while it is in use, up to `login_expiry_days` after the login. Its
keys are in one file and can be rotated, see `key_file`; no other token is signed with them, and each kind has an
audience of its own. What ends a session before its time is in the database: see `signed_in`.
"""

import secrets
import time
from dataclasses import dataclass
from typing import Any

import jwt

from api.key_file import LEEWAY_S, KeyFile, decode, encode

AUDIENCE_LINK = "register"
AUDIENCE_SESSION = "user_auth"

KEY_FILE = "session_keys"
"""Name of the file in `state_directory` that a host makes for itself."""

LINK_LIFETIME_S = 86_400
"""How long a mailed link works, in seconds."""

DAY_S = 86_400

_CLAIMS = ("aud", "exp", "iat")  # the others are looked at when the audience is known to be right


@dataclass(frozen=True, slots=True)
class Link:
    """What a mailed link says; times are Unix seconds."""

    link_id: str
    account_id: str
    email_address: str
    redirect_to: str
    made_at: int
    expires_at: int


@dataclass(frozen=True, slots=True)
class Session:
    """What a session token says; times are Unix seconds."""

    session_id: str
    account_id: str
    email_address: str
    role: str
    """The role when the token was made; what counts is the one in the database."""
    generation: int
    login_time: int
    expires_at: int


class SessionTokens:
    """Makes and checks login links and sessions."""

    def __init__(self, keys: KeyFile, *, session_expiry_days: float, login_expiry_days: float) -> None:
        """Take the keys, how long a session lives without being refreshed, and how long after its login at most."""
        self._keys = keys
        self._session_s = session_expiry_days * DAY_S
        self._login_s = login_expiry_days * DAY_S

    def new_link(self, account_id: str, email_address: str, redirect_to: str) -> str:
        """Return the token of a login link. Raises KeysUnavailable."""
        now = int(time.time())
        claims = {
            "aud": AUDIENCE_LINK,
            "iat": now,
            "nbf": now,
            "exp": now + LINK_LIFETIME_S,
            "jti": secrets.token_hex(16),
            "account_id": account_id,
            "email_address": email_address,
            "redirect_to": redirect_to,
        }
        return encode(claims, self._keys)

    def link(self, token: str) -> Link:
        """Return what a link's token says. Raises as `key_file.decode`."""
        claims = decode(token, self._keys, audience=AUDIENCE_LINK, required=_CLAIMS)
        return Link(
            _text(claims, "jti"),
            _text(claims, "account_id"),
            _text(claims, "email_address"),
            _text(claims, "redirect_to"),
            int(claims["iat"]),
            int(claims["exp"]),
        )

    def begin(self, account_id: str, email_address: str, role: str, generation: int) -> str:
        """Return the token of a session that begins now. Raises KeysUnavailable."""
        now = int(time.time())
        return self._session(secrets.token_hex(16), account_id, email_address, role, generation, login_time=now)

    def refresh(self, session: Session, role: str) -> str:
        """Return a later token of the same session: with the same login time. Raises KeysUnavailable."""
        return self._session(
            session.session_id,
            session.account_id,
            session.email_address,
            role,
            session.generation,
            login_time=session.login_time,
        )

    def session(self, token: str) -> Session:
        """Return what a session's token says. Raises as `key_file.decode`.

        It has expired as well when it is older than tokens get now: what ended is remembered for as long, and settings
        that are lowered count at once.
        """
        claims = decode(token, self._keys, audience=AUDIENCE_SESSION, required=_CLAIMS)
        login_time = _number(claims, "login_time")
        if time.time() > min(int(claims["iat"]) + self._session_s, login_time + self._login_s) + LEEWAY_S:
            raise jwt.ExpiredSignatureError("Sessions do not last as long any more.")
        return Session(
            _text(claims, "sid"),
            _text(claims, "account_id"),
            str(claims.get("email_address", "")),
            _text(claims, "role"),
            _number(claims, "gen"),
            login_time,
            int(claims["exp"]),
        )

    def _session(
        self, session_id: str, account_id: str, email_address: str, role: str, generation: int, *, login_time: int
    ) -> str:
        now = int(time.time())
        claims = {
            "aud": AUDIENCE_SESSION,
            "iat": now,
            "nbf": now,
            "exp": int(min(now + self._session_s, login_time + self._login_s)),
            "sid": session_id,
            "gen": generation,
            "account_id": account_id,
            "email_address": email_address,
            "login_time": login_time,
            "role": role,
        }
        return encode(claims, self._keys)


def _claim(claims: dict[str, Any], name: str) -> Any:
    if claims.get(name) is None:
        raise jwt.MissingRequiredClaimError(name)
    return claims[name]


def _text(claims: dict[str, Any], name: str) -> str:
    value = _claim(claims, name)
    if not isinstance(value, str) or not value.isprintable():
        raise jwt.InvalidTokenError(f"{name} is no text.")
    return value


def _number(claims: dict[str, Any], name: str) -> int:
    value = _claim(claims, name)
    if not isinstance(value, int) or isinstance(value, bool):
        raise jwt.InvalidTokenError(f"{name} is no number.")
    return value
