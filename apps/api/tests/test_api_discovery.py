"""Collectors, test helpers, the bouncer of the oldest probes, and data for those that logged in, over HTTP."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from api.probe_config import EXAMPLES

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
# Odd spacing, an order of keys and members that nobody here knows: handed out as they are.
TOR_TARGETS = b"""{ "192.0.2.9:9001": {"protocol": "or_port", "address":"192.0.2.9:9001",
   "fingerprint":"", "source":"private", "later": [1.50, null]} }\n"""
PSIPHON = b'{"z":1,  "a": {"deep": [1e3]}, "\\u00e9":"\xc3\xa9"}'


@pytest.fixture(scope="module")
def discovery(start_api: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An API with a configuration of its own. Nothing here needs a database."""
    directory = tmp_path_factory.mktemp("configuration") / "probe"
    shutil.copytree(EXAMPLES, directory)
    (directory / "tor-targets.json").write_bytes(TOR_TARGETS)
    (directory / "psiphon-config.json").write_bytes(PSIPHON)
    return start_api(UNREACHABLE, probe_config_directory=directory)


def example(name: str) -> Any:
    return json.loads((EXAMPLES / name).read_text())


def test_collectors(discovery: Any) -> None:
    response = discovery.http.get("/api/v1/collectors")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=3600"
    assert response.json() == example("collectors.json")
    assert len(response.json()) == 6


def test_helpers(discovery: Any) -> None:
    response = discovery.http.get("/api/v1/test-helpers")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0"
    reply = response.json()
    assert set(reply) == {"dns", "http-return-json-headers", "ssl", "tcp-echo", "traceroute", "web-connectivity"}
    expected = example("test-helpers.json")
    for name, entries in reply.items():
        if name == "web-connectivity":
            entries = sorted(entries, key=lambda entry: entry["address"])
            expected[name] = sorted(expected[name], key=lambda entry: entry["address"])
        assert entries == expected[name]
        assert all(None not in entry.values() for entry in entries)


def test_helpers_come_in_random_order_and_the_network_last(discovery: Any) -> None:
    first: Counter[str] = Counter()
    orders = set()
    for _ in range(200):
        entries = discovery.http.get("/api/v1/test-helpers").json()["web-connectivity"]
        assert [entry["type"] for entry in entries] == ["https"] * 4 + ["cloudfront"]
        assert entries[-1]["front"]
        first[entries[0]["address"]] += 1
        orders.add(tuple(entry["address"] for entry in entries))
    # Each of four is first 50 times on average; that one of them is not 15 times in 200 has a chance below 1e-9.
    assert len(first) == 4
    assert min(first.values()) >= 15
    assert len(orders) > 10


@pytest.mark.parametrize("path", ["/api/v1/test-helpers", "/api/v1/collectors"])
def test_parameters_and_host_names_make_no_difference(discovery: Any, path: str) -> None:
    for query in ("?x=1", "?country_code=%ff%00", "?" + "a" * 5000):
        assert discovery.http.get(path + query, headers={"host": "cdn.example.net"}).status_code == 200


# the bouncer


def ask_bouncer(api: Any, body: object) -> Any:
    return api.http.post("/bouncer/net-tests", content=body if isinstance(body, bytes) else json.dumps(body).encode())


def test_bouncer(discovery: Any) -> None:
    asked = {"name": "web_connectivity", "version": "0.0.1", "input-hashes": [], "test-helpers": ["web-connectivity"]}
    response = ask_bouncer(discovery, {"net-tests": [asked, {"name": "ignored"}]})
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert response.json() == {
        "net-tests": [{**example("bouncer.json"), "name": "web_connectivity", "version": "0.0.1", "input-hashes": None}]
    }


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b"{", b"[]", b"null", b"\xff\xfe", b"[" * 50_000, {}, {"net-tests": []}, {"net-tests": None}),
        *({"net-tests": {}}, {"net-tests": "x"}, {"net-tests": 1}, {"net-tests": [1]}, {"net-tests": [None]}),
        {"net_tests": [{"name": "ndt", "version": "1"}]},
    ],
)
def test_bouncer_needs_a_list_of_tests(discovery: Any, body: object) -> None:
    response = ask_bouncer(discovery, body)
    assert response.status_code == 400
    assert response.json()["error"] == "Malformed request"
    assert "net-tests" in response.json()["hint"]


