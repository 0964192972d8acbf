"""Every parameter of every route with values that nobody should send: a 4xx in JSON that names it, never a 5xx.

The list of parameters is that of our own description, so a new route is tried as well.
"""

import gzip
import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from flask import Flask
from flask.testing import FlaskClient
from list_editor import edit_lists_at
from people import signed_in_headers
from run_link_sample import load_run_links
from werkzeug.test import TestResponse

from api.openapi.document import document
from api.openapi.samples import QUERIES
from api.openapi.schemas import REPORT_ID, UID

PATHS: dict[str, dict[str, Any]] = document("http://localhost")["paths"]

NO_TEXT = {
    "endless": "x" * 100_000,
    "long": "1" * 9_000,
    "no utf-8": "%ff%fe",
    "half a character": "a%c3",
    "surrogate": "%ed%a0%80",
    "overlong": "%c0%af",
    "NUL": "%00",
    "NUL inside": "a%00b",
}
"""Values, as they stand in a query, that are refused wherever a parameter is looked at at all."""

ODD = {
    "null": "null",
    "undefined": "undefined",
    "object": "%7B%22a%22%3A1%7D",
    "list": "%5B1%2C2%5D",
    "negative": "-1",
    "huge number": "9" * 40,
    "no number": "NaN",
    "fraction": "1.5",
    "blank": "%20",
    "commas": ",,,",
    "quotes": "%27%3B--%22",
    "pattern": "%25_%5C",
    "control": "%01%1f%7f",
    "newline": "a%0d%0aX-Injected:1",
    "Greek": quote("Ελλάδα"),
    "Chinese": quote("中文"),
    "Arabic digits": quote("٢٠٢٤"),
    "wide": quote("ｔｒｕｅ"),
    "right to left": quote("\u202eIT"),
    "emoji": quote("💩"),
    "replacement": quote("\ufffd"),
    "dotless i": quote("ıt"),
    "plus": "+",
    "percent": "%",
    "broken percent": "%zz",
}
"""Values that some parameters take and others refuse."""

IGNORED = {"/api/v1/test-list/tor-targets", "/api/v2/ooniprobe/vpn-config/{provider}"}
"""Routes described as making no difference between values of their query."""

TOLERANT = {"/api/v1/test-list/urls"}
"""Routes described as answering an empty object to what they do not understand."""

UNREFUSED = {"/apidocs/assets/{name}"}
"""Routes described as answering the same, whatever their query, though not to be kept."""

FIXED_WORDS = {"/api/v1/aggregation": ("axis",)}
"""Words of texts that the wire contract fixes, which need not name their parameter."""

BODILESS = {"/api/v2/ooniauth/user-session"}
"""Routes described as answering to a header alone, too."""

TEXTLESS = {"/api/_/account_metadata"}
"""Routes whose refusal of nobody has no text, as the wire contract has it."""

UNCHECKED = {"/report/{rid}/close", "/files/download/{name}", "/{day}/{name}.json"}
"""Routes described as accepting any text in their path."""


@pytest.fixture(scope="module")
def app(module_app: Flask, module_dsn: str, tmp_path_factory: pytest.TempPathFactory) -> Flask:
    load_run_links(module_dsn)
    edit_lists_at(module_app, tmp_path_factory.mktemp("lists"))
    module_app.extensions["api"].intake.spool.put(UID, b'{"content":{},"format":"json"}', REPORT_ID)
    return module_app


@pytest.fixture
def client(app: Flask, module_dsn: str) -> FlaskClient:
    """A client with the session of an admin, so that every route looks at what it is sent."""
    client = app.test_client()
    admin = signed_in_headers(app, module_dsn, role="admin", email="admin@example.org")
    client.environ_base["HTTP_AUTHORIZATION"] = admin["Authorization"]
    return client


def with_parameters(where: str) -> list[Any]:
    return [
        pytest.param(method, path, parameter["name"], id=f"{method.upper()} {path} {parameter['name']}")
        for path, methods in PATHS.items()
        for method, operation in methods.items()
        for parameter in operation.get("parameters", [])
        if parameter["in"] == where
    ]


def filled(path: str, **replaced: str) -> str:
    """A path with the examples of its parameters, or with other values."""
    for operation in PATHS[path].values():
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                value = replaced.get(parameter["name"], quote(str(parameter["example"]), safe=""))
                path = path.replace(f"{{{parameter['name']}}}", value)
    return path


