"""Random kill -9 of every process of a host, several times a second: nothing that was acknowledged is lost."""

import os
import random
import signal
import time
from collections import Counter

import pytest
from crashlab.account import settle_and_check
from crashlab.probes import Probes, pace
from crashlab.stack import Stack

pytestmark = [pytest.mark.crash, pytest.mark.timeout(3600)]

WEIGHTS = {
    "api worker": 6,
    "fastpath process": 4,
    "postgres backend": 4,
    "uploader": 3,
    "fastpath": 3,
    "api": 2,
    "postmaster": 2,
}
PACE_S = 5.0
"""Between two kills the host gets so long to acknowledge something; without that nothing would be in danger."""


def test_random_kills_lose_nothing(rounds: int, seed: int, figures: list[str]) -> None:
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    places: Counter[str] = Counter()
    started = time.monotonic()
    with Stack(overflow_after=3) as stack:
        stack.wait(stack.is_up, 60, "the stack is up")
        with Probes(stack.api_port, seed) as probes:
            while killed.total() < rounds:
                pace(probes, chance.randrange(1, 6), PACE_S)
                time.sleep(chance.uniform(0, 0.1))
                places += stack.places()
                victims = stack.victims()
                if not victims:  # all of them are being started again
                    time.sleep(0.05)
                    continue
                # Some run only now and then: who has not had a turn in the first half gets it when it is seen.
                left_out = [kind for kind in victims if not killed[kind] and killed.total() >= rounds // 2]
                kinds_now = left_out or list(victims)
                kind = chance.choices(kinds_now, [WEIGHTS[kind] for kind in kinds_now])[0]
                try:
                    os.kill(chance.choice(victims[kind]), signal.SIGKILL)
                except ProcessLookupError:
                    continue
                killed[kind] += 1
        took = time.monotonic() - started
        found = settle_and_check(stack, probes.sent, within_s=300)
    kinds = ", ".join(f"{count} {kind}" for kind, count in killed.most_common())
    figures.append(
        f"random: {killed.total()} kills in {took:.0f} s ({kinds}); {probes.unanswered} broken submissions; {found}; "
        f"files seen in the spool: {dict(places)}"
    )
    assert all(places[where] for where in ("flat", "overflow")), "both places of files have to be in danger"
    assert len(killed) == len(WEIGHTS) or rounds < 40, f"some kinds of process were never killed: {killed}"
