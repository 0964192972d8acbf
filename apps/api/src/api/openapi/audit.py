"""Descriptions of the routes that show admins what others do."""

from api.audit_routes import DEFAULT_LIMIT, LONGEST_SUBJECT, MOST_LINES
from api.openapi.access_tokens import ACCOUNT_ID
from api.openapi.model import (
    ANY_OBJECT,
    INTEGER,
    QUERY_ERRORS,
    TEXT,
    Operation,
    Parameter,
    Reply,
    Schema,
    listed,
    nullable,
    record,
    text,
)
from api.openapi.schemas import TIME, TIME_SCHEMA

TAG = "administration"

_NUMBER: Schema = {**INTEGER, "minimum": 1}
_ACTOR = text("([0-9a-f]{32}|[a-z]{1,20})")
_PAIR = listed({"type": ["string", "integer"]}, minItems=2, maxItems=2)
_ACTION = text(r"[a-z0-9_]{1,50}\.[a-z0-9_]{1,50}")

OPERATIONS = (
    Operation(
        "get",
        "/api/v1/audit_log",
        TAG,
        "List what people changed",
        text="Newest first. There is a line for every change by a person, made together with the change.",
        parameters=(
            Parameter("account_id", _ACTOR, "Who did it; `command` for what was done on a host.", example=ACCOUNT_ID),
            Parameter("action", _ACTION, "What was done.", example="access_token.create"),
            Parameter("subject", text(maxLength=LONGEST_SUBJECT), "What it was done to.", example="1"),
            Parameter("since", TEXT, "Date or time, UTC; lines from then on.", example="2024-01-01"),
            Parameter("until", TEXT, "Date or time, UTC; lines before it.", example="2024-02-01"),
            Parameter(
                "before",
                {**INTEGER, "minimum": 0, "maximum": 10**18 - 1},
                "Lines with a lower audit_id than this: the last one of the page before.",
                example=1000,
            ),
            Parameter(
                "limit", {**_NUMBER, "maximum": MOST_LINES, "default": DEFAULT_LIMIT}, "Number of lines.", example=10
            ),
            Parameter("format", text("([Jj][Ss][Oo][Nn]|[Cc][Ss][Vv])?"), "JSON or CSV.", example="JSON"),
        ),
        replies={
            200: (
                Reply(
                    "A page; next_url leads to the one after it until it is null.",
                    record(
                        {
                            "metadata": record(
                                {"limit": {**_NUMBER, "maximum": MOST_LINES}, "next_url": nullable(TEXT)}
                            ),
                            "results": listed(
                                record(
                                    {
                                        "audit_id": _NUMBER,
                                        "happened_at": TIME_SCHEMA,
                                        "account_id": TEXT,
                                        "role": TEXT,
                                        "via": text(enum=["session", "token", "command"]),
                                        "action": TEXT,
                                        "subject": TEXT,
                                        "detail": ANY_OBJECT,
                                    }
                                )
                            ),
                        }
                    ),
                    {
                        "metadata": {"limit": 100, "next_url": None},
                        "results": [
                            {
                                "audit_id": 1,
                                "happened_at": TIME,
                                "account_id": ACCOUNT_ID,
                                "role": "user",
                                "via": "session",
                                "action": "access_token.create",
                                "subject": "1",
                                "detail": {"name": "thesis", "scope": "read", "expires_in_days": 90},
                            }
                        ],
                    },
                ),
                Reply(
                    "The same lines as CSV; what a spreadsheet would take for a formula begins with an apostrophe.",
                    TEXT,
                    media="text/csv",
                ),
            )
        },
        account="admin",
        errors=(401, *QUERY_ERRORS),
    ),
    Operation(
        "get",
        "/api/_/quotas_summary",
        TAG,
        "Show who has used most of the quota of today",
        text="Of the host that answers. Addresses are shown to admins for as long as they are in memory.",
        replies={
            200: Reply(
                "Up to 20 pairs of address (IPv6: /64) or account and seconds left, lowest first.",
                listed(_PAIR, maxItems=20),
                [["192.0.2.1", 3], ["2001:db8::/64", 3500], [ACCOUNT_ID, 19000]],
            )
        },
        account="admin",
        errors=(401, 404, 503),
    ),
)
