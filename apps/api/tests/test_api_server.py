"""The process itself: health, errors, cross-origin headers, privacy, outages, metrics, start and stop."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import pytest
from prometheus_client import Counter, Gauge, Histogram

from api import metrics
from api.clock import SLOTS
from api.config import ApiSettings
from core.config import describe

README = Path(__file__).parent.parent / "README.md"
UNREACHABLE = "host=/nonexistent dbname=ooni"


@pytest.fixture(scope="module")
def lonely(start_api: Callable[..., Any]) -> Any:
    """An API without a database, with two workers."""
    return start_api(UNREACHABLE, workers=2, threads=4)


def test_health(lonely: Any) -> None:
    response = lonely.http.get("/health")
    assert (response.status_code, response.text) == (200, "UP")
    assert response.headers["content-type"].startswith("text/html")
    assert "cache-control" not in response.headers


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/nothing/here", 404),
        ("GET", "/report", 405),
        ("POST", "/api/v1/measurements", 405),
        ("PUT", "/report/x", 405),
        ("GET", "/%00%ff", 404),
        ("GET", "//report//x", 404),
    ],
)
def test_errors_are_json_with_their_status(lonely: Any, method: str, path: str, status: int) -> None:
    response = lonely.http.request(method, path)
    assert response.status_code == status
    assert response.json()["error"].startswith(f"{status} ")
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["cache-control"] == "no-cache"
    if status == 405:
        assert "allow" in response.headers


def test_invalidpath(lonely: Any) -> None:
    response = lonely.http.get("/invalidpath")
    assert (response.status_code, response.json()) == (404, {"error": 404})


@pytest.mark.parametrize("path", ["/api/v1/measurements", "/report", "/unknown"])
def test_preflight(lonely: Any, path: str) -> None:
    asked = {
        "origin": "https://explorer.example.org",
        "access-control-request-method": "POST",
        "access-control-request-headers": "authorization, content-type",
    }
    response = lonely.http.options(path, headers=asked)
    assert (response.status_code, response.content) == (200, b"")
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["access-control-allow-headers"] == "authorization, content-type"
    assert response.headers["access-control-allow-methods"] == "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT"
    assert "access-control-allow-credentials" not in response.headers
    assert "vary" not in response.headers
    assert lonely.http.options("/report").status_code == 200


def test_without_a_database_measurements_are_taken_and_readable(lonely: Any) -> None:
    started = time.monotonic()
    uid = lonely.submit(b'{"format":"json","content":{"a": 1}}').json()["measurement_uid"]
    assert lonely.http.get("/api/v1/raw_measurement", params={"measurement_uid": uid}).content == b'{"a": 1}'
    assert lonely.http.get(f"/api/v1/measurement/{uid}").content == b'{"a": 1}'
    assert time.monotonic() - started < 3, "a single wait for the database takes 3 s"
    response = lonely.http.get("/api/v1/measurements")
    assert response.status_code == 503
    assert "Database query error" in response.json()["error"]
    assert int(response.headers["retry-after"]) > 0
    other = uid[:-1] + ("0" if uid[-1] != "0" else "1")
    assert lonely.http.get("/api/v1/raw_measurement", params={"measurement_uid": other}).status_code == 503


def test_readers_of_a_missing_database_leave_threads_for_submissions(lonely: Any) -> None:
    limits = httpx.Limits(max_connections=50)
    with httpx.Client(base_url=lonely.url, timeout=30, limits=limits) as client, ThreadPoolExecutor(20) as pool:
        readers = [pool.submit(client.get, "/api/v1/measurements") for _ in range(20)]
        time.sleep(0.7)
        started = time.monotonic()
        for _ in range(5):
            assert "measurement_uid" in lonely.submit(b"{}").json()
        assert time.monotonic() - started < 2, "a thread that waits for the database is free after 2.3 s more"
        assert {reader.result().status_code for reader in readers} == {503}


def test_http_that_is_none_is_answered_in_json(lonely: Any) -> None:
    assert b" 400 " in lonely.raw(b"GET / HTTP/1.1\r\nHost: x\r\nBad Header: y\r\n\r\n").splitlines()[0]
    assert b" 414 " in lonely.raw(b"GET /" + b"x" * 9000 + b" HTTP/1.1\r\nHost: x\r\n\r\n").splitlines()[0]
    reply = lonely.raw(b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"y" * 9000 + b"\r\n\r\n")
    assert b" 431 " in reply.splitlines()[0]
    assert b'{"error":' in reply
    assert b"Access-Control-Allow-Origin: *" in reply


def test_no_client_address_is_kept(lonely: Any, rid: str) -> None:
    """Whatever clients do, neither their address nor a forwarded one reaches the logs or the spool."""
    forwarded = b"X-Forwarded-For: 203.0.113.77\r\nX-Real-IP: 203.0.113.77\r\nForwarded: for=203.0.113.77\r\n"

    def send(head: bytes, rest: bytes = b"", **options: bool) -> bytes:
        reply: bytes = lonely.raw(
            head + b"\r\nHost: x\r\nConnection: close\r\n" + forwarded + rest, "127.0.0.77", **options
        )
        return reply

    post = b"POST /report/" + rid.encode() + b" HTTP/1.1"
    assert b'"measurement_uid"' in send(post, b"Content-Length: 2\r\n\r\n{}")
    assert b" 400 " in send(post, b"Content-Length: 5\r\n\r\nno js")
    assert b" 400 " in send(post, b"Content-Length: 50\r\n\r\n{", half_close=True)
    assert b" 400 " in send(post, b"Transfer-Encoding: chunked\r\n\r\nzz\r\n")
    assert b" 400 " in send(post, b"Bad Header: 203.0.113.77\r\n\r\n")
    assert b" 501 " in send(post, b"Transfer-Encoding: 203.0.113.77\r\n\r\n")
    assert b" 404 " in send(b"GET /nowhere HTTP/1.1", b"\r\n")
    assert b" 503 " in send(b"GET /api/v1/measurements HTTP/1.1", b"\r\n")
    send(b"203.0.113.77")
    send(b"GET / HTTP/9.9", b"\r\n")
    send(b"PROXY TCP4 203.0.113.77 203.0.113.77 1 2\r\nGET / HTTP/1.1", b"\r\n")
    lonely.raw(b"\x16\x03\x01\x02\x00\x01", "127.0.0.77", half_close=True)
    log = lonely.log()
    assert "request refused" in log
    kept = log + "".join(path.read_text(errors="replace") for path in lonely.files())
    for address in ("127.0.0.77", "203.0.113.77"):
        assert address not in kept


def test_metrics_of_all_workers_add_up(lonely: Any, rid: str) -> None:
    before = lonely.metric("api_measurements_acknowledged_total", route="report")
    url = f"{lonely.url}/report/{rid}"
    # A connection each, so that both workers get some.
    uids: list[str] = [httpx.post(url, content=b'{"n":%d}' % number).json()["measurement_uid"] for number in range(30)]
    assert lonely.metric("api_measurements_acknowledged_total", route="report") == before + 30
    assert {int(uid[15:21]) % SLOTS for uid in uids} == {0, 1}  # each worker has its own residue of the microseconds
    assert lonely.metric("api_request_seconds_count", endpoint="receive_measurement") >= 30
    assert lonely.metric("api_received_bytes_total") > 0
    assert lonely.metric("api_spool_put_seconds_count") >= 30


def worker_pids(server: Any) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_a_killed_worker_is_replaced_and_nothing_acknowledged_is_lost(start_api: Callable[..., Any]) -> None:
    server = start_api(UNREACHABLE, workers=1)
    uids = [server.submit(b'{"n":%d}' % number).json()["measurement_uid"] for number in range(3)]
    (pid,) = worker_pids(server)
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            uids.append(server.submit(b'{"n":3}').json()["measurement_uid"])
            break
        except httpx.TransportError:
            time.sleep(0.1)
    assert len(set(uids)) == 4
    assert all(server.spool.read(uid) is not None for uid in uids)
    assert server.metric("api_measurements_acknowledged_total", route="report") == 4


def test_stop_finishes_requests_and_leaves_no_process(start_api: Callable[..., Any], rid: str) -> None:
    server = start_api(UNREACHABLE)
    children = worker_pids(server)
    head = (
        b"POST /report/20240101T000000Z_ndt_IT_1_n1_abcdefghijklmnop HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n"
    )
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(head + b"{")
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(0.5)
        connection.sendall(b"}")
        assert b" 200 " in connection.recv(65536).splitlines()[0]
    assert server.stop() == 0
    assert not any(Path(f"/proc/{pid}").exists() for pid in children)
    with pytest.raises(httpx.TransportError):
        httpx.get(f"http://127.0.0.1:{server.metrics_port}/metrics")


# the command


def run_command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    clean = {key: value for key, value in os.environ.items() if not key.startswith("OONI_")}
    command = [str(Path(sys.executable).parent / "ooni-api"), *arguments]
    return subprocess.run(
        command, env={**clean, **environment}, capture_output=True, text=True, timeout=30, check=False
    )


def test_check_accepts_a_good_file(tmp_path: Path) -> None:
    path = tmp_path / "api.toml"
    path.write_text('workers = 3\nbase_url = "https://api.example.org"\n')
    result = run_command("--config", str(path), "--check")
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(
    ("variable", "value", "said"),
    [
        ("OONI_API_WORKERS", "0", "workers"),
        ("OONI_API_WORKERS", "many", "OONI_API_WORKERS"),
        ("OONI_API_WORKRES", "1", "OONI_API_WORKERS"),
        ("OONI_API_BASE_URL", "api.example.org", "base_url"),
        ("OONI_API_COLLECTOR_ID", "a_b", "collector_id"),
        ("OONI_API_BIND", "8000", "bind"),
        ("OONI_API_METRICS_PORT", "70000", "metrics_port"),
        ("OONI_API_STORE_URL", "ftp://x", "object store"),
        ("OONI_API_DB_URI", "dbname", "db_uri"),
        ("OONI_API_LOG_LEVEL", "LOUD", "log_level"),
    ],
)
def test_a_bad_setting_stops_the_command_with_a_sentence(variable: str, value: str, said: str) -> None:
    for arguments in ([], ["--check"]):
        result = run_command(*arguments, **{variable: value})
        assert result.returncode == 78
        assert said in result.stderr
        assert "Traceback" not in result.stderr


# documentation


def test_readme_describes_every_setting() -> None:
    assert describe(ApiSettings, "api").strip() in README.read_text()


def test_readme_describes_every_metric() -> None:
    names = {
        name + ("_total" if isinstance(value, Counter) else "")
        for value in vars(metrics).values()
        if isinstance(value, Counter | Gauge | Histogram)
        for name in (value.describe()[0].name,)
    }
    assert len(names) > 10
    assert set(re.findall(r"`(api_[a-z_]+)`", README.read_text())) == names