@pytest.mark.parametrize("name", ["name", "version"])
@pytest.mark.parametrize("value", [None, "", 1, True, [], {}, "x" * 100_000, "\ud800", "a\nb", "a\x00"])
def test_bouncer_names_what_is_wrong(discovery: Any, name: str, value: object) -> None:
    test = {"name": "ndt", "version": "0.1", name: value}
    for asked in (test, {key: each for key, each in test.items() if key != name}):
        response = ask_bouncer(discovery, {"net-tests": [asked]})
        assert response.status_code == 400
        assert f"net-tests[0].{name}" in response.text


# data for probes that logged in


@pytest.fixture(scope="module")
def token(discovery: Any) -> str:
    """A token as a probe gets it."""
    client = discovery.http.post("/api/v1/register", json={"password": "x" * 64, "platform": "linux"}).json()
    reply = discovery.http.post("/api/v1/login", json={"username": client["client_id"], "password": "x" * 64})
    assert reply.status_code == 200, reply.text
    text: str = reply.json()["token"]
    return text


PROTECTED = [("/api/v1/test-list/tor-targets", TOR_TARGETS), ("/api/v1/test-list/psiphon-config", PSIPHON)]


@pytest.mark.parametrize(("path", "content"), PROTECTED)
def test_files_are_passed_through_byte_for_byte(discovery: Any, token: str, path: str, content: bytes) -> None:
    for query in ("", "?country_code=IT", "?country_code=%ff%00", "?country_code=" + "x" * 4000):
        response = discovery.http.get(path + query, headers={"authorization": f"Bearer {token}"})
        assert response.status_code == 200, response.text
        assert response.headers["cache-control"] == "max-age=0, no-cache"
        assert response.headers["content-type"] == "application/json"
        assert response.content == content


@pytest.mark.parametrize(("path", "content"), PROTECTED)
def test_files_are_for_probes_that_logged_in(discovery: Any, token: str, path: str, content: bytes) -> None:
    for header, status in [
        (None, 401),
        (token, 400),
        (f"Basic {token}", 400),
        ("Bearer", 401),
        ("Bearer nonsense", 401),
        (f"Bearer {token[:-8]}AAAAAAAA", 401),
        (f"Bearer {token}\xff".encode("latin-1"), 401),
    ]:
        headers = {} if header is None else {"authorization": header}
        response = discovery.http.get(path, headers=headers)
        assert response.status_code == status, header
        assert response.headers["cache-control"] == "no-cache"
        assert response.json()["error"]
        assert content not in response.content


@pytest.mark.parametrize("provider", ["riseupvpn", "x", "%ff", "a" * 4000, "%00"])
def test_no_vpn_provider(discovery: Any, provider: str) -> None:
    response = discovery.http.get(f"/api/v2/ooniprobe/vpn-config/{provider}?country_code=IT")
    assert response.status_code == 404
    assert "VPN" in response.json()["error"]


def test_a_changed_file_of_targets_is_handed_out(start_api: Callable[..., Any], tmp_path: Path) -> None:
    directory = tmp_path / "probe"
    shutil.copytree(EXAMPLES, directory)
    api = start_api(UNREACHABLE, probe_config_directory=directory)
    login = api.http.post("/api/v1/login", json={"username": "from-before-2022", "password": "x"}).json()
    headers = {"authorization": f"Bearer {login['token']}"}
    path = "/api/v1/test-list/tor-targets"
    assert api.http.get(path, headers=headers).json() == example("tor-targets.json")
    (directory / ".new").write_bytes(TOR_TARGETS)
    (directory / ".new").rename(directory / "tor-targets.json")
    deadline = time.monotonic() + 30
    while api.http.get(path, headers=headers).content != TOR_TARGETS:
        assert time.monotonic() < deadline, "the new file is not handed out"
        time.sleep(0.1)
