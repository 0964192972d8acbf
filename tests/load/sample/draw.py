"""Draws the rows of table fastpath, month by month, as the text that COPY takes.

A month is drawn by itself: from the seed and its first day, so it does not matter which process draws it, nor in which
order. Numbers are drawn as vectors; text is put together from pieces made once a report or once a sample.
"""

import base64
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Any

import numpy as np
from tests.load.sample import history, kinds, software, world
from tests.load.sample.kinds import ANOMALY, BOTH, FAILURE, KINDS_OF_TESTS, LISTED_TESTS, OK, WEB, WEB_REPORT

COLUMNS = (
    "measurement_uid",
    "report_id",
    "input",
    "domain",
    "probe_cc",
    "probe_asn",
    "test_name",
    "test_name_other",
    "test_start_time",
    "measurement_start_time",
    "scores",
    "anomaly",
    "confirmed",
    "msm_failure",
    "blocking_type",
    "platform",
    "architecture",
    "engine_name",
    "engine_version",
    "software_name",
    "software_version",
    "test_version",
    "test_helper_address",
    "test_helper_type",
    "ooni_run_link_id",
    "is_verified",
    "test_runtime",
)
"""The columns that are written, in the order of the text."""

Numbers = Any  # a vector; numpy is installed for benchmarks only, so types do not know it

_AT_ONCE = 40_000  # rows
_LAST_START_S = 86_400 - 1200  # a report ends on the day on which it began
_NEW_IDS_SINCE = date(2020, 11, 1)
_RUN_LINKS_SINCE = date(2023, 6, 1)
_VERIFIED_SINCE = date(2026, 3, 1)
_BACKGROUND = (0.2, 0.25, 0.8, 1.0)  # cumulated shares of the blocking types where nothing is blocked
_CLOCK = [f"{s // 3600:02}:{s // 60 % 60:02}:{s % 60:02}" for s in range(86_400)]
_DIGITS = [text.replace(":", "") for text in _CLOCK]


@dataclass(frozen=True, slots=True)
class Month:
    """A month with its rows by day."""

    first: date
    days: dict[date, int]

    @property
    def rows(self) -> int:
        """How many rows it has."""
        return sum(self.days.values())


@dataclass(slots=True)
class _Pools:
    """What is measured, as one list in which each pool is a run: one per country (test lists), and one per test."""

    start: Numbers
    size: Numbers
    inputs: Numbers
    of_test: Numbers