def others(method: str, path: str, name: str) -> str:
    """The rest of the query, so that the parameter in question is looked at."""
    if path.startswith("/api/_/"):
        return "".join(f"{key}={quote(str(value))}&" for key, value in QUERIES.get(path, {}).items() if key != name)
    needed = {"/api/v1/raw_measurement": "report_id", "/api/v1/measurement_meta": "report_id"}
    return f"report_id={'x' * 20}&" if needed.get(path) == "report_id" and name == "input" else ""


def check_refusal(response: TestResponse, *names: str) -> None:
    """A refusal is JSON with a text that names the parameter."""
    assert 400 <= response.status_code < 500, response.text[:500]
    assert response.mimetype == "application/json"
    assert response.headers["Cache-Control"] in {"no-cache", "no-cache, private"}
    text = json.dumps(response.json)
    assert "error" in response.json
    assert any(name in text for name in names), f"{text[:300]} names none of {names}"


@pytest.mark.parametrize(("method", "path", "name"), with_parameters("query"))
def test_no_text_in_a_query(client: FlaskClient, method: str, path: str, name: str) -> None:
    for case, value in NO_TEXT.items():
        response = client.open(f"{filled(path)}?{others(method, path, name)}{name}={value}", method=method)
        if path in TOLERANT:
            assert (response.status_code, response.json) == (200, {}), case
        elif path in IGNORED:
            assert response.status_code in {401, 404}, case
        elif path in UNREFUSED:
            assert response.status_code == 200, case
        else:
            check_refusal(response, name)


@pytest.mark.parametrize(("method", "path", "name"), with_parameters("query"))
def test_odd_values_in_a_query(client: FlaskClient, method: str, path: str, name: str) -> None:
    """Each is answered as described or refused by name; what is echoed stays in its place."""
    for case, value in ODD.items():
        response = client.open(f"{filled(path)}?{others(method, path, name)}{name}={value}", method=method)
        assert response.status_code < 500, f"{case}: {response.text[:500]}"
        assert "X-Injected" not in response.headers
        if response.status_code >= 400 and path not in IGNORED:
            check_refusal(response, name, "report_id", *FIXED_WORDS.get(path, ()))


@pytest.mark.parametrize(("method", "path", "name"), with_parameters("query"))
def test_a_repeated_parameter_counts_once(client: FlaskClient, method: str, path: str, name: str) -> None:
    response = client.open(f"{filled(path)}?{'&'.join([f'{name}='] * 500)}", method=method)
    assert response.status_code < 500


IN_PATHS = {
    "rid": "report id",
    "uid": "measurement_uid",
    "client_id": "client_id",
    "text": "date",
    "cc": "country",
    "email": "email",
    "incident": "Incident",
    "action": "action",
}
"""What refusals call the parameters of paths, which have no name that a client writes."""


@pytest.mark.parametrize(("method", "path", "name"), with_parameters("path"))
def test_odd_values_in_a_path(client: FlaskClient, method: str, path: str, name: str) -> None:
    for case, value in {**NO_TEXT, **ODD}.items():
        if value in {"%20", "+", "%"} and path in UNCHECKED:
            continue
        response = client.open(filled(path, **{name: value}), method=method, json={})
        assert response.status_code < 500, f"{case}: {response.text[:500]}"
        assert "X-Injected" not in response.headers
        if response.status_code >= 400:
            assert response.mimetype == "application/json", case
            assert "error" in response.json
            if response.status_code == 400:  # others say that there is no such path
                assert IN_PATHS[name] in json.dumps(response.json), response.text[:300]
        elif path not in UNCHECKED:
            assert response.status_code == 200, case


@pytest.mark.parametrize("query", [b"\xff\xfe=1", b"a=\xff", b"&&&===&", b"=", b"%", b"\x00", b"%00=1", b"a[]=1;b=2"])
@pytest.mark.parametrize("path", ["/api/v1/measurements", "/api/v1/measurement_meta", "/api/v1/test-list/urls", "/"])
def test_queries_that_are_none(client: FlaskClient, path: str, query: bytes) -> None:
    response = client.get(path, environ_overrides={"QUERY_STRING": query.decode("latin-1")})
    assert response.status_code < 500, response.text


# Bodies.


