"""Descriptions of the routes for readers of measurements."""

from datetime import datetime

from api.cursor import Cursor
from api.list_filter import START
from api.list_order import ORDER_COLUMNS, Order, Position
from api.measurement_list import MAX_OFFSET
from api.openapi.model import (
    ANY_OBJECT,
    HTML,
    INTEGER,
    NUMBER,
    QUERY_ERRORS,
    TEXT,
    Operation,
    Parameter,
    Reply,
    listed,
    nullable,
    record,
    text,
)
from api.openapi.schemas import (
    COUNTRIES,
    FOUND_ROW,
    NETWORKS,
    REPORT_ID,
    TIME,
    TIME_SCHEMA,
    UID,
    UID_SCHEMA,
    URL,
    boolean_filter,
    comma_list,
    flag,
    measurement_uid,
    moment,
    report_id,
)
from api.params import MAX_VALUE_LENGTH

TAG = "measurements"

_INPUT = Parameter(
    "input", text(maxLength=MAX_VALUE_LENGTH), "What was measured, exactly as the probe has it.", example=URL
)

_ORDER = Order(START, descending=True)
_CURSOR = Cursor(Position(None, datetime.fromisoformat(TIME).replace(tzinfo=None), UID), None, None).encode(_ORDER)

_LIST_PARAMETERS = (
    report_id("Measurements of this report; then there is no default for since and until."),
    _INPUT,
    comma_list("domain", "Domain that was measured; ignored if there is an input.", "www.example.org"),
    COUNTRIES,
    NETWORKS,
    comma_list("test_name", "Name of the test; an empty one is a filter on the empty name.", "web_connectivity"),
    Parameter(
        "category_code",
        text("[A-Z]{0,16}"),
        "Category that the input has in any of the test lists; ignored if there is an input.",
        example="NEWS",
    ),
    moment("since", "Measurements that started after this; 30 days before until if left out."),
    moment("until", "Measurements that started at this or before; the end of today if left out."),
    boolean_filter("confirmed", "Whether blocking was confirmed."),
    boolean_filter("anomaly", "Whether the measurement is an anomaly."),
    boolean_filter("failure", "Whether the measurement failed."),
    comma_list("software_version", "Version of the probe's application.", "3.20.0"),
    comma_list("test_version", "Version of the test.", "0.4.3"),
    comma_list("engine_version", "Version of the probe's engine.", "3.20.0"),
    Parameter("ooni_run_link_id", text("([0-9]{1,20})?"), "Number of the run link.", example="10001"),
    Parameter("order_by", text(enum=[*ORDER_COLUMNS, ""]), "What to sort by.", example="measurement_start_time"),
    Parameter(
        "order", text(enum=["asc", "desc", ""]), "Direction of the sort, in any case of letters.", example="desc"
    ),
    Parameter(
        "offset",
        {**INTEGER, "minimum": 0, "default": 0},
        f"Number of rows to skip, {MAX_OFFSET} at most. With a cursor nothing is skipped: then it may be any number, "
        "for the metadata only, and next_url goes on counting.",
    ),
    Parameter("limit", {**INTEGER, "minimum": 1, "maximum": 100, "default": 100}, "Number of rows in the reply."),
    Parameter(
        "cursor",
        TEXT,
        "Where the page begins, from the next_url of the page before; it belongs to one order_by and order.",
        example=_CURSOR,
    ),
)

_VERIFICATION = nullable(text(enum=["verified", "failed", "unverified"]))

_LIST_ROW = {
    **FOUND_ROW,
    "input": nullable(TEXT),
    "measurement_url": TEXT,
    "probe_asn": text("AS[0-9]+"),
    "scores": {},
    "verification_status": _VERIFICATION,
}
_LIST_METADATA = record(
    {
        "count": INTEGER,
        "current_page": INTEGER,
        "limit": INTEGER,
        "next_url": nullable(TEXT),
        "offset": INTEGER,
        "pages": INTEGER,
        "query_time": NUMBER,
    }
)
_META_ROW = {
    **FOUND_ROW,
    "category_code": nullable(TEXT),
    "input": nullable(TEXT),
    "probe_asn": INTEGER,
    "raw_measurement": TEXT,
    "scores": nullable(TEXT),
    "test_start_time": nullable(TIME_SCHEMA),
    "verification_status": _VERIFICATION,
}
_EXAMPLE = {
    "anomaly": False,
    "confirmed": False,
    "failure": False,
    "input": URL,
    "measurement_start_time": TIME,
    "measurement_uid": UID,
    "probe_cc": "IE",
    "report_id": REPORT_ID,
    "test_name": "web_connectivity",
}
_BODY = {"input": URL, "probe_cc": "IE", "test_keys": {}, "test_name": "web_connectivity"}

