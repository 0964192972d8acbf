"""Who a request comes from, when proxies stand in between. Addresses are used in memory only: never stored or logged.

Forwarding headers count only when the connection comes from a proxy of ours (setting `trusted_proxies`), since anybody
can send them. Our proxies replace `X-Real-IP` and `X-Forwarded-For` of clients with what they see, or remove them.
"""

import re
from collections.abc import Iterator, Mapping
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Any

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

MAX_HOPS = 16
"""Number of addresses at the end of `X-Forwarded-For` that are looked at."""

_IPV6_PREFIX = 64
_V4_WITH_PORT = re.compile(r"([0-9.]+):[0-9]{1,5}", re.ASCII)
_V6_IN_BRACKETS = re.compile(r"\[([0-9A-Fa-f:.]+)\](?::[0-9]{1,5})?", re.ASCII)
_LONGEST = 64  # characters of an address with brackets and port, generously


class TrustedProxies:
    """The networks whose forwarding headers are believed."""

    def __init__(self, networks: tuple[str, ...]) -> None:
        """Take networks or single addresses as text. Raises ValueError naming what is neither."""
        self._networks = tuple(ip_network(text.strip()) for text in networks)

    def __contains__(self, address: Address) -> bool:
        return any(address in network for network in self._networks)

    def client(self, environ: Mapping[str, Any]) -> Address | None:
        """Return the client's address of a WSGI request, None when it cannot be known.

        From the connection backwards, the first address that is no proxy of ours is the client: the peer, then
        `X-Real-IP`, then `X-Forwarded-For` from its end. What a client writes into these headers stands further away
        and is not reached. A Unix socket, which has no address, is a proxy on this host.
        """
        peer = environ.get("REMOTE_ADDR") or ""
        nearest = parse_address(peer.partition("%")[0]) if peer else None
        if peer and (nearest is None or nearest not in self):
            return nearest
        for text in _forwarded(environ):
            nearest = parse_address(text)
            if nearest is None or nearest not in self:
                return nearest
        return nearest


def parse_address(text: str) -> Address | None:
    """Return the address that a header names, perhaps with a port, None when it names none."""
    text = text.strip()
    if len(text) > _LONGEST:
        return None
    match = _V4_WITH_PORT.fullmatch(text) or _V6_IN_BRACKETS.fullmatch(text)
    return parse_bare_address(match[1] if match else text)


def parse_bare_address(text: str) -> Address | None:
    """Return the address that `text` is, None when it is none.

    IPv4 addresses written as IPv6 (`::ffff:192.0.2.1`) become IPv4; zones (`fe80::1%eth0`) mean nothing elsewhere.
    """
    if len(text) > _LONGEST or "%" in text:
        return None
    try:
        address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


def network_of(address: Address) -> Network:
    """Return the network that stands for one subscriber: the address itself for IPv4, the /64 for IPv6."""
    if isinstance(address, IPv4Address):
        return IPv4Network(address)
    return IPv6Network((address, _IPV6_PREFIX), strict=False)


def _forwarded(environ: Mapping[str, Any]) -> Iterator[str]:
    """Give the addresses that the headers name, the nearest first."""
    real = environ.get("HTTP_X_REAL_IP")
    if real:
        yield real.rpartition(",")[2]
    hops = environ.get("HTTP_X_FORWARDED_FOR")
    if hops:
        yield from reversed(hops.rsplit(",", MAX_HOPS)[-MAX_HOPS:])
