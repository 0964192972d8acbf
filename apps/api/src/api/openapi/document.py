"""The OpenAPI 3.1 document, put together from the descriptions of all routes."""

from collections.abc import Mapping

from api import __version__
from api.openapi import measurements, pages, probes, submissions, test_lists
from api.openapi.model import ERROR_EXAMPLES, ERRORS, JSON, Operation, Reply, Schema, ref
from api.openapi.schemas import SCHEMAS
from api.rate_limit import REMAINING, is_free

OPERATIONS: tuple[Operation, ...] = (
    *measurements.OPERATIONS,
    *submissions.OPERATIONS,
    *probes.OPERATIONS,
    *test_lists.OPERATIONS,
    *pages.OPERATIONS,
)
"""Every route of the application."""

TAGS: Mapping[str, str] = {
    measurements.TAG: "Search and read measurements.",
    submissions.TAG: "Hand measurements in. Never limited.",
    probes.TAG: "What probes need to know before they measure. Never limited.",
    test_lists.TAG: "Which URLs are measured, and in which order.",
    pages.TAG: "For people, crawlers, and links of earlier years.",
    pages.OPERATION_TAG: "For operators and for readers of this document.",
}

DESCRIPTION = """\
Takes measurements of Internet censorship from probes, and lets everybody search and read them.

Errors are JSON with the text under `error`, whatever the route. Readers have a quota of server time per address and per
network; `X-RateLimit-Remaining` says how many seconds are left, and 429 with `Retry-After` that there are none. Any
origin may read, without credentials. When a parameter is repeated, the first one counts; unknown ones are ignored."""

_SCHEME = "probeToken"
_STATUS_WITH_RETRY = (429, 503)


def document(base_url: str) -> Schema:
    """Return the document of a service whose public address is `base_url`."""
    paths: dict[str, Schema] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method] = _described(operation)
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
            "schemas": SCHEMAS,
            "securitySchemes": {
                _SCHEME: {
                    "type": "http",
                    "scheme": "bearer",
                    "bearerFormat": "JWT",
                    "description": "The token that /api/v1/login answers to probes.",
                }
            },
        },
    }


def _described(operation: Operation) -> Schema:
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
        found["parameters"] = [parameter.described() for parameter in operation.parameters]
    if operation.body is not None:
        found["requestBody"] = operation.body.described()
    if operation.token:
        found["security"] = [{_SCHEME: []}]
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
        described = several[0].described(headers)
        for other in several[1:]:
            described["content"].update(other.described({})["content"])
        responses[str(status)] = described
    for status in sorted({*operation.errors, *((429,) if metered else ())}):
        more = dict(headers)
        if status in _STATUS_WITH_RETRY:
            more["Retry-After"] = {"description": "Seconds to wait.", "schema": {"type": "integer", "minimum": 0}}
        schema = ref(operation.error_schemas.get(status, "Error"))
        example = {"error": ERROR_EXAMPLES[status]}
        responses[str(status)] = Reply(ERRORS[status], schema, example, JSON).described(more)
    return responses


def _identifier(path: str) -> str:
    return "".join(character if character.isalnum() else "_" for character in path).strip("_") or "root"