def bodies() -> list[tuple[str, str, dict[str, Any], dict[str, Any]]]:
    return [
        (method, path, content["schema"], content["example"])
        for path, methods in PATHS.items()
        for method, operation in methods.items()
        for content in operation.get("requestBody", {}).get("content", {}).values()
    ]


WITH_BODY = [pytest.param(method, path, example, id=path) for method, path, _, example in bodies()]

NO_JSON = {
    "nothing": b"",
    "blank": b"   ",
    "words": b"hello",
    "cut off": b'{"probe_cc": "IT"',
    "two": b"{}{}",
    "no utf-8": b'{"probe_cc": "\xff\xfe"',
    "utf-16": '{"probe_cc": "IT"}'.encode("utf-16"),
    "NUL": b"\x00",
    "deep": b"[" * 100_000,
    "deep object": b'{"a":' * 50_000,
    "form": b"probe_cc=IT&probe_asn=AS1",
}
NO_OBJECT = {"null": b"null", "list": b"[]", "text": b'"text"', "number": b"1", "true": b"true"}


def send(client: FlaskClient, method: str, path: str, data: bytes, **headers: str) -> TestResponse:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return client.open(filled(path), method=method, data=data, content_type="application/json", headers=named)


@pytest.mark.parametrize(("method", "path", "example"), WITH_BODY)
def test_bodies_that_are_no_object(client: FlaskClient, method: str, path: str, example: dict[str, Any]) -> None:
    for case, data in {**NO_JSON, **NO_OBJECT}.items():
        if case == "nothing" and path in BODILESS:
            continue
        response = send(client, method, path, data)
        assert 400 <= response.status_code < 500, f"{case}: {response.status_code} {response.text[:300]}"
        assert response.json["error"], case


@pytest.mark.parametrize(("method", "path", "example"), WITH_BODY)
def test_bodies_in_bad_encodings(client: FlaskClient, method: str, path: str, example: dict[str, Any]) -> None:
    good = json.dumps(example).encode()
    cases = {
        "gzip": good,
        "zstd": good,
        "br": good,
        "gzip, gzip": gzip.compress(good),
        "x" * 5000: good,
        "identity": good[:-1],
    }
    for encoding, data in cases.items():
        response = send(client, method, path, data, Content_Encoding=encoding)
        assert 400 <= response.status_code < 500, f"{encoding[:20]}: {response.status_code} {response.text[:300]}"
        assert response.json["error"]
    bomb = gzip.compress(b'{"a":"' + b" " * 80_000_000 + b'"}', 9)
    assert send(client, method, path, bomb, Content_Encoding="gzip").status_code == 413


