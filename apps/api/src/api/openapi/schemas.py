"""Schemas that several routes share, and the forms of identifiers and parameters."""

from api.openapi.model import BOOLEAN, INTEGER, TEXT, Parameter, Schema, listed, nullable, record, text

REPORT_ID = "20240101T000000Z_webconnectivity_IE_34245_n1_abcdefghijklmnop"
UID = "20240101000102.123456_IE_webconnectivity_0123456789abcdef"
URL = "https://www.example.org/"
TIME = "2024-01-01T00:01:00Z"

CC = text("[0-9A-Z]{2}")
ASN_TEXT = text("AS[0-9]{1,10}")
TIME_SCHEMA = text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
REPORT_ID_SCHEMA = text("[0-9A-Za-z_]{15,100}")
UID_SCHEMA = text("[0-9A-Za-z._]{10,100}")

SCHEMAS: dict[str, Schema] = {
    "Error": {
        "type": "object",
        "properties": {
            "error": {"type": ["string", "integer"], "description": "What is wrong and what to do next."},
            "hint": TEXT,
        },
        "required": ["error"],
        "additionalProperties": False,
    },
    "TypedError": {
        "type": "object",
        "properties": {
            "error": TEXT,
            "hint": TEXT,
            "detail": record({"error": TEXT, "message": TEXT}, optional=("message",)),
        },
        "required": ["error"],
        "additionalProperties": False,
    },
    "TestUrl": record({"category_code": TEXT, "country_code": CC, "url": TEXT}),
    "HelperEntry": record(
        {"address": TEXT, "type": text(enum=["legacy", "https", "onion", "cloudfront"]), "front": nullable(TEXT)},
        optional=("front",),
    ),
    "TestHelpers": {
        "type": "object",
        "additionalProperties": listed({"$ref": "#/components/schemas/HelperEntry"}),
        "required": ["dns", "http-return-json-headers", "ssl", "tcp-echo", "traceroute", "web-connectivity"],
    },
    "Rule": record({"category_code": TEXT, "cc": TEXT, "domain": TEXT, "url": TEXT, "priority": INTEGER}),
}

HELPERS_EXAMPLE = {
    "dns": [{"address": "192.0.2.1:57004", "type": "legacy"}],
    "http-return-json-headers": [{"address": "http://192.0.2.1:80", "type": "legacy"}],
    "ssl": [{"address": "https://192.0.2.1", "type": "legacy"}],
    "tcp-echo": [{"address": "192.0.2.1", "type": "legacy"}],
    "traceroute": [{"address": "192.0.2.1", "type": "legacy"}],
    "web-connectivity": [{"address": "https://0.th.example.org", "type": "https"}],
}


def report_id(description: str) -> Parameter:
    """Return the parameter `report_id`."""
    return Parameter("report_id", REPORT_ID_SCHEMA, description, example=REPORT_ID)


def measurement_uid(description: str) -> Parameter:
    """Return the parameter `measurement_uid`."""
    return Parameter("measurement_uid", UID_SCHEMA, description, example=UID)


def flag(name: str, description: str) -> Parameter:
    """Return a switch: true, 1 or yes in any case; anything else is off."""
    return Parameter(name, TEXT, f"{description} On for true, 1 and yes in any case.", example="true")


def comma_list(name: str, description: str, example: str, item: str | None = None) -> Parameter:
    """Return a list with commas in between, of at most 200 values, each of the pattern `item`."""
    pattern = None if item is None else f"({item}(,{item})*)?"
    return Parameter(name, text(pattern), f"{description} Up to 200 with commas in between.", example=example)


COUNTRIES = comma_list("probe_cc", "Country of the probe, two letters; ZZ is refused.", "IT", item="[0-9A-Za-z]{2}")
NETWORKS = comma_list(
    "probe_asn", "Network of the probe, with or without AS in front; 0 is refused.", "AS30722", item="(AS)?[0-9]{1,10}"
)


def moment(name: str, description: str) -> Parameter:
    """Return a date or time."""
    forms = {"anyOf": [{"type": "string", "format": "date"}, {"type": "string", "format": "date-time"}]}
    return Parameter(name, forms, f"{description} A date or time, UTC unless it says otherwise.", example="2024-01-31")


def boolean_filter(name: str, description: str) -> Parameter:
    """Return a filter on a boolean."""
    forms = text(enum=["true", "false", "1", "0", "yes", "no", "on", "off", ""])
    return Parameter(name, forms, f"{description} In any case of letters; empty means no filter.", example="true")


FOUND_ROW: dict[str, Schema] = {
    "anomaly": BOOLEAN,
    "confirmed": BOOLEAN,
    "failure": BOOLEAN,
    "measurement_start_time": TIME_SCHEMA,
    "measurement_uid": TEXT,
    "probe_cc": TEXT,
    "report_id": TEXT,
    "test_name": TEXT,
}
"""What a measurement has in the list and alone."""
