"""Quotas of readers over HTTP: charging, refusals, who is exempt, and that all workers of a host share them."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from flask import Flask, Response
from flask.testing import FlaskClient
from quota_client import METERED, ask, leave, spent_ns

from api.app import create_app
from api.config import ApiSettings, check
from api.metrics import QUOTA_EVICTIONS, QUOTA_UNKNOWN_ADDRESSES
from api.quotas import SECOND, subjects_of
from api.rate_limit import is_free
from core.config import ConfigError

UNREACHABLE = "host=/nonexistent dbname=ooni"


@pytest.fixture(scope="module")
def server(start_api: Callable[..., Any], module_dsn: str) -> Any:
    """An API with two workers that believes what its proxy on this host says of clients."""
    return start_api(module_dsn, workers=2, threads=4, trusted_proxies="127.0.0.0/8", quota_exempt="203.0.113.0/28")


def test_metered_replies_say_what_remains(server: Any) -> None:
    response = ask(server, "192.0.2.1")
    assert response.status_code == 400
    assert response.headers["x-ratelimit-remaining"] == "3999"


def test_what_is_refused_and_how(server: Any) -> None:
    address = "192.0.2.2"
    ask(server, address)
    leave(server, subjects_of(ip_address(address))[0], -100)
    refused = ask(server, address)
    assert refused.status_code == 429
    assert refused.headers["content-type"] == "application/json"
    assert refused.headers["x-ratelimit-remaining"] == "0"
    assert refused.headers["cache-control"] == "no-cache"
    assert refused.headers["access-control-allow-origin"] == "*"
    assert list(refused.json()) == ["error"]
    assert "Try again in" in refused.json()["error"]
    assert 1 <= int(refused.headers["retry-after"]) <= 101 * 86400 // 4000 + 1
    before = spent_ns(server, address)
    for _ in range(20):
        assert ask(server, address).status_code == 429
    assert spent_ns(server, address) <= before, "a refusal is not charged"
    assert server.metric("api_quota_refusals_total", bucket="address_day") >= 21
    assert ask(server, "192.0.2.3").status_code == 400, "a neighbour is not refused"
    preflight = {"Origin": "https://x.example", "Access-Control-Request-Method": "GET", "X-Real-IP": address}
    assert httpx.options(server.url + METERED, headers=preflight).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        *(("GET", "/health"), ("GET", "/"), ("POST", "/report"), ("POST", "/report/x"), ("POST", "/report/x/close")),
        *(("POST", "/api/v1/submit_measurement"), ("GET", "/api/v1/manifest"), ("POST", "/api/v1/sign_credential")),
        *(("POST", "/api/v1/check-in"), ("POST", "/api/_/check-in"), ("GET", "/api/v1/test-helpers")),
        *(("GET", "/api/v1/collectors"), ("POST", "/bouncer/net-tests"), ("POST", "/api/v1/register")),
        *(("POST", "/api/v1/login"), ("PUT", "/api/v1/update/x"), ("GET", "/api/v1/test-list/tor-targets")),
        *(("GET", "/api/v1/test-list/psiphon-config"), ("GET", "/api/v1/test-list/urls")),
        *(("GET", "/api/v2/ooniprobe/vpn-config/riseup"), ("GET", "/api/_/check_report_id")),
        *(("GET", "/api/_/account_metadata"), ("GET", "/api/v1/user_refresh_token")),
    ],
)
def test_probes_and_monitoring_are_never_limited(server: Any, method: str, path: str) -> None:
    address = "192.0.2.4"
    ask(server, address)
    leave(server, subjects_of(ip_address(address))[0], -100)
    assert ask(server, address).status_code == 429
    response = ask(server, address, path, method=method)
    assert response.status_code != 429
    assert "x-ratelimit-remaining" not in response.headers


@pytest.mark.parametrize(
    "path", ["/api/v1/measurements", "/api/v1/raw_measurement", "/api/v1/geolookup", "/nothing", "/healthy", "/api/v1/"]
)
def test_everything_else_is_metered(path: str) -> None:
    assert not is_free(path)


def test_old_applications_that_ask_the_list_are_never_limited(server: Any) -> None:
    address, path = "192.0.2.10", "/api/v1/measurements"
    ask(server, address)
    leave(server, subjects_of(ip_address(address))[0], -100)
    assert ask(server, address, path).status_code == 429
    headers = {"X-Real-IP": address, "User-Agent": "okhttp/4.9"}
    response = httpx.get(server.url + path, headers=headers)
    assert (response.status_code, response.json()["metadata"]["limit"]) == (200, 100)
    assert httpx.get(server.url + METERED, headers=headers).status_code == 429


def test_exempt_networks_have_no_quota(server: Any) -> None:
    response = ask(server, "203.0.113.5")
    assert "x-ratelimit-remaining" not in response.headers
    assert "x-ratelimit-remaining" in ask(server, "203.0.113.16").headers


def workers_of(server: Any) -> list[int]:
    children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children").read_text().split()
    return [pid for pid in map(int, children) if b"gunicorn" in Path(f"/proc/{pid}/cmdline").read_bytes()]


def test_workers_share_one_table(server: Any) -> None:
    """What one worker charges, the other knows: each is asked while the other is stopped."""
    address = "192.0.2.5"
    own = subjects_of(ip_address(address))[0]
    first, second = workers_of(server)
    for stopped, left in ((first, 3000), (second, 2000), (first, 0), (second, 0)):
        os.kill(stopped, signal.SIGSTOP)
        try:
            response = ask(server, address)
            if left:
                leave(server, own, left)
                assert int(ask(server, address).headers["x-ratelimit-remaining"]) in {left - 1, left}
        finally:
            os.kill(stopped, signal.SIGCONT)
        if left == 2000:
            assert response.headers["x-ratelimit-remaining"] in {"2999", "3000"}
            leave(server, own, -100)
        assert response.status_code == (400 if left else 429)


def test_a_killed_worker_takes_no_quota_with_it(server: Any) -> None:
    address = "192.0.2.6"
    ask(server, address)
    leave(server, subjects_of(ip_address(address))[0], -100)
    workers = workers_of(server)
    assert len(workers) == 2
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        try:
            assert ask(server, address).status_code == 429
            break
        except httpx.TransportError:
            time.sleep(0.1)
    assert ask(server, "192.0.2.7").headers["x-ratelimit-remaining"] == "3999"


def test_ipv6_counts_by_64(server: Any) -> None:
    ask(server, "2001:db8:1:2::1")
    leave(server, subjects_of(ip_address("2001:db8:1:2::"))[0], -100)
    assert ask(server, "2001:db8:1:2:ffff::7").status_code == 429
    assert ask(server, "2001:db8:1:3::1").status_code == 400


@pytest.mark.parametrize(
    ("first", "neighbour", "stranger"),
    [("198.51.100.1", "198.51.100.200", "198.51.101.1"), ("2001:db8:7::1", "2001:db8:7:ff::1", "2001:db8:8::1")],
)
def test_a_network_has_a_quota_too(server: Any, first: str, neighbour: str, stranger: str) -> None:
    assert ask(server, first).headers["x-ratelimit-remaining"] == "3999"
    leave(server, subjects_of(ip_address(first))[1], -100)
    refused = ask(server, neighbour)
    assert refused.status_code == 429
    assert "network" in refused.json()["error"]
    assert ask(server, stranger).status_code == 400
    assert server.metric("api_quota_refusals_total", bucket="prefix_day") >= 1


def test_waiting_for_the_database_is_not_charged(server: Any, module_dsn: str) -> None:
    address = "192.0.2.8"
    with psycopg.connect(module_dsn) as connection:
        connection.execute("LOCK TABLE fastpath IN ACCESS EXCLUSIVE MODE")
        process = subprocess.Popen(
            [sys.executable, "-c", ASK, f"{server.url}/api/v1/measurements", address], stdout=subprocess.PIPE
        )
        time.sleep(3)
        assert process.poll() is None, "the request waits for the table"
        connection.rollback()
    output, _ = process.communicate(timeout=30)
    assert output.split() == [b"200", b"3999"]
    assert spent_ns(server, address) < SECOND


ASK = """
import sys, httpx
response = httpx.get(sys.argv[1], headers={"X-Real-IP": sys.argv[2]}, timeout=30)
print(response.status_code, response.headers["x-ratelimit-remaining"])
"""


def test_the_administrator_sees_who_used_most(server: Any) -> None:
    for number in range(3):
        address = f"192.0.2.{100 + number}"
        ask(server, address)
        leave(server, subjects_of(ip_address(address))[0], 100 + number)
    environment = {"OONI_API_BIND": f"127.0.0.1:{server.port}", "PATH": os.environ["PATH"]}
    command = [str(Path(sys.executable).parent / "ooni-api"), "--quotas"]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=True)
    listed = dict(json.loads(line) for line in result.stdout.splitlines())
    assert len(listed) <= 20
    assert list(listed.values()) == sorted(listed.values())
    assert {listed[f"192.0.2.{100 + number}"] - 100 - number for number in range(3)} <= {0, 1}
    environment["OONI_API_BIND"] = "127.0.0.1:1"
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "quotas_enabled" in result.stderr


def test_metrics_show_how_many_are_tracked(server: Any) -> None:
    ask(server, "192.0.2.9")
    deadline = time.monotonic() + 30
    while server.metric("api_quota_tracked_addresses") < 1 and time.monotonic() < deadline:
        time.sleep(0.5)
    assert server.metric("api_quota_tracked_addresses") >= 1


def test_no_address_is_written_anywhere(server: Any) -> None:
    written = server.log() + "".join(
        path.read_bytes().decode("latin-1") for path in server.directory.rglob("*") if path.is_file()
    )
    for text in ("192.0.2.", "203.0.113.5", "198.51.100.", "2001:db8"):
        assert text not in written


# One worker without gunicorn.


@pytest.fixture
def application(tmp_path: Path) -> Iterator[Callable[..., Flask]]:
    made = []

    def make(**settings: Any) -> Flask:
        app = create_app(
            ApiSettings(
                db_uri=UNREACHABLE,
                spool_directory=str(tmp_path / "spool"),
                store_url=f"file://{tmp_path}",
                **settings,
            )
        )
        made.append(app)
        return app

    yield make
    for app in made:
        app.extensions["api"].close()


def remaining(client: FlaskClient, path: str, address: str) -> str | None:
    return client.get(path, environ_base={"REMOTE_ADDR": address}).headers.get("X-RateLimit-Remaining")


def test_processor_time_is_charged_and_duration_is_not(application: Callable[..., Flask]) -> None:
    app = application()

    @app.get("/work")
    def work() -> Response:
        started = time.thread_time()
        while time.thread_time() - started < 1.2:
            pass
        return Response("done")

    @app.get("/sleep")
    def sleep() -> Response:
        time.sleep(1.2)
        return Response("done")

    client = app.test_client()
    assert remaining(client, "/work", "192.0.2.1") == "3998"
    assert remaining(client, "/sleep", "192.0.2.2") == "3999"


def test_a_304_costs_what_it_took(application: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.rate_limit.MINIMUM_CHARGE", 100 * SECOND)
    app = application()

    @app.get("/unchanged")
    def unchanged() -> Response:
        return Response(status=304)

    @app.get("/unchanged-after-work")
    def unchanged_after_work() -> Response:
        started = time.thread_time()
        while time.thread_time() - started < 1.2:
            pass
        return Response(status=304)

    client = app.test_client()
    assert remaining(client, "/unchanged", "192.0.2.1") in {"3999", "4000"}  # some of it is refilled at once
    assert remaining(client, METERED, "192.0.2.1") in {"3899", "3900"}
    assert remaining(client, "/unchanged-after-work", "192.0.2.2") == "3998"


def test_an_unknown_address_is_let_through(application: Callable[..., Flask]) -> None:
    client = application().test_client()
    before = QUOTA_UNKNOWN_ADDRESSES._value.get()
    response = client.get(METERED, environ_base={"REMOTE_ADDR": ""})
    assert response.status_code == 400
    assert "X-RateLimit-Remaining" not in response.headers
    assert QUOTA_UNKNOWN_ADDRESSES._value.get() == before + 1


def test_what_had_to_be_forgotten_is_counted(
    application: Callable[..., Flask], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.quota_store.DEFAULT_ENTRIES", 16)
    monkeypatch.setattr("api.rate_limit.MINIMUM_CHARGE", 100 * SECOND)  # not full again before the end
    client = application().test_client()
    before = QUOTA_EVICTIONS._value.get()
    for number in range(20):  # an address and a network each, for 16 places
        assert remaining(client, METERED, f"10.{number}.0.1") == "3900"
    assert QUOTA_EVICTIONS._value.get() == before + 24


@pytest.mark.parametrize("text", ["10.0.0.1/8", "example.org", "", "2001:db8::/200"])
def test_an_exempt_network_must_be_one(text: str) -> None:
    with pytest.raises(ConfigError, match="quota_exempt"):
        check(ApiSettings(quota_exempt=(text,)))


def test_quotas_can_be_switched_off(application: Callable[..., Flask]) -> None:
    assert remaining(application(quotas_enabled=False).test_client(), METERED, "192.0.2.1") is None


def test_this_host_is_exempt_unless_told_otherwise(application: Callable[..., Flask]) -> None:
    client = application().test_client()
    assert remaining(client, METERED, "127.0.0.1") is None
    assert remaining(client, METERED, "::1") is None
    assert remaining(application(quota_exempt=()).test_client(), METERED, "127.0.0.1") == "3999"
