"""The whole file, where exactness is the point."""

from testinfra.host import Host

RULES = """#!/usr/sbin/nft -f
# Ansible managed
# Only this table is ours; "table" makes it where it is missing, so that "delete" always works.
table inet host_firewall
delete table inet host_firewall
table inet host_firewall {
	chain input {
		type filter hook input priority filter; policy drop;
		iif "lo" accept
		ct state established,related accept
		ct state invalid drop
		icmp type { destination-unreachable, time-exceeded, parameter-problem } accept
		icmpv6 type { destination-unreachable, packet-too-big, time-exceeded, parameter-problem } accept
		icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert } accept
		icmp type echo-request accept
		icmpv6 type echo-request accept
		tcp dport { 22 } accept comment "ssh"
	}
}
"""


def test_rules_are_exactly_these(host: Host) -> None:
    assert host.file("/etc/nftables.conf").content_string == RULES
