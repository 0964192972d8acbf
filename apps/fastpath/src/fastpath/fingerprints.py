"""Fingerprints of blocking: what they look like, how they are read, which of them can be used.

    load_files(directory) -> FingerprintSet         fingerprints_dns.json and fingerprints_http.json
    from_rows(dns_rows, http_rows) -> FingerprintSet    mappings with the eight columns (a database cursor's rows)

A fingerprint that cannot be used is never dropped silently: it is listed in `FingerprintSet.refused` (and, for patterns
that only the compiler can judge, in `Matcher.refused`) with a sentence that names it.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

PATTERN_TYPES = frozenset({"full", "prefix", "contains", "regexp"})
IMPLEMENTED_PAIRS = frozenset(
    {
        ("dns", "full"),
        ("body", "contains"),
        ("body", "full"),
        ("body", "regexp"),
        ("header", "full"),
        ("header", "prefix"),
        ("header", "contains"),
        ("header", "regexp"),
    }
)
"""Every (location, pattern type) that the matcher implements; `header` stands for any `header.<name>`."""

DNS_FILE = "fingerprints_dns.json"
HTTP_FILE = "fingerprints_http.json"

_COLUMNS = (
    "name",
    "scope",
    "other_names",
    "location_found",
    "pattern_type",
    "pattern",
    "expected_countries",
)


class FingerprintError(ValueError):
    """A fingerprint list cannot be read at all, or one fingerprint cannot be used; the message names it."""


class Fingerprint(msgspec.Struct, frozen=True):
    """One fingerprint; `expected_countries` is parsed, sorted and upper-case."""

    name: str
    scope: str
    location_found: str
    pattern_type: str
    pattern: str
    confidence_no_fp: int
    expected_countries: tuple[str, ...]
    other_names: str = ""

    def listing(self) -> dict[str, Any]:
        """Return what a match records under `scores.fingerprints` (the wire contract, 4.4)."""
        return {
            "name": self.name,
            "scope": self.scope,
            "location_found": self.location_found,
            "confidence_no_fp": self.confidence_no_fp,
            "expected_countries": list(self.expected_countries),
        }

    def confirms(self, probe_cc: str) -> bool:
        """Tell whether a match in the country `probe_cc` (upper-case) confirms blocking (4.5).

        National and provider block pages confirm anywhere; all others only where they are expected.
        """
        return self.scope in ("isp", "nat") or (probe_cc != "ZZ" and probe_cc in self.expected_countries)

    @property
    def locality(self) -> str:
        """The score key that a confirmed match sets to 1.0 (4.5)."""
        return _LOCALITIES.get(self.scope, "blocking_general")


_LOCALITIES = {"nat": "blocking_country", "isp": "blocking_isp", "inst": "blocking_local"}


class Refusal(msgspec.Struct, frozen=True):
    """A fingerprint that is not used: its name and a sentence saying why and what to do."""

    name: str
    message: str


class FingerprintSet(msgspec.Struct, frozen=True):
    """The usable fingerprints of both lists, in the order of the source, and the refused ones."""

    dns: tuple[Fingerprint, ...]
    http: tuple[Fingerprint, ...]
    refused: tuple[Refusal, ...] = ()


def parse_countries(text: str) -> tuple[str, ...]:
    """Return the country codes of a comma list: upper-case, without blanks and "ZZ", each once, sorted (4.2)."""
    codes = {code.upper() for code in text.strip().split(",")}
    return tuple(sorted(codes - {"", "ZZ"}))


def parse_fingerprint(row: Mapping[str, Any], locations: Iterable[str]) -> Fingerprint:
    """Return the fingerprint of one row; `locations` are the kinds that its list may hold.

    Raises:
        FingerprintError: a column is missing or has another type, or the (location, pattern type) pair is not one of
            `IMPLEMENTED_PAIRS`.
    """
    name = row.get("name")
    if not isinstance(name, str) or not name:
        raise FingerprintError("A fingerprint has no name. Give it one in its source list.")
    for column in _COLUMNS:
        if not isinstance(row.get(column), str):
            raise FingerprintError(f"Fingerprint {name}: column {column} is not text. Correct it in its source list.")
    confidence = row.get("confidence_no_fp")
    if type(confidence) is not int:
        raise FingerprintError(
            f"Fingerprint {name}: confidence_no_fp is not an integer. Correct it in its source list."
        )
    location, pattern_type, pattern = row["location_found"], row["pattern_type"], row["pattern"]
    header = location.removeprefix("header.")
    kind = "header" if header and header != location else location
    if kind not in locations or (kind, pattern_type) not in IMPLEMENTED_PAIRS:
        raise FingerprintError(
            f"Fingerprint {name}: pattern type {pattern_type!r} at location {location!r} is not implemented in this "
            "list. Use one of the pairs in the scoring reference."
        )
    if not pattern:
        raise FingerprintError(f"Fingerprint {name}: the pattern is empty and would match everything. Write one.")
    return Fingerprint(
        name=name,
        scope=row["scope"],
        location_found=location,
        pattern_type=pattern_type,
        pattern=pattern,
        confidence_no_fp=confidence,
        expected_countries=parse_countries(row["expected_countries"]),
        other_names=row["other_names"],
    )


def from_rows(dns_rows: Iterable[Mapping[str, Any]], http_rows: Iterable[Mapping[str, Any]]) -> FingerprintSet:
    """Read both lists from rows with the eight columns of the fingerprint tables; unusable rows are refused."""
    refused: list[Refusal] = []
    dns = _usable(dns_rows, ("dns",), refused)
    http = _usable(http_rows, ("body", "header"), refused)
    return FingerprintSet(dns, http, tuple(refused))


def load_files(directory: Path) -> FingerprintSet:
    """Read `fingerprints_dns.json` and `fingerprints_http.json` (arrays of objects) in `directory`.

    Raises:
        FingerprintError: a file is missing or is not a JSON array of objects.
    """
    return from_rows(_rows(directory / DNS_FILE), _rows(directory / HTTP_FILE))


def _rows(path: Path) -> list[dict[str, Any]]:
    try:
        rows = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise FingerprintError(f"The fingerprints in {path} cannot be read: {error}. Restore the file.") from None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise FingerprintError(f"The fingerprints in {path} are not a JSON array of objects. Restore the file.")
    return rows


def _usable(
    rows: Iterable[Mapping[str, Any]], locations: tuple[str, ...], refused: list[Refusal]
) -> tuple[Fingerprint, ...]:
    usable = []
    for row in rows:
        try:
            usable.append(parse_fingerprint(row, locations))
        except FingerprintError as error:  # a refused one must not cost the others
            refused.append(Refusal(str(row.get("name")), str(error)))
    return tuple(usable)
