"""What a Prometheus of ours promises. Reads the configuration from the host, so that it holds in every inventory."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from testinfra.host import Host

RULES = Path(__file__).resolve().parents[3] / "dashboards/prometheus"


@pytest.fixture
def api(host: Host, fetch: Callable) -> Callable[[str], Any]:
    """Ask the HTTP interface: `api("rules")`."""
    arguments = host.file("/etc/default/prometheus").content_string
    match = re.search(r"--web\.listen-address=(\S+):(\d+)", arguments)
    assert match
    return lambda path: json.loads(
        fetch(host, f"/api/v1/{path}", address=match[1], port=int(match[2]), tls=False).text
    )["data"]


def test_it_runs_now_and_after_a_reboot(host: Host) -> None:
    service = host.service("prometheus")
    assert service.is_running
    assert service.is_enabled


def test_it_answers_on_loopback_alone(host: Host) -> None:
    sockets = host.check_output("ss --no-header --listening --tcp --numeric 'sport = :9090'").splitlines()
    assert [line.split()[3] for line in sockets] == ["127.0.0.1:9090"]


def test_configuration_on_disk_is_sound_and_in_force(host: Host, api: Callable[[str], Any]) -> None:
    assert host.run("promtool check config /etc/prometheus/prometheus.yml").rc == 0
    in_force = yaml.safe_load(api("status/config")["yaml"])
    on_disk = yaml.safe_load(host.file("/etc/prometheus/prometheus.yml").content_string)
    jobs = [job["job_name"] for job in on_disk["scrape_configs"]]
    assert [job["job_name"] for job in in_force["scrape_configs"]] == jobs
    assert api("status/runtimeinfo")["reloadConfigSuccess"] is True


def test_every_alert_of_the_repository_is_evaluated(api: Callable[[str], Any]) -> None:
    files = [path for path in RULES.glob("*.yaml") if not path.name.endswith("_test.yaml")]
    groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
    wanted = {rule["alert"] for group in groups for rule in group["rules"] if "alert" in rule}
    loaded = {rule["name"]: rule["health"] for group in api("rules")["groups"] for rule in group["rules"]}
    assert wanted == set(loaded)
    assert set(loaded.values()) <= {"ok", "unknown"}  # unknown: not evaluated yet


def test_samples_have_an_age_limit(api: Callable[[str], Any]) -> None:
    assert re.fullmatch(r"\d+[dwy]", api("status/flags")["storage.tsdb.retention.time"])


def test_nobody_can_change_or_stop_it_over_http(api: Callable[[str], Any]) -> None:
    flags = api("status/flags")
    assert (flags["web.enable-admin-api"], flags["web.enable-lifecycle"]) == ("false", "false")
