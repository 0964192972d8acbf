"""What every host that scores promises."""

import tomllib
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def settings(host: Host) -> dict[str, Any]:
    """The settings of the fastpath on this host."""
    return tomllib.loads(host.file("/etc/ooni/fastpath.toml").content_string)


def test_fastpath_runs_and_starts_with_the_host(host: Host) -> None:
    fastpath = host.service("fastpath")
    assert fastpath.is_running
    assert fastpath.is_enabled


def test_settings_are_closed_to_other_accounts(host: Host) -> None:
    found = host.file("/etc/ooni/fastpath.toml")
    assert (found.user, found.group, found.mode) == ("root", "fastpath", 0o640)


def test_it_listens_where_it_was_told_and_nowhere_else(host: Host, settings: dict[str, Any]) -> None:
    for address, port in (
        (settings["http_host"], settings["http_port"]),
        (settings["metrics_host"], settings["metrics_port"]),
    ):
        assert host.socket(f"tcp://{address}:{port}").is_listening
        assert not host.socket(f"tcp://0.0.0.0:{port}").is_listening


def test_disk_queue_is_shared_through_a_group_and_closed_to_others(host: Host, settings: dict[str, Any]) -> None:
    spool = host.file(settings["spool_directory"])
    assert (spool.user, spool.group, spool.mode) == ("root", "oonispool", 0o2770)
    assert "oonispool" in host.user("fastpath").groups


def test_secrets_are_not_in_units_or_arguments(host: Host, settings: dict[str, Any]) -> None:
    password = settings["db_uri"].partition("@")[0].rpartition(":")[2] if "@" in settings["db_uri"] else ""
    for said in (
        "systemctl show fastpath",
        "systemctl cat fastpath",
        "ps -e -o args",
        "journalctl --no-pager -u fastpath",
    ):
        assert not password or password not in host.check_output(said)


def test_unit_is_locked_in(host: Host) -> None:
    score = host.check_output("systemd-analyze security --no-pager fastpath.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0


def test_metrics_are_there(host: Host, settings: dict[str, Any]) -> None:
    address = f"http://{settings['metrics_host']}:{settings['metrics_port']}/metrics"
    said = host.check_output(
        f"python3 -c \"import urllib.request as u; print(u.urlopen('{address}').read().decode())\""
    )
    assert "fastpath_" in said
