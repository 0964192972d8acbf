"""Descriptions of how people sign in, and of what admins do to accounts."""

from api.login_redirects import LONGEST
from api.openapi.model import (
    BODY_ERRORS,
    BOOLEAN,
    EMPTY,
    TEXT,
    Body,
    Operation,
    Parameter,
    Reply,
    Schema,
    asked,
    nullable,
    record,
    ref,
    text,
)
from api.openapi.schemas import TIME, TIME_SCHEMA

TAG = "accounts"

EMAIL = "person@example.org"
REDIRECT_TO = "https://explorer.example.org/findings"
LINK_TOKEN = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"  # noqa: S105 an example

ROLE = text(enum=["user", "admin"])
ACCOUNT_ID = text("[0-9a-f]{32}")

_ADDRESS = text(maxLength=254)
_SESSION_TOKEN = text(r"[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+\.[0-9A-Za-z_-]+")
_EXAMPLE_ID = "0123456789abcdef0123456789abcdef"
_OF_A_QUERY = (503, 504)
_OF_A_BODY = (*BODY_ERRORS, 504)
_DONE = {200: Reply("Done.", EMPTY, {})}

_ASK_FOR_A_LINK = Body(
    asked(
        {"email_address": _ADDRESS, "redirect_to": text(maxLength=LONGEST)}, required=("email_address", "redirect_to")
    ),
    {"email_address": EMAIL, "redirect_to": REDIRECT_TO},
    "The link leads to the host of `redirect_to`, one of those that the operator named. A form with these fields is "
    "accepted too.",
)
_AN_ACCOUNT = Body(asked({"email_address": _ADDRESS}, required=("email_address",)), {"email_address": EMAIL})
_SESSION: Schema = {
    "account_id": text("([0-9a-f]{32})?"),
    "email_address": _ADDRESS,
    "is_logged_in": BOOLEAN,
    "login_time": nullable(TIME_SCHEMA),
    "redirect_to": TEXT,
    "role": text(enum=["user", "admin", ""]),
    "session_token": TEXT,
}
_SESSION_EXAMPLE = {
    "account_id": _EXAMPLE_ID,
    "email_address": EMAIL,
    "is_logged_in": True,
    "login_time": TIME,
    "redirect_to": REDIRECT_TO,
    "role": "user",
    "session_token": LINK_TOKEN,
}

OPERATIONS = (
    Operation(
        "post",
        "/api/v1/user_register",
        TAG,
        "Ask for a login link",
        text="Mails a link that works once within 24 hours. The reply is the same whether there is an account or not; "
        "at most 5 links an hour are mailed to one account, and further ones are silently not.",
        body=_ASK_FOR_A_LINK,
        replies={200: Reply("The link is on its way.", record({"msg": text(enum=["ok"])}), {"msg": "ok"})},
        errors=_OF_A_BODY,
    ),
    Operation(
        "get",
        "/api/v1/user_login",
        TAG,
        "Log in with a link",
        text="Begins a session. The same link works again for 10 minutes, because pages are loaded again; not after "
        "a logout.",
        parameters=(Parameter("k", text(maxLength=8000), "The token in the mailed link.", example=LINK_TOKEN),),
        replies={
            200: Reply(
                "The session; send `bearer` as Authorization: Bearer.",
                record({"bearer": _SESSION_TOKEN, "email_address": _ADDRESS, "redirect_to": TEXT}),
                {"bearer": LINK_TOKEN, "email_address": EMAIL, "redirect_to": REDIRECT_TO},
            )
        },
        errors=(400, 401, *_OF_A_QUERY),
    ),
    Operation(
        "get",
        "/api/v1/user_refresh_token",
        TAG,
        "Refresh a session",
        text="A token that lasts longer, of the same session: up to the greatest age that the operator allows.",
        replies={200: Reply("The later token.", record({"bearer": _SESSION_TOKEN}), {"bearer": LINK_TOKEN})},
        errors=(401, *_OF_A_QUERY),
        account="session",
    ),
    *(
        Operation(
            method,
            "/api/v1/user_logout",
            TAG,
            "Log out",
            text="Ends the session of the token that is sent, if it is one; its later and earlier tokens end with it.",
            replies=_DONE,
            errors=_OF_A_QUERY,
            account="maybe",
        )
        for method in ("get", "post")
    ),
    Operation(
        "get",
        "/api/_/account_metadata",
        TAG,
        "Who is signed in",
        replies={
            200: Reply(
                "Somebody is.",
                record({"logged_in": {"type": "boolean", "enum": [True]}, "role": ROLE}),
                {"logged_in": True, "role": "user"},
            ),
            401: Reply(
                "Nobody is. This one refusal has no text.",
                record({"logged_in": {"type": "boolean", "enum": [False]}}),
                {"logged_in": False},
                headers=("WWW-Authenticate",),
            ),
        },
        errors=_OF_A_QUERY,
        account="user",
    ),
    Operation(
        "post",
        "/api/v1/set_account_role",
        TAG,
        "Give an account a role",
        text="It counts from the next request on. The last admin stays one.",
        body=Body(
            asked({"email_address": _ADDRESS, "role": ROLE}, required=("email_address", "role")),
            {"email_address": EMAIL, "role": "user"},
        ),
        replies=_DONE,
        errors=(*_OF_A_BODY, 401),
        account="admin",
    ),
    Operation(
        "get",
        "/api/v1/get_account_role/{email}",
        TAG,
        "The role of an account",
        parameters=(Parameter("email", TEXT, "The e-mail address.", "path", EMAIL),),
        replies={200: Reply("The role.", record({"role": ROLE}), {"role": "user"})},
        errors=(400, 401, 404, *_OF_A_QUERY),
        account="admin",
    ),
    Operation(
        "post",
        "/api/v1/set_session_expunge",
        TAG,
        "End everything that an account has open",
        text="Every session, every login link that was mailed, and every access token.",
        body=_AN_ACCOUNT,
        replies=_DONE,
        errors=(*_OF_A_BODY, 401),
        account="admin",
    ),
    Operation(
        "post",
        "/api/v2/ooniauth/user-login",
        TAG,
        "Ask for a login link, newer form",
        body=_ASK_FOR_A_LINK,
        replies={
            200: Reply(
                "The link is on its way.",
                record({"email_address": _ADDRESS, "login_token_expiration": TIME_SCHEMA}),
                {"email_address": EMAIL, "login_token_expiration": TIME},
            )
        },
        errors=_OF_A_BODY,
    ),
    Operation(
        "post",
        "/api/v2/ooniauth/user-session",
        TAG,
        "Log in or refresh, newer form",
        text="With a login link it begins a session, else it refreshes the one whose token is sent.",
        body=Body(asked({"login_token": text(maxLength=8000)}), {"login_token": LINK_TOKEN}),
        replies={200: Reply("The session.", ref("SignedIn"), _SESSION_EXAMPLE)},
        errors=(*_OF_A_BODY, 401),
        account="maybe",
    ),
    Operation(
        "get",
        "/api/v2/ooniauth/user-session",
        TAG,
        "Who is signed in, newer form",
        replies={
            200: Reply(
                "The session with a later token, or empty values.",
                ref("SignedIn"),
                {**dict.fromkeys(_SESSION, ""), "is_logged_in": False, "login_time": None},
            )
        },
        errors=_OF_A_QUERY,
        account="maybe",
    ),
)

SCHEMAS: dict[str, Schema] = {"SignedIn": record(_SESSION)}