OPERATIONS = (
    Operation(
        "get",
        "/api/v1/measurements",
        TAG,
        "Search measurements",
        text=(
            "The total is never counted: follow next_url until it is null. It has a cursor, so that each page is as "
            "fast as the first, and no row is missed or given twice while measurements come in. Rows are sorted by "
            "order_by (text by its first 200 characters), then by start time, then by uid. "
            "Unknown countries and networks are left out."
        ),
        parameters=_LIST_PARAMETERS,
        replies={
            200: Reply(
                "One page.",
                record(
                    {
                        "metadata": _LIST_METADATA,
                        # One fixed reply to old applications has this key alone.
                        "results": listed(
                            {"type": "object", "properties": _LIST_ROW, "required": ["measurement_url"]},
                            maxItems=100,
                        ),
                    }
                ),
                {
                    "metadata": {
                        "count": 1,
                        "current_page": 1,
                        "limit": 100,
                        "next_url": None,
                        "offset": 0,
                        "pages": 1,
                        "query_time": 0.02,
                    },
                    "results": [
                        {
                            **_EXAMPLE,
                            "measurement_url": f"https://api.example.org/api/v1/raw_measurement?measurement_uid={UID}",
                            "probe_asn": "AS34245",
                            "scores": {"blocking_general": 0.0},
                            "verification_status": None,
                        }
                    ],
                },
            )
        },
        errors=(*QUERY_ERRORS, 403),
    ),
    Operation(
        "get",
        "/api/v1/measurement_meta",
        TAG,
        "Metadata of one measurement",
        text=(
            "category_code is that of the test list of the probe's country, else of the global list, else of any "
            "other; empty when the input is in none, and null when a report is asked for without an input."
        ),
        parameters=(
            measurement_uid("Which measurement; it wins over report_id."),
            report_id("Which report, when there is no measurement_uid."),
            Parameter("input", text(maxLength=MAX_VALUE_LENGTH), "Which measurement of the report.", example=URL),
            flag("full", "Whether to add the body, as text in raw_measurement."),
        ),
        replies={
            200: Reply(
                "The metadata; an empty object (with full: an empty raw_measurement alone) when it is not known.",
                {"type": "object", "properties": _META_ROW, "additionalProperties": False},
                {
                    **_EXAMPLE,
                    "category_code": "NEWS",
                    "probe_asn": 34245,
                    "scores": '{"blocking_general":0.0}',
                    "test_start_time": TIME,
                    "verification_status": None,
                },
            )
        },
        errors=QUERY_ERRORS,
    ),
    Operation(
        "get",
        "/api/v1/raw_measurement",
        TAG,
        "Body of one measurement, as the probe sent it",
        parameters=(
            measurement_uid("Which measurement; the others are used when it is malformed or not found."),
            report_id("Which report."),
            _INPUT,
        ),
        replies={200: Reply("The measurement; an empty object when it is not known.", ANY_OBJECT, _BODY)},
        errors=(*QUERY_ERRORS, 500),
    ),
    Operation(
        "get",
        "/api/v1/measurement/{uid}",
        TAG,
        "Body of one measurement, older form",
        parameters=(
            Parameter("uid", UID_SCHEMA, "Which measurement.", "path", UID),
            Parameter("download", TEXT, "Whether browsers should save it; on for true in any case.", example="true"),
        ),
        replies={200: Reply("The measurement.", ANY_OBJECT, _BODY)},
        errors=QUERY_ERRORS,
    ),
    Operation(
        "get",
        "/api/v1/files",
        TAG,
        "Files, no longer listed",
        replies={200: Reply("That there is no such list.", record({"msg": TEXT}), {"msg": "not implemented"})},
    ),
    Operation(
        "get",
        "/api/",
        TAG,
        "Way to the documentation",
        replies={302: Reply("Where it is.", TEXT, media=HTML, headers=("Location",))},
    ),
)
