"""What readers meet at the front beside the answer itself: tags, origins, and what becomes of a question they drop."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import httpx
import pytest
from nginx_front import NAME, PROGRAM, Api, Front
from tests.slow_queries import eventually, locked, waiting

pytestmark = pytest.mark.skipif(PROGRAM is None, reason="nginx is not on this machine: apt-get install nginx-light")

EXPLORER = "https://explorer.example.org"
ORIGINS = [EXPLORER, "https://*.notebooks.example"]
LIST = "/api/v1/measurements?limit=1&since=2024-01-01&until=2024-01-02"
LONG = "/openapi.json"
"""A reply that is long enough to be compressed."""


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[Api]:
    """A real API whose replies only some origins may read."""
    server = Api(tmp_path_factory.mktemp("api"), db_uri=module_dsn, threads=8, cors_origins=",".join(ORIGINS))
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def front(api: Api) -> Iterator[Front]:
    """A real nginx that was told the same."""
    server = Front(
        api.port,
        ooni_api_settings={"cors_origins": ORIGINS},
        ooni_api_explorer_url=EXPLORER,
        ooni_api_body_limit_mb=1,
    )
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def http(front: Front) -> Iterator[httpx.Client]:
    """A client."""
    with httpx.Client(base_url=front.url, headers={"Host": NAME}, timeout=60) as client:
        yield client


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_same_reply_again_is_a_304_compressed_or_not(http: httpx.Client, encoding: str) -> None:
    headers = {"Accept-Encoding": encoding, "Origin": EXPLORER}
    first = http.get(LONG, headers=headers)
    assert first.headers.get("content-encoding", "identity") == encoding
    tag = first.headers["etag"]
    again = http.get(LONG, headers={**headers, "If-None-Match": tag})
    assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag)
    for name in ("cache-control", "access-control-allow-origin", "x-content-type-options"):
        assert again.headers[name] == first.headers[name]
    assert http.get(LONG, headers={**headers, "If-None-Match": 'W/"other"'}).status_code == 200


def test_tag_that_came_compressed_counts_uncompressed(http: httpx.Client) -> None:
    tag = http.get(LONG, headers={"Accept-Encoding": "gzip"}).headers["etag"]
    assert http.get(LONG, headers={"Accept-Encoding": "identity", "If-None-Match": tag}).status_code == 304


def test_each_origin_gets_its_own_copy_from_the_cache(http: httpx.Client) -> None:
    path = f"{LIST}&probe_cc=NA"
    expected = {
        EXPLORER: EXPLORER,
        "https://a.notebooks.example": "https://a.notebooks.example",
        "https://x.example": None,
    }
    for _ in range(2):
        for origin, allowed in expected.items():
            reply = http.get(path, headers={"Origin": origin})
            assert reply.status_code == 200
            assert reply.headers.get("access-control-allow-origin") == allowed
    assert http.get(path, headers={"Origin": EXPLORER}).headers["x-cache-status"] == "HIT"


def test_old_applications_get_their_own_answer_and_nobody_else_does(http: httpx.Client) -> None:
    path = f"{LIST}&probe_cc=SM"
    old = {"User-Agent": "okhttp/3.12.1"}
    replies = [http.get(path, headers=headers) for headers in (old, {}, old, {}, {"User-Agent": "x okhttp"})]
    assert [reply.headers["x-cache-status"] for reply in replies] == ["BYPASS", "MISS", "BYPASS", "HIT", "HIT"]
    for reply in (replies[0], replies[2]):
        assert reply.json()["results"] == [{"measurement_url": ""}]
        assert reply.json()["metadata"]["next_url"] is None
    assert [reply.json()["results"] for reply in replies if reply.headers["x-cache-status"] != "BYPASS"] == [[]] * 3
    # Elsewhere they are as others.
    assert [http.get("/?okhttp", headers=old).headers["x-cache-status"] for _ in range(2)] == ["MISS", "HIT"]


@pytest.mark.parametrize(
    ("origin", "allowed"),
    [
        (EXPLORER, True),
        ("https://a.notebooks.example", True),
        ("https://a.b.notebooks.example", True),
        ("https://notebooks.example", False),
        ("https://anotebooks.example", False),
        ("https://a.notebooks.example.evil.example", False),
        ("https://explorerXexample.org", False),
        ("https://evil.example", False),
        (None, False),
    ],
)
def test_what_the_front_answers_itself_is_for_the_same_origins(
    http: httpx.Client, origin: str | None, allowed: bool
) -> None:
    headers = {"Origin": origin} if origin else {}
    too_large = http.post("/report", content=bytes(1024 * 1024 + 1), headers=headers)
    missing = http.get("/measurement_spool/x", headers=headers)
    moved = http.get("/files/download/x.json", headers=headers)
    assert [reply.status_code for reply in (too_large, missing, moved)] == [413, 404, 301]
    for reply in (too_large, missing, moved):
        assert reply.headers.get("access-control-allow-origin") == (origin if allowed else None)
        assert reply.headers["vary"] == "Origin"
    for reply in (too_large, missing):
        assert json.loads(reply.text)["error"]
        assert reply.headers["access-control-expose-headers"] == "Retry-After"


def test_errors_of_the_api_leave_as_themselves(http: httpx.Client) -> None:
    for path, status in (("/api/v1/measurements?limit=x", 400), (f"{LIST}&probe_cc=ZZ", 403), ("/no/such", 404)):
        reply = http.get(path, headers={"Origin": EXPLORER})
        assert (reply.status_code, reply.headers["content-type"]) == (status, "application/json")
        assert reply.json()["error"]
        assert reply.headers["access-control-allow-origin"] == EXPLORER
        assert reply.headers["cache-control"] == "no-cache"
    reply = http.put("/report", headers={"Origin": EXPLORER})
    assert (reply.status_code, "POST" in reply.headers["allow"]) == (405, True)


def test_query_that_takes_too_long_is_a_504_of_the_api(http: httpx.Client, module_dsn: str) -> None:
    with locked(module_dsn):
        reply = http.get(f"{LIST}&probe_cc=BF", headers={"Origin": EXPLORER})
    assert reply.status_code == 504
    assert "took too long" in reply.json()["error"]
    assert reply.headers["access-control-allow-origin"] == EXPLORER
    assert http.get(f"{LIST}&probe_cc=BF").status_code == 200, "the error was kept"


HEAVY = "/api/v1/aggregation?axis_x=probe_cc&since=2020-01-01&until=2024-01-01&ooni_run_link_id=10001"
"""A question about rows of years, which takes the only turn of a worker for such ones."""


@contextmanager
def asked(front: Front, path: str) -> Iterator[socket.socket]:
    """Ask and wait for no answer yet."""
    with socket.create_connection(("127.0.0.1", front.tor_port), timeout=60) as connection:
        connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {NAME}\r\n\r\n".encode())
        yield connection


def test_heavy_question_ends_with_its_client(front: Front, http: httpx.Client, module_dsn: str) -> None:
    assert http.get(HEAVY).status_code == 200
    with locked(module_dsn):
        with asked(front, HEAVY):
            eventually(lambda: waiting(module_dsn) == 1, "the question does not wait")
        left_at = time.monotonic()
        eventually(lambda: waiting(module_dsn) == 0, "the question goes on for nobody")
        assert time.monotonic() - left_at < 10, "its time limit of 20 s ended it"
    reply = http.get(HEAVY)
    assert reply.status_code == 200
    assert "x-cache-status" not in reply.headers
    assert not {"x-accel-redirect", "x-uncached-at"} & set(reply.headers)


def test_ordinary_question_is_answered_for_the_next_one_who_asks(
    front: Front, http: httpx.Client, module_dsn: str
) -> None:
    path = f"{LIST}&probe_cc=BJ"
    with locked(module_dsn), asked(front, path):
        eventually(lambda: waiting(module_dsn) == 1, "the question does not wait")
    eventually(lambda: waiting(module_dsn) == 0, "the question is never answered")
    time.sleep(1)
    assert http.get(path).headers["x-cache-status"] == "HIT"


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/_/account_metadata", 401), ("/api/v1/test-helpers", 200), ("/api/v1/incidents/search", 200)],
)
def test_answers_that_are_never_kept_are_not_waited_for(http: httpx.Client, path: str, status: int) -> None:
    """The cache would let one in at a time, and the next one half a second later."""
    with ThreadPoolExecutor(8) as threads:
        replies = list(threads.map(lambda _: http.get(path), range(16)))
    assert {(reply.status_code, reply.headers["x-cache-status"]) for reply in replies} == {(status, "BYPASS")}


def test_place_without_a_cache_is_not_for_clients(http: httpx.Client) -> None:
    reply = http.get("/uncached")
    assert (reply.status_code, reply.headers["content-type"]) == (404, "application/json")
    forged = {"X-Uncached-At": "/health", "X-Accel-Redirect": "/health"}
    assert http.get(HEAVY, headers=forged).json()["result"] == []
