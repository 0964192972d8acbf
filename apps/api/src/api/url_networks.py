"""The URLs of one network in their order, and what was given out since they were last counted.

Counters lag: a probe reports minutes after it was told a URL. If only they decided, then after a list was changed, or
between two readings of the counters, every probe of a network would be told the same first URLs. So what is given out
counts at once as if it had been measured, for `GIVEN_OUT_S` to twice that time; by then the measurement is in the
counters, or the probe has gone without sending it. Probes thus take turns through the whole list by the very rule that
the contract states. This memory is the worker's own. A client that asks again and again moves the order of its own
network and country for some minutes, which it could do for two weeks by sending measurements.

Nobody sorts or walks the list to answer a request: categories are heaps, so giving out `n` of `m` URLs takes
O(n log m). Requests for the whole list get a ready one.
"""

import heapq
import threading
import time
from collections.abc import Callable, Collection, Mapping
from datetime import UTC, date, datetime, timedelta
from itertools import chain

from api.priorities import Candidates, Place, TestUrl, in_order, weight
from api.url_lists import TestLists

GIVEN_OUT_S = 600.0
FINISHED_DAYS_S = 900.0
"""How long the counts of days before yesterday are kept: rows of these days are rare by now."""

Counts = Callable[[date, date], Mapping[str, int]]
"""Counts by URL, from a day on and before a day."""


def counted_days(today: date) -> tuple[date, date]:
    """Return the first day that counts and the first that does not: this calendar week (from Sunday) and the last."""
    sunday = today - timedelta(days=(today.weekday() + 1) % 7)
    return sunday - timedelta(days=7), sunday + timedelta(days=7)


class Network:
    """The probes of one country and one network (0: of the country). All methods may be called by several threads."""

    def __init__(self, cc: str, asn: int, *, now: Callable[[], float] = time.monotonic) -> None:
        """Begin without counts and without lists; `arrange` comes before everything else."""
        self.cc = cc
        self.asn = asn
        self.counted_at = float("-inf")
        """When the counters were last read, on the clock `now`."""
        self.due_at = float("-inf")
        """When they are to be read again; kept by whoever reads them."""
        self._now = now
        self._lock = threading.Lock()
        self._counts: Mapping[str, int] = {}
        self._finished: tuple[tuple[date, date], float, Mapping[str, int]] | None = None
        self._given: dict[str, int] = {}
        self._given_before: dict[str, int] = {}
        self._turn_at = now()
        self._lists: TestLists | None = None
        self._size = 0

    def read_counts(self, counts: Counts) -> None:
        """Read the counters, recent days anew and finished ones now and then. Raises what `counts` raises."""
        now = self._now()
        today = datetime.now(UTC).date()
        since, until = counted_days(today)
        recent = max(since, today - timedelta(days=1))
        finished = self._finished
        if finished is None or finished[0] != (since, recent) or now - finished[1] > FINISHED_DAYS_S:
            finished = ((since, recent), now, counts(since, recent) if since < recent else {})
        total = dict(finished[2])
        for url, count in counts(recent, until).items():
            total[url] = total.get(url, 0) + count
        with self._lock:
            self._finished = finished
            self._counts = total
            self.counted_at = now
            self._lists = None

    def arrange(self, lists: TestLists) -> None:
        """Make the order anew when lists or counts changed, or what was given out has expired."""
        with self._lock:
            now = self._now()
            if lists is self._lists and now - self._turn_at < GIVEN_OUT_S:
                return
            if now - self._turn_at >= GIVEN_OUT_S:
                self._given_before = self._given if now - self._turn_at < 2 * GIVEN_OUT_S else {}
                self._given = {}
                self._turn_at = now
            self._lists = lists
            self._candidates = candidates = lists.candidates(self.cc)
            self._size = len(candidates)
            self._ranked = candidates.ranked(self._counts)
            self._heaps: dict[str, list[Place]] = {}
            self._all: list[TestUrl] | None = None
            given = {url: self._expected(url) for url in chain(self._given, self._given_before)}
            self._expected_order = candidates.ranked({**self._counts, **given}) if given else self._ranked

    def cost(self) -> int:
        """Return how much memory this takes, in units of some 200 bytes."""
        with self._lock:
            return len(self._counts) + len(self._given) + len(self._given_before) + self._size // 10

    def give_out(self, categories: Collection[str], limit: int) -> list[TestUrl]:
        """Return the URLs whose turn it is, at most `limit`, of `categories` (none: of all), and count them."""
        with self._lock:
            if limit >= len(self._candidates):
                return self._plain(categories, limit)
            urls = self._candidates.urls
            wanted = set(categories) if categories else self._ranked.keys()
            heaps = [self._heap(category) for category in wanted if category in self._ranked]
            heads = [(heap[0], number) for number, heap in enumerate(heaps)]
            heapq.heapify(heads)
            taken: list[tuple[int, list[Place]]] = []
            while heads and len(taken) < limit:
                place, number = heads[0]
                heap = heaps[number]
                heapq.heappop(heap)
                taken.append((place[1], heap))
                if heap:
                    heapq.heapreplace(heads, (heap[0], number))
                else:
                    heapq.heappop(heads)
            for candidate, heap in taken:
                url = urls[candidate].url
                self._given[url] = self._given.get(url, 0) + 1
                again = weight(self._candidates.priorities[candidate], self._expected(url))
                heapq.heappush(heap, (-again, candidate))
            return [urls[candidate] for candidate, _ in taken]

    def in_contract_order(self, categories: Collection[str], limit: int) -> list[TestUrl]:
        """Return the URLs by falling weight, whatever was given out before."""
        with self._lock:
            return self._plain(categories, limit)

    def explained(self, categories: Collection[str], limit: int) -> list[tuple[TestUrl, int, int, float]]:
        """Return the same with measurement count, priority and weight."""
        with self._lock:
            candidates, counts = self._candidates, self._counts
            return [
                (url := candidates.urls[number], counts.get(url.url, 0), candidates.priorities[number], -place)
                for place, number in in_order(self._ranked, categories, limit)
            ]

    def counts(self) -> tuple[Candidates, Mapping[str, int]]:
        """Return all candidates, and how often URLs were measured."""
        with self._lock:
            return self._candidates, self._counts

    def _plain(self, categories: Collection[str], limit: int) -> list[TestUrl]:
        urls = self._candidates.urls
        if categories or limit < len(urls):
            return [urls[number] for _, number in in_order(self._ranked, categories, limit)]
        if self._all is None:
            self._all = [urls[number] for _, number in in_order(self._ranked, (), len(urls))]
        return list(self._all)

    def _heap(self, category: str) -> list[Place]:
        heap = self._heaps.get(category)
        if heap is None:
            heap = self._heaps[category] = list(self._expected_order[category])  # sorted, hence a heap
        return heap

    def _expected(self, url: str) -> int:
        return self._counts.get(url, 0) + self._given.get(url, 0) + self._given_before.get(url, 0)