class Sampler:
    """Draws `rows` rows with start times up to the end of day `until`. The same arguments draw the same rows."""

    def __init__(self, rows: int, seed: int, until: date) -> None:
        self.seed = seed
        self.world = world.build(seed, until)
        self.events = history.events(self.world, seed, until)
        self.months = _months(history.rows_per_day(rows, seed, until))
        self._releases = software.releases(seed, until)
        self._tests = [kind.name for kind in KINDS_OF_TESTS]
        self._last_year = until.year
        self._countries = {country: number for number, country in enumerate(("ZZ", *world.COUNTRIES))}
        places = self.world.places
        self._place_country = np.array([self._countries[place.country] for place in places])
        self._place_weight = np.array([place.weight for place in places])
        self._place_since = np.array([place.since.toordinal() for place in places])
        self._listed = np.array([name in LISTED_TESTS for name in self._tests])
        self._fill_pools()
        self._fill_verdicts()

    def chunks(self, month: Month) -> Iterator[bytes]:
        """Yield the rows of a month as lines for COPY, in order of time."""
        rng = np.random.default_rng([self.seed, month.first.toordinal()])
        draw = _MonthDraw(self, month, rng)
        for days in _grouped(month.days):
            yield draw.rows(days)

    def _fill_pools(self) -> None:
        domains: dict[str, int] = {"": 0}
        inputs: dict[tuple[str, str], int] = {("", ""): 0}

        def number(url: str, domain: str) -> int:
            domains.setdefault(domain, len(domains))
            return inputs.setdefault((url, domain), len(inputs))

        rng = np.random.default_rng([self.seed, 1])
        everywhere = [number(entry.url, entry.domain) for entry in self.world.lists["ZZ"]]
        runs = []
        for country in self._countries:
            own = [number(entry.url, entry.domain) for entry in self.world.lists.get(country, ()) if country != "ZZ"]
            runs.append(rng.permutation(np.unique(np.array(everywhere + own))))
        other = kinds.inputs(self.seed)
        self.pool_of_test = np.zeros(len(self._tests), dtype=np.int64)
        for position, name in enumerate(self._tests):
            self.pool_of_test[position] = len(runs)
            runs.append(np.array([number(*pair) for pair in other.get(name, [("", "")])]))
        self.pool_size = np.array([len(run) for run in runs])
        self.pool_start = np.concatenate([[0], np.cumsum(self.pool_size)[:-1]])
        self.pool_inputs = np.concatenate(runs)
        self.input_text = [f"{_escaped(url)}\t{_escaped(domain)}" for url, domain in inputs]
        self.input_domain = np.array([domains[domain] for _, domain in inputs])
        self.domains = domains

    def _fill_verdicts(self) -> None:
        texts = [kinds.verdict(name, state) for name in self._tests for state in range(4)]
        self.web_verdicts = len(texts)
        texts += [kinds.verdict(WEB, state, kind) for kind in history.KINDS for state in (ANOMALY, BOTH)]
        self.event_verdicts = len(texts)
        texts += [
            kinds.confirmed_verdict(event, number) if event.confirmed else ""
            for number, event in enumerate(self.events)
        ]
        self.verdicts = texts

    def event_keys(self, month: Month) -> tuple[Numbers, Numbers]:
        """Return what is blocked at some time of the month: sorted keys (see `event_key`), and numbers of events."""
        last = max(month.days)
        found = []
        for number, event in enumerate(self.events):
            if event.since <= last and event.until > month.first:
                target = (
                    len(self.domains) + self._tests.index(event.target)
                    if event.target in history.MESSENGERS
                    else self.domains.get(event.target, -1)
                )
                if target >= 0:
                    found.append((self.event_key(self._countries[event.country], target), number))
        found.sort()
        return np.array([key for key, _ in found], dtype=np.int64), np.array([n for _, n in found], dtype=np.int64)

    def event_key(self, country: Numbers, target: Numbers) -> Numbers:
        """Return one number for a country and a target: a domain, or a test behind the domains."""
        return country * (len(self.domains) + len(self._tests)) + target


