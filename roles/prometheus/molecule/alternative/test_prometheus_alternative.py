"""Prometheus beside real exporters and a real Alertmanager: what is scraped, what fires, where it arrives."""

import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def query(host: Host, fetch: Callable) -> Callable[[str], list[dict[str, Any]]]:
    """Ask Prometheus; `query("up")` gives the result's series."""

    def _query(expression: str) -> list[dict[str, Any]]:
        reply = fetch(host, f"/api/v1/query?query={expression}", port=9090, tls=False)
        return json.loads(reply.text)["data"]["result"]

    return _query


def eventually(ask: Callable[[], Any], wanted: Any) -> None:
    """Wait up to 40 seconds for an answer."""
    deadline = time.monotonic() + 40
    while (answer := ask()) != wanted and time.monotonic() < deadline:
        time.sleep(1)
    assert answer == wanted


def test_everything_configured_is_scraped(query: Callable[[str], list[dict[str, Any]]]) -> None:
    def up() -> dict[tuple[str, str], str]:
        return {(s["metric"]["job"], s["metric"]["instance"]): s["value"][1] for s in query("up")}

    eventually(
        up,
        {
            ("prometheus", "host"): "1",
            ("node", "host"): "1",
            ("alertmanager", "127.0.0.1:9093"): "1",
            ("probe_itself", "http://127.0.0.1:9090/-/ready"): "1",
            ("probe_nothing", "http://127.0.0.1:1/"): "1",
        },
    )
    assert query("up{job='node'}")[0]["metric"]["tier"] == "1"


def test_probes_succeed_and_fail(query: Callable[[str], list[dict[str, Any]]]) -> None:
    eventually(
        lambda: {s["metric"]["job"]: s["value"][1] for s in query("probe_success")},
        {"probe_itself": "1", "probe_nothing": "0"},
    )


def test_alerts_arrive_with_the_labels_of_the_server_and_a_link_to_the_runbook(host: Host, fetch: Callable) -> None:
    def watchdogs() -> list[tuple[str, str]]:
        alerts = json.loads(fetch(host, "/api/v2/alerts", port=9093, tls=False).text)
        return [
            (alert["labels"]["stage"], alert["annotations"]["runbook_url"])
            for alert in alerts
            if alert["labels"]["alertname"] == "Watchdog"
        ]

    eventually(watchdogs, [("alternative", "https://code.example.org/backend/runbooks/alerts/Watchdog.md")])


def test_what_is_old_or_too_much_is_forgotten(host: Host, fetch: Callable) -> None:
    flags = json.loads(fetch(host, "/api/v1/status/flags", port=9090, tls=False).text)["data"]
    assert (flags["storage.tsdb.retention.time"], flags["storage.tsdb.retention.size"]) == ("3d", "1GiB")
