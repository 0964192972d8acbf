"""Knocking at the doors from another host, and what becomes of rules that are not ours."""

import pytest
import testinfra
from testinfra.host import Host

TIMED_OUT = 28


@pytest.fixture(scope="module")
def api() -> Host:
    return testinfra.get_host("podman://mol-firewall-host")


@pytest.fixture(scope="module")
def client() -> Host:
    return testinfra.get_host("podman://mol-firewall-client")


def knock(client: Host, port: int) -> int:
    return client.run(f"curl --silent --output /dev/null --max-time 3 http://host:{port}/").rc


@pytest.mark.parametrize("port", [8080, 8081, 9100])
def test_open_ports_answer(client: Host, port: int) -> None:
    assert knock(client, port) == 0


@pytest.mark.parametrize("port", [9101, 9999])
def test_other_ports_are_silent_although_something_listens(api: Host, client: Host, port: int) -> None:
    assert api.socket(f"tcp://0.0.0.0:{port}").is_listening
    assert knock(client, port) == TIMED_OUT


def test_pings_are_not_answered(client: Host) -> None:
    assert client.run("ping -c 1 -W 2 host").rc == 1


def test_stale_rules_are_gone_and_tables_of_others_stay(api: Host) -> None:
    rules = api.check_output("nft list ruleset")
    assert "6666" not in rules
    assert "table ip docker_like" in rules
    assert "tcp dport 1 drop" in rules


def test_stopping_the_service_leaves_tables_of_others_alone(api: Host) -> None:
    api.check_output("systemctl stop nftables")
    try:
        rules = api.check_output("nft list ruleset")
        assert "host_firewall" not in rules
        assert "tcp dport 1 drop" in rules
    finally:
        api.check_output("systemctl start nftables")
    assert "host_firewall" in api.check_output("nft list ruleset")
