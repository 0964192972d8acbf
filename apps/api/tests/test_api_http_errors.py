"""Every refusal has one shape, whatever the route: its own status, JSON with a text under `error`, for any origin."""

import re
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from people import signed_in_headers
from psycopg import sql
from werkzeug.test import TestResponse

from api import rate_limit
from api.app import create_app
from api.config import ApiSettings
from api.openapi.document import document
from api.openapi.schemas import REPORT_ID, UID
from api.quotas import SECOND
from api.responses import NO_CACHE

PATHS: dict[str, dict[str, Any]] = document("http://localhost")["paths"]
METHODS = ("GET", "POST", "PUT", "PATCH", "DELETE")
LIST = "/api/v1/measurements"

TOLERANT = "/api/v1/test-list/urls"
"""Probes get an empty object from it for what it does not understand, since they know nothing else."""

VERSIONED = "/apidocs/assets/{name}"
"""Gives the file whatever version is asked for, but only the current one may be kept."""

MISSING = "/api/v2/ooniprobe/vpn-config/{provider}"
"""It has nothing for anybody, whatever the parameters are."""


@pytest.fixture(scope="module")
def client(module_app: Flask, module_dsn: str) -> FlaskClient:
    module_app.extensions["api"].intake.spool.put(UID, b'{"content":{},"format":"json"}', REPORT_ID)
    return module_app.test_client()


@pytest.fixture
def make(module_dsn: str, tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    """Return applications with given settings."""
    made: list[Flask] = []

    def build(**settings: Any) -> Flask:
        (tmp_path / "objects").mkdir(exist_ok=True)
        fixed = {
            "spool_directory": str(tmp_path / "spool"),
            "spool_min_free_bytes": 1024,
            "state_directory": str(tmp_path / "state"),
            "store_url": f"file://{tmp_path}/objects",
        }
        made.append(create_app(ApiSettings(**{"db_uri": module_dsn, **fixed, **settings})))
        return made[-1]

    yield build
    for app in made:
        app.extensions["api"].close()


def check(response: TestResponse, status: int) -> str:
    """Check the shape of a refusal; returns its text."""
    assert response.status_code == status, response.text[:500]
    assert response.mimetype == "application/json"
    assert isinstance(response.json, dict)
    text = response.json["error"]
    assert isinstance(text, str)
    assert text
    assert response.text.endswith("\n")
    assert response.headers["Cache-Control"] in {"no-cache", "no-cache, private"}
    assert response.headers["Access-Control-Allow-Origin"] == "*"
    assert "Retry-After" in response.headers["Access-Control-Expose-Headers"]
    assert "ETag" not in response.headers
    return text


def filled(path: str) -> str:
    """A path of the description with the examples of its parameters."""
    if "{" not in path:
        return path
    for operation in PATHS[path].values():
        for parameter in operation.get("parameters", []):
            if parameter["in"] == "path":
                path = path.replace(f"{{{parameter['name']}}}", quote(str(parameter["example"]), safe=""))
    return path


def of_rule(rule: str) -> str:
    return filled(re.sub(r"<(?:[^:<>]+:)?([^<>]+)>", r"{\1}", rule))


def test_every_route_refuses_other_methods_and_names_its_own(client: FlaskClient, module_app: Flask) -> None:
    tried = 0
    adapter = module_app.url_map.bind("localhost")
    for rule in module_app.url_map.iter_rules():
        path = of_rule(rule.rule)
        allowed = set(adapter.allowed_methods(path))
        for method in set(METHODS) - allowed:
            response = client.open(path, method=method)
            assert "405" in check(response, 405)
            assert {name.strip() for name in response.headers["Allow"].split(",")} == allowed
            tried += 1
    assert tried > 4 * 50


def with_query() -> list[Any]:
    return [
        pytest.param(method.upper(), path, operation["parameters"], id=path)
        for path, methods in PATHS.items()
        for method, operation in methods.items()
        if any(each["in"] == "query" for each in operation.get("parameters", []))
    ]


@pytest.mark.parametrize(("method", "path", "parameters"), with_query())
def test_every_route_with_parameters_refuses_a_bad_one(
    client: FlaskClient, method: str, path: str, parameters: list[dict[str, Any]]
) -> None:
    name = next(each["name"] for each in parameters if each["in"] == "query")
    response = client.open(f"{filled(path)}?{name}=%ff", method=method)
    if path == TOLERANT:
        assert (response.status_code, response.json) == (200, {})
    elif path == VERSIONED:
        assert (response.status_code, response.headers["Cache-Control"]) == (200, NO_CACHE)
    elif path == MISSING:
        check(response, 404)
    elif {} not in PATHS[path][method.lower()].get("security", [{}]):
        check(response, 401)
    else:
        check(response, 400)


@pytest.mark.parametrize(
    ("method", "path"),
    [(method, path) for path, methods in PATHS.items() for method, each in methods.items() if "requestBody" in each],
)
def test_every_route_with_a_body_refuses_a_bad_one(
    client: FlaskClient, module_app: Flask, module_dsn: str, method: str, path: str
) -> None:
    admin = signed_in_headers(module_app, module_dsn, role="admin")
    bad = client.open(filled(path), method=method, data=b"no JSON", content_type="application/json", headers=admin)
    check(bad, 400)
    encoded = {**admin, "Content-Encoding": "br", "Content-Type": "application/json"}
    check(client.open(filled(path), method=method, data=b"{}", headers=encoded), 415)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("path", ["/nothing", "/api/v1/nothing", "/static/x.css", "/%ff", "/..", "/report/a/b/c"])
def test_unknown_paths_are_404_whatever_the_method(client: FlaskClient, method: str, path: str) -> None:
    assert "404" in check(client.open(path, method=method), 404)


def test_what_is_not_listed_is_403(client: FlaskClient) -> None:
    assert "ZZ" in check(client.get(f"{LIST}?probe_cc=ZZ"), 403)


def test_a_body_that_is_too_large_is_413(make: Callable[..., Flask]) -> None:
    app = make(max_received_bytes=1000)
    text = check(app.test_client().post(f"/report/{REPORT_ID}", data=b"x" * 1001), 413)
    assert "1000 bytes" in text


def test_a_quota_that_is_used_up_is_429(make: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "MINIMUM_CHARGE", 5000 * SECOND)
    client = make().test_client()
    address = {"REMOTE_ADDR": "192.0.2.1"}
    client.get(f"{LIST}?limit=x", environ_base=address)
    response = client.get(f"{LIST}?limit=x", environ_base=address)
    assert "Quota exceeded" in check(response, 429)
    assert int(response.headers["Retry-After"]) > 0
    assert response.headers["X-RateLimit-Remaining"] == "0"


def test_a_fault_of_our_own_is_500_and_tells_nothing(make: Callable[..., Flask]) -> None:
    app = make()

    @app.get("/fault")
    def fault() -> str:
        raise ValueError("secret")

    response = app.test_client().get("/fault")
    assert "secret" not in check(response, 500)


def test_a_measurement_without_its_body_is_500(client: FlaskClient, module_dsn: str) -> None:
    uid = "20240101000102.654321_IE_webconnectivity_0123456789abcdef"
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            """INSERT INTO fastpath (measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name,
                test_start_time, measurement_start_time, scores, anomaly, confirmed, msm_failure)
            VALUES (%s, %s, 'http://a.example/', 'a.example', 'IE', 34245, 'web_connectivity',
                '2024-01-01', '2024-01-01', '{}', false, false, false)""",
            [uid, REPORT_ID],
        )
    assert "not found" in check(client.get(f"/api/v1/raw_measurement?measurement_uid={uid}"), 500)


