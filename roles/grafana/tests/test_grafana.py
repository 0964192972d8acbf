"""What is deployed for Grafana. That Grafana understands it is not tested: its package cannot be had here."""

import configparser
import json
from pathlib import Path

import yaml
from testinfra.host import Host


def test_without_grafana_settings_keep_it_on_loopback_and_silent(host: Host) -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(host.file("/etc/grafana/grafana.ini").content_string)
    assert ini["server"]["http_addr"] == "127.0.0.1"
    assert ini["auth.anonymous"]["enabled"] == "false"
    assert ini["users"]["allow_sign_up"] == "false"
    assert ini["analytics"]["reporting_enabled"] == "false"
    assert ini["security"]["admin_password"] == "$__file{/etc/grafana/admin-password}"


def test_without_grafana_data_source_is_the_prometheus_of_the_repository(host: Host) -> None:
    text = host.file("/etc/grafana/provisioning/datasources/prometheus.yaml").content_string
    [source] = yaml.safe_load(text)["datasources"]
    assert (source["uid"], source["type"], source["isDefault"], source["editable"]) == (
        "prometheus",
        "prometheus",
        True,
        False,
    )


def test_without_grafana_dashboards_are_read_from_where_they_are(host: Host) -> None:
    text = host.file("/etc/grafana/provisioning/dashboards/repository.yaml").content_string
    [provider] = yaml.safe_load(text)["providers"]
    assert provider["allowUiUpdates"] is False
    directory = host.file(provider["options"]["path"])
    assert directory.is_directory
    dashboards = [json.loads(host.file(f"{directory.path}/{name}").content_string) for name in directory.listdir()]
    assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards)


def test_nobody_else_reads_its_files(host: Host) -> None:
    for path in (Path("/etc/grafana"), Path("/etc/grafana/provisioning"), Path("/etc/grafana/dashboards")):
        assert host.file(str(path)).mode == 0o750
