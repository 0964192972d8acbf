"""Descriptions of the routes that change test lists and the order of their URLs."""

from api.openapi.model import (
    BODY_ERRORS,
    INTEGER,
    TEXT,
    Body,
    Operation,
    Parameter,
    Reply,
    Schema,
    listed,
    nullable,
    record,
    text,
)
from api.openapi.schemas import URL
from api.openapi.test_lists import TAG as PRIORITIES_TAG
from api.testlist_entries import LONGEST_COMMENT, LONGEST_NOTES, LONGEST_SOURCE
from api.url_priorities_update import GREATEST_PRIORITY
from core.testlists import CATEGORIES, MAX_URL_BYTES

TAG = "test-list editing"

_CODES = sorted(CATEGORIES)
_ENTRY: dict[str, Schema] = {"category_code": TEXT, "date_added": TEXT, "notes": TEXT, "source": TEXT, "url": TEXT}
_CHANGE = {
    **_ENTRY,
    "action": text(enum=["add", "delete", "edit"]),
    "applies": {"const": False, "description": "There when the list changed so that this does not apply any more."},
}
_ENTRY_EXAMPLE = {
    "category_code": "NEWS",
    "date_added": "2024-01-31",
    "notes": "",
    "source": "volunteer",
    "url": URL,
}
_NONE: Schema = {"type": "object", "maxProperties": 0}
_SENT_ENTRY = record(
    {
        "category_code": text(enum=_CODES),
        "category_description": nullable(text(description="May be left out.")),
        "date_added": text("[0-9]{4}-[0-9]{2}-[0-9]{2}"),
        "notes": text(maxLength=LONGEST_NOTES),
        "source": text(maxLength=LONGEST_SOURCE),
        "url": text(maxLength=MAX_URL_BYTES, description="http or https, with a path."),
    },
    optional=("category_description",),
)
_OLD_ENTRY = record(_ENTRY | {"category_description": nullable(TEXT)}, optional=("category_description",))
_RULE_TEXT = nullable(text(maxLength=MAX_URL_BYTES))
_OLD_RULE = record(
    {"category_code": _RULE_TEXT, "cc": _RULE_TEXT, "domain": _RULE_TEXT, "url": _RULE_TEXT, "priority": INTEGER},
    optional=("category_code", "cc", "domain", "url"),
)
_NEW_RULE = record(
    {
        "category_code": nullable(text(enum=["*", "", *_CODES])),
        "cc": nullable(text(r"([A-Za-z]{2}|\*)?")),
        "domain": nullable(text(maxLength=260)),
        "url": _RULE_TEXT,
        "priority": {**INTEGER, "minimum": -GREATEST_PRIORITY, "maximum": GREATEST_PRIORITY},
    },
    optional=("category_code", "cc", "domain", "url"),
)
_RULE_EXAMPLE = {"category_code": "NEWS", "cc": "*", "domain": "*", "priority": 100, "url": "*"}
_CODED = {400: "CodedError"}


def _or_none(schema: Schema) -> Schema:
    return {"anyOf": [schema, _NONE, {"type": "null"}]}


OPERATIONS = (
    Operation(
        "get",
        "/api/_/url-submission/test-list/{cc}",
        TAG,
        "Read a test list with your own changes",
        text="The list is null when there is none of that country. `changes` has those to all lists.",
        parameters=(Parameter("cc", text("([A-Za-z]{2}|global)"), "Country, or global.", "path", "it"),),
        replies={
            200: Reply(
                "The list, your changes, and how far they are.",
                record(
                    {
                        "changes": {
                            "type": "object",
                            "additionalProperties": listed(record(_CHANGE, optional=("applies",))),
                        },
                        "pr_url": nullable(TEXT),
                        "state": text(enum=["CLEAN", "IN_PROGRESS", "PR_OPEN"]),
                        "test_list": nullable(listed(record(_ENTRY))),
                    }
                ),
                {
                    "changes": {"it": [{**_ENTRY_EXAMPLE, "action": "add"}]},
                    "pr_url": None,
                    "state": "IN_PROGRESS",
                    "test_list": [_ENTRY_EXAMPLE],
                },
            )
        },
        account="user",
        errors=(400, 401, 503),
        error_schemas=_CODED,
    ),
    Operation(
        "post",
        "/api/v1/url-submission/update-url",
        TAG,
        "Change an entry of a test list",
        text="Without old_entry a URL is added, without new_entry one is deleted. The old_entry must be as the list "
        "has it, with your own changes. A proposal of yours that is open is withdrawn first.",
        body=Body(
            {
                "type": "object",
                "properties": {
                    "country_code": text("([A-Za-z]{2}|global)"),
                    "comment": nullable(text(maxLength=LONGEST_COMMENT)),
                    "old_entry": _or_none(_OLD_ENTRY),
                    "new_entry": _or_none(_SENT_ENTRY),
                },
                "required": ["country_code"],
            },
            {"country_code": "it", "comment": "", "old_entry": {}, "new_entry": _ENTRY_EXAMPLE},
        ),
        replies={
            200: Reply(
                "The new_entry with the description of its category; empty after a deletion.",
                record({"updated_entry": {"anyOf": [record(_ENTRY | {"category_description": TEXT}), _NONE]}}),
                {"updated_entry": {**_ENTRY_EXAMPLE, "category_description": "News Media"}},
            )
        },
        account="user",
        errors=(*BODY_ERRORS, 401),
        error_schemas=_CODED,
    ),
    Operation(
        "post",
        "/api/v1/url-submission/submit",
        TAG,
        "Propose your changes to the maintainers of the lists",
        text="When it fails, the changes are kept and can be submitted again. No body is needed.",
        replies={
            200: Reply(
                "The address of the pull request at the forge's API; the name of the branch where there is no forge.",
                record({"pr_id": TEXT}),
                {"pr_id": "https://forge.example.org/repos/example/test-lists/pulls/7"},
            )
        },
        account="user",
        errors=(400, 401, 503),
        error_schemas=_CODED,
    ),
    Operation(
        "post",
        "/api/_/url-priorities/update",
        PRIORITIES_TAG,
        "Add, change or delete a rule",
        text="Without old_entry a rule is added, without new_entry one is deleted. What is left open is `*`. The "
        "old_entry must be one of the rules, with its priority.",
        body=Body(
            {
                "type": "object",
                "properties": {"old_entry": _or_none(_OLD_RULE), "new_entry": _or_none(_NEW_RULE)},
            },
            {"old_entry": _RULE_EXAMPLE, "new_entry": {**_RULE_EXAMPLE, "priority": 90}},
        ),
        replies={200: Reply("It is done.", {"const": 1}, 1)},
        account="admin",
        errors=(*BODY_ERRORS, 401, 404),
        error_schemas={**_CODED, 404: "CodedError"},
    ),
)