class _MonthDraw:
    """Draws the rows of one month."""

    def __init__(self, sampler: Sampler, month: Month, rng: Any) -> None:
        self._s = sampler
        self._month = month
        self._rng = rng
        self._kind_cumulated = _cumulated(_report_weights(month.first))
        there = sampler._place_since <= max(month.first, world.FIRST_DAY).toordinal()
        self._place_cumulated = _cumulated(sampler._place_weight * there)
        self._columns, weights = software.in_use(sampler._releases, month.first)
        self._software_cumulated = _cumulated(np.array(weights))
        self._keys, self._numbers = sampler.event_keys(month)
        self._event_since = np.array([event.since.toordinal() for event in sampler.events])
        self._event_until = np.array([event.until.toordinal() for event in sampler.events])
        self._event_rate = np.array([event.rate for event in sampler.events])
        self._event_networks = np.array([event.networks for event in sampler.events])
        self._event_kind = np.array([history.KINDS.index(event.kind) for event in sampler.events])
        self._event_confirmed = np.array([event.confirmed for event in sampler.events])
        self._anomalies = np.array([kind.anomalies for kind in KINDS_OF_TESTS])
        self._failures = np.array([kind.failures for kind in KINDS_OF_TESTS])
        self._runtimes = np.array([kind.runtime for kind in KINDS_OF_TESTS])
        self._versions = [_versions(kind, month.first.year, sampler._last_year) for kind in KINDS_OF_TESTS]

    def rows(self, days: dict[date, int]) -> bytes:
        """Return the rows of some days."""
        s, rng = self._s, self._rng
        total = sum(days.values())
        sizes, test = self._report_sizes(total)
        reports = len(sizes)
        first_row = np.cumsum(sizes) - sizes
        ordinals = np.array([day.toordinal() for day in days])
        day = ordinals[np.searchsorted(np.cumsum(list(days.values())), first_row, side="right")]
        place = np.searchsorted(self._place_cumulated, rng.random(reports))
        country = s._place_country[place]
        start = self._start_of_day(reports)
        pool = np.where(s._listed[test], country, s.pool_of_test[test])
        offset = (s.pool_size[pool] * rng.random(reports) ** 2.6).astype(np.int64)

        row = np.repeat(np.arange(reports), sizes)
        nth = np.arange(total) - first_row[row]
        row_pool = pool[row]
        target = s.pool_inputs[s.pool_start[row_pool] + (offset[row] + nth) % s.pool_size[row_pool]]
        runtime = self._runtimes[test[row]] * rng.lognormal(-0.3, 0.7, total)
        second = start[row] + 2 + (nth * 3.1 + rng.random(total) * 3).astype(np.int64)
        verdict = self._verdicts(row, place, country, test, day, target)

        order = np.lexsort((second, day[row]))
        row, target, runtime, second, verdict = row[order], target[order], runtime[order], second[order], verdict[order]
        heads, middles, tails = self._report_texts(day, place, test, start)
        texts = self._verdict_texts(verdict, test[row], runtime)
        received = np.minimum(second + 1 + rng.integers(0, 20, total), 86_399)
        uids = self._uids(day[row], received, row, heads)
        return "".join(
            [
                f"{uid}{heads[r][1]}{text}{middles[r]}{_CLOCK[at]}\t{says}{tails[r]}{took:.6g}\n"
                for uid, r, text, at, says, took in zip(
                    uids,
                    row.tolist(),
                    [s.input_text[number] for number in target.tolist()],
                    second.tolist(),
                    texts,
                    runtime.tolist(),
                    strict=True,
                )
            ]
        ).encode()

    def _report_sizes(self, total: int) -> tuple[Numbers, Numbers]:
        """Return the sizes of reports, which add up to `total`, and their tests."""
        sizes, tests, sum_ = [], [], 0
        while sum_ < total:
            count = max(8, int((total - sum_) * 0.2))
            test = np.searchsorted(self._kind_cumulated, self._rng.random(count))
            many = np.minimum(1 + self._rng.exponential(WEB_REPORT - 1, count).astype(np.int64), 150)
            size = np.where(self._s._listed[test], many, 1)
            sizes.append(size)
            tests.append(test)
            sum_ += int(size.sum())
        size, test = np.concatenate(sizes), np.concatenate(tests)
        count = int(np.searchsorted(np.cumsum(size), total)) + 1
        size, test = size[:count], test[:count]
        size[-1] -= int(size.sum()) - total
        return size, test

    def _start_of_day(self, count: int) -> Numbers:
        """Return seconds of the day: any time, and rather in the afternoon."""
        evening = self._rng.normal(17 * 3600, 3 * 3600, count)
        second = np.where(self._rng.random(count) < 0.6, self._rng.random(count) * 86_400, evening)
        return np.clip(second, 0, _LAST_START_S).astype(np.int64)

    def _verdicts(
        self, row: Numbers, place: Numbers, country: Numbers, test: Numbers, day: Numbers, target: Numbers
    ) -> Numbers:
        """Return the number of the verdict of each row."""
        s, rng, total = self._s, self._rng, len(row)
        row_test = test[row]
        fails = rng.random(total) < self._failures[row_test]
        anomalous = rng.random(total) < self._anomalies[row_test] * np.where(fails, 3.0, 1.0)
        state = np.where(fails, np.where(anomalous, BOTH, FAILURE), np.where(anomalous, ANOMALY, OK))
        verdict = row_test * 4 + state
        web = row_test == self._s._tests.index(WEB)
        kind = np.searchsorted(_BACKGROUND, rng.random(total))
        verdict = np.where(web & anomalous, s.web_verdicts + kind * 2 + fails, verdict)
        if not len(self._keys):
            return verdict
        # What is blocked here and now?
        messenger = np.isin(row_test, [self._s._tests.index(name) for name in history.MESSENGERS])
        what = np.where(messenger, len(s.domains) + row_test, s.input_domain[target])
        key = s.event_key(country[row], what)
        found = np.minimum(np.searchsorted(self._keys, key), len(self._keys) - 1)
        event = self._numbers[found]
        row_day = day[row]
        hit = (
            (self._keys[found] == key)
            & (row_day >= self._event_since[event])
            & (row_day < self._event_until[event])
            & (place[row] % self._event_networks[event] == 0)
            & (rng.random(total) < self._event_rate[event])
            & ~fails
        )
        verdict = np.where(hit & messenger, row_test * 4 + ANOMALY, verdict)
        verdict = np.where(hit & web, s.web_verdicts + self._event_kind[event] * 2, verdict)
        return np.where(hit & web & self._event_confirmed[event], s.event_verdicts + event, verdict)

    def _report_texts(
        self, day: Numbers, place: Numbers, test: Numbers, start: Numbers
    ) -> tuple[list[tuple[str, str]], list[str], list[str]]:
        """Return, by report, the pieces of its rows that stay: around the uid, before the time, behind the scores."""
        s, rng, reports = self._s, self._rng, len(day)
        old = self._month.first < _NEW_IDS_SINCE
        suffixes = _letters(rng, reports, 50 if old else 16)
        programs = np.searchsorted(self._software_cumulated, rng.random(reports)).tolist()
        chances = rng.random((reports, 4)).tolist()
        links = (10_000 + 200 * rng.random(reports) ** 3).astype(np.int64).tolist()
        month_links = self._month.first >= _RUN_LINKS_SINCE
        month_verified = self._month.first >= _VERIFIED_SINCE
        days = {ordinal: date.fromordinal(ordinal) for ordinal in set(day.tolist())}
        short, dashed = {o: f"{d:%Y%m%d}" for o, d in days.items()}, {o: d.isoformat() for o, d in days.items()}
        heads, middles, tails = [], [], []
        for r, (ordinal, where, what, second) in enumerate(
            zip(day.tolist(), place.tolist(), test.tolist(), start.tolist(), strict=True)
        ):
            spot, kind, chance = s.world.places[where], KINDS_OF_TESTS[what], chances[r]
            name = kind.name.replace("_", "")
            stamp = f"{short[ordinal]}T{_DIGITS[second]}Z"
            report_id = (
                f"{stamp}_AS{spot.asn}_{suffixes[r]}"
                if old
                else f"{stamp}_{name}_{spot.country}_{spot.asn}_n1_{suffixes[r]}"
            )
            heads.append(("" if old else f"_{spot.country}_{name}_", f"\t{report_id}\t"))
            named = f"{kind.name}\t\\N" if kind.known else f"\\N\t{kind.name}"
            date_ = dashed[ordinal]
            middles.append(f"\t{spot.country}\t{spot.asn}\t{named}\t{date_} {_CLOCK[second]}\t{date_} ")
            version = self._versions[what][chance[0] < 0.15]
            helper = f"https://{int(chance[1] * 4)}.th.example\thttps" if kind.name == WEB else "\t"
            link = links[r] if month_links and chance[2] < 0.005 else "\\N"
            verified = "t" if month_verified and chance[3] < 0.03 else "u"
            tails.append(f"\t{self._columns[programs[r]]}\t{version}\t{helper}\t{link}\t{verified}\t")
        return heads, middles, tails

    def _verdict_texts(self, verdict: Numbers, test: Numbers, runtime: Numbers) -> list[str]:
        texts = [self._s.verdicts[number] for number in verdict.tolist()]
        numbers = [self._s._tests.index(name) for name in kinds.RUNTIME_IN_SCORES]
        for position in np.flatnonzero(np.isin(test, numbers)).tolist():
            what = int(test[position])
            state = int(verdict[position]) - what * 4
            texts[position] = kinds.verdict(self._s._tests[what], state, runtime=float(runtime[position]))
        return texts

    def _uids(self, day: Numbers, received: Numbers, row: Numbers, heads: list[tuple[str, str]]) -> list[str]:
        """Return the identifiers: by time of reception, or of the kind that older measurements were given later."""
        total = len(row)
        short = {ordinal: f"{date.fromordinal(ordinal):%Y%m%d}" for ordinal in set(day.tolist())}
        if self._month.first < _NEW_IDS_SINCE:
            digits = self._rng.bytes(total * 15).hex()
            return [f"01{short[d]}{digits[i * 30 : i * 30 + 30]}" for i, d in enumerate(day.tolist())]
        digits = self._rng.bytes(total * 8).hex()
        micros = self._rng.integers(0, 1_000_000, total).tolist()
        return [
            f"{short[d]}{_DIGITS[at]}.{us:06}{heads[r][0]}{digits[i * 16 : i * 16 + 16]}"
            for i, (d, at, us, r) in enumerate(zip(day.tolist(), received.tolist(), micros, row.tolist(), strict=True))
        ]


