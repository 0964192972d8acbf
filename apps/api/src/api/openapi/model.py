"""The compact form in which routes are described, and the parts of an OpenAPI document that it stands for."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

Schema = dict[str, Any]

JSON = "application/json"
HTML = "text/html"

ERRORS: Mapping[int, str] = {
    400: "A parameter or the body is wrong; the text names it and says how to write it.",
    401: "The token is missing, wrong or expired.",
    403: "Measurements of unknown countries or networks are not listed; what others made cannot be changed.",
    404: "There is no such thing here.",
    408: "The body did not arrive in time.",
    409: "Somebody else changed it in the meantime. Fetch it again.",
    413: "The body is too large.",
    415: "The content type or the content encoding of the body is not understood.",
    422: "A field of the body is missing or wrong; the text and `detail` name it.",
    429: "The quota of this address, its network or this account is used up. Retry-After says when to come again.",
    500: "The measurement exists, but its body cannot be had.",
    503: "The database, the disk or a place for the request is not available now. Retry-After says when to come again.",
    504: "The query took too long. Narrow it.",
}
"""What each status of a refusal means, wherever it occurs."""

ERROR_EXAMPLES: Mapping[int, str] = {
    400: "Invalid integer in parameter limit; give a whole number.",
    401: "Invalid credentials",
    403: "403 Forbidden: Measurements whose probe_cc is ZZ are not listed. Ask for other countries.",
    404: "This server has no configuration for VPN providers. Run the test without one.",
    408: "The body did not arrive in time. Send it again.",
    409: "The run link was edited in the meantime. Fetch it again, and edit what it is now.",
    413: "The body is larger than 33554432 bytes received. Send a smaller measurement.",
    415: "Unsupported content encoding. Send the body as one of: zstd, gzip, identity.",
    422: "Invalid value in field name: it must have at least 2 characters.",
    429: "Quota exceeded: this address has used its server time of the day. Try again in 22 seconds.",
    500: "500 Internal Server Error: Measurement not found",
    503: "Database query error: the database cannot be reached. Try again in a minute.",
    504: "Database query error: the query took too long. Narrow it with since, until, probe_cc or probe_asn.",
}
"""A text that such a refusal may have."""

QUERY_ERRORS = (400, 503, 504)
"""Refusals of routes that ask the database."""

BODY_ERRORS = (400, 408, 413, 415, 503)
"""Refusals of routes that read a body."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter in the query, or in the path if `where` says so."""

    name: str
    schema: Schema
    text: str
    where: str = "query"
    example: object = None

    def described(self) -> Schema:
        """Return the Parameter Object."""
        found: Schema = {"name": self.name, "in": self.where, "description": self.text, "schema": self.schema}
        if self.where == "path":
            found["required"] = True
        if self.example is not None:
            found["example"] = self.example
        return found


@dataclass(frozen=True, slots=True)
class Reply:
    """A reply: what it means, the schema and an example of its body, and its media type; no schema means no body."""

    text: str
    schema: Schema | None = None
    example: object = None
    media: str = JSON
    headers: tuple[str, ...] = ()

    def described(self, headers: Mapping[str, Schema]) -> Schema:
        """Return the Response Object, with more headers."""
        found: Schema = {"description": self.text}
        if self.schema is not None:
            content: Schema = {"schema": self.schema}
            if self.example is not None:
                content["example"] = self.example
            found["content"] = {self.media: content}
        all_headers = {**{name: {"schema": {"type": "string"}} for name in self.headers}, **headers}
        if all_headers:
            found["headers"] = all_headers
        return found


@dataclass(frozen=True, slots=True)
class Body:
    """A request body in JSON."""

    schema: Schema
    example: object
    text: str = ""

    def described(self) -> Schema:
        """Return the Request Body Object."""
        found: Schema = {"required": True, "content": {JSON: {"schema": self.schema, "example": self.example}}}
        if self.text:
            found["description"] = self.text
        return found


@dataclass(frozen=True, slots=True)
class Operation:
    """A route and one of its methods. Refusals by quota need not be named."""

    method: str
    path: str
    tag: str
    summary: str
    replies: Mapping[int, Reply | tuple[Reply, ...]]
    text: str = ""
    parameters: tuple[Parameter, ...] = ()
    body: Body | None = None
    errors: tuple[int, ...] = ()
    token: bool = False
    """Whether it wants the token of a probe."""
    account: str = ""
    """Who may ask it, when not everybody: `maybe` (it answers more to who is signed in), `user` (an account), `session`
    (an account in a session) or `admin`."""
    error_schemas: Mapping[int, str] = field(default_factory=dict)
    """Names of other schemas than `Error` for some of `errors`."""


def ref(name: str) -> Schema:
    """Return a reference to one of the schemas of the document."""
    return {"$ref": f"#/components/schemas/{name}"}


def text(pattern: str | None = None, **more: Any) -> Schema:
    """Return the schema of text, perhaps with a pattern that all of it has to match."""
    return {"type": "string", **({"pattern": f"^{pattern}$"} if pattern else {}), **more}


def nullable(schema: Schema) -> Schema:
    """Return a schema that allows null as well."""
    return {"anyOf": [schema, {"type": "null"}]}


def listed(schema: Schema, **more: Any) -> Schema:
    """Return the schema of a list."""
    return {"type": "array", "items": schema, **more}


def record(properties: Mapping[str, Schema], *, optional: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object that has these keys, all but `optional`, and no others."""
    return {
        "type": "object",
        "properties": dict(properties),
        "required": sorted(set(properties) - set(optional)),
        "additionalProperties": False,
    }


def asked(properties: Mapping[str, Schema], *, required: tuple[str, ...] = ()) -> Schema:
    """Return the schema of an object in a request, where null is the same as absent and unknown keys are ignored."""
    allowed = {name: schema if name in required else nullable(schema) for name, schema in properties.items()}
    return {"type": "object", "properties": allowed, **({"required": list(required)} if required else {})}


TEXT = text()
BOOLEAN: Schema = {"type": "boolean"}
INTEGER: Schema = {"type": "integer"}
NUMBER: Schema = {"type": "number"}
ANY_OBJECT: Schema = {"type": "object"}
EMPTY: Schema = {"type": "object", "maxProperties": 0}
