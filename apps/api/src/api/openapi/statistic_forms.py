"""What the descriptions of statistics have in common."""

from api.openapi.model import (
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

TAG = "statistics"

EXCLUSIVE = "Anomalies, confirmed blocking and failures exclude each other; the rest of the total is in order."
_TWO_LETTERS = text("[0-9A-Za-z]{2}")
DAY = text("[0-9]{4}-[0-9]{2}-[0-9]{2}")
MIDNIGHT = text(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T00:00:00\+00:00")

_CC = Parameter("probe_cc", _TWO_LETTERS, "Country, in any case of letters; ZZ is the unknown one.", example="IT")
_ASN = Parameter("probe_asn", text("(AS)?[0-9]{1,10}"), "Network, with or without AS in front.", example="30722")
_FORMAT = Parameter(
    "format", text("([Jj][Ss][Oo][Nn]|[Cc][Ss][Vv])?"), "JSON, or CSV for the list alone.", example="JSON"
)
PAGE = (
    Parameter("limit", {**INTEGER, "default": 10}, "Length of the page; 10 when it is not above 0.", example=10),
    Parameter("offset", {**INTEGER, "minimum": 0, "default": 0}, "How many items to leave out before it.", example=0),
)
METADATA = record(
    {
        "current_page": INTEGER,
        "limit": INTEGER,
        "next_url": nullable(TEXT),
        "offset": INTEGER,
        "total_count": INTEGER,
    }
)
METADATA_EXAMPLE = {"current_page": 1, "limit": 10, "next_url": None, "offset": 0, "total_count": 1}
_V: Schema = {"type": "integer", "const": 0}


def required(parameter: Parameter) -> Parameter:
    """Return a parameter whose description says that it has to be given; refusals without it are described too."""
    return Parameter(
        parameter.name, parameter.schema, f"{parameter.text} It has to be given.", example=parameter.example
    )


COUNTRY, NETWORK = required(_CC), required(_ASN)


def statistic(
    name: str,
    summary: str,
    schema: Schema,
    example: object,
    *,
    parameters: tuple[Parameter, ...] = (),
    more: str = "",
    csv: bool = True,
) -> Operation:
    """Describe a statistic; `csv` says whether its list can be had as CSV too."""
    reply = Reply("The statistic.", schema, example)
    return Operation(
        "get",
        f"/api/_/{name}",
        TAG,
        summary,
        text=more,
        parameters=(*parameters, _FORMAT) if csv else parameters,
        replies={200: (reply, Reply("The list as CSV.", TEXT, media="text/csv")) if csv else reply},
        errors=QUERY_ERRORS if parameters or csv else (503, 504),
    )


def results(schema: Schema) -> Schema:
    """Return the schema of a reply with a list under `results`."""
    return record({"results": listed(schema)})


def versioned(schema: Schema) -> Schema:
    """Return the schema of a reply with a list under `results`, and `v`."""
    return record({"results": listed(schema), "v": _V})
