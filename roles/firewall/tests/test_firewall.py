"""What comes in, and that nothing else does."""

import json
import re

from testinfra.host import Host


def accepted_ports(host: Host) -> set[int]:
    """Return the TCP ports that the rules in force open, to whomever."""
    rules = json.loads(host.check_output("nft --json list table inet host_firewall"))["nftables"]
    ports: set[int] = set()
    for rule in (entry["rule"] for entry in rules if "rule" in entry):
        for match in (part["match"] for part in rule["expr"] if "match" in part):
            if match["left"] == {"payload": {"protocol": "tcp", "field": "dport"}}:
                right = match["right"]
                ports |= set(right["set"]) if isinstance(right, dict) else {right}
    return ports


def test_what_no_rule_opens_is_dropped(host: Host) -> None:
    chain = host.check_output("nft list chain inet host_firewall input")
    assert "type filter hook input priority filter; policy drop;" in chain


def test_rules_in_force_are_those_of_the_file(host: Host) -> None:
    in_force = host.check_output("nft list table inet host_firewall")
    of_file = host.check_output("unshare --net sh -c 'nft -f /etc/nftables.conf && nft list table inet host_firewall'")
    assert in_force == of_file


def test_rules_come_back_after_a_reboot(host: Host) -> None:
    service = host.service("nftables")
    assert service.is_enabled
    assert service.is_running


def test_ssh_is_open(host: Host) -> None:
    assert 22 in accepted_ports(host)


def test_refused_packets_leave_no_client_address_in_the_log(host: Host) -> None:
    assert not re.search(r"\blog\b", host.check_output("nft list table inet host_firewall"))
