"""The network location of a measurement's input, as the standard library's URL parser yields it.

The parser itself is not called, because it keeps the last inputs in a cache without a bound on their size.
"""

import ipaddress
import re
import unicodedata

_STRIPPED = "".join(map(chr, range(0x21)))
_REMOVED = str.maketrans("", "", "\t\r\n")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:", re.ASCII)
_LOCATION = re.compile(r"[^/?#]*")
_FUTURE_ADDRESS = re.compile(r"v[a-fA-F0-9]+\..+")


def network_location(url: str) -> str:
    """Return what stands between `//` and the next `/`, `?` or `#`, with port, user and letter case; "" without `//`.

    Raises:
        ValueError: brackets do not enclose an IPv6 address, or the host changes its meaning when normalised.
    """
    # The common case without the parser's pitfalls: a plain scheme, nothing to strip or remove, no brackets.
    scheme, slashes, rest = url.partition("://")
    if slashes and url.isascii() and scheme.isalpha() and url.isprintable() and "[" not in rest and "]" not in rest:
        return rest.partition("/")[0].partition("?")[0].partition("#")[0]
    url = url.lstrip(_STRIPPED)
    if not url.isprintable():
        url = url.translate(_REMOVED)
    found = _SCHEME.match(url)
    start = found.end() if found else 0
    if not url.startswith("//", start):
        return ""
    found = _LOCATION.match(url, start + 2)
    location = found.group() if found else ""
    if "[" in location or "]" in location:
        _check_brackets(location)
    if not location.isascii():
        _check_normalised(location)
    return location


def _check_brackets(location: str) -> None:
    if "[" not in location or "]" not in location:
        raise ValueError("Invalid IPv6 URL")
    host = location.partition("[")[2].partition("]")[0]
    if host.startswith("v"):
        if not _FUTURE_ADDRESS.fullmatch(host):
            raise ValueError("IPvFuture address is invalid")
    elif ipaddress.ip_address(host).version == 4:
        raise ValueError("An IPv4 address cannot be in brackets")


def _check_normalised(location: str) -> None:
    plain = location.translate(str.maketrans("", "", "@:#?"))
    normalised = unicodedata.normalize("NFKC", plain)
    if plain != normalised and any(character in normalised for character in "/?#@:"):
        raise ValueError("The host name changes its meaning under NFKC normalisation")
