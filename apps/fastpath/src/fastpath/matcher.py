"""All fingerprints compiled once, so that a measurement is scanned once and not once per fingerprint.

    matcher = Matcher(fingerprint_set, mode="declared")
    matcher.dns("203.0.113.10")      -> tuple of Fingerprint
    matcher.body(text or bytes)      -> list of Fingerprint
    matcher.headers(mapping)         -> list of Fingerprint
    matcher.refused                  -> what is not used, with sentences; log them when a list is loaded

A Matcher is immutable and may be used by many threads (scan space is kept per thread); to refresh, build another and
swap the reference.

Modes:

* "reference" equals the original system bug for bug: any pattern in a body is a literal substring, whatever its type;
  in headers only `full` and `prefix` work, `contains` and `regexp` never match.
* "declared" (the default) does what the authors of the lists meant: `full` is the whole text, `regexp` a search with
  `.` standing for any character including line ends, and all four types work in headers.

The engines are in automaton.py; their time is linear in the text.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Literal

import msgspec

from fastpath.automaton import LiteralSet, PrefixSet, RegexpSet, encode, is_utf8, regexp_problem
from fastpath.expressions import literal_sequence, required_literal
from fastpath.fingerprints import PATTERN_TYPES, Fingerprint, FingerprintSet, Refusal
from fastpath.shape import decode_base64

Mode = Literal["reference", "declared"]
MODES: tuple[Mode, ...] = ("declared", "reference")


_ALWAYS = -1
"""Stands for the literal of a regular expression that has none."""


class _Rules:
    """The fingerprints of one place (the body, or one header), arranged by how they are looked up."""

    def __init__(self, fingerprints: Sequence[Fingerprint]) -> None:
        by_type = {kind: [f for f in fingerprints if f.pattern_type == kind] for kind in PATTERN_TYPES}
        self._full = group_by_pattern(by_type["full"])
        self._full_lengths = frozenset(map(len, self._full))
        self._full_sizes = frozenset(len(encode(pattern)) for pattern in self._full)
        self._prefix = group_by_pattern(by_type["prefix"])
        self._prefixes = PrefixSet(self._prefix) if self._prefix else None
        searched = group_by_pattern(by_type["regexp"])
        required = {pattern: required_literal(pattern) for pattern in searched}
        contained: dict[str, tuple[Fingerprint, ...]] = {text: () for text in required.values() if text is not None}
        contained.update(group_by_pattern(by_type["contains"]))
        self._contained = tuple(contained.values())
        self._literals = LiteralSet([encode(text) for text in contained]) if contained else None
        # A regular expression is tried where the literal that it needs has been found, or always if it needs none.
        numbers = {text: number for number, text in enumerate(contained)}
        self._searches: dict[int, list[_Search]] = {}
        for pattern, group in searched.items():
            text = required[pattern]
            self._searches.setdefault(_ALWAYS if text is None else numbers[text], []).append(_Search(pattern, group))
        self.has_prefixes = bool(self._prefix)

    def match_text(self, text: str) -> list[Fingerprint]:
        """Return the fingerprints that match `text`, each once."""
        matches: list[Fingerprint] = []
        if len(text) in self._full_lengths:  # before a lookup, which would read all of a long text to hash it
            matches.extend(self._full.get(text, ()))
        if self._prefixes is not None:
            for pattern in self._prefixes.find(text):
                matches.extend(self._prefix[pattern])
        if self._literals is not None or self._searches:
            try:
                data, valid = text.encode(), True
            except UnicodeEncodeError:
                data, valid = encode(text), False
            self._scan(data, matches, valid=valid)
        return matches

    def match_bytes(self, data: bytes) -> list[Fingerprint]:
        """Return the fingerprints of the types contains, full and regexp that match `data`, each once, as UTF-8."""
        matches: list[Fingerprint] = []
        if len(data) in self._full_sizes:
            # Bytes that are no UTF-8 become lone surrogates, which no pattern holds.
            matches.extend(self._full.get(data.decode("utf-8", "surrogateescape"), ()))
        self._scan(data, matches, valid=None)
        return matches

    def _scan(self, data: bytes, matches: list[Fingerprint], *, valid: bool | None) -> None:
        """Add what is found in `data`; `valid` tells whether it is UTF-8, None that this is not known."""
        hits = [] if self._literals is None else self._literals.find(data)
        searches = self._searches
        if not hits and _ALWAYS not in searches:
            return
        for number in hits:
            matches.extend(self._contained[number])
        if not searches:
            return
        for number in (*hits, _ALWAYS):
            for search in searches.get(number, ()):
                if valid is None:
                    valid = is_utf8(data)
                if search.found_in(data, is_utf8=valid):
                    matches.extend(search.fingerprints)


class _Search:
    """A regular expression in a body or header; one of literals and `.*` only is looked for without an engine."""

    def __init__(self, pattern: str, fingerprints: tuple[Fingerprint, ...]) -> None:
        self.fingerprints = fingerprints
        sequence = literal_sequence(pattern)
        self._sequence = None if sequence is None else tuple(map(encode, sequence))
        self._regexp = RegexpSet([pattern]) if sequence is None else None

    def found_in(self, data: bytes, *, is_utf8: bool) -> bool:
        """Tell whether the expression is found in `data`."""
        if self._regexp is not None:
            return bool(self._regexp.find(data, is_utf8=is_utf8))
        position = 0
        for part in self._sequence or ():
            position = data.find(part, position)
            if position < 0:
                return False
            position += len(part)
        return True


class Matcher:
    """The compiled fingerprints; see the module's description."""

    def __init__(self, fingerprints: FingerprintSet, mode: Mode = "declared") -> None:
        self.mode: Mode = mode
        http, refused = _without_bad_regexps(fingerprints.http) if mode == "declared" else (fingerprints.http, [])
        self.refused: tuple[Refusal, ...] = (*fingerprints.refused, *refused)
        """Fingerprints that are not used, each with a sentence."""
        self.dns_count = len(fingerprints.dns)
        self.http_count = len(http)
        self._dns = group_by_pattern(fingerprints.dns)
        body = [f for f in http if f.location_found == "body"]
        headers: dict[str, list[Fingerprint]] = {}
        for fingerprint in http:
            if fingerprint.location_found.startswith("header."):
                name = fingerprint.location_found.removeprefix("header.")
                headers.setdefault(name.lower() if mode == "declared" else name, []).append(fingerprint)
        if mode == "reference":
            # There the type of a body pattern is not looked at, and two types do nothing in headers.
            body = [msgspec.structs.replace(f, pattern_type="contains") for f in body]
            headers = {
                name: [f for f in group if f.pattern_type in ("full", "prefix")] for name, group in headers.items()
            }
        self._body = _Rules(body)
        self._headers = {name: _Rules(group) for name, group in headers.items()}

    def dns(self, address: str) -> tuple[Fingerprint, ...]:
        """Return the DNS fingerprints whose pattern is exactly `address` (an IP address or a host name)."""
        return self._dns.get(address, ())

    def body(self, body: str | bytes) -> list[Fingerprint]:
        """Return the fingerprints that match an HTTP response body, each once."""
        if not body:  # no pattern is empty or matches nothing at all
            return []
        return self._body.match_text(body) if isinstance(body, str) else self._body.match_bytes(body)

    def headers(self, headers: Mapping[str, Any]) -> list[Fingerprint]:
        """Return the fingerprints that match HTTP response headers (name to text or binary object).

        Names are compared without letter case; of names equal in that sense the last counts. Binary objects
        (`{"format": "base64", "data": ...}`) are read as Latin-1. Values of other types match nothing.

        Raises:
            ShapeError, Base64Error: a binary object cannot be decoded.
        """
        rules = self._headers
        values = {}
        for name in headers:
            lower = name.lower()
            if lower in rules:
                values[lower] = headers[name]
        matches: list[Fingerprint] = []
        for name, value in values.items():
            if type(value) is str:
                matches.extend(rules[name].match_text(value))
            elif type(value) is dict and value.get("format") == "base64":
                matches.extend(self._binary_header(rules[name], value))
        return matches

    def _binary_header(self, rules: _Rules, value: Mapping[str, Any]) -> list[Fingerprint]:
        if self.mode == "reference" and not rules.has_prefixes:
            return []
        text = decode_base64(value.get("data", ""), "test_keys.requests.response.headers").decode("latin-1")
        matches = rules.match_text(text)
        if self.mode == "reference":
            # There a full pattern is compared with the object itself, which it never equals.
            return [f for f in matches if f.pattern_type == "prefix"]
        return matches


def group_by_pattern(fingerprints: Iterable[Fingerprint]) -> dict[str, tuple[Fingerprint, ...]]:
    """Return the fingerprints by pattern; several lists may know the same pattern under different names."""
    groups: dict[str, list[Fingerprint]] = {}
    for fingerprint in fingerprints:
        groups.setdefault(fingerprint.pattern, []).append(fingerprint)
    return {pattern: tuple(group) for pattern, group in groups.items()}


def _without_bad_regexps(fingerprints: Iterable[Fingerprint]) -> tuple[tuple[Fingerprint, ...], list[Refusal]]:
    good, refused = [], []
    for fingerprint in fingerprints:
        problem = regexp_problem(fingerprint.pattern) if fingerprint.pattern_type == "regexp" else None
        if problem is None:
            good.append(fingerprint)
        else:
            message = f"Fingerprint {fingerprint.name}: the regular expression is not used: {problem}"
            refused.append(Refusal(fingerprint.name, message))
    return tuple(good), refused
