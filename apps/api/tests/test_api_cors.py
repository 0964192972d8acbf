"""Pages of other origins: every reply can be read by those that may, and by nobody else if the operator says so."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from api.app import create_app
from api.config import ApiSettings, check
from api.cors import Origins
from core.config import ConfigError

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
EXPLORER = "https://explorer.example.org"
NOTEBOOKS = "https://*.notebooks.example"
ASKED = {"Access-Control-Request-Method": "GET", "Access-Control-Request-Headers": "authorization"}

PATHS = {
    "/": 200,
    "/robots.txt": 200,
    "/openapi.json": 200,
    "/api/v1/collectors": 200,
    "/stats": 301,
    "/api/v1/measurements?limit=x": 400,
    "/api/v1/test-list/tor-targets": 401,
    "/api/v1/measurements?probe_cc=ZZ": 403,
    "/no/such/path": 404,
    "/report": 405,
}
"""Replies of every kind, with their status."""

AWAY = "/api/v1/measurements"
"""What is answered 503 without a database, after a while."""


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., FlaskClient]]:
    """Return clients of applications without a database, with given settings."""
    made: list[Flask] = []

    def build(**settings: Any) -> FlaskClient:
        directory = tmp_path_factory.mktemp("cors")
        made.append(
            create_app(
                ApiSettings(
                    db_uri=UNREACHABLE,
                    spool_directory=str(directory / "spool"),
                    state_directory=str(directory / "state"),
                    store_url=f"file://{directory}",
                    **settings,
                )
            )
        )
        return made[-1].test_client()

    yield build
    for app in made:
        app.extensions["api"].close()


@pytest.fixture(scope="module")
def anybody(make: Callable[..., FlaskClient]) -> FlaskClient:
    return make()


@pytest.fixture(scope="module")
def restricted(make: Callable[..., FlaskClient]) -> FlaskClient:
    return make(cors_origins=(EXPLORER, NOTEBOOKS))


def ask(client: FlaskClient, path: str, origin: str | None, method: str = "GET", **headers: str) -> TestResponse:
    return client.open(path, method=method, headers={**({"Origin": origin} if origin else {}), **headers})


def cross_origin(response: TestResponse) -> dict[str, str]:
    return {name: value for name, value in response.headers.items() if name.startswith("Access-Control")}


@pytest.mark.parametrize(("path", "status"), PATHS.items())
@pytest.mark.parametrize("origin", [EXPLORER, "null", None])
def test_any_page_may_read_every_reply(anybody: FlaskClient, path: str, status: int, origin: str | None) -> None:
    response = ask(anybody, path, origin)
    assert response.status_code == status, response.text
    assert cross_origin(response) == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Expose-Headers": "ETag, Retry-After, X-Cache-Status, X-RateLimit-Remaining",
    }
    assert "Vary" not in response.headers, "a cache would keep one copy per origin"


def test_a_reply_that_the_database_is_away_can_be_read(anybody: FlaskClient, restricted: FlaskClient) -> None:
    open_to_all, open_to_some = ask(anybody, AWAY, EXPLORER), ask(restricted, AWAY, EXPLORER)
    assert open_to_all.status_code == open_to_some.status_code == 503
    assert open_to_all.headers["Access-Control-Allow-Origin"] == "*"
    assert open_to_some.headers["Access-Control-Allow-Origin"] == EXPLORER


@pytest.mark.parametrize("path", ["/api/v1/measurements", "/report", "/no/such/path", "/health"])
def test_a_preflight_of_any_path_is_answered(anybody: FlaskClient, path: str) -> None:
    response = ask(anybody, path, EXPLORER, "OPTIONS", **ASKED)
    assert (response.status_code, response.data) == (200, b"")
    assert cross_origin(response) == {
        "Access-Control-Allow-Origin": "*",
        "Access-Control-Allow-Methods": "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        "Access-Control-Allow-Headers": "authorization",
        "Access-Control-Max-Age": "86400",
    }


@pytest.mark.parametrize("wanted", [None, "", "x\u00e4", "x" * 2000, "a: b"])
def test_a_preflight_that_names_no_headers_gets_the_usual_ones(anybody: FlaskClient, wanted: str | None) -> None:
    headers = {"Access-Control-Request-Method": "POST"}
    if wanted is not None:
        headers["Access-Control-Request-Headers"] = wanted.encode().decode("latin-1")
    response = ask(anybody, "/report", EXPLORER, "OPTIONS", **headers)
    assert response.headers["Access-Control-Allow-Headers"] == "authorization, content-type"


@pytest.mark.parametrize(("path", "status"), PATHS.items())
@pytest.mark.parametrize("origin", [EXPLORER, "https://a.notebooks.example", "https://a.b.notebooks.example"])
def test_pages_of_allowed_origins_read_every_reply(
    restricted: FlaskClient, path: str, status: int, origin: str
) -> None:
    response = ask(restricted, path, origin)
    assert response.status_code == status
    assert response.headers["Access-Control-Allow-Origin"] == origin
    assert response.headers["Vary"] == "Origin"
    assert "Access-Control-Allow-Credentials" not in response.headers


OTHERS = [
    *(None, "", "null", "*", "http://explorer.example.org", "https://explorer.example.org:8443"),
    *("https://explorer.example.org.evil.example", "https://evil.example/https://explorer.example.org"),
    *("https://explorerXexample.org", "https://notebooks.example", "https://xnotebooks.example"),
    *(
        "https://evil.example#.notebooks.example",
        "https://evil.example/a.notebooks.example",
        "https://.notebooks.example",
    ),
    "https://a.notebooks.example.evil.example",
]


@pytest.mark.parametrize(("path", "status"), PATHS.items())
@pytest.mark.parametrize("origin", OTHERS)
def test_pages_of_other_origins_read_nothing(
    restricted: FlaskClient, path: str, status: int, origin: str | None
) -> None:
    response = ask(restricted, path, origin)
    assert response.status_code == status, "the status is the same for everybody"
    assert cross_origin(response) == {}
    assert response.headers["Vary"] == "Origin", "a cache would hand this copy to an allowed origin"


def test_a_preflight_of_another_origin_allows_it_nothing(restricted: FlaskClient) -> None:
    allowed = ask(restricted, "/api/v1/measurements", EXPLORER, "OPTIONS", **ASKED)
    assert allowed.headers["Access-Control-Allow-Origin"] == EXPLORER
    assert allowed.headers["Access-Control-Allow-Headers"] == "authorization"
    for origin in (*OTHERS, "https://evil.example"):
        other = ask(restricted, "/api/v1/measurements", origin, "OPTIONS", **ASKED)
        assert (other.status_code, other.data, other.headers["Vary"]) == (200, b"", "Origin")
        assert cross_origin(other) == {}


def test_no_origins_at_all(make: Callable[..., FlaskClient]) -> None:
    assert cross_origin(ask(make(cors_origins=()), "/", EXPLORER)) == {}


@pytest.mark.parametrize("pattern", ["*", EXPLORER, NOTEBOOKS, "http://localhost:3000", "http://[::1]:3000"])
def test_patterns_that_are_some(pattern: str) -> None:
    assert pattern.replace("*.", "x.") in Origins((pattern,))


@pytest.mark.parametrize(
    "pattern",
    [
        *("", "explorer.example.org", "https://explorer.example.org/", "https://EXPLORER.example.org", "https://"),
        *("https://a.*.example.org", "https://*example.org", "https://*", "*.example.org", "https://a b.example.org"),
        *("https://a.example.org:port", "https://user@a.example.org", "null", "ftp://a.example.org"),
    ],
)
def test_patterns_that_are_none_are_named(tmp_path: Path, pattern: str) -> None:
    with pytest.raises(ConfigError, match=r"cors_origins: it holds .*https://explorer\.example\.org"):
        check(ApiSettings(store_url=f"file://{tmp_path}", cors_origins=(pattern,)))


def test_every_origin_and_some_is_a_contradiction(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="give \\* alone"):
        check(ApiSettings(store_url=f"file://{tmp_path}", cors_origins=("*", EXPLORER)))


def test_what_is_no_http_names_no_origin(start_api: Callable[..., Any]) -> None:
    """The server itself answers it, with the setting from the environment."""
    server = start_api(UNREACHABLE, cors_origins=EXPLORER)
    reply = server.raw(b"GET / HTTP/1.1\r\nHost: x\r\nOrigin: https://evil.example\r\nBad Header: y\r\n\r\n")
    assert reply.startswith(b"HTTP/1.1 400")
    assert b"Access-Control" not in reply
    assert server.http.get("/health", headers={"Origin": EXPLORER}).headers["access-control-allow-origin"] == EXPLORER
