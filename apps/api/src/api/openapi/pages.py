"""Descriptions of pages, redirects, and what operators look at."""

from api.openapi.assets import NAMES, version
from api.openapi.model import ANY_OBJECT, HTML, TEXT, Operation, Parameter, Reply, text

TAG = "pages"
OPERATION_TAG = "operation"

_NAME = Parameter("name", TEXT, "Name of the file.", "path", "file")
_DAY_SCHEMA = {"type": "string", "format": "date"}


def _moved(
    path: str, summary: str, *parameters: Parameter, errors: tuple[int, ...] = (), status: int = 301
) -> Operation:
    reply = Reply("Where it is now.", TEXT, media=HTML, headers=("Location",))
    return Operation("get", path, TAG, summary, {status: reply}, parameters=parameters, errors=errors)


OPERATIONS = (
    Operation("get", "/", TAG, "Landing page", {200: Reply("A page.", TEXT, media=HTML)}),
    Operation("get", "/robots.txt", TAG, "What crawlers may visit", {200: Reply("Rules.", TEXT, media="text/plain")}),
    _moved("/stats", "Statistics, now in the web interface"),
    _moved("/files", "Files, now a search"),
    _moved("/files/by_date", "Files by date, now a search"),
    _moved("/files/by_country", "Files by country, now a search"),
    _moved(
        "/files/by_date/{text}",
        "Files of a day, now a search",
        Parameter("text", _DAY_SCHEMA, "The day.", "path", "2024-01-31"),
        errors=(400,),
    ),
    _moved(
        "/files/by_country/{cc}",
        "Files of a country, now a search",
        Parameter("cc", text("[A-Za-z]{2}"), "The country.", "path", "IT"),
        errors=(400,),
    ),
    _moved("/files/download/{name}", "Files, no longer offered", _NAME),
    _moved(
        "/{day}",
        "Files of a day, oldest form",
        Parameter("day", _DAY_SCHEMA, "The day.", "path", "2024-01-31"),
        errors=(404,),
    ),
    _moved(
        "/{day}/{name}.json",
        "A file of a day, oldest form",
        Parameter("day", _DAY_SCHEMA, "The day.", "path", "2024-01-31"),
        _NAME,
        errors=(404,),
        status=302,
    ),
    Operation("get", "/health", OPERATION_TAG, "Whether the service answers", {200: Reply("UP", TEXT, "UP", HTML)}),
    Operation("get", "/invalidpath", OPERATION_TAG, "A path that is always missing", {}, errors=(404,)),
    Operation(
        "get",
        "/openapi.json",
        OPERATION_TAG,
        "This document",
        {200: Reply("The document.", ANY_OBJECT, {"openapi": "3.1.0"})},
    ),
    Operation(
        "get",
        "/apispec_1.json",
        OPERATION_TAG,
        "This document, at its older address",
        {200: Reply("The document.", ANY_OBJECT, {"openapi": "3.1.0"})},
    ),
    Operation(
        "get", "/apidocs/", OPERATION_TAG, "This document, for people", {200: Reply("A page.", TEXT, media=HTML)}
    ),
    Operation(
        "get",
        "/apidocs/assets/{name}",
        OPERATION_TAG,
        "What that page loads",
        {
            200: (
                Reply("A file.", TEXT, media="application/javascript"),
                Reply("A file.", TEXT, media="text/css"),
                Reply("A file.", TEXT, media="image/png"),
            )
        },
        parameters=(
            Parameter("name", text(enum=list(NAMES)), "Name of the file.", "path", "apidocs.js"),
            Parameter(
                "v",
                TEXT,
                "Its version, as the page has it; the reply to any other one must not be kept.",
                example=version("apidocs.js"),
            ),
        ),
        errors=(404,),
    ),
    Operation(
        "get",
        "/apidocs",
        OPERATION_TAG,
        "The page, without a slash",
        {302: Reply("Where it is.", TEXT, media=HTML, headers=("Location",))},
    ),
)
