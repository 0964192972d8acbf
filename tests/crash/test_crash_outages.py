"""Outages: the database is down, the object store fails in each way, the disk is full, the clock jumps, services stop.

Submissions go on, the backlog is a metric the whole time, and afterwards the host catches up by itself.
"""

import os
import re
import signal
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from crashlab.account import settle_and_check
from crashlab.probes import Probes, pace
from crashlab.stack import Stack

pytestmark = [pytest.mark.crash, pytest.mark.timeout(400)]

OUTAGE_S = float(os.environ.get("OUTAGE_S") or 15)
"""How long an outage lasts; OUTAGE_S=300 makes it minutes."""

SMALL_DISK = "24m"
BACKLOG = re.compile(r'^fastpath_spool_files\{state="incoming"\} (\S+)$', re.MULTILINE)
FAKETIME = next(iter(Path("/usr/lib").glob("*/faketime/libfaketime.so.1")), None)


@pytest.fixture
def stack() -> Iterator[Stack]:
    with Stack() as stack:
        stack.wait(stack.is_up, 60, "the stack is up")
        yield stack


def backlog(stack: Stack) -> float:
    """Measurements that wait to be scored, as the fastpath's metric says."""
    with urllib.request.urlopen(stack.metrics_url, timeout=10) as response:
        [value] = BACKLOG.findall(response.read().decode())
    return float(value)


def test_the_database_is_down(stack: Stack, seed: int, figures: list[str]) -> None:
    with Probes(stack.api_port, seed) as probes:
        assert pace(probes, 20, 60)
        with stack.without_database():
            before = probes.acknowledged
            time.sleep(OUTAGE_S)
            during = probes.acknowledged - before
            assert during > OUTAGE_S, "submissions go on without the database"
            stack.wait(lambda: backlog(stack) >= during * 0.5, 30, "the backlog is visible")
        assert pace(probes, 20, 60)
    figures.append(
        f"database down for {OUTAGE_S:.0f} s: {during} taken meanwhile; {settle_and_check(stack, probes.sent)}"
    )


@pytest.mark.parametrize("fault", ["error", "refuse", "break-before", "break-after", "slow", "truncate"])
def test_the_object_store_fails(stack: Stack, fault: str, seed: int, figures: list[str]) -> None:
    """All requests, and before that some: what arrives halfway is the worst."""
    with Probes(stack.api_port, seed) as probes:
        stack.proxy.inject(fault, times=7, seconds=2)
        assert pace(probes, 20, 60)
        stack.wait(lambda: stack.proxy.injected >= 7, 90, "some requests failed")
        stack.proxy.inject(fault, times=None, seconds=2)
        time.sleep(OUTAGE_S / 2)
        assert pace(probes, 20, 60), "submissions go on without the store"
    figures.append(
        f"object store, {fault}: {stack.proxy.injected} requests failed; {settle_and_check(stack, probes.sent)}"
    )


def test_the_object_store_is_down(stack: Stack, seed: int, figures: list[str]) -> None:
    with Probes(stack.api_port, seed) as probes:
        assert pace(probes, 20, 60)
        stack.s3.stop()
        time.sleep(OUTAGE_S)
        assert pace(probes, 20, 60)
        stack.s3.start()
    figures.append(f"object store down for {OUTAGE_S:.0f} s: {settle_and_check(stack, probes.sent)}")


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


def test_services_stop_and_start_under_load(stack: Stack, seed: int, figures: list[str]) -> None:
    """SIGTERM is what an upgrade sends: each service ends by itself, in time, without an error."""
    with Probes(stack.api_port, seed) as probes:
        for name in ("api", "fastpath") * 2:
            assert pace(probes, 10, 60)
            assert stack.programs[name].stop(signal.SIGTERM, patience_s=30) == 0, name
            stack.wait(stack.is_up, 60, f"{name} is back")
        assert pace(probes, 10, 60)
    figures.append(f"SIGTERM under load: {settle_and_check(stack, probes.sent)}")


@pytest.mark.skipif(FAKETIME is None, reason="no libfaketime on this machine: apt-get install libfaketime")
def test_the_clock_jumps(tmp_path: Path, seed: int, figures: list[str]) -> None:
    """By hours, ahead and back, for the API, which stamps what arrives; the other programs meet stamps of all times.

    The uploader keeps the right time, since the object store refuses signatures of another one, and so does the
    fastpath: with libfaketime 0.9.10 every time.sleep fails (EINVAL from clock_nanosleep), and the fastpath sleeps.
    """
    offset = tmp_path / "offset"
    offset.write_text("+0s\n")
    tmp_path.chmod(0o755)
    preload = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(offset),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    with Stack(preload=preload) as stack:
        stack.wait(stack.is_up, 60, "the stack is up")
        with Probes(stack.api_port, seed) as probes:
            for jump in ("+2h", "-3h", "+25h", "+0s"):
                assert pace(probes, 15, 60), f"before the clock jumps to {jump}"
                offset.write_text(f"{jump}\n")
            assert pace(probes, 15, 60)
        ahead = sum(one.uid[:10] > time.strftime("%Y%m%d%H", time.gmtime(time.time() + 3600)) for one in probes.sent)
        stack.programs["api"].stop()  # its signatures are to be right again in any case
        stack.programs["api"].environ.pop("LD_PRELOAD")
        found = settle_and_check(stack, probes.sent)
    assert ahead, "no measurement came from the future, so that nothing is shown"
    figures.append(f"clock jumps: {ahead} from the future; {found}")
