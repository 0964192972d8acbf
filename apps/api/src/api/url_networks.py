"""The URLs of one network in their order, and what was given out since they were last counted.

Counters lag: a probe reports minutes after it was told a URL. If only they decided, then after a list was changed, or
between two readings of the counters, every probe of a network would be told the same first URLs. So what is given out
counts at once as if it had been measured, for `GIVEN_OUT_S` to twice that time; by then the measurement is in the
counters, or the probe has gone without sending it. Probes thus take turns through the whole list by the very rule that
the contract states. This memory is the worker's own. A client that asks again and again moves the order of its own
network and country for some minutes, which it could do for two weeks by sending measurements.

A network holds only what sets it apart: its counts, the order of what it measured, and what it was given. The order of
all that nobody measured is that of the country, which its networks share. So thousands of networks fit into memory, and
nobody sorts or walks the list to answer a request: giving out `n` of `m` URLs takes O(n log m).
"""

import heapq
import threading
import time
from array import array
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from itertools import islice

from api.priorities import Candidates, Place, TestUrl, weight
from api.url_counts import NONE, Counts, UrlNumbers, size
from api.url_lists import TestLists

GIVEN_OUT_S = 600.0
FINISHED_DAYS_S = 900.0
"""How long the counts of days before yesterday are kept: rows of these days are rare by now."""

Reading = Callable[[date, date], Mapping[str, int]]
"""Counts by URL, from a day on and before a day."""

_BYTES = 6000  # of a network without counts
_BYTES_PER_GIVEN = 220


def counted_days(today: date) -> tuple[date, date]:
    """Return the first day that counts and the first that does not: this calendar week (from Sunday) and the last."""
    sunday = today - timedelta(days=(today.weekday() + 1) % 7)
    return sunday - timedelta(days=7), sunday + timedelta(days=7)


