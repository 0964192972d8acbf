"""Alerts on their way: a real webhook gets what its severity is due, and nothing else."""

import time

import pytest
from testinfra.host import Host

AMTOOL = "amtool --alertmanager.url=http://127.0.0.1:9193"


def eventually_logged(host: Host, line: str) -> bool:
    """Wait up to 50 seconds (alerts of a group are collected for 30) for a line of the webhook."""
    deadline = time.monotonic() + 50
    while time.monotonic() < deadline:
        if line in host.file("/run/webhook.log").content_string.splitlines():
            return True
        time.sleep(1)
    return False


@pytest.fixture(scope="module", autouse=True)
def _alerts(host: Host) -> None:
    host.check_output("touch /run/webhook.log")
    host.check_output(f"{AMTOOL} alert add alertname=InstanceDown severity=page instance=api1 job=node")
    host.check_output(f"{AMTOOL} alert add alertname=FastpathBacklogOld severity=page instance=api1 job=fastpath")
    host.check_output(f"{AMTOOL} alert add alertname=DiskFilling severity=page instance=api2 job=node")
    host.check_output(f"{AMTOOL} alert add alertname=UnitFailed severity=ticket instance=api2 job=node")
    host.check_output(f"{AMTOOL} alert add alertname=Watchdog severity=info")


@pytest.mark.parametrize(
    "line", ["/oncall firing InstanceDown", "/oncall firing DiskFilling", "/watchdog firing Watchdog"]
)
def test_alert_reaches_the_receiver_of_its_severity(host: Host, line: str) -> None:
    assert eventually_logged(host, line)


def test_a_host_that_is_down_says_nothing_else(host: Host) -> None:
    assert eventually_logged(host, "/oncall firing InstanceDown")
    assert "FastpathBacklogOld" not in host.file("/run/webhook.log").content_string
    inhibited = host.check_output(f"{AMTOOL} alert query --inhibited --output=simple")
    assert "FastpathBacklogOld" in inhibited
    assert "DiskFilling" not in inhibited


def test_tickets_wake_nobody(host: Host) -> None:
    assert eventually_logged(host, "/oncall firing DiskFilling")
    assert "UnitFailed" not in host.file("/run/webhook.log").content_string


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("severity=page", "oncall"),
        ("severity=ticket", "team"),
        ("severity=info", "nobody"),
        ("alertname=Watchdog severity=info", "watchdog"),
        ("severity=page alertname=InstanceDown", "oncall"),
    ],
)
def test_routes(host: Host, labels: str, receiver: str) -> None:
    routed = host.check_output(f"amtool config routes test --config.file=/etc/prometheus/alertmanager.yml {labels}")
    assert routed == receiver
