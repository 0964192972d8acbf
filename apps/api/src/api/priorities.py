"""How URLs are ranked for a probe: pure functions of lists, rules and counts.

The priority of a URL is the sum of the priorities of all rules that match it. Its weight is the priority divided by
the number of times that it was measured lately, at least 0.1. URLs are given out by falling weight, those without a
positive priority never; among equal weights the order is that of the candidates.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping
from functools import cached_property
from heapq import merge
from itertools import islice
from typing import ClassVar, NamedTuple

import msgspec

from core.testlists import GLOBAL, Entry

ANY = "*"
"""What a rule says for a field that does not matter; an empty text means the same."""

PROBES_SAY_FOR_GLOBAL = "XX"
LEAST_COUNT = 0.1


class Rule(NamedTuple):
    """One rule; the first four fields are compared with those of a URL, or are `*`. `priority` may be negative."""

    category_code: str
    cc: str
    domain: str
    url: str
    priority: int


class TestUrl(msgspec.Struct, frozen=True):
    """A URL as probes are told; `country_code` is in upper case, `XX` for the list of all countries."""

    __test__: ClassVar[bool] = False  # the name is no business of the test runner's

    category_code: str
    country_code: str
    url: str


Place = tuple[float, int]
"""Weight with the sign turned round, and number of the candidate: ascending order is the order of giving out."""

Ranked = Mapping[str, list[Place]]
"""The candidates with a positive priority by category, each category in its order of giving out."""


def weight(priority: int, count: float) -> float:
    """Return the weight of a URL that was measured `count` times."""
    return priority / max(count, LEAST_COUNT)


class Rules:
    """Rules, arranged so that the priority of a URL costs at most eight look-ups however many rules there are."""

    def __init__(self, rules: Iterable[Rule]) -> None:
        """Arrange `rules`."""
        self.rules = tuple(rules)
        self._sums: dict[tuple[str, str, str], dict[str, int]] = {}
        for rule in self.rules:
            by_country = self._sums.setdefault((_any(rule.category_code), _any(rule.domain), _any(rule.url)), {})
            cc = _any(rule.cc).upper()
            by_country[cc] = by_country.get(cc, 0) + rule.priority
        self.countries = frozenset(_any(rule.cc).upper() for rule in self.rules) - {ANY}
        """The countries that have rules of their own."""
        # Which fields are compared at all: rules for single URLs or domains are rare.
        self._shapes = sorted({(category != ANY, domain != ANY, url != ANY) for category, domain, url in self._sums})

    def considered(self, cc: str) -> list[Rule]:
        """Return the rules that can matter for country `cc` (upper case): its own, and those for any."""
        return [rule for rule in self.rules if _any(rule.cc).upper() in {ANY, cc}]

    def priority(self, entry: Entry, cc: str) -> int:
        """Return the priority of `entry` when it is served to country `cc` (upper case).

        The entry must be a candidate there: of its list or of the global one. A rule for the country counts for both.
        """
        total = 0
        for category, domain, url in self._shapes:
            key = (
                entry.category_code if category else ANY,
                entry.domain if domain else ANY,
                entry.url if url else ANY,
            )
            by_country = self._sums.get(key)
            if by_country:
                total += by_country.get(ANY, 0) + by_country.get(cc, 0)
        return total


def _any(field: str) -> str:
    return field or ANY


def _told(entry: Entry) -> TestUrl:
    return TestUrl(entry.category_code, PROBES_SAY_FOR_GLOBAL if entry.cc == GLOBAL else entry.cc.upper(), entry.url)


class Candidates:
    """What can be given to probes of one country: the global list, then its own, with priorities.

    A host serves some 250 countries, so what the global list has in common for all of them is held once.
    """

    def __init__(self, own: Iterable[Entry], rules: Rules, cc: str, everywhere: "Candidates | None" = None) -> None:
        """Take the entries of country `cc` (upper case) after those of the global list, `everywhere`."""
        self.rules = rules
        own = tuple(own)
        shared = everywhere.entries if everywhere else ()
        self.entries: tuple[Entry, ...] = shared + own
        self.urls: list[TestUrl] = [*(everywhere.urls if everywhere else ()), *map(_told, own)]
        self.priorities = [rules.priority(entry, cc) for entry in self.entries]
        self._everywhere = everywhere
        self._own_numbers: dict[str, int] = {}
        for number, entry in enumerate(own, len(shared)):
            self._own_numbers.setdefault(entry.url, number)
        places: list[Place] = list(everywhere.places) if everywhere else []
        for number, priority in enumerate(self.priorities):
            if number >= len(places):
                places.append((-weight(priority, 0), number))
            elif places[number][0] != -weight(priority, 0):
                places[number] = (-weight(priority, 0), number)
        self.places: list[Place] = places
        """Where each candidate comes when nothing was measured yet."""

    def __len__(self) -> int:
        """Return the number of candidates."""
        return len(self.entries)

    def numbers(self, url: str) -> Iterator[int]:
        """Return the candidates with this URL; it can be in both lists."""
        if self._everywhere is not None:
            yield from self._everywhere.numbers(url)
        number = self._own_numbers.get(url)
        if number is not None:
            yield number

    @cached_property
    def unmeasured(self) -> Ranked:
        """The order when nothing was measured yet; shared by all networks."""
        ranked: dict[str, list[Place]] = {}
        for entry, priority, place in zip(self.entries, self.priorities, self.places, strict=True):
            if priority > 0:
                ranked.setdefault(entry.category_code, []).append(place)
        for places in ranked.values():
            places.sort()
        return ranked

    def ranked(self, counts: Mapping[str, float]) -> Ranked:
        """Return the order when URLs were measured as often as `counts` says by URL."""
        measured: dict[str, list[Place]] = {}
        moved: set[int] = set()
        for url, count in counts.items():
            for number in self.numbers(url):
                priority = self.priorities[number]
                if count > LEAST_COUNT and priority > 0:
                    moved.add(number)
                    category = self.entries[number].category_code
                    measured.setdefault(category, []).append((-weight(priority, count), number))
        ranked = dict(self.unmeasured)
        for category, places in measured.items():
            merged = [place for place in self.unmeasured[category] if place[1] not in moved]
            merged += places
            merged.sort()
            ranked[category] = merged
        return ranked


def in_order(ranked: Ranked, categories: Collection[str], limit: int) -> Iterator[Place]:
    """Return the first `limit` places of the wanted categories (none wanted: all) by falling weight."""
    wanted = [ranked[category] for category in sorted(set(categories)) if category in ranked]
    return islice(merge(*(wanted if categories else ranked.values())), max(limit, 0))