class _Turns:
    """The candidates of one category: two sorted runs, from which one after the other goes over to a heap."""

    __slots__ = ("again", "measured", "measured_at", "unmeasured", "unmeasured_at")

    def __init__(self, unmeasured: list[Place], measured: Sequence[int]) -> None:
        self.unmeasured = unmeasured
        self.unmeasured_at = 0
        self.measured = measured
        self.measured_at = 0
        self.again: list[Place] = []


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
        self._counts = NONE
        self._finished: tuple[tuple[date, date], float, Counts] | None = None
        self._given: dict[int, int] = {}
        self._given_before: dict[int, int] = {}
        self._turn_at = now()
        self._lists: TestLists | None = None
        self._candidates: Candidates
        self._measured: dict[str, array[int]] | None
        self._in_order: array[int] | None
        self._turns: dict[str, _Turns]
        self._forget_order()

    def read_counts(self, read: Reading, numbers: UrlNumbers) -> None:
        """Read the counters, recent days anew and finished ones now and then. Raises what `read` raises."""

        def counts(since: date, until: date) -> Counts:
            found = read(since, until)
            return Counts(dict(zip(numbers.of(found), found.values(), strict=True)))

        now = self._now()
        today = datetime.now(UTC).date()
        since, until = counted_days(today)
        recent = max(since, today - timedelta(days=1))
        finished = self._finished
        if finished is None or finished[0] != (since, recent) or now - finished[1] > FINISHED_DAYS_S:
            finished = ((since, recent), now, counts(since, recent) if since < recent else NONE)
        total = finished[2].plus(counts(recent, until))
        lists = self._lists
        same = total.same(self._counts)
        measured = None if same or lists is None else lists.candidates(self.cc).measured(total)
        with self._lock:
            self._finished = finished
            self.counted_at = now
            if same:
                return
            self._counts = total
            self._forget_order()
            if lists is self._lists:
                self._measured = measured

    def arrange(self, lists: TestLists) -> None:
        """Go over to `lists` when they are others, and forget what was given out too long ago."""
        with self._lock:
            now = self._now()
            if now - self._turn_at >= GIVEN_OUT_S:
                self._given_before = self._given if now - self._turn_at < 2 * GIVEN_OUT_S else {}
                self._given = {}
                self._turn_at = now
                self._turns = {}
            if lists is not self._lists:
                self._lists = lists
                self._candidates = lists.candidates(self.cc)
                self._forget_order()

    def cost(self) -> int:
        """Return roughly how much memory this takes, in bytes."""
        with self._lock:
            arrays = self._counts.size() + (0 if self._finished is None else self._finished[2].size())
            arrays += sum(map(size, self._measured.values())) if self._measured else 0
            arrays += 0 if self._in_order is None else size(self._in_order)
            return _BYTES + arrays + _BYTES_PER_GIVEN * (len(self._given) + len(self._given_before))

    def give_out(self, categories: Collection[str], limit: int) -> list[TestUrl]:
        """Return the URLs whose turn it is, at most `limit`, of `categories` (none: of all), and count them."""
        with self._lock:
            candidates = self._candidates
            if limit >= len(candidates):
                return self._plain(categories, limit)
            wanted = [self._turns_of(c) for c in set(categories or candidates.unmeasured) if c in candidates.unmeasured]
            heads = [(place, at) for at, turns in enumerate(wanted) if (place := self._next(turns)) is not None]
            heapq.heapify(heads)
            taken: list[tuple[int, _Turns]] = []
            while heads and len(taken) < limit:
                (_, number), at = heads[0]
                taken.append((number, wanted[at]))
                following = self._next(wanted[at])
                if following is None:
                    heapq.heappop(heads)
                else:
                    heapq.heapreplace(heads, (following, at))
            for place, at in heads:
                heapq.heappush(wanted[at].again, place)
            for number, turns in taken:
                url = candidates.url_numbers[number]
                self._given[url] = self._given.get(url, 0) + 1
                heapq.heappush(turns.again, self._place(number))
            return [candidates.urls[number] for number, _ in taken]

    def in_contract_order(self, categories: Collection[str], limit: int) -> list[TestUrl]:
        """Return the URLs by falling weight, whatever was given out before."""
        with self._lock:
            return self._plain(categories, limit)

    def explained(self, categories: Collection[str], limit: int) -> list[tuple[TestUrl, int, int, float]]:
        """Return the same with measurement count, priority and weight."""
        with self._lock:
            candidates, found = self._candidates, []
            for number in self._numbers_in_order(categories, limit):
                count, priority = self._counts.of(candidates.url_numbers[number]), candidates.priorities[number]
                found.append((candidates.urls[number], count, priority, weight(priority, count)))
            return found

    def counts(self) -> tuple[Candidates, list[int]]:
        """Return all candidates, and how often each was measured."""
        with self._lock:
            return self._candidates, [self._counts.of(number) for number in self._candidates.url_numbers]

    def _forget_order(self) -> None:
        """Have everything that follows from lists and counts worked out anew when it is needed."""
        self._measured = None
        self._in_order = None
        self._turns = {}

    def _plain(self, categories: Collection[str], limit: int) -> list[TestUrl]:
        urls = self._candidates.urls
        return [urls[number] for number in self._numbers_in_order(categories, limit)]

    def _numbers_in_order(self, categories: Collection[str], limit: int) -> Sequence[int]:
        if self._in_order is None:
            self._in_order = self._candidates.in_order(self._counts)
        if not categories:
            return self._in_order[: max(limit, 0)]
        entries, wanted = self._candidates.entries, set(categories)
        found = (number for number in self._in_order if entries[number].category_code in wanted)
        return list(islice(found, max(limit, 0)))

    def _turns_of(self, category: str) -> _Turns:
        turns = self._turns.get(category)
        if turns is None:
            if self._measured is None:
                self._measured = self._candidates.measured(self._counts)
            turns = _Turns(self._candidates.unmeasured[category], self._measured.get(category, ()))
            self._turns[category] = turns
        return turns

    def _next(self, turns: _Turns) -> Place | None:
        """Take the candidate of greatest weight out of `turns`.

        In the runs, and in the heap for a URL that is on two lists, places are too good for what was given out
        meanwhile; such a candidate goes (back) to the heap with its right place as soon as it is seen.
        """
        again = turns.again
        best, source = None, 0
        while turns.unmeasured_at < len(turns.unmeasured):
            place = turns.unmeasured[turns.unmeasured_at]
            url = self._candidates.url_numbers[place[1]]
            if self._counts.of(url) == 0:  # else it is in the other run
                if not self._is_given(url):
                    best, source = place, 1
                    break
                heapq.heappush(again, self._place(place[1]))
            turns.unmeasured_at += 1
        while turns.measured_at < len(turns.measured):
            number = turns.measured[turns.measured_at]
            place = self._place(number)
            if not self._is_given(self._candidates.url_numbers[number]):
                if best is None or place < best:
                    best, source = place, 2
                break
            heapq.heappush(again, place)
            turns.measured_at += 1
        while again and again[0] != (place := self._place(again[0][1])):
            heapq.heapreplace(again, place)
        if again and (best is None or again[0] < best):
            return heapq.heappop(again)
        turns.unmeasured_at += source == 1
        turns.measured_at += source == 2
        return best

    def _is_given(self, url: int) -> bool:
        return url in self._given or url in self._given_before

    def _place(self, number: int) -> Place:
        """Where a candidate comes if what was given out counts as measured."""
        url = self._candidates.url_numbers[number]
        expected = self._counts.of(url) + self._given.get(url, 0) + self._given_before.get(url, 0)
        return -weight(self._candidates.priorities[number], expected), number
