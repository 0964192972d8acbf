"""Descriptions of the routes about run links, of both generations, and of what probes get."""

from api.engine_descriptor import MOST_CATEGORIES, NETWORK_TYPES, RUN_TYPES
from api.openapi.model import (
    BODY_ERRORS,
    BOOLEAN,
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
    record,
    text,
)
from api.openapi.run_link_forms import (
    DESCRIPTOR,
    LINK,
    LINK_EXAMPLE,
    LINK_ID,
    NETTEST_EXAMPLE,
    NETTEST_FOR_PROBE,
    OTHER_LINK_ID,
    WRITTEN_EXAMPLE,
    texts_asked,
)
from api.openapi.schemas import TIME, TIME_SCHEMA, URL, boolean_filter, flag
from api.run_link_fields import (
    MOST_CONTENT_BYTES,
    V1,
    V2,
    WEBSITES,
)
from api.run_link_store import LISTED_LINKS, MOST_LINKS
from api.run_links_v1 import LONGEST_AUTHOR
from api.run_links_v2 import LINKS, MOST_OFFSET

TAG = "run links"

_NUMBER = text("[0-9]{1,18}")
_OWN_ERRORS = (401, *BODY_ERRORS)
_READ_ERRORS = (404, 503, 504)
_DETAILED = dict.fromkeys((400, 403, 404, 409, 422), "DetailedError")
_REQUEST_TIME: Schema = {"type": "string", "format": "date-time"}
_V: Schema = {**INTEGER, "const": 1}

SCHEMAS: dict[str, Schema] = {
    "DetailedError": {
        "type": "object",
        "properties": {
            "error": {"type": ["string", "integer"], "description": "What is wrong and what to do next."},
            "hint": TEXT,
            "detail": {
                "description": "The same, or which field is wrong, for clients that look here.",
                "anyOf": [TEXT, listed(record({"loc": {"type": "array"}, "msg": TEXT, "type": TEXT}))],
            },
        },
        "required": ["error"],
        "additionalProperties": False,
    },
}

_IN_PATH_V1 = Parameter("ooni_run_link_id", _NUMBER, "Number of the run link.", where="path", example=LINK_ID)
_ARCHIVED = Parameter("ooni_run_link_id", _NUMBER, "Number of the run link.", where="path", example=OTHER_LINK_ID)
_IN_PATH = Parameter("oonirun_link_id", _NUMBER, "Number of the run link.", where="path", example=LINK_ID)
_REVISION = Parameter(
    "revision", text("(latest|[0-9]{1,9})"), "Number of the revision, or `latest`.", where="path", example="latest"
)
_OPTIONAL_NUMBER = text("([0-9]{1,18})?")
_BOUNDS = (
    f"An account has at most {MOST_LINKS} run links, each of at most {MOST_CONTENT_BYTES // 1024} KiB with its tests."
)
_AUTHOR = "The author may be left out, else it must be your own e-mail address; it is not stored."
_ONE_LINK = Reply("The run link.", LINK, LINK_EXAMPLE)
_WRITTEN_V2 = {**texts_asked(V2), "author": TEXT, "expiration_date": _REQUEST_TIME}
_REQUIRED_V2 = ("name", "short_description", "nettests")

