"""Outages: the database is down, the object store fails in each way, the disk is full, services stop.

Submissions go on, the backlog is a metric the whole time, and afterwards the host catches up by itself.
"""

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from crashlab.account import settle_and_check
from crashlab.backlog import Backlog
from crashlab.probes import Probes, Sent, pace
from crashlab.stack import Stack

from fastpath.sweeper import COUNT_INTERVAL_S

OUTAGE_S = float(os.environ.get("OUTAGE_S") or 10)
"""How long database and object store are down; OUTAGE_S=300 makes it minutes."""

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400 + 5 * OUTAGE_S)]

FAULTS = ("error", "refuse", "break-before", "break-after", "slow", "truncate")
SMALL_DISK = "24m"
SCORED: LiteralString = "SELECT count(*) FROM fastpath WHERE measurement_uid = ANY(%s)"
ARCHIVED: LiteralString = "SELECT count(*) FROM jsonl WHERE measurement_uid = ANY(%s)"


@pytest.fixture(scope="module")
def shared() -> Iterator[Stack]:
    with Stack() as stack:
        yield stack


@pytest.fixture
def stack(shared: Stack) -> Stack:
    """The one host of these tests, at rest; what was archived before has to stay."""
    shared.wait(shared.is_up, 60, "the stack is up")
    shared.archiver.set()
    return shared


ACKNOWLEDGED: list[Sent] = []
"""By that host, so far."""


def settled(stack: Stack, probes: Probes) -> dict[str, Any]:
    """Check the invariant for all that the host ever acknowledged."""
    ACKNOWLEDGED.extend(probes.sent)
    return settle_and_check(stack, ACKNOWLEDGED, within_s=120 + OUTAGE_S, read=60)


def caught_up(stack: Stack, query: LiteralString, waiting: list[Sent], done: LiteralString) -> str:
    """Wait until all that came in during an outage is in a table; return in a sentence how long that took."""
    started = time.monotonic()
    uids = [one.uid for one in waiting]

    def complete() -> bool:
        try:
            with psycopg.connect(stack.dsn, connect_timeout=2) as connection:
                return connection.execute(query, [uids]).fetchone() == (len(uids),)
        except psycopg.Error:
            return False

    stack.wait(complete, 120 + OUTAGE_S, f"what came in meanwhile is {done}")
    return f"{len(uids)} taken meanwhile, {done} after {time.monotonic() - started:.1f} s"


def test_the_database_is_down(stack: Stack, seed: int, figures: list[str]) -> None:
    with Backlog(stack) as backlog:
        with Probes(stack.api_port, seed) as probes:
            assert pace(probes, 20, 60)
            with stack.without_database():
                before = probes.acknowledged
                time.sleep(OUTAGE_S)
                waiting = probes.sent[before:]
                assert len(waiting) > OUTAGE_S, "submissions go on without the database"
                stack.wait(lambda: backlog.now["incoming"] >= len(waiting) * 0.5, 60, "the backlog is visible")
                waiting = probes.sent[before:]
            found = caught_up(stack, SCORED, waiting, "scored")
            assert pace(probes, 20, 60)
        account = settled(stack, probes)
        backlog.assert_seen("incoming", len(waiting) * 0.5, 3 * COUNT_INTERVAL_S)
    figures.append(
        f"database down for {OUTAGE_S:.0f} s and until the backlog was seen: {found}; "
        f"backlog up to {backlog.peak['incoming']:.0f}, readable at {backlog.polls} of {backlog.polls} polls; {account}"
    )


def test_the_object_store_is_down(stack: Stack, seed: int, figures: list[str]) -> None:
    with Backlog(stack) as backlog:
        with Probes(stack.api_port, seed + 1) as probes:
            assert pace(probes, 20, 60)
            stack.s3.stop()
            before = probes.acknowledged
            time.sleep(OUTAGE_S)
            waiting = probes.sent[before:]
            assert len(waiting) > OUTAGE_S, "submissions go on without the object store"
            stack.wait(lambda: backlog.now["scored"] >= len(waiting) * 0.5, 60, "the backlog is visible")
            waiting = probes.sent[before:]
            stack.s3.start()
            found = caught_up(stack, ARCHIVED, waiting, "archived")
            assert pace(probes, 20, 60)
        account = settled(stack, probes)
        backlog.assert_seen("scored", len(waiting) * 0.5, 3 * COUNT_INTERVAL_S)
    figures.append(
        f"object store down for {OUTAGE_S:.0f} s and until the backlog was seen: {found}; "
        f"backlog up to {backlog.peak['scored']:.0f}, readable at {backlog.polls} of {backlog.polls} polls; {account}"
    )


def test_the_object_store_fails(stack: Stack, seed: int, figures: list[str]) -> None:
    """In each way, one after the other: some requests, then all; what arrives halfway is the worst."""
    failed = {}
    with Probes(stack.api_port, seed + 2, per_second=5) as probes:
        for fault in random.Random(seed).sample(FAULTS, len(FAULTS)):
            injected = stack.proxy.injected
            stack.proxy.inject(fault, times=7, seconds=2)
            stack.wait(lambda: stack.proxy.injected >= injected + 7, 90, f"some requests meet {fault}")  # noqa: B023
            stack.proxy.inject(fault, times=None, seconds=2)
            assert pace(probes, 20, 60), f"submissions go on during {fault}"
            stack.proxy.heal()
            failed[fault] = stack.proxy.injected - injected
    figures.append(f"object store fails, requests by kind {failed}: {settled(stack, probes)}")


def test_services_stop_and_start_under_load(stack: Stack, seed: int, figures: list[str]) -> None:
    """SIGTERM is what an upgrade sends: each service ends by itself, in time, without an error."""
    with Probes(stack.api_port, seed + 3, per_second=5) as probes:
        for name in ("api", "fastpath") * 2:
            assert pace(probes, 10, 60)
            assert stack.programs[name].stop(signal.SIGTERM, patience_s=30) == 0, name
            stack.wait(stack.is_up, 60, f"{name} is back")
        assert pace(probes, 10, 60)
    figures.append(f"SIGTERM under load: {settled(stack, probes)}")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of a few megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    done = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK},mode=0755", "tmpfs", disk],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        pytest.skip(f"a small file system cannot be mounted here: {done.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", disk], check=True)


def test_the_disk_is_full(small_disk: Path, seed: int, figures: list[str]) -> None:
    """Refused with 503 before the disk is full, never acknowledged and lost; taken again once there is room."""
    with Stack(spool=small_disk / "spool") as stack:
        stack.wait(stack.is_up, 60, "the stack is up")
        stack.archiver.clear()
        with Probes(stack.api_port, seed, per_second=10) as probes:
            assert pace(probes, 20, 60)
            ballast = small_disk / "ballast"
            with open(ballast, "wb") as file:
                free = os.statvfs(small_disk)
                file.write(bytes(max(0, free.f_bavail * free.f_frsize - 4_500_000)))
            stack.wait(lambda: probes.refused > 5, 120, "submissions are refused")
            ballast.unlink()
            stack.archiver.set()
            assert pace(probes, 20, 60), "submissions are taken again"
        found = settle_and_check(stack, probes.sent)
    figures.append(f"disk full: {probes.refused} refused; {found}")
