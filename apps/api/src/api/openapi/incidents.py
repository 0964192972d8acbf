"""Descriptions of the routes about findings, which are called incidents, and about feedback."""

from api.feedback import MOST_IN_A_DAY, STATUSES
from api.incident_changes import ACTIONS, MOST_CREATED, MOST_DRAFTS, MOST_UPDATED
from api.incident_fields import (
    LONGEST_DESCRIPTION,
    LONGEST_DOMAIN,
    LONGEST_LINK,
    LONGEST_SLUG,
    LONGEST_TAG,
    LONGEST_TEXT,
    LONGEST_TITLE,
    MOST_ITEMS,
)
from api.incidents import MOST_VALUES
from api.openapi.model import (
    ANY_OBJECT,
    BODY_ERRORS,
    BOOLEAN,
    EMPTY,
    INTEGER,
    QUERY_ERRORS,
    TEXT,
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
from api.openapi.schemas import TIME, TIME_SCHEMA, UID, UID_SCHEMA, boolean_filter

TAG = "findings"
FEEDBACK_TAG = "feedback"

_ID = text("[1-9][0-9]{0,17}")
_ID_EXAMPLE = "123456789001"
_SLUG = text("[a-z0-9]+(-[a-z0-9]+)*", maxLength=LONGEST_SLUG)
_WHOLE_SECONDS = text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}Z")
_CC = text("[A-Z]{2}")
_ASN: Schema = {**INTEGER, "minimum": 1, "maximum": 2**32 - 1}
_THEME = text("[a-z_]{1,50}")
_NUMBER: Schema = {**INTEGER, "minimum": 1}

_ITEMS: dict[str, Schema] = {
    "CCs": _CC,
    "ASNs": _ASN,
    "domains": text(maxLength=LONGEST_DOMAIN),
    "tags": text(maxLength=LONGEST_TAG),
    "test_names": text("[a-z0-9_]{1,50}"),
    "links": text(maxLength=LONGEST_LINK),
    "themes": _THEME,
}
_LISTS = {name: listed(schema, maxItems=MOST_ITEMS[name]) for name, schema in _ITEMS.items()}

_WRITTEN: dict[str, Schema] = {
    "title": text(minLength=1, maxLength=LONGEST_TITLE),
    "short_description": text(maxLength=LONGEST_DESCRIPTION),
    "event_type": text(maxLength=50),
    "reported_by": text(maxLength=200),
    "start_time": _WHOLE_SECONDS,
    "published": BOOLEAN,
    **_LISTS,
}
_SHOWN: dict[str, Schema] = {
    **_WRITTEN,
    "id": _ID,
    "slug": nullable(_SLUG),
    "revision": _NUMBER,
    "end_time": nullable(TIME_SCHEMA),
    "create_time": TIME_SCHEMA,
    "update_time": TIME_SCHEMA,
    "mine": {**INTEGER, "enum": [0, 1]},
    "email_address": {"type": "null"},
}
_MARKDOWN = text(maxLength=LONGEST_TEXT)
_V: Schema = {**INTEGER, "const": 1}

_WRITTEN_EXAMPLE = {
    "title": "Messaging blocked during the election",
    "short_description": "Three networks blocked two messengers for a week.",
    "event_type": "incident",
    "reported_by": "Example Observatory",
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": "2024-01-08T00:00:00Z",
    "published": False,
    "CCs": ["IT"],
    "ASNs": [30722],
    "domains": ["www.example.org"],
    "tags": ["election"],
    "test_names": ["signal", "whatsapp"],
    "links": ["https://www.example.org/report"],
    "themes": ["im"],
}
SHOWN_EXAMPLE = {
    **_WRITTEN_EXAMPLE,
    "published": True,
    "id": _ID_EXAMPLE,
    "slug": "2024-messaging-blocked-during-the-election",
    "revision": 2,
    "create_time": TIME,
    "update_time": "2024-01-02T10:00:00Z",
    "mine": 0,
    "email_address": None,
}
TEXT_EXAMPLE = "What happened, in *markdown*."

SCHEMAS: dict[str, Schema] = {
    "CodedError": {
        "type": "object",
        "properties": {
            "error": {"type": ["string", "integer"], "description": "What is wrong."},
            "err_str": {**TEXT, "description": "The kind of error, for programs."},
            "err_args": {**ANY_OBJECT, "description": "What the error is about."},
            "hint": {**TEXT, "description": "Which field is wrong, and what to do next."},
        },
        "required": ["error"],
        "additionalProperties": False,
    },
}

_FILTER_TEXT = f"Empty values make no difference. It may be repeated up to {MOST_VALUES} times: one of them has to fit."
_VISIBLE = "Drafts are shown to their authors and to admins."

