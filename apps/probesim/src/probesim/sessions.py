"""Plays many sessions at once, at a chosen rate, and tells how it goes."""

import asyncio
import itertools
import random
import ssl
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from time import monotonic
from typing import Any

import httpx

from probesim.blockpages import load_demonstration
from probesim.client import OUTCOMES
from probesim.config import SessionSettings
from probesim.generations import PLAYS
from probesim.latencies import Latencies
from probesim.rules import Violation
from probesim.session import Session
from probesim.strict import StrictClient
from probesim.submissions import Submitted, user_agent
from probesim.vocabulary import GENERATIONS, Probe, draw_probe

REPORT_EVERY_S = 5.0


@dataclass(slots=True)
class Tally:
    """What the sessions came to so far."""

    latencies: Latencies = field(default_factory=Latencies)
    outcomes: Counter[str] = field(default_factory=Counter)
    ended: Counter[str] = field(default_factory=Counter)
    """Ended sessions by generation."""
    whole: Counter[str] = field(default_factory=Counter)
    """Those in which no rule was broken."""
    bytes_sent: int = 0
    started: float = field(default_factory=monotonic)

    def so_far(self) -> dict[str, Any]:
        """Return the figures of a progress line; times in milliseconds."""
        total = self.latencies.total()
        calls = total.pop("count")
        return {
            "seconds": round(monotonic() - self.started, 3),
            "sessions": self.ended.total(),
            "calls": calls,
            **total,
            "broken": dict(self.latencies.broken),
        }

    def as_dict(self) -> dict[str, Any]:
        """Return all figures, for a JSON line."""
        return {
            **self.so_far(),
            "whole": self.whole.total(),
            "generations": {
                name: {"ended": self.ended[name], "whole": self.whole[name]} for name in sorted(self.ended)
            },
            "submitted": self.outcomes.total(),
            **{name: self.outcomes[name] for name in OUTCOMES},
            "bytes_sent": self.bytes_sent,
            "by_call": self.latencies.by_call(),
        }


@dataclass(frozen=True, slots=True)
class Listener:
    """Whom to tell what happens."""

    violation: Callable[[Violation], None]
    document: Callable[[Submitted], None]
    progress: Callable[[dict[str, Any]], None]


async def play(settings: SessionSettings, listener: Listener) -> Tally:
    """Play the sessions and return what they came to."""
    tally = Tally()
    verify = ssl.create_default_context(cafile=settings.ca_file or None)
    places = asyncio.Semaphore(settings.concurrency)
    shown = load_demonstration()

    async def one(number: int, probe: Probe, rng: random.Random) -> None:
        broken_before = 0

        def violation(found: Violation) -> None:
            nonlocal broken_before
            broken_before += 1
            tally.latencies.add_broken(found.call, found.rule)
            listener.violation(found)

        def document(found: Submitted) -> None:
            tally.outcomes[found.outcome] += 1
            tally.bytes_sent += found.bytes_sent
            listener.document(found)

        # A client of its own: a probe makes its own connection, and keeps its own cookies.
        async with httpx.AsyncClient(
            base_url=settings.url, trust_env=False, verify=verify, timeout=settings.patience_s
        ) as http:
            client = StrictClient(http, tally.latencies, user_agent(probe), settings.patience_s)
            session = Session(number, probe, rng, datetime.now(UTC), shown, client, violation, document)
            await PLAYS[probe.software.generation](session)
        tally.ended[session.generation] += 1
        tally.whole[session.generation] += not broken_before

    async def bounded(number: int, probe: Probe, rng: random.Random) -> None:
        try:
            await one(number, probe, rng)
        finally:
            places.release()

    reporter = asyncio.create_task(_report(tally, listener))
    try:
        async with asyncio.TaskGroup() as group:
            for number, generation in enumerate(
                itertools.islice(itertools.cycle(settings.generations), settings.sessions)
            ):
                due = tally.started + (number / settings.rate if settings.rate else 0.0)
                await asyncio.sleep(max(due - monotonic(), 0.0))
                await places.acquire()
                rng = random.Random(f"{settings.seed} {number}")  # noqa: S311 reproducible sessions, no secret
                group.create_task(bounded(number, _draw(rng, generation, settings.countries), rng))
    finally:
        reporter.cancel()
    return tally


async def _report(tally: Tally, listener: Listener) -> None:
    while True:
        await asyncio.sleep(REPORT_EVERY_S)
        listener.progress(tally.so_far())


def _draw(rng: random.Random, generation: str, countries: Sequence[str]) -> Probe:
    """Draw a probe of a generation, in one of the countries when some are given."""
    assert generation in GENERATIONS
    return draw_probe(rng, frozenset(countries) or None, generation=generation)
