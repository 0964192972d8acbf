"""How long calls took, and what went wrong with them."""

from array import array
from collections import Counter, defaultdict
from collections.abc import Sequence
from typing import Any

QUANTILES = (("p50_ms", 0.5), ("p95_ms", 0.95), ("p99_ms", 0.99))


class Latencies:
    """Durations of calls by their names, and broken rules by theirs."""

    def __init__(self) -> None:
        """Begin with nothing."""
        self._taken: defaultdict[str, array[float]] = defaultdict(lambda: array("d"))
        self.broken: Counter[str] = Counter()
        self._broken_calls: Counter[str] = Counter()

    def add(self, call: str, seconds: float) -> None:
        """Note a call that was answered, whatever the answer."""
        self._taken[call].append(seconds)

    def add_broken(self, call: str, rule: str) -> None:
        """Note that the answer to a call broke a rule."""
        self.broken[rule] += 1
        self._broken_calls[call] += 1

    @property
    def calls(self) -> int:
        """Number of calls that were answered."""
        return sum(len(taken) for taken in self._taken.values())

    def total(self) -> dict[str, Any]:
        """Return count and quantiles of all calls together, in milliseconds."""
        return _figures([seconds for taken in self._taken.values() for seconds in taken])

    def by_call(self) -> dict[str, dict[str, Any]]:
        """Return count, quantiles in milliseconds and number of broken rules of each call."""
        names = sorted(self._taken.keys() | self._broken_calls.keys())
        return {name: {**_figures(self._taken[name]), "broken": self._broken_calls[name]} for name in names}


def _figures(seconds: Sequence[float]) -> dict[str, Any]:
    ordered = sorted(seconds)
    last = len(ordered) - 1
    values = {
        name: round(ordered[min(last, int(len(ordered) * share))] * 1000, 1) if ordered else None
        for name, share in QUANTILES
    }
    return {"count": len(ordered), **values}
