"""Descriptions of the routes about access tokens."""

from api.access_token_routes import DEFAULT_DAYS, LONGEST_NAME, MOST_DAYS, MOST_LIVE
from api.access_tokens import LENGTH, PREFIX, READ, SCOPES
from api.openapi.model import (
    BODY_ERRORS,
    EMPTY,
    INTEGER,
    QUERY_ERRORS,
    Body,
    Operation,
    Parameter,
    Reply,
    Schema,
    asked,
    listed,
    nullable,
    record,
    text,
)
from api.openapi.schemas import TIME, TIME_SCHEMA

TAG = "access tokens"

ACCOUNT_ID = "0123456789abcdef0123456789abcdef"

_NAME = text(minLength=1, maxLength=LONGEST_NAME)
_SCOPE = text(enum=list(SCOPES))
_NUMBER: Schema = {**INTEGER, "minimum": 1}
_DAY = text("[0-9]{4}-[0-9]{2}-[0-9]{2}")
_OWNER = Parameter(
    "account_id",
    text("[0-9a-f]{32}"),
    "Another account than that of the session; for admins.",
    example=ACCOUNT_ID,
)
_EXAMPLE = {
    "token_id": 1,
    "name": "thesis",
    "scope": READ,
    "created_at": TIME,
    "expires_at": "2024-03-31T00:01:00Z",
}

OPERATIONS = (
    Operation(
        "post",
        "/api/v1/access_tokens",
        TAG,
        "Make an access token",
        text=(
            "The token is told this once. It is sent as that of a session is, is charged to its account, and may "
            "do what its account may, except what is for sessions and for admins; with the scope `read` it changes "
            f"nothing. At most {MOST_LIVE} of an account count at the same time."
        ),
        body=Body(
            asked(
                {
                    "name": _NAME,
                    "scope": {**_SCOPE, "default": READ},
                    "expires_in_days": {**INTEGER, "minimum": 1, "maximum": MOST_DAYS, "default": DEFAULT_DAYS},
                },
                required=("name",),
            ),
            {"name": "thesis", "scope": READ, "expires_in_days": DEFAULT_DAYS},
        ),
        replies={
            200: Reply(
                "The token.",
                record(
                    {
                        "token": text(f"{PREFIX}[0-9A-Za-z_-]{{{LENGTH - len(PREFIX)}}}"),
                        "token_id": _NUMBER,
                        "name": _NAME,
                        "scope": _SCOPE,
                        "created_at": TIME_SCHEMA,
                        "expires_at": TIME_SCHEMA,
                    }
                ),
                {**_EXAMPLE, "token": f"{PREFIX}{'x' * (LENGTH - len(PREFIX))}"},
            )
        },
        account="session",
        errors=(401, 504, *BODY_ERRORS),
    ),
    Operation(
        "get",
        "/api/v1/access_tokens",
        TAG,
        "List the access tokens of the account",
        text="Newest first. What the tokens are is not known any more.",
        parameters=(_OWNER,),
        replies={
            200: Reply(
                "All that count, and the last ones that do not.",
                record(
                    {
                        "access_tokens": listed(
                            record(
                                {
                                    "token_id": _NUMBER,
                                    "name": _NAME,
                                    "scope": _SCOPE,
                                    "created_at": TIME_SCHEMA,
                                    "expires_at": TIME_SCHEMA,
                                    "last_used_on": nullable(_DAY),
                                    "revoked_at": nullable(TIME_SCHEMA),
                                }
                            )
                        )
                    }
                ),
                {"access_tokens": [{**_EXAMPLE, "last_used_on": "2024-01-02", "revoked_at": None}]},
            )
        },
        account="session",
        errors=(401, *QUERY_ERRORS),
    ),
    Operation(
        "delete",
        "/api/v1/access_tokens/{token_id}",
        TAG,
        "Revoke an access token",
        text="It counts no more from this moment on.",
        parameters=(
            Parameter("token_id", {**_NUMBER, "maximum": 2**63 - 1}, "Number of the token.", "path", 1),
            _OWNER,
        ),
        replies={200: Reply("It is revoked, now or before.", EMPTY, {})},
        account="session",
        errors=(401, 404, *QUERY_ERRORS),
    ),
)
