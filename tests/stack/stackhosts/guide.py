"""The commands of a document, as a reader would copy them."""

import re
from pathlib import Path

_BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_PLACE = re.compile(r"<([a-z]+)>")


def commands(document: Path) -> list[str]:
    """Return the lines of all shell blocks, in order."""
    return [line for block in _BLOCK.findall(document.read_text()) for line in block.splitlines() if line.strip()]


def places(lines: list[str]) -> set[str]:
    """Return the names of what a reader has to put in: foo for <foo>."""
    return {name for line in lines for name in _PLACE.findall(line)}


def fill_in(line: str, values: dict[str, str]) -> str:
    """Put in values for <foo>.

    Raises:
        KeyError: there is no value for one of them.
    """
    return _PLACE.sub(lambda match: values[match[1]], line)
