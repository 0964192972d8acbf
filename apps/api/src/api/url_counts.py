"""How often URLs were measured, in a few bytes each.

A worker remembers thousands of networks with thousands of URLs each. So a URL is a number, the same in every version of
the lists that the worker has had, and counts are two arrays.
"""

import threading
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence


class UrlNumbers:
    """Numbers for URLs from 0 on, never given up: lists change by a few URLs a day."""

    def __init__(self) -> None:
        """Begin without any URL."""
        self._numbers: dict[str, int] = {}
        self._lock = threading.Lock()

    def of(self, urls: Iterable[str]) -> list[int]:
        """Return the number of each URL; new ones get the next free ones."""
        numbers = self._numbers
        with self._lock:
            return [numbers.setdefault(url, len(numbers)) for url in urls]


class Counts:
    """Counts above 0 by the number of a URL: two arrays, in ascending order of the number. Immutable."""

    __slots__ = ("counts", "numbers")

    def __init__(self, counts: Mapping[int, int]) -> None:
        """Take `counts` by the number of a URL."""
        numbers = sorted(number for number, count in counts.items() if count > 0)
        self.numbers = compact(numbers)
        self.counts = compact([counts[number] for number in numbers])

    def __len__(self) -> int:
        """Return how many URLs were measured at all."""
        return len(self.numbers)

    def same(self, other: "Counts") -> bool:
        """Return whether every URL has the same count in both."""
        return self.numbers == other.numbers and self.counts == other.counts

    def of(self, number: int) -> int:
        """Return the count of a URL, 0 when it was not measured."""
        at = bisect_left(self.numbers, number)
        return self.counts[at] if at < len(self.numbers) and self.numbers[at] == number else 0

    def items(self) -> Iterator[tuple[int, int]]:
        """Return number and count of each URL that was measured."""
        return zip(self.numbers, self.counts, strict=True)

    def plus(self, other: "Counts") -> "Counts":
        """Return the sums."""
        total = dict(self.items())
        for number, count in other.items():
            total[number] = total.get(number, 0) + count
        return Counts(total)

    def size(self) -> int:
        """Return the memory that this takes, in bytes."""
        return size(self.numbers) + size(self.counts)


def compact(values: Sequence[int]) -> "array[int]":
    """Return `values`, whole numbers from 0 on, in an array of as few bytes as the greatest of them allows."""
    greatest = max(values, default=0)
    code = next(code for code in "BHIQ" if greatest < 256 ** array(code).itemsize)
    return array(code, values)


def size(numbers: "array[int]") -> int:
    """Return the memory that an array takes, in bytes."""
    return 80 + numbers.itemsize * len(numbers)


NONE = Counts({})
