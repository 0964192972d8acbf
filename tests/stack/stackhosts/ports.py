"""Which ports hosts may listen on: the one list, by group of the inventory."""

import ipaddress
import re
from collections.abc import Iterable
from typing import NamedTuple

LOOPBACK, PRIVATE, ANY = "loopback", "private", "any"
"""Where a port is open: on the host itself, on its own address for other hosts of ours, or on all addresses."""


class Listener(NamedTuple):
    """A port that a process listens on."""

    proto: str
    where: str
    port: int
    process: str


def _tcp(where: str, process: str, *ports: int) -> set[Listener]:
    return {Listener("tcp", where, port, process) for port in ports}


ALLOWED: dict[str, set[Listener]] = {
    "all": _tcp(ANY, "sshd", 22)
    | _tcp(PRIVATE, "prometheus-node", 9100)
    # chrony's command socket; absent in containers, where chrony does not run
    | {Listener("udp", LOOPBACK, 323, "chronyd")},
    "database": _tcp(LOOPBACK, "postgres", 5432) | _tcp(PRIVATE, "postgres", 5432),
    "api": _tcp(ANY, "nginx", 80, 443) | _tcp(LOOPBACK, "python3", 8000) | _tcp(PRIVATE, "python3", 9301, 8475),
    "fastpath": _tcp(LOOPBACK, "fastpath", 8472) | _tcp(PRIVATE, "fastpath", 8473),
    "analysis": set(),
    "monitoring": _tcp(LOOPBACK, "prometheus", 9090)
    | _tcp(LOOPBACK, "prometheus-aler", 9093)
    | _tcp(LOOPBACK, "prometheus-blac", 9115),
    # 443: refuses the handshake of names that no virtual host has
    "apt_archive": _tcp(ANY, "nginx", 80, 443),
    "balancer": _tcp(ANY, "haproxy", 80, 443) | _tcp(LOOPBACK, "haproxy", 8405) | _tcp(LOOPBACK, "python3", 8406),
    "clickhouse": _tcp(LOOPBACK, "clickhouse-serv", 8123, 9000) | _tcp(PRIVATE, "clickhouse-serv", 8123, 9000),
    "test_helper": _tcp(ANY, "nginx", 80, 443),
}

OPEN_TO_EVERYBODY: dict[str, set[int]] = {
    "all": {22},
    "api": {80, 443},
    "apt_archive": set(),
    "balancer": {80, 443},
    "test_helper": {80, 443},
}
"""Ports that a stranger reaches through the firewall, by group."""

_LINE = re.compile(r"^(tcp|udp)\s+\S+\s+\d+\s+\d+\s+(\S+):(\d+)\s+\S+\s*(?:users:\(\(\"([^\"]*)\")?")


def read_listeners(shown: str, own_address: str) -> set[Listener]:
    """Read the output of `ss -H -l -t -u -n -p`: both protocols, so that each line names its own."""
    found = set()
    for line in filter(str.strip, shown.splitlines()):
        match = _LINE.match(line)
        assert match, f"ss printed a line that is not understood: {line}"
        proto, address, port, process = match.groups()
        found.add(Listener(proto, _where(address, own_address), int(port), process or ""))
    return found


def unexpected(found: set[Listener], groups: Iterable[str]) -> set[Listener]:
    """Return the listeners that no group of the host allows."""
    return found - set().union(*(ALLOWED[group] for group in groups))


def _where(address: str, own_address: str) -> str:
    plain = address.strip("[]").split("%")[0]
    if plain in ("*", "0.0.0.0", "::"):
        return ANY
    if ipaddress.ip_address(plain).is_loopback:
        return LOOPBACK
    return PRIVATE if plain == own_address else address
