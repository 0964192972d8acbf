"""What happens over the years: how many measurements a day has, and what is blocked where, from when until when."""

import math
import random
from dataclasses import dataclass
from datetime import date, timedelta

from tests.load.sample.world import CENSORS, COUNTRIES, FIRST_DAY, World

GROWTH = 0.42  # per year, as an exponent: half as many again; two thirds of all rows are of the last three years
WEEKEND = 0.88
KINDS = ("dns", "tcp_ip", "http-failure", "http-diff")
MESSENGERS = ("facebook_messenger", "signal", "telegram", "whatsapp")
_EVENTS = 2200
_MESSENGER_EVENTS = 70
_CONFIRMABLE = ("dns", "http-diff")  # a fingerprint is an answer of a resolver or a page


@dataclass(frozen=True, slots=True)
class Event:
    """Something is blocked in a country from `since` to `until`; `target` is a domain, or the name of a test.

    `rate`: the part of the measurements that show it. `networks`: every n-th network of the country does it.
    """

    country: str
    target: str
    since: date
    until: date
    kind: str
    confirmed: bool
    rate: float
    networks: int


def rows_per_day(rows: int, seed: int, until: date) -> dict[date, int]:
    """Spread `rows` over the days up to `until`; days without any are absent. The sum is exactly `rows`."""
    draw = random.Random(f"days {seed}")
    days = [FIRST_DAY + timedelta(days=number) for number in range((until - FIRST_DAY).days + 1)]
    weights = [
        math.exp(GROWTH * (day - FIRST_DAY).days / 365.25)
        * (WEEKEND if day.weekday() >= 5 else 1.0)
        * draw.lognormvariate(0, 0.08)
        for day in days
    ]
    scale = rows / sum(weights)
    spread, before, cumulated = {}, 0, 0.0
    for day, weight in zip(days, weights, strict=True):
        cumulated += weight * scale
        upto = rows if day == days[-1] else min(rows, round(cumulated))
        if upto > before:
            spread[day] = upto - before
        before = upto
    return spread


def events(world: World, seed: int, until: date) -> list[Event]:
    """Draw what is blocked. Of one target in one country there is at most one event."""
    draw = random.Random(f"events {seed}")
    found: list[Event] = []
    seen: set[tuple[str, str]] = set()
    span = (until - FIRST_DAY).days
    for number in range(_EVENTS + _MESSENGER_EVENTS):
        country = draw.choice(CENSORS[:12] if draw.random() < 0.6 else CENSORS if draw.random() < 0.85 else COUNTRIES)
        messenger = number >= _EVENTS
        if messenger:
            target = draw.choice(MESSENGERS)
        else:
            of_list = world.lists.get(country) if draw.random() < 0.5 else None
            target = draw.choice(of_list or world.lists["ZZ"]).domain
        since = FIRST_DAY + timedelta(days=int(span * draw.random() ** 0.6))
        last = since + timedelta(days=int(min(3000, draw.lognormvariate(5.2, 1.2))) + 1)
        if (country, target) in seen:
            continue
        seen.add((country, target))
        kind = draw.choices(KINDS, (5, 2, 4, 3))[0]
        confirmed = not messenger and kind in _CONFIRMABLE and draw.random() < 0.55
        networks = 1 if draw.random() < 0.7 else draw.choice((2, 3))
        found.append(Event(country, target, since, last, kind, confirmed, draw.uniform(0.7, 0.98), networks))
    return found