OPERATIONS = (
    Operation(
        "get",
        "/api/v1/incidents/search",
        TAG,
        "List findings",
        text=f"By title, without their texts. {_VISIBLE} All filters that are given have to fit.",
        parameters=(
            boolean_filter("only_mine", "Leave out those of others; nothing is left for who is not signed in."),
            Parameter("theme", text("([a-z_]{1,50})?"), f"Theme. {_FILTER_TEXT}", example="im"),
            Parameter("country_code", text("([A-Za-z]{2})?"), f"Country. {_FILTER_TEXT}", example="IT"),
            Parameter("asn", text("((AS)?[0-9]{1,10})?"), f"Network. {_FILTER_TEXT}", example="AS30722"),
            Parameter("domain", text(maxLength=LONGEST_DOMAIN), f"Domain. {_FILTER_TEXT}", example="www.example.org"),
            Parameter("format", text("([Jj][Ss][Oo][Nn]|[Cc][Ss][Vv])?"), "JSON or CSV.", example="JSON"),
        ),
        replies={
            200: (
                Reply(
                    "The findings. `mine` says whether who asks is the author. E-mail addresses are not stored, so "
                    "`email_address` is null for everybody.",
                    record({"incidents": listed(record(_SHOWN)), "v": _V}),
                    {"incidents": [SHOWN_EXAMPLE], "v": 1},
                ),
                Reply(
                    "The same as CSV. Cells that a spreadsheet would take for a formula begin with an apostrophe.",
                    TEXT,
                    media="text/csv",
                ),
            )
        },
        account="maybe",
        errors=QUERY_ERRORS,
    ),
    Operation(
        "get",
        "/api/v1/incidents/show/{incident}",
        TAG,
        "Show a finding",
        text=_VISIBLE,
        parameters=(Parameter("incident", TEXT, "Its id or slug.", "path", _ID_EXAMPLE),),
        replies={
            200: Reply(
                "The finding with its text, in markdown as it was written: what shows it has to make it harmless.",
                record({"incident": record({**_SHOWN, "text": _MARKDOWN}), "v": _V}),
                {"incident": {**SHOWN_EXAMPLE, "text": TEXT_EXAMPLE}, "v": 1},
            )
        },
        account="maybe",
        errors=QUERY_ERRORS,
    ),
    Operation(
        "post",
        "/api/v1/incidents/{action}",
        TAG,
        "Create, update, delete, publish or unpublish a finding",
        text=(
            f"Users create drafts ({MOST_CREATED} in a day, {MOST_DRAFTS} at a time), and change and delete what is "
            f"theirs ({MOST_UPDATED} changes in a day). Admins change everything, and only they publish, in a session. "
            "The author stays. "
            "`create` makes the id and, unless there is one, the slug. `update` changes what is given; null counts as "
            "not given, but takes `end_time` away. With `revision` or `update_time`, as show answered them, all but "
            "`create` refuse when somebody has changed it since (`err_changed_meanwhile`). Unknown keys are ignored."
        ),
        parameters=(Parameter("action", text(enum=list(ACTIONS)), "What to do.", "path", "create"),),
        body=Body(
            asked(
                {
                    "id": {**_ID, "description": "Which one; for all but `create`."},
                    "revision": {**_NUMBER, "description": "The revision that was edited."},
                    "update_time": {**_WHOLE_SECONDS, "description": "The same, as a time."},
                    "email_address": {
                        **text(maxLength=254),
                        "description": "Of users, the address of the account; it is compared and not stored.",
                    },
                    "slug": _SLUG,
                    "text": _MARKDOWN,
                    "end_time": _WHOLE_SECONDS,
                    **_WRITTEN,
                }
            ),
            {**_WRITTEN_EXAMPLE, "text": TEXT_EXAMPLE},
            "`create` needs `title`, `text` and `start_time`.",
        ),
        replies={
            200: Reply(
                "Done; an empty object for `delete`.",
                {"anyOf": [record({"id": _ID, "r": {**INTEGER, "const": 1}}), EMPTY]},
                {"id": _ID_EXAMPLE, "r": 1},
            )
        },
        account="user",
        errors=(401, *BODY_ERRORS, 504),
        error_schemas={400: "CodedError"},
    ),
    Operation(
        "get",
        "/api/_/measurement_feedback/{uid}",
        FEEDBACK_TAG,
        "Count what people said of a measurement",
        parameters=(Parameter("uid", TEXT, "The measurement_uid.", "path", UID),),
        replies={
            200: Reply(
                "How many accounts gave each status, and that of who is signed in. Nothing for unknown measurements.",
                record(
                    {
                        "summary": {"type": "object", "additionalProperties": _NUMBER},
                        "user_feedback": text(enum=list(STATUSES)),
                    },
                    optional=("user_feedback",),
                ),
                {"summary": {"blocked": 1, "ok": 2}},
            )
        },
        account="maybe",
        errors=QUERY_ERRORS,
    ),
    Operation(
        "post",
        "/api/_/measurement_feedback",
        FEEDBACK_TAG,
        "Say what a measurement shows",
        text=f"It replaces what the account said before. At most {MOST_IN_A_DAY} times in a day.",
        body=Body(
            asked(
                {"measurement_uid": UID_SCHEMA, "status": text(enum=list(STATUSES))},
                required=("measurement_uid", "status"),
            ),
            {"measurement_uid": UID, "status": "blocked.dns"},
        ),
        replies={200: Reply("It is stored.", EMPTY, {})},
        account="user",
        errors=(401, *BODY_ERRORS, 504),
    ),
)
