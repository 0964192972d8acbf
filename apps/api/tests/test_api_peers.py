"""Any API host answers for any body: each serves its spool to the others on the private network, and to nobody else."""

import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import pytest

from core.spool import Spool

UNREACHABLE = "host=/nonexistent dbname=ooni"
CONTENT = b'{"test_name": "web_connectivity",\n "n": 1}'
BODY = b'{"format":"json","content":' + CONTENT + b"}"


def free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port: int = taken.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def pair(start_api: Callable[..., Any], module_dsn: str) -> tuple[Any, Any, str]:
    """Two API hosts with spools of their own; the first serves its spool at the address, the second reads there."""
    base = f"http://127.0.0.1:{free_port()}"
    serving = start_api(module_dsn, spool_listen=base.removeprefix("http://"))
    # The first peer is a host that is down.
    reading = start_api(module_dsn, peers=f"http://127.0.0.1:{free_port()},{base}")
    deadline = time.monotonic() + 15
    while True:
        try:
            httpx.get(base + "/")
            return serving, reading, base
        except httpx.ConnectError:
            assert time.monotonic() < deadline, serving.log()
            time.sleep(0.1)


def file_of(uid: str) -> str:
    return f"{uid[:10]}_IE_webconnectivity/{uid}.post"


@pytest.mark.parametrize("state", ["incoming", "scored", "quarantine"])
def test_a_body_on_another_host_is_read_from_there(pair: tuple[Any, Any, str], state: str) -> None:
    serving, reading, _ = pair
    body = BODY + b" " * len(state)
    uid = serving.submit(body).json()["measurement_uid"]
    if state == "scored":
        serving.spool.mark_scored([uid])
    elif state == "quarantine":
        serving.spool.quarantine(uid, "a test")
    before = reading.metric("api_body_source_total", source="peer")
    response = reading.http.get("/api/v1/raw_measurement", params={"measurement_uid": uid})
    assert (response.status_code, response.content) == (200, CONTENT)
    assert reading.http.get(f"/api/v1/measurement/{uid}").content == CONTENT
    assert reading.metric("api_body_source_total", source="peer") == before + 2
    assert reading.metric("api_peer_reads_total", result="failed") >= 1
    assert serving.metric("api_spool_served_total", result="found") >= 2


def test_a_body_is_served_as_received_under_both_paths(pair: tuple[Any, Any, str]) -> None:
    serving, _, base = pair
    uid = serving.submit(BODY).json()["measurement_uid"]
    for prefix in ("/measurement_spool/", "/measurement_spool/incoming/"):
        response = httpx.get(base + prefix + file_of(uid))
        assert (response.status_code, response.content) == (200, BODY)
        assert response.headers["cache-control"] == "no-store"


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/measurement_spool/",
        "/measurement_spool/{directory}/",
        "/measurement_spool/{directory}/../../received/lock",
        "/measurement_spool/..%2f..%2f{file}",
        "/measurement_spool/2024010100_IE_webconnectivity/{uid}.post",
        "/measurement_spool/{file}?x=1",
        "/measurement_spool/{directory}/{uid}.reason",
        "/api/v1/measurements",
        "/metrics",
    ],
)
def test_nothing_but_bodies_is_served(pair: tuple[Any, Any, str], path: str) -> None:
    serving, _, base = pair
    uid = serving.submit(BODY).json()["measurement_uid"]
    filled = path.format(uid=uid, file=file_of(uid), directory=file_of(uid).partition("/")[0])
    with httpx.Client() as client:
        assert client.send(httpx.Request("GET", base + filled)).status_code == 404
    assert httpx.post(base + f"/measurement_spool/{file_of(uid)}", content=b"x").status_code == 501
    assert httpx.delete(base + f"/measurement_spool/{file_of(uid)}").status_code == 501


def test_the_public_port_serves_no_spool(pair: tuple[Any, Any, str]) -> None:
    serving, _, _ = pair
    uid = serving.submit(BODY).json()["measurement_uid"]
    assert serving.http.get(f"/measurement_spool/{file_of(uid)}").status_code == 404


