"""What counts as a domain, for filters and in what people write: the rule of the wire contract."""

import re
from ipaddress import IPv4Address, IPv6Address

_LABEL = r"[0-9A-Za-z_](?:[0-9A-Za-z_-]{0,61}[0-9A-Za-z_])?"
_LAST_LABEL = r"[0-9A-Za-z_][0-9A-Za-z_-]{0,61}[A-Za-z]"
_PORT = r"(?::[0-9]{1,5})?"
_HOST = re.compile(rf"(?:{_LABEL}\.)+{_LAST_LABEL}{_PORT}", re.ASCII)
_IPV4 = re.compile(rf"([0-9.]+){_PORT}", re.ASCII)
_IPV6 = re.compile(rf"\[([0-9A-Fa-f:.]+)\]{_PORT}|([0-9A-Fa-f:.]+)", re.ASCII)


def is_domain(text: str) -> bool:
    """Return whether `text` is a host name, IPv4 or IPv6 address, each perhaps with a port."""
    try:
        ascii_ = text.encode("idna").decode("ascii")
    except UnicodeError:
        return False
    if _HOST.fullmatch(ascii_):
        return True
    try:
        if match := _IPV4.fullmatch(ascii_):
            IPv4Address(match[1])
            return True
        if match := _IPV6.fullmatch(ascii_):
            IPv6Address(match[1] or match[2])
            return True
    except ValueError:
        return False
    return False
