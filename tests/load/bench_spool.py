"""What the disk queue and the body reads cost, on this machine's disk: `python -m tests.load.bench_spool`.

`--files N` sets the backlog that is drained (a million takes some minutes and 8 GB), `--directory` the disk, `--only`
one part. The backlog lies where the API would have put it: with so many files of one hour, country and test, most of
them in overflow folders. Prints figures and exits 0 whatever they are; compare ratios within one run.
"""

import argparse
import contextlib
import gzip
import itertools
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

from core.archive import JsonlWriter, find_line, read_line
from core.groupsync import GroupSync
from core.ids import new_measurement_uid
from core.objectstore import open_store
from core.received import Received, received_key
from core.spool import INCOMING, STATES, Spool
from core.spool_files import make_header
from core.spool_places import OVERFLOW_AFTER, Places
from core.spool_scan import directories, folders
from uploader.plan import PLANNED_AT_ONCE
from uploader.run import REMOVE_AT_ONCE

BODY = b'{"format":"json","content":{"x":"' + b"0123456789abcdef" * 360 + b'"}}'
"""About 5.8 kB, the mean of the sample."""

REPORT = "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop"
SECONDS = 2.0
ROUNDS = 3
LINES = 3000
BATCH = 500
APART = timedelta(milliseconds=3)
"""Between two measurements of the backlog: a million of them is 50 minutes."""

BYTES_ON_DISK = 8192
"""Of one file, in blocks of 4 kB."""

PARTS = ("drain", "commits", "repeats", "reads")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=30_000, help="size of the backlog; default: 30000")
    parser.add_argument(
        "--overflow-after",
        type=int,
        default=OVERFLOW_AFTER,
        help=f"files in a directory before it gets overflow folders; default: the spool's own, {OVERFLOW_AFTER}",
    )
    parser.add_argument("--directory", type=Path, help="where to measure; default: the temporary directory")
    parser.add_argument("--only", choices=PARTS, action="append", help="measure this part; may be repeated")
    options = parser.parse_args(arguments)
    parts = options.only or PARTS
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        wanted = options.files * BYTES_ON_DISK
        if "drain" in parts and shutil.disk_usage(root).free < 1.2 * wanted:
            parser.error(f"{root} has no room for {wanted / 1e9:.1f} GB. Name another disk with --directory.")
        if "drain" in parts:  # first, so that its memory is its own
            _drain(root / "drain", options.files, options.overflow_after)
            os.sync()
        if "commits" in parts:
            _commits(root / "commits")
        if "repeats" in parts:
            _repeats(root / "repeats")
        if "reads" in parts:
            _reads(root / "reads")
    return 0