_V1_OPERATIONS = (
    Operation(
        "post",
        "/api/_/ooni_run/create",
        TAG,
        "Make or edit a run link, older form",
        text=f"Other tests, another icon or author make a new version; other texts do not. {_BOUNDS}",
        parameters=(
            Parameter(
                "ooni_run_link_id", _OPTIONAL_NUMBER, "The run link of yours to edit; none: a new one.", example=LINK_ID
            ),
        ),
        body=Body(
            asked(
                {**texts_asked(V1), "author": text(maxLength=LONGEST_AUTHOR)},
                required=("name", "nettests"),
            ),
            {**WRITTEN_EXAMPLE, "author": "Example Observatory"},
            "The author is shown to everybody, unless it is an e-mail address, which is not stored.",
        ),
        replies={
            200: Reply(
                "Its number.", record({"ooni_run_link_id": INTEGER, "v": _V}), {"ooni_run_link_id": 10001, "v": 1}
            )
        },
        errors=_OWN_ERRORS,
        account="user",
        error_schemas={400: "CodedError"},
    ),
    Operation(
        "post",
        "/api/_/ooni_run/archive/{ooni_run_link_id}",
        TAG,
        "Archive a run link",
        text="Of your own, or any as an admin. It is no error when there is none, or when it is archived already.",
        parameters=(_ARCHIVED,),
        replies={200: Reply("Done.", record({"v": _V}), {"v": 1})},
        errors=(401, 404, 503),
        account="user",
    ),
    Operation(
        "get",
        "/api/_/ooni_run/fetch/{ooni_run_link_id}",
        TAG,
        "Read a run link, older form",
        parameters=(
            _IN_PATH_V1,
            Parameter("creation_time", TEXT, "The version that was made then; the newest if empty.", example=TIME),
        ),
        replies={
            200: Reply(
                "The run link.",
                record(
                    {
                        "archived": BOOLEAN,
                        "descriptor": DESCRIPTOR,
                        "descriptor_creation_time": TIME_SCHEMA,
                        "mine": BOOLEAN,
                        "translation_creation_time": TIME_SCHEMA,
                        "v": _V,
                    }
                ),
                {
                    "archived": False,
                    "descriptor": {
                        "name": "Messengers",
                        "author": "",
                        "icon": "FaBeer",
                        "nettests": [{"test_name": "web_connectivity", "inputs": [URL]}],
                    },
                    "descriptor_creation_time": TIME,
                    "mine": False,
                    "translation_creation_time": TIME,
                    "v": 1,
                },
            )
        },
        errors=(404, *QUERY_ERRORS),
        account="maybe",
    ),
    Operation(
        "get",
        "/api/_/ooni_run/list",
        TAG,
        "List run links, older form",
        text=f"Their versions without tests, the oldest first; of many the newest {LISTED_LINKS}.",
        parameters=(
            Parameter("ooni_run_link_id", _OPTIONAL_NUMBER, "Only this one.", example=LINK_ID),
            flag("only_latest", "Whether to leave out all versions but the newest of each."),
            flag("only_mine", "Whether to leave out those of others; nothing is left for who is not signed in."),
            flag("include_archived", "Whether archived ones are in the list."),
        ),
        replies={
            200: Reply(
                "The versions.",
                record(
                    {
                        "descriptors": listed(
                            record(
                                {
                                    "archived": BOOLEAN,
                                    "author": TEXT,
                                    "descriptor_creation_time": TIME_SCHEMA,
                                    "icon": TEXT,
                                    "mine": BOOLEAN,
                                    "name": TEXT,
                                    "ooni_run_link_id": INTEGER,
                                    "short_description": TEXT,
                                    "translation_creation_time": TIME_SCHEMA,
                                }
                            )
                        ),
                        "v": _V,
                    }
                ),
                {
                    "descriptors": [
                        {
                            "archived": False,
                            "author": "",
                            "descriptor_creation_time": TIME,
                            "icon": "FaBeer",
                            "mine": False,
                            "name": "Messengers",
                            "ooni_run_link_id": 10001,
                            "short_description": "Whether messengers work.",
                            "translation_creation_time": TIME,
                        }
                    ],
                    "v": 1,
                },
            )
        },
        errors=QUERY_ERRORS,
        account="maybe",
    ),
)

