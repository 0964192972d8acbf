"""The host's clock is set, ahead and back, by hours and days, while probes submit: nothing is lost, twice or stuck.

API, fastpath and uploader have one clock, which jumps for all of them in the same moment, also in the middle of a
request, a sweep or an upload. Database, object store and probes keep the right time, as other hosts would.
"""

import os
import random
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from crashlab.account import settle_and_check
from crashlab.clock import COMPILER, Clock
from crashlab.probes import Probes, Sent, pace
from crashlab.stack import BIN, Stack

pytestmark = [
    pytest.mark.crash,
    pytest.mark.timeout(400),
    pytest.mark.skipif(COMPILER is None, reason="no gcc on this machine: apt-get install gcc libc6-dev"),
]

HOUR, DAY = 3600, 86400
JUMPS = (-HOUR, HOUR, 2 * DAY, 0, -2 * DAY, 0)
"""Seconds ahead of the right time, one after the other."""

READ_THE_CLOCK = """
import datetime, sys, threading, time
for _ in sys.stdin:
    before = time.monotonic()
    time.sleep(0.05)
    threading.Event().wait(0.05)
    waited = time.monotonic() - before
    now = datetime.datetime.now(datetime.UTC).timestamp()
    print(waited, time.time(), time.time_ns() / 1e9, now, time.mktime(time.localtime()), flush=True)
"""


@pytest.fixture
def clock(tmp_path_factory: pytest.TempPathFactory) -> Clock:
    directory = tmp_path_factory.mktemp("clock")
    return Clock(directory)


def test_a_running_process_sees_the_clock_jump(clock: Clock) -> None:
    """And its waits are as long as ever; without that the other tests would show nothing."""
    command = [sys.executable, "-c", READ_THE_CLOCK]
    with subprocess.Popen(
        command, env=os.environ | clock.environ, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for ahead_s in (0, *JUMPS, 0.25):
            clock.set(ahead_s)
            process.stdin.write("\n")
            process.stdin.flush()
            waited, *readings = map(float, process.stdout.readline().split())
            assert 0.1 <= waited < 10
            for reading in readings:
                assert abs(reading - time.time() - ahead_s) < 10, (ahead_s, readings)
        process.stdin.close()


@pytest.fixture(params=["directory", "s3"])
def stack(clock: Clock, request: pytest.FixtureRequest) -> Iterator[Stack]:
    with Stack(preload=clock.environ, directory_store=request.param == "directory") as stack:
        stack.wait(stack.is_up, 60, "the stack is up")
        yield stack


def test_the_clock_jumps(stack: Stack, clock: Clock, seed: int, figures: list[str]) -> None:
    """The uploader works as in production, by hours; an S3 server refuses its signatures while the clock is wrong."""
    chance = random.Random(seed)
    uploader = stack.programs["uploader"]
    uploader.command = [BIN / "uploader"]
    with Probes(stack.api_port, seed) as probes:
        for ahead_s in JUMPS:
            assert pace(probes, 15, 60), f"before the clock jumps to {ahead_s:+} s"
            time.sleep(chance.uniform(0, 1))
            clock.set(ahead_s)
        assert pace(probes, 15, 60), "submissions go on after all jumps"
    sent = probes.sent
    days = {round((received_at(one) - datetime.now(UTC)) / timedelta(days=1)) for one in sent}
    assert days == {-2, 0, 2}, "each jump reached the API"
    assert abs(received_at(sent[-1]) - datetime.now(UTC)) < timedelta(minutes=10), "the API is back at the right time"

    def from_the_future() -> list[str]:
        last = f"{datetime.now(UTC) + timedelta(hours=2):%Y%m%d%H}"
        spool = stack.spool
        return [name for name in spool.scored_directories() if name[:10] >= last and spool.scored(name, 1)]

    stack.wait(lambda: not from_the_future(), 60, "what came from the future is archived before its hour comes")
    uploader.command = [BIN / "uploader", "--now"]
    figures.append(f"clock jumps {', '.join(f'{jump:+}' for jump in JUMPS)} s: {settle_and_check(stack, sent)}")


def received_at(sent: Sent) -> datetime:
    """When a measurement came in, by the clock of the API."""
    return datetime.strptime(sent.uid[:14], "%Y%m%d%H%M%S").replace(tzinfo=UTC)
