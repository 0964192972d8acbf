"""Engines that look for many patterns at once: literals, prefixes, regular expressions.

Literals and regular expressions run on Hyperscan, whose time is linear in the text. Where it cannot be imported,
literals fall back to a plain loop with the same results, and regular expressions are refused rather than given to a
backtracking engine.
"""

import re
import threading
from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any

try:
    import hyperscan
except ImportError:  # pragma: no cover - platforms without a wheel
    HAVE_HYPERSCAN = False
else:
    HAVE_HYPERSCAN = True


def _collect(ident: int, _start: int, _end: int, _flags: int, hits: Any) -> None:
    hits.append(ident)


class _Scanner:
    """A Hyperscan database with one scratch space per thread, which is what the library demands."""

    def __init__(self, patterns: Sequence[bytes], flags: int, *, literal: bool) -> None:
        self._database = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
        # Every pattern reports once; its number comes back to `_collect`.
        self._database.compile(
            expressions=patterns,
            ids=list(range(len(patterns))),
            flags=flags | hyperscan.HS_FLAG_SINGLEMATCH,
            literal=literal,
        )
        self._local = threading.local()

        self._scan = self._database.scan

    def scan(self, data: bytes) -> list[int]:
        """Return the numbers of the patterns found, ascending."""
        try:
            scratch = self._local.scratch
        except AttributeError:
            scratch = self._local.scratch = hyperscan.Scratch(self._database)
        hits: list[int] = []
        # By position (data, handler, flags, context, scratch): names would triple the time of a short text.
        self._scan(data, _collect, 0, hits, scratch)
        if len(hits) > 1:
            hits.sort()
        return hits


class LiteralSet:
    """Finds which of many byte strings occur in a text; equal to `[i for i, p in enumerate(patterns) if p in text]`."""

    def __init__(self, patterns: Sequence[bytes], *, use_automaton: bool = True) -> None:
        self._patterns = tuple(patterns)
        # The library takes literals as C strings, so one with a NUL byte would be cut there.
        plain = [i for i, pattern in enumerate(patterns) if b"\0" in pattern]
        scanned = [i for i, pattern in enumerate(patterns) if b"\0" not in pattern]
        self.find: Callable[[bytes], list[int]] = self._find_plain
        """Return the indices of the patterns that occur in a text, ascending."""
        self._plain = tuple(range(len(patterns)))
        if use_automaton and HAVE_HYPERSCAN and scanned:
            scanner = _Scanner([patterns[i] for i in scanned], 0, literal=True)
            self._plain, self._scanned, self._scan = tuple(plain), tuple(scanned), scanner.scan
            self.find = self._find_both if plain else scanner.scan

    def _find_plain(self, text: bytes) -> list[int]:
        return [i for i in self._plain if self._patterns[i] in text]

    def _find_both(self, text: bytes) -> list[int]:
        return sorted([self._scanned[i] for i in self._scan(text)] + self._find_plain(text))


class PrefixSet:
    """Finds which of many strings a text starts with, with one binary search.

    Of all patterns that sort at or before the text, the last one either is a prefix of it or starts with every pattern
    that is; so the answers are on the chain from that pattern to its own longest prefix, and so on.
    """

    def __init__(self, patterns: Iterable[str]) -> None:
        self._sorted = sorted(set(patterns))
        self._parents: list[int] = []
        for number, pattern in enumerate(self._sorted):
            parent = number - 1
            while parent >= 0 and not pattern.startswith(self._sorted[parent]):
                parent = self._parents[parent]
            self._parents.append(parent)

    def find(self, text: str) -> list[str]:
        """Return the patterns that `text` starts with, shortest first."""
        found = []
        number = bisect_right(self._sorted, text) - 1
        while number >= 0:
            if text.startswith(self._sorted[number]):
                found.append(self._sorted[number])
            number = self._parents[number]
        found.reverse()
        return found


class RegexpSet:
    """Searches a text for many regular expressions in one linear pass.

    `.` stands for any character, line ends included: a character of UTF-8, or a byte in data that is no UTF-8, which
    scanning as UTF-8 would leave undefined.

    Raises:
        hyperscan.error: an expression is not one of the engine's; see `regexp_problem`.
    """

    def __init__(self, patterns: Sequence[str]) -> None:
        encoded = [encode(pattern) for pattern in patterns]
        dot_all = hyperscan.HS_FLAG_DOTALL
        self._of_text = _Scanner(encoded, dot_all | hyperscan.HS_FLAG_UTF8, literal=False)
        self._of_bytes = _Scanner(encoded, dot_all, literal=False)

    def find(self, data: bytes, *, is_utf8: bool) -> list[int]:
        """Return the indices of the expressions found in `data`, ascending."""
        return (self._of_text if is_utf8 else self._of_bytes).scan(data)


def byte_search(pattern: str) -> Callable[[bytes], bool]:
    """Return a function that tells whether a simple regular expression of our own occurs in bytes."""
    if HAVE_HYPERSCAN:
        compiled = RegexpSet([pattern])
        return lambda data: bool(compiled.find(data, is_utf8=False))
    expression = re.compile(encode(pattern), re.DOTALL)
    return lambda data: expression.search(data) is not None


def encode(text: str) -> bytes:
    """Return UTF-8; a lone surrogate, which JSON strings may hold, becomes three bytes that nothing else encodes to."""
    return text.encode("utf-8", "surrogatepass")


def is_utf8(data: bytes) -> bool:
    """Tell whether `data` is valid UTF-8."""
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def regexp_problem(pattern: str) -> str | None:
    """Return why a regular expression cannot be used, as the end of a sentence; None when it can."""
    if not HAVE_HYPERSCAN:
        return "no engine with linear time is installed. Install the package hyperscan."
    if "\0" in pattern:
        return "it holds a NUL character. Write \\x00."
    try:
        RegexpSet([pattern])
    except hyperscan.error as error:
        return f"{error} Write it without this construct."
    return None
