"""Test lists: the URLs that probes are asked to measure, in the public CSV form.

A directory `lists/` holds one file per country, `it.csv`, and `global.csv` for the URLs of all countries. The columns
are url, category_code, category_description, date_added, source, notes; the first two are used. A line that cannot be
used is told as a `Problem` and costs no other line.
"""

import csv
import io
import ipaddress
import re
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import IO, NamedTuple
from urllib.parse import urlsplit

GLOBAL = "ZZ"
"""Country of the list that is for all countries."""

SAMPLE = Path(__file__).parent / "data" / "test-lists"
"""A small list of documentation domains, for a stack without any other."""

# fmt: off
CATEGORIES = frozenset({
    "ALDR", "REL", "PORN", "PROV", "POLR", "HUMR", "ENV", "MILX", "HATE", "NEWS", "XED", "PUBH", "GMB", "ANON", "DATE",
    "GRP", "LGBT", "FILE", "HACK", "COMT", "MMED", "HOST", "SRCH", "GAME", "CULTR", "ECON", "GOVT", "COMM", "CTRL",
    "IGO", "MISC",
})
# fmt: on
"""The category codes that a URL may have."""

MAX_URL_BYTES = 2000
MAX_FILE_BYTES = 64 * 1024 * 1024
"""Far above what a list has; a larger file is no list."""

_FILE_NAME = re.compile(r"(global|[a-z]{2})\.csv", re.ASCII)
_HOST = re.compile(r"(?=.{1,253}\Z)[^\W_]([\w-]{0,61}[^\W_])?(\.[^\W_]([\w-]{0,61}[^\W_])?)+\.?")
_UNPRINTABLE = re.compile(r"[\x00-\x20\x7f\\\ud800-\udfff]")


class ListError(Exception):
    """There is nothing to read; the text says what was expected."""


class Entry(NamedTuple):
    """One URL of one list. `domain`: network location of the URL; `cc`: `ZZ` or a country in lower case."""

    domain: str
    url: str
    cc: str
    category_code: str


class Problem(NamedTuple):
    """A line that was not used, and why."""

    file: str
    line: int
    reason: str

    def __str__(self) -> str:
        """Return it as compilers tell theirs: file, line, reason."""
        return f"{self.file}:{self.line}: {self.reason}"


@dataclass(slots=True)
class Lists:
    """What was read: usable entries in the order of the files, and what was not usable. `countries`: lists seen."""

    entries: list[Entry] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    countries: set[str] = field(default_factory=set)


def read_lists(source: Path) -> Lists:
    """Read the lists of a directory (itself or its `lists/`), or of a .zip or .tar archive that holds `lists/`.

    Raises:
        ListError: no list is there, or the archive is damaged.
        OSError: it cannot be read.
    """
    found = Lists()
    try:
        for name, file in _files(source):
            data = file.read(MAX_FILE_BYTES + 1)
            if len(data) > MAX_FILE_BYTES:
                raise ListError(f"{name} is larger than {MAX_FILE_BYTES // 1024**2} MiB, so it is no test list.")
            stem = PurePosixPath(name).stem
            read_list(data, name, GLOBAL if stem == "global" else stem, found)
    except (tarfile.TarError, zipfile.BadZipFile, EOFError) as error:
        raise ListError(f"{source.name} is no whole archive: {error}. Fetch it again.") from error
    if not found.countries:
        raise ListError(
            f"{source} holds no test list. Name a directory or an archive (.zip, .tar, .tar.gz) with files such as "
            "lists/global.csv and lists/it.csv."
        )
    return found


def _files(source: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """The list files of `source` by name, in alphabetical order."""
    if source.is_dir():
        directory = source / "lists" if (source / "lists").is_dir() else source
        for path in sorted(directory.glob("*.csv")):
            if _FILE_NAME.fullmatch(path.name):
                with path.open("rb") as file:
                    yield path.name, file
    elif zipfile.is_zipfile(source):
        with zipfile.ZipFile(source) as archive:
            for name in sorted(filter(_in_lists, archive.namelist())):
                with archive.open(name) as file:
                    yield PurePosixPath(name).name, file
    else:
        with tarfile.open(source) as archive:
            members = [member for member in archive.getmembers() if member.isfile() and _in_lists(member.name)]
            for member in sorted(members, key=lambda member: member.name):
                opened = archive.extractfile(member)
                assert opened is not None
                yield PurePosixPath(member.name).name, opened


def _in_lists(name: str) -> bool:
    path = PurePosixPath(name)
    return path.parent.name == "lists" and _FILE_NAME.fullmatch(path.name) is not None


def read_list(data: bytes, name: str, cc: str, into: Lists) -> None:
    """Add the list of one country to `into`; `name` is what problems are told under."""
    into.countries.add(cc)
    # Bytes that are no UTF-8 become lone surrogates, which only their own line is refused for.
    text = data.decode("utf-8-sig", "surrogateescape")
    reader = csv.reader(io.StringIO(text, newline=""), strict=True)
    columns: list[str] | None = None
    seen: dict[str, int] = {}
    while True:
        line = reader.line_num + 1
        try:
            row = next(reader)
        except StopIteration:
            break
        except csv.Error as error:
            into.problems.append(Problem(name, line, f"not CSV: {error}; look for a quote that is not closed"))
            continue
        if columns is None:
            columns = [column.strip() for column in row]
            if "url" not in columns or "category_code" not in columns:
                into.problems.append(Problem(name, line, "the first line does not name the columns url, category_code"))
                return
            continue
        if not any(row):
            continue
        problem = _add(row, columns, cc, seen, line, into.entries)
        if problem:
            into.problems.append(Problem(name, line, problem))


def _add(
    row: list[str], columns: list[str], cc: str, seen: dict[str, int], line: int, entries: list[Entry]
) -> str | None:
    """Add one line to `entries`, or return why it is not usable."""
    if len(row) != len(columns):
        return f"{len(row)} columns instead of {len(columns)}"
    values = dict(zip(columns, row, strict=True))
    url, category = values["url"].strip(" "), values["category_code"].strip(" ")
    if category not in CATEGORIES:
        return f"unknown category {category[:20]!a}"
    try:
        domain = checked_domain(url)
    except ValueError as error:
        return str(error)
    if url in seen:
        return f"the URL is already in line {seen[url]}"
    seen[url] = line
    entries.append(Entry(domain, url, cc, category))
    return None


def checked_domain(url: str) -> str:
    """Return the network location of a URL that probes can measure.

    Raises:
        ValueError: it is none; the text says why.
    """
    if len(url.encode("utf-8", "surrogateescape")) > MAX_URL_BYTES:
        raise ValueError(f"the URL is longer than {MAX_URL_BYTES} bytes")
    if _UNPRINTABLE.search(url):
        raise ValueError("the URL holds blanks, control characters, backslashes or bytes that are no UTF-8")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise ValueError(f"not a URL: {error}") from error
    if parts.scheme not in {"http", "https"}:
        raise ValueError("the URL does not begin with http:// or https://")
    if "@" in parts.netloc or port == 0 or not (_HOST.fullmatch(host) or _is_address(host)):
        raise ValueError("the URL has no valid host name")
    return parts.netloc


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True
