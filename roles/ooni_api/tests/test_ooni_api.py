"""What every API host promises."""

import json
import tomllib
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def settings(host: Host) -> dict[str, Any]:
    """The settings of the API on this host."""
    return tomllib.loads(host.file("/etc/ooni/api.toml").content_string)


@pytest.fixture
def ask(host: Host, fetch: Callable) -> Callable:
    """Make a request through the web server, with or without TLS as the host has it."""
    site = host.file("/etc/nginx/sites-enabled/ooni-api.conf").content_string
    name = next(line.split()[1].rstrip(";") for line in site.splitlines() if "server_name" in line)

    def _ask(path: str, **more: Any) -> Any:
        return fetch(host, path, **{"name": name, "tls": "ssl_certificate " in site, **more})

    return _ask


def test_api_and_uploader_start_with_the_host(host: Host) -> None:
    api = host.service("ooni-api")
    assert api.is_running
    assert api.is_enabled
    timer = host.service("ooni-api-uploader.timer")
    assert timer.is_running
    assert timer.is_enabled


def test_settings_are_what_the_api_accepts(host: Host) -> None:
    assert host.check_output("ooni-api --check") == "ooni-api: the configuration is fine."


@pytest.mark.parametrize("file", ["api.toml", "uploader.toml"])
def test_settings_are_closed_to_other_accounts(host: Host, file: str) -> None:
    found = host.file(f"/etc/ooni/{file}")
    assert (found.user, found.group, found.mode) == ("root", "ooniapi", 0o640)


def test_application_and_metrics_are_reachable_on_the_loopback_only(host: Host, settings: dict[str, Any]) -> None:
    for port in (settings["bind"].rpartition(":")[2], settings["metrics_port"]):
        assert host.socket(f"tcp://127.0.0.1:{port}").is_listening
        assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening


def test_health_is_the_apis_own_and_never_cached(ask: Callable) -> None:
    reply = ask("/health")
    assert (reply.status, reply.text) == (200, "UP")
    assert "x-cache-status" not in reply.headers


def test_host_tells_its_name_and_that_it_lives(host: Host, ask: Callable) -> None:
    assert ask("/whoami").text == host.check_output("hostname") + "\n"
    reply = ask("/metrics")
    assert (reply.status, reply.text) == (200, "")


@pytest.mark.parametrize(
    "path",
    [
        "/apidocs/?url=https://evil.example/x",
        "/apidocs/?a=1&urls=x",
        "/apidocs/?%75rl=x",
        "/%61pidocs/?ur%6C=x",
        "//docs?url=x",
    ],
)
def test_documentation_page_shows_no_foreign_description(ask: Callable, path: str) -> None:
    refused = ask(path)
    assert refused.status == 403
    assert json.loads(refused.text)["error"]


def test_body_beyond_the_limit_is_refused_in_json_and_the_largest_reaches_the_api(
    ask: Callable, settings: dict[str, Any]
) -> None:
    limit = settings["max_received_bytes"]
    refused = ask("/report", method="POST", zeros=limit + 1)
    assert (refused.status, refused.headers["content-type"]) == (413, "application/json")
    assert "MB" in json.loads(refused.text)["error"]
    assert "x-cache-status" not in refused.headers
    taken = ask("/report", method="POST", zeros=limit)
    # It is the API that says no: it counts bytes, and wants less of whoever opens a report.
    assert " bytes" in json.loads(taken.text)["error"]


def test_measurement_is_taken_and_no_address_of_the_client_is_kept(host: Host, ask: Callable) -> None:
    address = host.check_output("hostname --ip-address").split()[0]
    head = {
        "data_format_version": "0.2.0",
        "format": "json",
        "probe_asn": "AS64500",
        "probe_cc": "IT",
        "software_name": "test",
        "software_version": "1",
        "test_name": "web_connectivity",
        "test_start_time": "2024-01-01 00:00:00",
        "test_version": "0.1",
    }
    opened = ask(
        "/report", method="POST", body=json.dumps(head), address=address, headers={"Content-Type": "application/json"}
    )
    assert opened.status == 200, opened.text
    report = json.loads(opened.text)["report_id"]
    body = json.dumps(
        {"format": "json", "content": {"report_id": report, "test_name": "web_connectivity", "probe_cc": "IT"}}
    )
    sent = ask(
        f"/report/{report}", method="POST", body=body, address=address, headers={"X-Forwarded-For": "198.51.100.7"}
    )
    assert sent.status == 200, sent.text
    uid = json.loads(sent.text)["measurement_uid"]
    assert host.check_output(f"find /var/lib/ooniapi/measurements -name '{uid}*'")
    logged = host.check_output("journalctl --output json --no-pager --identifier nginx --identifier gunicorn3")
    assert address not in logged
    assert "198.51.100.7" not in logged


@pytest.mark.parametrize("unit", ["ooni-api", "ooni-api-uploader"])
def test_units_are_locked_in(host: Host, unit: str) -> None:
    score = host.check_output(f"systemd-analyze security --no-pager {unit}.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0
