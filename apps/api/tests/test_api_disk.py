"""A disk that fills up: measurements are refused before it is full, and what was acknowledged stays whole.

On file systems of their own, a few megabytes large, mounted by the test; that needs root.
"""

import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

UNREACHABLE = "host=/nonexistent dbname=ooni"
MEGABYTE = 1024 * 1024

Mount = Callable[[str], Path]


@pytest.fixture(scope="module")
def mount(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mount]:
    """Mount a file system in memory with the given options; unmounted at the end, after the servers have stopped."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    mounted: list[Path] = []

    def _mount(options: str) -> Path:
        where = tmp_path_factory.mktemp("disk")
        done = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(where)], check=False, capture_output=True, text=True
        )
        if done.returncode:
            pytest.skip(f"this machine lets nobody mount a file system: {done.stderr.strip()}")
        mounted.append(where)
        return where

    yield _mount
    for where in mounted:
        subprocess.run(["umount", "--lazy", str(where)], check=True)


def fill(api: Any, size: int) -> tuple[dict[str, bytes], Any]:
    """Submit until something is refused; return what was acknowledged and the refusal."""
    acknowledged: dict[str, bytes] = {}
    for number in range(20_000):
        body = b'{"format":"json","content":{"n":%d,"x":"%s"}}' % (number, b"x" * size)
        response = api.submit(body)
        if response.status_code != 200:
            return acknowledged, response
        acknowledged[response.json()["measurement_uid"]] = body
    raise AssertionError("the disk never filled up")


def check(api: Any, acknowledged: dict[str, bytes]) -> None:
    """Everything acknowledged is there, byte for byte, and nothing else is."""
    assert acknowledged
    for uid, body in acknowledged.items():
        record = api.spool.read(uid)
        assert record is not None
        assert record.body == body
    kept = [path for path in api.files() if "received" not in path.parts]
    assert sorted(path.name for path in kept) == sorted(f"{uid}.post" for uid in acknowledged)


def test_refused_before_the_last_bytes_and_taken_again_when_there_is_room(
    start_api: Callable[..., Any], mount: Mount
) -> None:
    disk = mount("size=8m")
    api = start_api(UNREACHABLE, spool_directory=disk / "spool", spool_min_free_bytes=3 * MEGABYTE)
    api.spool_dir = disk / "spool"
    acknowledged, refusal = fill(api, 50_000)
    assert refusal.status_code == 503
    assert int(refusal.headers["retry-after"]) > 0
    assert "error" in refusal.json()
    status = os.statvfs(disk)
    assert status.f_bavail * status.f_frsize > 2 * MEGABYTE
    check(api, acknowledged)
    assert api.metric("api_spool_put_failures_total", reason="full") == 1
    gone = next(iter(acknowledged))
    body = acknowledged.pop(gone)
    api.spool.mark_scored([gone])
    api.spool.remove_scored([gone])
    again = api.submit(body + b" ")
    assert again.status_code == 200, again.text
    check(api, acknowledged | {again.json()["measurement_uid"]: body + b" "})


def test_refused_before_the_last_inodes(start_api: Callable[..., Any], mount: Mount) -> None:
    disk = mount("size=64m,nr_inodes=1100")
    api = start_api(UNREACHABLE, spool_directory=disk / "spool", spool_min_free_bytes=1)
    api.spool_dir = disk / "spool"
    acknowledged, refusal = fill(api, 10)
    assert (refusal.status_code, "retry-after" in refusal.headers) == (503, True)
    assert 50 < len(acknowledged) < 100
    assert os.statvfs(disk).f_favail >= 990
    check(api, acknowledged)


def test_a_disk_that_is_full_without_warning_loses_nothing(start_api: Callable[..., Any], mount: Mount) -> None:
    """The guard is one byte: the write itself fails, and half a file must not stay."""
    disk = mount("size=2m")
    api = start_api(UNREACHABLE, spool_directory=disk / "spool", spool_min_free_bytes=1)
    api.spool_dir = disk / "spool"
    acknowledged, refusal = fill(api, 30_000)
    assert (refusal.status_code, "retry-after" in refusal.headers) == (503, True)
    check(api, acknowledged)
    small, _ = fill(api, 10)
    check(api, acknowledged | small)