def test_a_query_that_the_database_does_not_know_is_500(make: Callable[..., Flask], pg_cluster: Any) -> None:
    """As with a schema that is too old."""
    name = sql.Identifier("without_schema")
    with psycopg.connect(pg_cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
        app = make(db_uri=pg_cluster.dsn("without_schema"))
        text = check(app.test_client().get(LIST), 500)
        app.extensions["api"].close()
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
    assert text == "Database query error"


def test_a_database_that_is_away_is_503(make: Callable[..., Flask]) -> None:
    response = make(db_uri="host=/nonexistent dbname=ooni").test_client().get(LIST)
    assert "cannot be reached" in check(response, 503)
    assert int(response.headers["Retry-After"]) > 0


def test_too_many_readers_are_503(module_app: Flask, client: FlaskClient) -> None:
    release = threading.Event()
    parts = module_app.extensions["api"]
    taken = threading.Barrier(parts.settings.threads * 3 // 4 + 1)

    def read() -> None:
        with parts.read_slots.place():
            taken.wait(30)
            release.wait(30)

    readers = [threading.Thread(target=read) for _ in range(taken.parties - 1)]
    for reader in readers:
        reader.start()
    taken.wait(30)
    try:
        response = client.get(LIST)
    finally:
        release.set()
        for reader in readers:
            reader.join()
    assert "Too many queries" in check(response, 503)
    assert int(response.headers["Retry-After"]) > 0
    assert client.get(LIST).status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        LIST,
        f"{LIST}?probe_cc=IT&order_by=probe_asn",
        f"/api/v1/measurement_meta?measurement_uid={UID}",
        "/api/v1/aggregation?axis_x=probe_cc",
        "/api/v1/aggregation?axis_x=input&since=2024-01-01&until=2024-01-02",
    ],
)
def test_a_query_that_takes_too_long_is_504_and_says_what_to_do(
    make: Callable[..., Flask], module_dsn: str, path: str
) -> None:
    app = make(statement_timeout_ms=200)
    with psycopg.connect(module_dsn) as other:
        other.execute("LOCK TABLE fastpath IN ACCESS EXCLUSIVE MODE")
        for (table,) in other.execute("SELECT relname FROM pg_class WHERE relname LIKE 'counters%%' AND relkind = 'r'"):
            other.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(table)))
        text = check(app.test_client().get(path), 504)
    assert re.search(r"took too long\. (Narrow|Give|Leave|Try)", text), text
