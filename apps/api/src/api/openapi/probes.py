"""Descriptions of what probes ask for besides test lists."""

from api.openapi.model import (
    ANY_OBJECT,
    BODY_ERRORS,
    BOOLEAN,
    INTEGER,
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
    ref,
    text,
)
from api.openapi.schemas import ASN_TEXT, CC, HELPERS_EXAMPLE, REPORT_ID, REPORT_ID_SCHEMA, TIME, TIME_SCHEMA, URL

TAG = "probe services"

_TOKEN_EXAMPLE = "eyJhbGciOiJIUzI1NiJ9.e30.c2lnbmF0dXJl"  # noqa: S105 an example
_SHORT = text(maxLength=200)
_CATEGORY = text("[A-Za-z]{1,30}")
_SECRET = text(maxLength=1000)
_FACT: Schema = {"anyOf": [_SECRET, {"type": "number"}]}
_COUNTRY_CODE = Parameter("country_code", TEXT, "Makes no difference.", example="IT")

_CHECK_IN_BODY = Body(
    asked(
        {
            "charging": BOOLEAN,
            "on_wifi": {},
            "platform": {},
            "probe_asn": text("(AS[0-9]{1,10})?"),
            "probe_cc": text("([A-Za-z]{2})?"),
            "run_type": _SHORT,
            "software_name": {},
            "software_version": {},
            "web_connectivity": asked(
                {"category_codes": {"anyOf": [listed(nullable(_CATEGORY), maxItems=100), text("[A-Za-z,]*")]}}
            ),
        }
    ),
    {
        "charging": True,
        "on_wifi": True,
        "platform": "android",
        "probe_asn": "AS30722",
        "probe_cc": "IT",
        "run_type": "timed",
        "software_name": "ooniprobe-android",
        "software_version": "3.0.0",
        "web_connectivity": {"category_codes": ["NEWS"]},
    },
    "Null is the same as absent. A manual run gets all URLs, another 100, or 20 when the device is not charging.",
)
_CHECK_IN_COMMON: dict[str, Schema] = {
    "conf": record(
        {"features": {"type": "object", "additionalProperties": BOOLEAN}, "test_helpers": ref("TestHelpers")}
    ),
    "probe_asn": ASN_TEXT,
    "probe_cc": CC,
    "probe_network_name": nullable(TEXT),
    "utc_time": TIME_SCHEMA,
    "v": INTEGER,
}
_CHECK_IN_EXAMPLE = {
    "conf": {"features": {"vanilla_tor_enabled": True}, "test_helpers": HELPERS_EXAMPLE},
    "probe_asn": "AS30722",
    "probe_cc": "IT",
    "probe_network_name": "Example ISP",
    "utc_time": TIME,
}
_TARGET = record({"attributes": ANY_OBJECT, "input": TEXT, "options": ANY_OBJECT})
_FACTS = asked(
    {
        **dict.fromkeys(
            (
                *("available_bandwidth", "language", "network_type", "password", "platform", "probe_asn", "probe_cc"),
                *("probe_family", "probe_id", "software_name", "software_version", "token"),
            ),
            _FACT,
        ),
        "supported_tests": listed(TEXT, maxItems=200),
    }
)
_FACTS_EXAMPLE = {
    "password": "not used",
    "platform": "linux",
    "probe_asn": "AS30722",
    "probe_cc": "IT",
    "software_name": "miniooni",
    "software_version": "3.20.0",
    "supported_tests": ["web_connectivity"],
}