class OneSyncEach(GroupSync):
    """What group commit is compared with: every caller pays for an fsync of the directory of its own."""

    def directory(self, path: Path) -> None:
        """Synchronise a directory, whoever else does the same at that moment."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _commits(root: Path) -> None:
    """Put with some numbers of clients, with either way in turn, so that other load on the machine hits both."""
    for clients in (1, 10, 100):
        rates = {}
        spools = {"one fsync per request": OneSyncEach(), "group commit": GroupSync()}
        taken: dict[str, list[float]] = {name: [] for name in spools}
        elapsed = dict.fromkeys(spools, 0.0)
        for _ in range(ROUNDS):
            for name, sync in spools.items():
                spool = Spool(root / name.replace(" ", "_") / str(clients), min_free_bytes=0)
                spool._sync = sync  # the one difference that is measured
                started = time.perf_counter()
                taken[name] += _saturate(spool, clients)
                elapsed[name] += time.perf_counter() - started
        for name, each in taken.items():
            rates[name] = len(each) / elapsed[name]
            _say(
                f"put, {clients} clients, {name}: {rates[name]:,.0f} requests/s, p50 {_quantile(each, 0.5):.1f} ms, "
                f"p99 {_quantile(each, 0.99):.1f} ms"
            )
        ratio = rates["group commit"] / rates["one fsync per request"]
        _say(f"put, {clients} clients: group commit is {ratio:.2f} times as fast")


def _saturate(spool: Spool, clients: int) -> list[float]:
    """Put from so many threads at the same time; return how long each took, in seconds."""
    end = time.monotonic() + SECONDS
    run = os.urandom(4).hex()
    lock, taken = threading.Lock(), list[float]()

    def work(client: int) -> None:
        own, number = [], 0
        while time.monotonic() < end:
            number += 1
            body = BODY + f"{run}.{client}.{number}".encode()
            uid = new_measurement_uid(datetime.now(UTC), "IT", "ndt", body)
            started = time.perf_counter()
            spool.put(uid, body, REPORT)
            own.append(time.perf_counter() - started)
        with lock:
            taken.extend(own)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return taken


def _repeats(root: Path) -> None:
    memory = Received(root)
    keys = [received_key(REPORT, BODY + str(number).encode()) for number in range(5000)]

    def first() -> None:
        for key in keys:
            with memory.hold(key) as entry:
                entry.claim(datetime.now(UTC))
                entry.acknowledge()

    def again() -> None:
        for key in keys:
            with memory.hold(key) as entry:
                assert entry.acknowledged

    _say(f"memory of repeats: {_timed(first) / len(keys) * 1e6:.0f} us for a new measurement")
    _say(f"memory of repeats: {_timed(again) / len(keys) * 1e6:.0f} us for a repeated one")


def _reads(root: Path) -> None:
    """Read the line in the middle of an object of some 20 MB, by its position and from the start."""
    root.mkdir()
    # Like measurements, the lines shrink to about a quarter.
    lines = [b'{"n":%d,"x":"%s"}' % (number, os.urandom(5000).hex().encode()) for number in range(LINES)]
    with open(root / "seekable", "wb") as file:
        writer = JsonlWriter(file)
        members = [writer.add(line) for line in lines]
    (root / "old").write_bytes(gzip.compress(b"".join(line + b"\n" for line in lines), 6))
    store = open_store(f"file://{root}/objects")
    for name in ("seekable", "old"):
        store.put(name, root / name)
    middle = LINES // 2
    member = members[middle]
    fetched = 0

    def by_position() -> None:
        assert read_line(store.get_range("seekable", member.offset, member.length)) == lines[middle]

    def chunks() -> Iterator[bytes]:
        nonlocal fetched
        for offset in range(0, size, 1024 * 1024):
            length = min(1024 * 1024, size - offset)
            fetched += length
            yield store.get_range("old", offset, length)

    def from_the_start() -> None:
        assert find_line(chunks(), middle) == lines[middle]

    size = (root / "old").stat().st_size
    by_position()
    near = min(_timed(by_position) for _ in range(20))
    far = _timed(from_the_start)
    _say(f"body read by position: {member.length:,} bytes fetched, {near * 1000:.2f} ms")
    _say(f"body read from the start of the object ({size:,} bytes): {fetched:,} bytes fetched, {far * 1000:.0f} ms")
    _say(f"body read by position: {fetched / member.length:,.0f} times fewer bytes, {far / near:,.0f} times faster")


def _drain(root: Path, files: int, overflow_after: int) -> None:
    """Let a backlog of one hour, country and test go through the states, as the fastpath and the uploader move it."""
    spool = Spool(root, min_free_bytes=0, overflow_after=overflow_after)
    start = (datetime.now(UTC) - timedelta(hours=2) - files * APART).replace(minute=0, second=0, microsecond=0)
    took = _timed(lambda: _fill(Places(root, overflow_after), start, files))
    overflow = [folders(root / INCOMING / name) for name in directories(root / INCOMING)]
    _say(
        f"backlog of {files:,} files of {len(BODY):,} bytes: {len(overflow)} directories, "
        f"{sum(map(len, overflow))} overflow folders"
    )
    _say(f"made without fsync in {took:.0f} s, {files / took:,.0f} files/s")
    before = _memory_mb("VmRSS")
    highest = 0.0

    def stage(what: str, act: Callable[[], int]) -> float:
        nonlocal highest
        _forget_peak()
        started = time.perf_counter()
        number = act()
        seconds = time.perf_counter() - started
        peak = _memory_mb("VmHWM")
        highest = max(highest, peak)
        _say(f"{what}: {number:,} in {seconds:.2f} s, {number / seconds:,.0f} files/s, memory at most {peak:.0f} MB")
        return seconds

    def score() -> int:
        moved = 0
        uids = spool.incoming()
        while batch := list(itertools.islice(uids, BATCH)):
            spool.mark_scored(batch)
            moved += len(batch)
        return moved

    def remove() -> int:
        removed = 0
        for directory in spool.scored_directories():
            while uids := spool.scored(directory, limit=PLANNED_AT_ONCE):
                for first in range(0, len(uids), REMOVE_AT_ONCE):
                    spool.remove_scored(uids[first : first + REMOVE_AT_ONCE])
                removed += len(uids)
        return removed

    stage("counted", lambda: spool.counts().incoming)
    _say(f"counted again, unchanged: {_timed(spool.counts) * 1000:.1f} ms")
    _say(f"age of the oldest: {_timed(spool.oldest_incoming_s) * 1000:.0f} ms")
    took = stage("scored", score) + stage("removed", remove)
    _say(
        f"drained: {files:,} files in {took:.1f} s, {files / took:,.0f} files/s; "
        f"memory {before:.0f} MB before, at most {highest:.0f} MB"
    )
    left = [path for state in STATES for path in (root / state).rglob("*.post")]
    assert not left, f"{len(left)} files were not drained, the first: {left[0]}"


def _fill(places: Places, start: datetime, files: int) -> None:
    """Write files where and as `put` does, without waiting for the disk."""
    header = make_header(BODY, REPORT)
    made = set[Path]()
    for number in range(files):
        uid = new_measurement_uid(start + number * APART, "IT", "ndt", str(number).encode())
        path = places.choose(INCOMING, uid)
        if path.parent not in made:
            path.parent.mkdir(parents=True, exist_ok=True)
            made.add(path.parent)
        path.write_bytes(header + BODY)


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _forget_peak() -> None:
    """Begin to measure the peak of this process's memory anew, which else is that since the start."""
    with contextlib.suppress(OSError):  # forbidden by some sandboxes
        Path("/proc/self/clear_refs").write_text("5")


def _memory_mb(field: str) -> float:
    """Memory of this process in megabytes: VmRSS, what it occupies, or VmHWM, the peak of that."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1024


def _quantile(taken: Sequence[float], share: float) -> float:
    """Return a quantile of some seconds, in milliseconds."""
    return sorted(taken)[int(share * (len(taken) - 1))] * 1000 if taken else 0.0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
