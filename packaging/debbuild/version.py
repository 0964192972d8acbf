"""Versions: `<semver>~pr<number>-<build>`, the first part from the package's changelog.

`~` sorts before everything, so a bare `<semver>` would be newer than all of its builds; `dpkg --compare-versions`
orders by semver, then number of the pull request, then build. Packages for another release than Debian 12 get its name
appended, because they hold other files.
"""

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import formatdate, parsedate_to_datetime
from pathlib import Path

BASE_RELEASE = "12"

_HEAD = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9+.-]+) \((?P<version>[0-9]+\.[0-9]+(?:\.[0-9]+)?)\) [a-z-]+; urgency=[a-z]+"
)
_TRAILER = re.compile(r" -- (?P<maintainer>[^<>]+ <[^<>]+>)  (?P<date>.+)")
_NUMBER = re.compile(r"[0-9]{1,9}")


class VersionError(Exception):
    """The changelog or the environment does not give a version; the text says what to change."""


@dataclass(frozen=True, slots=True)
class Changelog:
    """The newest entry of a changelog, and the whole text."""

    name: str
    semver: str
    maintainer: str
    timestamp: int
    text: str


def read_changelog(path: Path) -> Changelog:
    """Read a changelog in Debian's form. Raises VersionError."""
    text = path.read_text("utf-8")
    head = _HEAD.fullmatch(text.partition("\n")[0])
    trailer = next((match for line in text.splitlines() if (match := _TRAILER.fullmatch(line))), None)
    if head is None or trailer is None:
        raise VersionError(
            f"{path} must begin like `fastpath (0.6) bookworm; urgency=medium`, with a version of two or three "
            "numbers, and its entry must end like ` -- Name <address>  Tue, 24 Nov 2026 12:00:00 +0000`."
        )
    try:
        timestamp = int(parsedate_to_datetime(trailer["date"]).timestamp())
    except ValueError as error:
        raise VersionError(f"{path}: {trailer['date']} is not a date as in e-mail. Write it like `date -R`.") from error
    return Changelog(head["name"], head["version"], trailer["maintainer"], timestamp, text)


def full_version(semver: str, environ: Mapping[str, str], release: str = BASE_RELEASE) -> str:
    """The version of this build, from PR and BUILD in the environment (0 without). Raises VersionError."""
    numbers = {}
    for variable in ("PR", "BUILD"):
        value = environ.get(variable) or "0"
        if not _NUMBER.fullmatch(value):
            raise VersionError(f"{variable} is {value!r}; set it to a number, or leave it out.")
        numbers[variable] = int(value)
    suffix = "" if release == BASE_RELEASE else f"+deb{release}"
    return f"{semver}~pr{numbers['PR']}-{numbers['BUILD']}{suffix}"


def build_changelog(changelog: Changelog, version: str, commit: str, timestamp: int) -> str:
    """The changelog with an entry for this build on top."""
    source = f"commit {commit}" if commit else "a tree without commits"
    return (
        f"{changelog.name} ({version}) bookworm; urgency=medium\n\n  * Build of {source}.\n\n"
        f" -- {changelog.maintainer}  {formatdate(timestamp)}\n\n{changelog.text}"
    )


def source_date(environ: Mapping[str, str], changelog: Changelog) -> int:
    """The time that all files of the package bear: SOURCE_DATE_EPOCH, else the changelog's, never the future."""
    value = environ.get("SOURCE_DATE_EPOCH") or str(changelog.timestamp)
    if not value.isdigit():
        raise VersionError(f"SOURCE_DATE_EPOCH is {value!r}; set it to seconds since 1970, or leave it out.")
    return min(int(value), int(time.time()))
