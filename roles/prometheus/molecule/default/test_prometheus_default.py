"""What follows from an inventory; and the tests of the alerts, for machines that have no promtool themselves."""

import base64
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from testinfra.host import Host

TESTS = sorted((Path(__file__).resolve().parents[4] / "dashboards/prometheus").glob("*_test.yaml"))


def test_hosts_of_groups_are_scraped_and_probed_under_their_names(host: Host, fetch: Callable) -> None:
    targets = json.loads(fetch(host, "/api/v1/targets?state=active", port=9090, tls=False).text)["data"]
    found = {
        (target["labels"]["job"], target["labels"]["instance"]): target["scrapeUrl"]
        for target in targets["activeTargets"]
    }
    name = "mol-prometheus-host"  # how the host is reached; its name in the inventory is plain `host`
    assert found["node", "host"] == f"http://{name}:9100/metrics"
    assert found["api", "host"] == f"http://{name}:9301/metrics"
    assert found["fastpath", "host"] == f"http://{name}:8473/metrics"
    assert found["probe_ssh", "host"].endswith(f"/probe?module=ssh_banner&target={name}%3A22")
    assert found["probe_api", "host"].endswith("/probe?module=http_2xx&target=https%3A%2F%2Fhost%2Fhealth")


@pytest.mark.parametrize("file", TESTS, ids=lambda path: path.name)
def test_deployed_alerts_do_what_their_tests_say(host: Host, file: Path) -> None:
    host.check_output("mkdir -p /tmp/rules && cp /etc/prometheus/rules/*.yaml /tmp/rules")
    text = base64.b64encode(file.read_bytes()).decode()
    host.check_output(f"echo {text} | base64 --decode > /tmp/rules/{file.name}")
    assert "SUCCESS" in host.check_output(f"promtool test rules /tmp/rules/{file.name}")
