"""The OpenAPI 3.1 document, put together from the descriptions of all routes."""

from collections.abc import Mapping

from api import __version__
from api.openapi import (
    access_tokens,
    accounts,
    aggregation,
    audit,
    caching,
    incidents,
    measurements,
    pages,
    probes,
    run_links,
    samples,
    statistics,
    submissions,
    test_lists,
    testlist_editing,
)
from api.openapi.model import ERROR_EXAMPLES, ERRORS, JSON, Operation, Parameter, Reply, Schema, ref
from api.openapi.schemas import SCHEMAS
from api.rate_limit import REMAINING, is_free

OPERATIONS: tuple[Operation, ...] = (
    *measurements.OPERATIONS,
    *aggregation.OPERATIONS,
    *statistics.OPERATIONS,
    *submissions.OPERATIONS,
    *probes.OPERATIONS,
    *test_lists.OPERATIONS,
    *testlist_editing.OPERATIONS,
    *incidents.OPERATIONS,
    *run_links.OPERATIONS,
    *accounts.OPERATIONS,
    *access_tokens.OPERATIONS,
    *audit.OPERATIONS,
    *pages.OPERATIONS,
)
"""Every route of the application."""

TAGS: Mapping[str, str] = {
    measurements.TAG: "Search and read measurements.",
    aggregation.TAG: "Count measurements.",
    statistics.TAG: "Figures that pages and researchers ask for often.",
    submissions.TAG: "Hand measurements in. Never limited.",
    probes.TAG: "What probes need to know before they measure. Never limited.",
    test_lists.TAG: "Which URLs are measured, and in which order.",
    testlist_editing.TAG: "Propose changes to the lists of URLs that are measured.",
    incidents.TAG: "What people found out with measurements. The paths call it incidents.",
    incidents.FEEDBACK_TAG: "What people say that a measurement shows.",
    run_links.TAG: "Sets of tests that people put together for others to run.",
    accounts.TAG: "Sign in, and what admins do to accounts.",
    access_tokens.TAG: "Let programs work for an account, with a quota of their own.",
    audit.TAG: "What admins look at.",
    pages.TAG: "For people, crawlers, and links of earlier years.",
    pages.OPERATION_TAG: "For operators and for readers of this document.",
}

DESCRIPTION = """\
Takes measurements of Internet censorship from probes, and lets everybody search and read them.

Errors are JSON with the text under `error`, whatever the route. Readers have a quota of server time per address and per
network, and a larger one with an access token; `X-RateLimit-Remaining` says how many seconds are left, and 429 with
`Retry-After` that there are none. Any origin may read, without credentials, unless the operator names some. When a
parameter is repeated, the first one counts; unknown ones are ignored.

Of each parameter's examples, those of one request that finds something are filled in."""

_SCHEME = "probeToken"
_SESSION = "session"
_ACCESS_TOKEN = "accessToken"  # noqa: S105 a name, no secret
_OF_PEOPLE: Mapping[str, list[Schema]] = {
    "maybe": [{}, {_SESSION: []}, {_ACCESS_TOKEN: []}],
    "user": [{_SESSION: []}, {_ACCESS_TOKEN: []}],
    "session": [{_SESSION: []}],
    "admin": [{_SESSION: []}],
}
_STATUS_WITH_RETRY = (429, 503)


def document(base_url: str) -> Schema:
    """Return the document of a service whose public address is `base_url`."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation, base_url)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Measurement API",
            "version": __version__,
            "description": DESCRIPTION,
            "license": {"name": "BSD-3-Clause", "identifier": "BSD-3-Clause"},
        },
        "servers": [{"url": base_url}],
        "tags": [{"name": name, "description": text} for name, text in TAGS.items()],
        "paths": paths,
        "components": {
            "schemas": {**SCHEMAS, **accounts.SCHEMAS, **aggregation.SCHEMAS, **incidents.SCHEMAS, **run_links.SCHEMAS},
            "securitySchemes": {
                _SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The token that /api/v1/login answers to probes.",
                },
                _SESSION: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The bearer that /api/v1/user_login answers to people.",
                },
                _ACCESS_TOKEN: {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "A token for programs, made at /api/v1/access_tokens.",
                },
            },
        },
    }


def _described(operation: Operation, base_url: str) -> Schema:
    metered = not is_free(operation.path)
    found: Schema = {
        "operationId": f"{operation.method}_{_identifier(operation.path)}",
        "tags": [operation.tag],
        "summary": operation.summary,
        "responses": _responses(operation, metered=metered),
    }
    if operation.text:
        found["description"] = operation.text
    if operation.parameters:
        asked = samples.query(operation)
        found["parameters"] = [_parameter(parameter, asked) for parameter in operation.parameters]
    if operation.body is not None:
        found["requestBody"] = operation.body.described()
    if operation.token:
        found["security"] = [{_SCHEME: []}]
    elif operation.account:
        found["security"] = _OF_PEOPLE[operation.account]
    found["x-codeSamples"] = [{"lang": "Shell", "label": "curl", "source": samples.curl(base_url, operation)}]
    return found


def _parameter(parameter: Parameter, asked: Mapping[str, object]) -> Schema:
    """Return a Parameter Object, whose `example` is what the sample request has.

    Other examples stay with the schema: pages that send requests fill in every `example`, and all filters together find
    nothing.
    """
    found = parameter.described()
    if parameter.where == "query":
        other = found.pop("example", None)
        if parameter.name in asked:
            found["example"] = asked[parameter.name]
        elif other is not None:
            found["schema"] = {**found["schema"], "examples": [other]}
            found["description"] += f" For example `{other}`."
    return found


def _responses(operation: Operation, *, metered: bool) -> Schema:
    headers: dict[str, Schema] = {}
    if metered:
        headers[REMAINING] = {
            "description": "Whole seconds of server time left; absent for addresses without a quota.",
            "schema": {"type": "integer", "minimum": 0},
        }
    responses: Schema = {}
    for status, replies in operation.replies.items():
        several = replies if isinstance(replies, tuple) else (replies,)
        usual = caching.headers(operation) if status == 200 else {}
        described = several[0].described({**usual, **headers})
        for other in several[1:]:
            described["content"].update(other.described({})["content"])
        responses[str(status)] = described
    if caching.tagged(operation):
        responses["304"] = Reply(caching.NOT_MODIFIED).described({**caching.headers(operation), **headers})
    for status in sorted({*operation.errors, *((429,) if metered else ())}):
        more = dict(headers)
        if status in _STATUS_WITH_RETRY:
            more["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
        schema = ref(operation.error_schemas.get(status, "Error"))
        example = {"error": ERROR_EXAMPLES[status]}
        responses[str(status)] = Reply(ERRORS[status], schema, example, JSON).described(more)
    return responses


def _identifier(path: str) -> str:
    name = "".join(character if character.isalnum() else "_" for character in path).strip("_")
    return f"{name or 'root'}_page" if path.endswith("/") else name
