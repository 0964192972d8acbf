"""Descriptions of the routes that take measurements."""

from api.openapi.model import (
    ANY_OBJECT,
    BODY_ERRORS,
    EMPTY,
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
from api.openapi.schemas import REPORT_ID, REPORT_ID_SCHEMA, UID, UID_SCHEMA

TAG = "submissions"

_ENCODINGS = "Content-Encoding may be zstd or gzip. The content type makes no difference."
_RID = Parameter("rid", TEXT, "The report id.", "path", REPORT_ID)
_DISABLED = "Anonymous credentials are not in use: the answer is always 404, and probes submit without."
_MEASUREMENT: Schema = {
    **ANY_OBJECT,
    "properties": {
        "probe_cc": text("[A-Z0-9]{2}"),
        "probe_asn": text("AS[0-9]{1,10}"),
        "test_name": text("[a-z0-9_]+"),
    },
}
_MEASUREMENT_EXAMPLE = {"probe_asn": "AS34245", "probe_cc": "IE", "test_keys": {}, "test_name": "web_connectivity"}

OPERATIONS = (
    Operation(
        "post",
        "/report",
        TAG,
        "Open a report",
        text="Nothing is stored: a report id describes itself. What is not understood in the body is unknown.",
        body=Body(
            asked(
                {
                    "data_format_version": TEXT,
                    "format": TEXT,
                    "probe_asn": TEXT,
                    "probe_cc": TEXT,
                    "software_name": TEXT,
                    "software_version": TEXT,
                    "test_name": TEXT,
                    "test_start_time": TEXT,
                    "test_version": TEXT,
                }
            ),
            {"probe_asn": "AS34245", "probe_cc": "IE", "test_name": "web_connectivity"},
            _ENCODINGS,
        ),
        replies={
            200: Reply(
                "The report id, for measurements to be sent to.",
                record(
                    {
                        "backend_version": TEXT,
                        "report_id": REPORT_ID_SCHEMA,
                        "supported_formats": listed(TEXT),
                    }
                ),
                {"backend_version": "1.3.5", "report_id": REPORT_ID, "supported_formats": ["yaml", "json"]},
            )
        },
        errors=BODY_ERRORS,
    ),
    Operation(
        "post",
        "/report/{rid}",
        TAG,
        "Submit a measurement to a report",
        text="Answered once the measurement is on disk. The same bytes sent again get the uid that they have.",
        parameters=(_RID,),
        body=Body(
            {
                "anyOf": [
                    asked({"content": {"anyOf": [_MEASUREMENT, TEXT]}, "format": TEXT}, required=("content", "format")),
                    _MEASUREMENT,
                ]
            },
            {"content": _MEASUREMENT_EXAMPLE, "format": "json"},
            f"The measurement, in an envelope or bare. {_ENCODINGS}",
        ),
        replies={
            200: Reply(
                "The measurement's uid; an empty object when it is dropped, for unknown countries and networks.",
                {"anyOf": [record({"measurement_uid": UID_SCHEMA}), EMPTY]},
                {"measurement_uid": UID},
            )
        },
        errors=BODY_ERRORS,
    ),
    Operation(
        "post",
        "/report/{rid}/close",
        TAG,
        "Close a report",
        text="Any id is accepted.",
        parameters=(_RID,),
        replies={200: Reply("Done.", EMPTY, {})},
    ),
    Operation(
        "get",
        "/api/_/check_report_id",
        TAG,
        "Ask if a report exists",
        text="Every one does, since nothing about reports is stored.",
        parameters=(Parameter("report_id", TEXT, "Which report.", example=REPORT_ID),),
        replies={
            200: Reply(
                "It does.",
                record({"found": {"type": "boolean"}, "v": {"type": "integer"}}),
                {"found": True, "v": 0},
            )
        },
        errors=(400,),
    ),
    Operation(
        "post",
        "/api/v1/submit_measurement",
        TAG,
        "Submit a measurement without a report",
        text="The server makes the report id. Credentials are not verified: what comes with some is stored unverified.",
        body=Body(
            asked(
                {
                    "content": {"anyOf": [_MEASUREMENT, TEXT]},
                    "format": text("[Jj][Ss][Oo][Nn]"),
                    "manifest_version": {},
                    "nym": {},
                    "protocol_version": {},
                    "zkp_request": {},
                },
                required=("content", "format"),
            ),
            {"content": _MEASUREMENT_EXAMPLE, "format": "json"},
            "The content is the measurement or its JSON text. Content-Encoding may be zstd or gzip.",
        ),
        replies={
            200: Reply(
                "It is stored.",
                record(
                    {
                        "error": nullable(TEXT),
                        "measurement_uid": UID_SCHEMA,
                        "protocol_version": TEXT,
                        "report_id": REPORT_ID_SCHEMA,
                        "submit_response": {"type": "null"},
                        "verification_status": text(enum=["unverified"]),
                    }
                ),
                {
                    "error": None,
                    "measurement_uid": UID,
                    "protocol_version": "1.0.0",
                    "report_id": REPORT_ID,
                    "submit_response": None,
                    "verification_status": "unverified",
                },
            )
        },
        errors=BODY_ERRORS,
        error_schemas=dict.fromkeys(BODY_ERRORS, "TypedError"),
    ),
    Operation(
        "get",
        "/api/v1/manifest",
        TAG,
        "Manifest of anonymous credentials",
        text=_DISABLED,
        replies={},
        errors=(404,),
        error_schemas={404: "TypedError"},
    ),
    Operation(
        "post",
        "/api/v1/sign_credential",
        TAG,
        "Sign an anonymous credential",
        text=_DISABLED,
        replies={},
        errors=(404,),
        error_schemas={404: "TypedError"},
    ),
)