def fields() -> list[Any]:
    """Each field of each body, those of objects inside it too."""

    def inside(schema: dict[str, Any], at: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        for choice in (schema, *schema.get("anyOf", [])):
            for name, inner in choice.get("properties", {}).items():
                yield (*at, name)
                yield from inside(inner, (*at, name))

    return [
        pytest.param(method, path, at, example, id=f"{path} {'.'.join(at)}")
        for method, path, schema, example in bodies()
        for at in dict.fromkeys(inside(schema, ()))
    ]


OF_WHAT_IS_THERE = {
    "err_cannot_update_list",
    "err_duplicate_rule",
    "err_duplicate_url",
    "err_no_proposed_changes",
    "err_rule_not_found",
}
"""Refusals by what the rules and lists hold, where the odd value is as good as another."""

MISTYPED: list[Any] = [
    *(0, -1, 10**30, 1.5, 1e308, True, False, [], [None], [[]], {}, {"a": None}, ""),
    *(
        " ",
        "x" * 100_000,
        "\0",
        "a\0b",
        "\ud800",
        "\u202e",
        "Ελλάδα",
        "中文",
        "٣",
        "💩",
        "'; --",
        "\r\nX: 1",
        "null",
        "AS-1",
    ),
]


def replaced(example: Any, at: tuple[str, ...], value: Any) -> Any:
    """A copy of the example with another value for one field."""
    copy = dict(example) if isinstance(example, dict) else {}
    copy[at[0]] = value if len(at) == 1 else replaced(copy.get(at[0]), at[1:], value)
    return copy


@pytest.mark.parametrize(("method", "path", "at", "example"), fields())
def test_odd_values_in_a_body(
    client: FlaskClient, method: str, path: str, at: tuple[str, ...], example: dict[str, Any]
) -> None:
    if path == "/api/v1/login":  # of another server
        example = {**example, "username": client.post("/api/v1/register", json={}).json["client_id"]}
    for value in MISTYPED:
        response = send(client, method, path, json.dumps(replaced(example, at, value)).encode())
        shown = repr(value)[:40]
        assert response.status_code < 500, f"{shown}: {response.text[:300]}"
        if response.status_code >= 400:
            assert response.mimetype == "application/json"
            text = json.dumps(response.json)
            if response.json.get("err_str") in OF_WHAT_IS_THERE:
                continue
            assert any(name in text for name in names_of(at)), f"{shown}: {text[:300]} does not name {at[-1]}"


NO_ENTRY = ("/api/v1/url-submission/update-url", "old_entry")
"""An empty object says here that there is no entry; one with a single key is not half an entry."""

ENVELOPE = (("/report/{rid}", ("content",)), ("/report/{rid}", ("format",)))
"""Without one of these keys it is no envelope, but a bare measurement."""


@pytest.mark.parametrize(
    ("method", "path", "at", "example"),
    [
        each
        for each in fields()
        if (each.values[1], each.values[2]) not in ENVELOPE
        and ((each.values[1], each.values[2][0]) != NO_ENTRY or len(each.values[2]) == 1)
    ],
)
def test_null_and_missing_are_the_same(
    client: FlaskClient, method: str, path: str, at: tuple[str, ...], example: dict[str, Any]
) -> None:
    null = send(client, method, path, json.dumps(replaced(example, at, None)).encode())
    without = json.loads(json.dumps(replaced(example, at, None)))
    inner = without
    for name in at[:-1]:
        inner = inner[name]
    del inner[at[-1]]
    missing = send(client, method, path, json.dumps(without).encode())
    assert null.status_code == missing.status_code
    assert null.status_code < 500
    if null.status_code >= 400:
        assert null.json == missing.json


def names_of(at: tuple[str, ...]) -> tuple[str, ...]:
    return (at[-1], at[0]) if at[0] == "content" else (at[-1], *(("redentials",) if at == ("username",) else ()))


# Headers.


@pytest.mark.parametrize(
    "path", [path for path, each in PATHS.items() if {} not in each.get("get", {}).get("security", [{}])]
)
@pytest.mark.parametrize(
    "value", ["", "Bearer", "Bearer ", "Basic eDp5", "Bearer x.y.z", "Bearer " + "a" * 100_000, "bearer \xff", "null"]
)
def test_odd_tokens(client: FlaskClient, path: str, value: str) -> None:
    response = client.get(filled(path), headers={"Authorization": value})
    assert response.status_code in {400, 401}
    assert path in TEXTLESS or response.json["error"]


ODD_HEADERS = [
    *(("Host", value) for value in ("", "evil.example:99999", "[", "\xff", "a" * 5000, "x..y", "ı.example", "a b")),
    *(("User-Agent", value) for value in ("", "\xff\x01", "okhttp", "x" * 100_000)),
    *(
        ("Content-Type", value)
        for value in ("", "application/json; charset=utf-16", "multipart/form-data", "\xff", ";;")
    ),
    *(("Content-Length", value) for value in ("-1", "x", "", "9" * 40)),
    *(("If-None-Match", '"'), ("If-Modified-Since", "yesterday"), ("Range", "bytes=9-1"), ("Cookie", "=;=\xff")),
    *(("X-Real-IP", "\xff"), ("X-Forwarded-For", "," * 5000), ("Forwarded", "for=\xff"), ("Accept", "\xff/;q=x")),
    *(("Origin", "\xff"), ("Access-Control-Request-Method", "\xff"), ("Expect", "x"), ("Accept-Encoding", "\xff")),
]


@pytest.mark.parametrize(("name", "value"), ODD_HEADERS, ids=lambda value: repr(value)[:30])
def test_odd_headers(client: FlaskClient, name: str, value: str) -> None:
    """As a server passes them on; whatever a route makes of them, it answers."""
    key = name.upper().replace("-", "_")
    environ = {key if key.startswith("CONTENT") else f"HTTP_{key}": value}
    for path, methods in PATHS.items():
        for method in methods:
            response = client.open(filled(path), method=method, environ_overrides=environ)
            assert response.status_code < 500, f"{method} {path}: {response.text[:300]}"
            if response.status_code >= 400:
                assert path in TEXTLESS or "error" in response.json
