"""The token that the current request must carry."""

import jwt
from flask import request

from api.errors import ApiError
from api.key_file import KeysUnavailable
from api.services import services
from api.signing import AUDIENCE_TOKEN

_CHALLENGE = {"WWW-Authenticate": "Bearer"}


def require_probe_token() -> None:
    """Let the current request pass if it has a good probe token, as `Authorization: Bearer <token>`.

    Raises:
        ApiError: 401 without a token or with a bad one, 400 for another kind of authorization, 503 when this host has
            no keys to check it with.
    """
    header = request.headers.get("Authorization", "")
    if not header:
        raise refused("Invalid credentials", "Send the token that login answered: Authorization: Bearer TOKEN.")
    scheme, _, token = header.partition(" ")
    if scheme.lower() != "bearer":
        raise ApiError(400, "Invalid token format", body={"hint": "Authorization must be: Bearer TOKEN."})
    try:
        services().probe_tokens.check(token.strip(), AUDIENCE_TOKEN)
    except KeysUnavailable:
        raise no_keys() from None
    except jwt.InvalidSignatureError:
        raise refused("Invalid JWT signature", "Log in again.") from None
    except jwt.InvalidTokenError:
        raise refused("Invalid credentials", "The token is no probe token, or it expired. Log in again.") from None


def refused(message: str, hint: str) -> ApiError:
    """Return a 401 with a text of the wire contract and what to do next."""
    return ApiError(401, message, body={"hint": hint}, headers=_CHALLENGE)


def no_keys() -> ApiError:
    """Return the 503 of a host that has no keys for tokens."""
    text = "This server cannot make or check tokens at the moment. Try again in a few minutes."
    return ApiError(503, text, headers={"Retry-After": "300"})
