"""Descriptions of the routes that count measurements."""

from api.aggregation_question import AXES, FORMATS, GRAINS
from api.openapi.model import (
    INTEGER,
    NUMBER,
    QUERY_ERRORS,
    TEXT,
    Operation,
    Parameter,
    Reply,
    Schema,
    listed,
    record,
    ref,
    text,
)
from api.openapi.schemas import URL, comma_list, moment
from api.params import MAX_VALUE_LENGTH

TAG = "aggregation"

_COUNTS: dict[str, Schema] = {
    name: {**INTEGER, "minimum": 0}
    for name in ("anomaly_count", "confirmed_count", "failure_count", "measurement_count", "ok_count")
}
_DAY = text("[0-9]{4,}-[0-9]{2}-[0-9]{2}")
_AXIS_VALUES: dict[str, Schema] = {
    **dict.fromkeys(AXES, TEXT),
    "measurement_start_day": text("[0-9]{4,}-[0-9]{2}-[0-9]{2}(T[0-9]{2}:00:00Z)?"),
    "probe_asn": INTEGER,
}
_EXAMPLE_COUNTS = {
    "anomaly_count": 1,
    "confirmed_count": 0,
    "failure_count": 0,
    "measurement_count": 9,
    "ok_count": 8,
}

SCHEMAS: dict[str, Schema] = {
    "Counts": record(_COUNTS),
    "Combination": record({**_AXIS_VALUES, **_COUNTS}, optional=AXES),
    "Aggregation": record(
        {
            "db_stats": record(
                {"bytes": INTEGER, "elapsed_seconds": NUMBER, "row_count": INTEGER, "total_row_count": INTEGER}
            ),
            "dimension_count": {**INTEGER, "minimum": 0, "maximum": 2},
            "result": {"anyOf": [ref("Counts"), listed(ref("Combination"))]},
            "v": {"const": 0},
        }
    ),
    "AggregationError": record({"error": TEXT, "v": {"const": 0}}, optional=("v",)),
}

_COUNTRIES = Parameter(
    "probe_cc",
    text("([A-Z]{2}(,[A-Z]{2})*)?"),
    "Country of the probe, two upper-case letters. Up to 200 with commas in between.",
    example="IT,FR",
)
_AXIS = {"type": "string", "enum": [*AXES, ""]}

OPERATIONS = (
    Operation(
        "get",
        "/api/v1/aggregation",
        TAG,
        "Count measurements by up to two axes",
        text=(
            "The first four counts exclude each other and add up to measurement_count. Unknown countries and networks "
            "are counted as well. Parameters that cannot be read are told with status 200 and `error`. The reply is "
            "exact at every moment. Questions without hours, run links, and blocking types of networks or inputs are "
            "answered from counters, whatever the window."
        ),
        parameters=(
            Parameter("axis_x", _AXIS, "What to split by, and to sort by first.", example="measurement_start_day"),
            Parameter("axis_y", _AXIS, "What else to split by; not the same as axis_x.", example="probe_cc"),
            moment("since", "Measurements that started at this or later. A time axis needs it."),
            moment("until", "Measurements that started before this. A time axis needs it."),
            Parameter(
                "time_grain",
                text(enum=[*GRAINS, ""]),
                "Width of a bucket of the time axis, in any case of letters: hour or day up to 7 days; day or week up "
                "to 30; day, week or month up to 365; else day, week, month or year. Weeks begin on Sunday. auto is "
                "hour up to 7 days, else day.",
                example="day",
            ),
            _COUNTRIES,
            comma_list(
                "probe_asn",
                "Network of the probe, with or without AS in front.",
                "AS30722",
                item="(AS)?[0-9]{1,10}",
            ),
            comma_list("test_name", "Name of the test.", "web_connectivity", item="[a-z_]+"),
            comma_list("domain", "Domain that was measured: host name or address, with its port.", "www.example.org"),
            Parameter(
                "input",
                text(maxLength=MAX_VALUE_LENGTH),
                "What was measured, exactly as the probe has it.",
                example=URL,
            ),
            Parameter(
                "category_code",
                text("[A-Z]*"),
                "Category of the URL in the global test list, or in that of a country in probe_cc.",
                example="NEWS",
            ),
            comma_list("ooni_run_link_id", "Number of the run link.", "10001", item="[0-9]{1,20}"),
            Parameter(
                "format", text(enum=[*FORMATS, ""]), "Form of the reply, in any case of letters.", example="JSON"
            ),
            Parameter("download", TEXT, "Whether browsers should save it; on for true in any case.", example="true"),
        ),
        replies={
            200: (
                Reply(
                    "The counts: one object without an axis, else a list. Or an error in the parameters.",
                    {"anyOf": [ref("Aggregation"), ref("AggregationError")]},
                    {
                        "db_stats": {"bytes": 144, "elapsed_seconds": 0.01, "row_count": 9, "total_row_count": 9},
                        "dimension_count": 1,
                        "result": [{**_EXAMPLE_COUNTS, "measurement_start_day": "2024-01-01"}],
                        "v": 0,
                    },
                ),
                Reply(
                    "The same as a table, with the columns in alphabetical order.",
                    TEXT,
                    "anomaly_count,confirmed_count,failure_count,measurement_count,ok_count\r\n1,0,0,9,8\r\n",
                    "text/csv",
                ),
            )
        },
        errors=QUERY_ERRORS,
        error_schemas=dict.fromkeys(QUERY_ERRORS, "AggregationError"),
    ),
    *(
        Operation(
            "get",
            f"/api/v1/aggregation/{name}",
            TAG,
            f"Counts of {what}: not kept",
            text="This server keeps scored measurements only, and says so.",
            replies={},
            errors=(400, 404),
        )
        for name, what in (
            ("observations", "single connections"),
            ("analysis", "blocking scores of single connections"),
        )
    ),
    Operation(
        "get",
        "/api/v1/torsf_stats",
        TAG,
        "Count measurements of Tor through Snowflake by day and country",
        parameters=(
            _COUNTRIES,
            moment("since", "Measurements that started after this."),
            moment("until", "Measurements that started at this or before."),
        ),
        replies={
            200: Reply(
                "One row per day and country, sorted by both.",
                record(
                    {
                        "result": listed(
                            record(
                                {
                                    **{name: schema for name, schema in _COUNTS.items() if name != "ok_count"},
                                    "anomaly_rate": {**NUMBER, "minimum": 0, "maximum": 1},
                                    "measurement_start_day": _DAY,
                                    "probe_cc": TEXT,
                                }
                            )
                        ),
                        "v": {"const": 0},
                    }
                ),
                {
                    "result": [
                        {
                            "anomaly_count": 1,
                            "anomaly_rate": 0.25,
                            "confirmed_count": 0,
                            "failure_count": 0,
                            "measurement_count": 4,
                            "measurement_start_day": "2024-01-01",
                            "probe_cc": "IT",
                        }
                    ],
                    "v": 0,
                },
            )
        },
        errors=QUERY_ERRORS,
        error_schemas=dict.fromkeys(QUERY_ERRORS, "AggregationError"),
    ),
)