OPERATIONS = (
    Operation(
        "post",
        "/api/v1/check-in",
        TAG,
        "Check in",
        text="Where the probe is, what it is to run, which URLs it is to measure, and a report id for each test.",
        body=_CHECK_IN_BODY,
        replies={
            200: Reply(
                "The plan.",
                record(
                    {
                        **_CHECK_IN_COMMON,
                        "tests": {
                            "type": "object",
                            "additionalProperties": record(
                                {"report_id": REPORT_ID_SCHEMA, "urls": listed(ref("TestUrl"))}, optional=("urls",)
                            ),
                            "required": ["web_connectivity"],
                        },
                    }
                ),
                {
                    **_CHECK_IN_EXAMPLE,
                    "tests": {
                        "web_connectivity": {
                            "report_id": REPORT_ID,
                            "urls": [{"category_code": "NEWS", "country_code": "XX", "url": URL}],
                        }
                    },
                    "v": 1,
                },
            )
        },
        errors=BODY_ERRORS,
    ),
    Operation(
        "post",
        "/api/_/check-in",
        TAG,
        "Check in, experimental form",
        text="A list of tests, each with its targets.",
        body=_CHECK_IN_BODY,
        replies={
            200: Reply(
                "The plan.",
                record(
                    {
                        **_CHECK_IN_COMMON,
                        "nettests": listed(
                            record({"report_id": REPORT_ID_SCHEMA, "targets": listed(_TARGET), "test_name": TEXT})
                        ),
                    }
                ),
                {
                    **_CHECK_IN_EXAMPLE,
                    "conf": {"features": {}, "test_helpers": HELPERS_EXAMPLE},
                    "nettests": [
                        {
                            "report_id": REPORT_ID,
                            "targets": [{"attributes": {}, "input": URL, "options": {}}],
                            "test_name": "web_connectivity",
                        }
                    ],
                    "v": 2,
                },
            )
        },
        errors=BODY_ERRORS,
    ),
    Operation(
        "get",
        "/api/v1/collectors",
        TAG,
        "List the collectors",
        replies={
            200: Reply(
                "Where to send reports, for older probes.",
                listed(ref("HelperEntry")),
                [{"address": "https://collector.example.org", "type": "https"}],
            )
        },
    ),
    Operation(
        "get",
        "/api/v1/test-helpers",
        TAG,
        "List the test helpers",
        replies={200: Reply("Helpers by kind, in the order to be tried.", ref("TestHelpers"), HELPERS_EXAMPLE)},
    ),
    Operation(
        "post",
        "/bouncer/net-tests",
        TAG,
        "Find collectors and helpers, oldest form",
        body=Body(
            asked(
                {
                    "net-tests": listed(
                        asked({"name": _SHORT, "version": _SHORT}, required=("name", "version")), minItems=1
                    )
                },
                required=("net-tests",),
            ),
            {"net-tests": [{"name": "web_connectivity", "version": "0.0.1"}]},
            "Only the first test is looked at.",
        ),
        replies={
            200: Reply(
                "The answer for the first test.",
                record({"net-tests": listed(ANY_OBJECT, minItems=1, maxItems=1)}),
                {
                    "net-tests": [
                        {
                            "collector": "httpo://example.onion",
                            "input-hashes": None,
                            "name": "web_connectivity",
                            "test-helpers": {},
                            "version": "0.0.1",
                        }
                    ]
                },
            )
        },
        errors=BODY_ERRORS,
    ),
    Operation(
        "post",
        "/api/v1/register",
        TAG,
        "Register a probe",
        text="The body must be declared as application/json. Nothing of it is stored.",
        body=Body(_FACTS, _FACTS_EXAMPLE),
        replies={
            200: Reply("The client id to log in with.", record({"client_id": TEXT}), {"client_id": _TOKEN_EXAMPLE})
        },
        errors=BODY_ERRORS,
    ),
    Operation(
        "post",
        "/api/v1/login",
        TAG,
        "Log a probe in",
        body=Body(
            asked({"password": _SECRET, "username": text(maxLength=4096)}, required=("username",)),
            {"password": "not used", "username": _TOKEN_EXAMPLE},
            "The username is a client id; the password is not looked at.",
        ),
        replies={
            200: Reply(
                "A token for seven days.",
                record({"expire": TIME_SCHEMA, "token": TEXT}),
                {"expire": TIME, "token": _TOKEN_EXAMPLE},
            )
        },
        errors=(*BODY_ERRORS, 401),
    ),
    Operation(
        "put",
        "/api/v1/update/{client_id}",
        TAG,
        "Tell what changed on a probe",
        text="Nothing of it is stored.",
        parameters=(Parameter("client_id", TEXT, "The client id.", "path", _TOKEN_EXAMPLE),),
        body=Body(_FACTS, {"probe_asn": "AS30722", "probe_cc": "IT"}),
        replies={200: Reply("Understood.", record({"status": TEXT}), {"status": "ok"})},
        errors=BODY_ERRORS,
    ),
    Operation(
        "get",
        "/api/v1/test-list/tor-targets",
        TAG,
        "List the Tor targets",
        parameters=(_COUNTRY_CODE,),
        replies={
            200: Reply(
                "Targets by id, as configured.",
                ANY_OBJECT,
                {"192.0.2.1:443": {"address": "192.0.2.1:443", "fingerprint": "AA", "protocol": "or_port_dirauth"}},
            )
        },
        errors=(400, 401, 503),
        token=True,
    ),
    Operation(
        "get",
        "/api/v1/test-list/psiphon-config",
        TAG,
        "Psiphon's configuration",
        replies={200: Reply("The configuration, as it lies on the server.", ANY_OBJECT, {})},
        errors=(400, 401, 503),
        token=True,
    ),
    Operation(
        "get",
        "/api/v2/ooniprobe/vpn-config/{provider}",
        TAG,
        "Configuration for a VPN provider",
        text="There are none: the answer is always 404, and probes skip the test.",
        parameters=(Parameter("provider", TEXT, "Name of the provider.", "path", "riseup"), _COUNTRY_CODE),
        replies={},
        errors=(404,),
    ),
    Operation(
        "post",
        "/api/v1/geolookup",
        TAG,
        "Look up the country and network of addresses",
        body=Body(
            asked({"addresses": listed(TEXT, maxItems=1000)}, required=("addresses",)),
            {"addresses": ["192.0.2.1", "2001:db8::1"]},
        ),
        replies={
            200: Reply(
                "What is known; null for what is not.",
                record(
                    {
                        "geolocation": {
                            "type": "object",
                            "additionalProperties": record(
                                {"as_name": nullable(TEXT), "asn": nullable(INTEGER), "cc": nullable(TEXT)}
                            ),
                        },
                        "v": INTEGER,
                    }
                ),
                {"geolocation": {"192.0.2.1": {"as_name": "Example ISP", "asn": 30722, "cc": "IT"}}, "v": 1},
            )
        },
        errors=BODY_ERRORS,
    ),
)
