"""Where people may be led after the login: addresses of web interfaces that the operator named, and no others.

An address is taken apart by one strict pattern and not by a parser of URLs: browsers and parsers disagree about
backslashes, user names, control characters and the like, and whoever finds such an address gets somebody else's token.
"""

import re

LONGEST = 800
"""Longest address to be led to, in characters; it is in the link that is mailed."""

# Nothing that a browser would read in another way: no space, quote, angle bracket, backslash, control character, and
# nothing that is not ASCII.
_ADDRESS = re.compile(
    r"(https?)://([0-9a-z.-]{1,253}|\[::1\])(:[1-9][0-9]{0,4})?(?:[/?#][!#-;=?-\[\]-~]*)?", re.ASCII | re.IGNORECASE
)
_HOST = re.compile(r"[0-9a-z-]{1,63}(?:\.[0-9a-z-]{1,63})*(?::[1-9][0-9]{0,4})?", re.ASCII)
_LOCAL_ORIGIN = re.compile(r"http://(?:localhost|127\.0\.0\.1|\[::1\])(?::[1-9][0-9]{0,4})?", re.ASCII)


class RedirectHosts:
    """The web interfaces that people may be led to."""

    def __init__(self, entries: tuple[str, ...]) -> None:
        """Take names of hosts, perhaps with a port, for https, and origins like http://localhost:3000 for this machine.

        Raises:
            ValueError: naming what is neither.
        """
        self._origins = frozenset(_origin_of_entry(entry) for entry in entries)

    def origin_of(self, address: str) -> str | None:
        """Return the scheme, host and port of an address that people may be led to, None for any other one."""
        match = _ADDRESS.fullmatch(address) if len(address) <= LONGEST else None
        if match is None:
            return None
        scheme, host, port = match[1].lower(), match[2].lower(), match[3] or ""
        origin = _without_usual_port(f"{scheme}://{host}{port}")
        return origin if origin in self._origins else None


def _origin_of_entry(entry: str) -> str:
    if _LOCAL_ORIGIN.fullmatch(entry):
        return _without_usual_port(entry)
    if _HOST.fullmatch(entry):
        return _without_usual_port(f"https://{entry}")
    raise ValueError(
        f"it holds {entry!r}; write a host in lower case like explorer.example.org, or http://localhost:3000 for a web "
        "interface on this machine"
    )


def _without_usual_port(origin: str) -> str:
    return origin.removesuffix(":443" if origin.startswith("https:") else ":80")
