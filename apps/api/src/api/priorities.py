"""How URLs are ranked for a probe: pure functions of lists, rules and counts.

The priority of a URL is the sum of the priorities of all rules that match it. Its weight is the priority divided by
the number of times that it was measured lately, at least 0.1. URLs are given out by falling weight, those without a
positive priority never; among equal weights the order is that of the candidates.
"""

from array import array
from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import ClassVar, NamedTuple

import msgspec

from api.url_counts import Counts, UrlNumbers, compact
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

    def __init__(
        self, own: Iterable[Entry], rules: Rules, cc: str, numbers: UrlNumbers, everywhere: "Candidates | None" = None
    ) -> None:
        """Take the entries of country `cc` (upper case) after those of the global list, `everywhere`."""
        self.rules = rules
        own = tuple(own)
        shared = everywhere.entries if everywhere else ()
        self.entries: tuple[Entry, ...] = shared + own
        self.urls: list[TestUrl] = [*(everywhere.urls if everywhere else ()), *map(_told, own)]
        self.priorities = [rules.priority(entry, cc) for entry in self.entries]
        own_numbers = numbers.of(entry.url for entry in own)
        self.url_numbers: array[int] = compact([*(everywhere.url_numbers if everywhere else ()), *own_numbers])
        """The number of the URL of each candidate."""
        own_by_url = {url_number: number for number, url_number in enumerate(own_numbers, len(shared))}
        self.by_url: tuple[Mapping[int, int], ...] = (*(everywhere.by_url if everywhere else ()), own_by_url)
        """For each list, the candidate by the number of its URL; a URL can be on both."""
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

    @cached_property
    def unmeasured(self) -> Mapping[str, list[Place]]:
        """The candidates with a positive priority by category, in order when nothing was measured yet.

        All networks share it.
        """
        ranked: dict[str, list[Place]] = {}
        for entry, priority, place in zip(self.entries, self.priorities, self.places, strict=True):
            if priority > 0:
                ranked.setdefault(entry.category_code, []).append(place)
        for places in ranked.values():
            places.sort()
        return ranked

    def measured(self, counts: Counts) -> "dict[str, array[int]]":
        """Return the candidates that were measured and have a positive priority by category, each in its order."""
        ranked: dict[str, list[int]] = {}
        for _, number in sorted(self._measured(counts)):
            ranked.setdefault(self.entries[number].category_code, []).append(number)
        return {category: compact(numbers) for category, numbers in ranked.items()}

    def in_order(self, counts: Counts) -> "array[int]":
        """Return all candidates with a positive priority by falling weight."""
        places = list(self._measured(counts))
        moved = {number for _, number in places}
        places += [place for ranked in self.unmeasured.values() for place in ranked if place[1] not in moved]
        places.sort()
        return compact([number for _, number in places])

    def _measured(self, counts: Counts) -> Iterator[Place]:
        for url_number, count in counts.items():
            for numbers in self.by_url:
                number = numbers.get(url_number)
                if number is not None and self.priorities[number] > 0:
                    yield -weight(self.priorities[number], count), number