def _months(days: dict[date, int]) -> list[Month]:
    return [
        Month(date(year, month, 1), dict(of_month))
        for (year, month), of_month in itertools.groupby(days.items(), key=lambda item: (item[0].year, item[0].month))
    ]


def _grouped(days: dict[date, int]) -> Iterator[dict[date, int]]:
    """Yield runs of days with no more than about _AT_ONCE rows together."""
    group: dict[date, int] = {}
    for day, rows in days.items():
        if group and sum(group.values()) + rows > _AT_ONCE:
            yield group
            group = {}
        group[day] = rows
    if group:
        yield group


def _report_weights(day: date) -> Numbers:
    """Return how often each test is run: a report of a listed test has many measurements."""
    return np.array(
        [
            kind.share / (WEB_REPORT if kind.name in LISTED_TESTS else 1)
            if kind.first <= day.year <= kind.last
            else 0.0
            for kind in KINDS_OF_TESTS
        ]
    )


def _versions(kind: kinds.Kind, year: int, last_year: int) -> tuple[str, str]:
    """Return the version of a test that most people have in a year, and the one before it."""
    age = (year - kind.first) / max(1, min(last_year, kind.last) - kind.first + 1)
    number = max(0, min(len(kind.versions) - 1, int(age * len(kind.versions))))
    return kind.versions[number], kind.versions[max(0, number - 1)]


def _cumulated(weights: Numbers) -> Numbers:
    cumulated = np.cumsum(weights)
    return cumulated / cumulated[-1]


def _letters(rng: Any, count: int, length: int) -> list[str]:
    """Return random letters and digits, as report ids end with."""
    size = (length * 3 + 3) // 4
    text = (
        base64.b64encode(rng.bytes(-(-size * count // 3) * 3 + 3 * length)).decode().replace("+", "o").replace("/", "o")
    )
    return [text[i * length : i * length + length] for i in range(count)]


def _escaped(text: str) -> str:
    """As COPY wants it."""
    return text.replace("\\", "\\\\").replace("\t", "\\t").replace("\n", "\\n")


def next_month(first: date) -> date:
    """Return the first day of the month after `first`."""
    return (first + timedelta(days=32)).replace(day=1)