_V2_OPERATIONS = (
    Operation(
        "post",
        LINKS,
        TAG,
        "Make a run link",
        text=f"It expires in 180 days unless `expiration_date` says when. {_AUTHOR} {_BOUNDS}",
        body=Body(asked(_WRITTEN_V2, required=_REQUIRED_V2), WRITTEN_EXAMPLE),
        replies={200: _ONE_LINK},
        errors=(422, *_OWN_ERRORS),
        account="user",
        error_schemas=_DETAILED,
    ),
    Operation(
        "put",
        f"{LINKS}/{{oonirun_link_id}}",
        TAG,
        "Edit a run link",
        text=(
            "Of your own, or any as an admin, until it expires. Everything is replaced but `expiration_date`, when "
            f"there is none. Other tests make a revision, other texts do not. {_AUTHOR} An edit that says in "
            "`if_date_updated` which `date_updated` it was made from is refused with 409 when the run link was edited "
            "since."
        ),
        parameters=(_IN_PATH,),
        body=Body(asked({**_WRITTEN_V2, "if_date_updated": _REQUEST_TIME}, required=_REQUIRED_V2), WRITTEN_EXAMPLE),
        replies={200: _ONE_LINK},
        errors=(403, 404, 409, 422, *_OWN_ERRORS),
        account="user",
        error_schemas=_DETAILED,
    ),
    Operation(
        "get",
        LINKS,
        TAG,
        "List run links",
        text=f"The newest first: up to {LISTED_LINKS}, fewer when they are large. Go on with `offset`.",
        parameters=(
            boolean_filter("is_mine", "True leaves out those of others; nothing is left for who is not signed in."),
            boolean_filter("is_expired", "Only those that are expired, or only those that are not."),
            Parameter(
                "offset",
                {**INTEGER, "minimum": 0, "maximum": MOST_OFFSET, "default": 0},
                "How many to leave out.",
                example=0,
            ),
        ),
        replies={
            200: Reply("The run links.", record({"oonirun_links": listed(LINK)}), {"oonirun_links": [LINK_EXAMPLE]})
        },
        errors=QUERY_ERRORS,
        account="maybe",
        error_schemas=_DETAILED,
    ),
    Operation(
        "get",
        f"{LINKS}/{{oonirun_link_id}}",
        TAG,
        "Read a run link",
        parameters=(_IN_PATH,),
        replies={200: _ONE_LINK},
        errors=_READ_ERRORS,
        account="maybe",
        error_schemas=_DETAILED,
    ),
    Operation(
        "get",
        f"{LINKS}/{{oonirun_link_id}}/full-descriptor/{{revision}}",
        TAG,
        "Read a run link with the tests of a revision",
        text="Its texts are those of now. A revision that there is not has no tests.",
        parameters=(_IN_PATH, _REVISION),
        replies={200: _ONE_LINK},
        errors=_READ_ERRORS,
        account="maybe",
        error_schemas=_DETAILED,
    ),
    Operation(
        "get",
        f"{LINKS}/{{oonirun_link_id}}/revisions",
        TAG,
        "List the revisions of a run link",
        parameters=(_IN_PATH,),
        replies={
            200: Reply(
                "Their numbers, the latest first.",
                record({"revisions": listed(text("[0-9]{1,9}"), minItems=1)}),
                {"revisions": ["1"]},
            )
        },
        errors=_READ_ERRORS,
        error_schemas=_DETAILED,
    ),
    Operation(
        "post",
        f"{LINKS}/{{oonirun_link_id}}/engine-descriptor/{{revision}}",
        TAG,
        "Get what a run link makes a probe run",
        text=(
            f"Never limited. Tests whose `targets_name` is {WEBSITES} have the URLs that are chosen for this probe, as "
            "many as a check-in gives it. A revision that there is not has no tests."
        ),
        parameters=(_IN_PATH, _REVISION),
        body=Body(
            asked(
                {
                    "is_charging": BOOLEAN,
                    "network_type": text(enum=list(NETWORK_TYPES)),
                    "probe_asn": text("(AS)?[0-9]{1,10}"),
                    "probe_cc": text("[A-Za-z][0-9A-Za-z]"),
                    "run_type": text(enum=list(RUN_TYPES)),
                    "website_category_codes": listed(text("[A-Za-z]{1,30}"), maxItems=MOST_CATEGORIES),
                },
                required=("is_charging", "network_type", "probe_asn", "probe_cc", "run_type"),
            ),
            {
                "is_charging": True,
                "network_type": "wifi",
                "probe_asn": "AS30722",
                "probe_cc": "IT",
                "run_type": "manual",
                "website_category_codes": [],
            },
        ),
        replies={
            200: Reply(
                "What to run.",
                record({"date_created": TIME_SCHEMA, "nettests": listed(NETTEST_FOR_PROBE), "revision": TEXT}),
                {
                    "date_created": "2024-01-01T00:01:00.000000Z",
                    "nettests": [{**NETTEST_EXAMPLE, "is_background_run_enabled": True, "is_manual_run_enabled": True}],
                    "revision": "1",
                },
            )
        },
        errors=(404, 422, 504, *BODY_ERRORS),
        error_schemas=_DETAILED,
    ),
)

OPERATIONS = (*_V1_OPERATIONS, *_V2_OPERATIONS)