def test_clients_that_stall_at_the_spool_hinder_no_peer(pair: tuple[Any, Any, str]) -> None:
    serving, _, base = pair
    uid = serving.submit(BODY).json()["measurement_uid"]
    port = int(base.rpartition(":")[2])
    stalled = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        deadline = time.monotonic() + 15
        while True:  # at most 16 hold a place, for 5 s
            try:
                if httpx.get(f"{base}/measurement_spool/{file_of(uid)}", timeout=2).content == BODY:
                    break
            except httpx.TransportError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
    finally:
        for connection in stalled:
            connection.close()
    assert serving.metric("api_spool_served_total", result="refused") > 0


def test_no_address_of_a_peer_is_logged(pair: tuple[Any, Any, str]) -> None:
    serving, _, base = pair
    port = int(base.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port), source_address=("127.0.0.77", 0)) as connection:
        connection.sendall(b"\x16\x03\x01\r\n\r\n")
        connection.recv(1000)
    assert "127.0.0.77" not in serving.log()


class LyingPeer:
    """A peer that gives the wrong bytes, the wrong status, or nothing for a long time."""

    def __init__(self, status: int = 200, body: bytes = b"something else", delay_s: float = 0.0) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                time.sleep(delay_s)
                self.send_response(status)
                self.send_header("Content-Length", str(len(body) + 1))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def liars() -> Iterator[list[LyingPeer]]:
    """Peers that fail, each in its way."""
    peers = [LyingPeer(), LyingPeer(status=500), LyingPeer(delay_s=20.0)]
    yield peers
    for peer in peers:
        peer.close()


def test_peers_that_fail_cost_little_and_harm_nothing(
    start_api: Callable[..., Any], liars: list[LyingPeer], module_dsn: str
) -> None:
    api = start_api(module_dsn, peers=",".join(peer.url for peer in liars))
    own = api.submit(BODY).json()["measurement_uid"]
    absent = own[:-1] + ("0" if own[-1] != "0" else "1")
    started = time.monotonic()
    response = api.http.get("/api/v1/raw_measurement", params={"measurement_uid": absent})
    assert (response.status_code, response.content) == (200, b"{}\n")
    assert time.monotonic() - started < 10  # the slow peer alone takes 20 s
    # They are left out now, as the count of failed reads says.
    assert api.http.get("/api/v1/raw_measurement", params={"measurement_uid": absent}).status_code == 200
    assert api.http.get("/api/v1/raw_measurement", params={"measurement_uid": own}).content == CONTENT
    assert api.metric("api_peer_reads_total", result="failed") == 3


def test_without_a_database_a_peer_is_asked_for_old_measurements_too(
    start_api: Callable[..., Any], pair: tuple[Any, Any, str]
) -> None:
    serving, _, base = pair
    lonely = start_api(UNREACHABLE, peers=base)
    uid = serving.submit(BODY).json()["measurement_uid"]
    old = f"20240101000000.000000_IE_webconnectivity_{uid[-16:]}"
    Spool(serving.spool_dir, min_free_bytes=0).put(old, BODY, "r")
    response = lonely.http.get("/api/v1/raw_measurement", params={"measurement_uid": old})
    assert (response.status_code, response.content) == (200, CONTENT)
    absent = f"20240101000000.000000_IE_webconnectivity_{'0' * 16}"
    assert lonely.http.get("/api/v1/raw_measurement", params={"measurement_uid": absent}).status_code == 503


def test_the_spool_server_ends_with_the_api(start_api: Callable[..., Any]) -> None:
    port = free_port()
    api = start_api(UNREACHABLE, spool_listen=f"127.0.0.1:{port}")
    deadline = time.monotonic() + 15
    while True:
        try:
            httpx.get(f"http://127.0.0.1:{port}/")
            break
        except httpx.ConnectError:
            assert time.monotonic() < deadline, api.log()
            time.sleep(0.1)
    assert api.stop() == 0
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://127.0.0.1:{port}/")


@pytest.mark.parametrize("address", ["0.0.0.0:8475", "[::]:8475", ":8475", "10.0.0.1", "10.0.0.1:0"])
def test_an_address_that_means_everybody_is_refused(monkeypatch: pytest.MonkeyPatch, address: str) -> None:
    from api.config import load
    from core.config import ConfigError

    monkeypatch.setenv("OONI_API_SPOOL_LISTEN", address)
    with pytest.raises(ConfigError, match="spool_listen"):
        load()
