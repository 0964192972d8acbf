"""Registration and login of probes: nameless ids, made without asking anything and without storing anything.

A probe that runs certain tests shows a token when it fetches what they need. Whatever it says about itself here is
checked for its form and forgotten. Ids of the time before they were signed still log in.
"""

import time
from datetime import UTC, datetime

import jwt
from flask import Blueprint, Response, request

from api.errors import bad_request
from api.json_fields import Fields, json_object
from api.key_file import MAX_LENGTH, KeysUnavailable
from api.metrics import PROBE_LOGINS
from api.responses import NO_CACHE, json_response
from api.services import services
from api.signing import AUDIENCE_LOGIN, LIFETIME_S
from api.tokens import no_keys, refused

_FACTS = (
    "password",
    "platform",
    "probe_asn",
    "probe_cc",
    "software_name",
    "software_version",
    "network_type",
    "available_bandwidth",
    "language",
    "token",
    "probe_family",
    "probe_id",
)
_LONGEST_FACT = 1000
_MOST_TESTS = 200

blueprint = Blueprint("probe_identity", __name__)


@blueprint.post("/api/v1/register")
def register() -> Response:
    """Answer a new client id."""
    if not request.is_json:
        raise bad_request("error: JSON expected!", hint="Send the header Content-Type: application/json.")
    _check_facts(json_object())
    try:
        client_id = services().probe_tokens.new_client_id()
    except KeysUnavailable:
        raise no_keys() from None
    return json_response({"client_id": client_id}, cache=NO_CACHE)


@blueprint.post("/api/v1/login")
def login() -> Response:
    """Answer a token for seven days to who has a client id; the password means nothing."""
    asked = json_object()
    asked.text("password", longest=_LONGEST_FACT)
    username = asked.text("username", longest=MAX_LENGTH)
    if not username:
        PROBE_LOGINS.labels("refused").inc()
        raise refused("Missing credentials", "Send the client_id that register answered as username.")
    _check_client_id(username, "username")
    tokens = services().probe_tokens
    now_s = int(time.time())
    try:
        registered_at = _registration_time(username)
        token = tokens.new_token(registered_at, now_s)
    except KeysUnavailable:
        raise no_keys() from None
    PROBE_LOGINS.labels("legacy" if registered_at is None else "ok").inc()
    expire = datetime.fromtimestamp(now_s + LIFETIME_S, UTC).replace(tzinfo=None)
    return json_response({"token": token, "expire": expire}, cache=NO_CACHE)


@blueprint.put("/api/v1/update/<client_id>")
def update(client_id: str) -> Response:
    """Say yes to what a probe has to tell about itself; nothing of it is stored."""
    _check_client_id(client_id, "client_id")
    _check_facts(json_object())
    return json_response({"status": "ok"}, cache=NO_CACHE)


def _registration_time(client_id: str) -> int | None:
    """Return when a client id was made (Unix seconds), None for one that was never signed.

    Raises:
        ApiError: 401 when it is a token, and not a good one of this kind.
        KeysUnavailable: there are no keys to check it with.
    """
    try:
        return int(services().probe_tokens.check(client_id, AUDIENCE_LOGIN)["iat"])
    except jwt.DecodeError as error:
        if not isinstance(error, jwt.InvalidSignatureError):
            return None
    except jwt.InvalidTokenError:
        pass
    PROBE_LOGINS.labels("refused").inc()
    raise refused("Invalid credentials", "This server did not make this username. Register again.")


def _check_client_id(text: str, name: str) -> None:
    if len(text) > MAX_LENGTH or not (text.isascii() and text.isprintable()):
        raise bad_request(f"Invalid value in parameter {name}: it is no client id, which is printable ASCII.")


def _check_facts(fields: Fields) -> None:
    for name in _FACTS:
        value = fields.raw(name)
        if isinstance(value, bool) or not isinstance(value, int | float):  # probes tell bandwidths as numbers
            fields.text(name, longest=_LONGEST_FACT)
    tests = fields.raw("supported_tests")
    if tests is None:
        return
    if not isinstance(tests, list) or not all(isinstance(test, str) for test in tests):
        raise fields.wrong("supported_tests", "must be a list of texts")
    if len(tests) > _MOST_TESTS:
        raise fields.wrong("supported_tests", f"has more than {_MOST_TESTS} items")
