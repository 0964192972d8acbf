"""What the disk queue and the body reads cost, on this machine's disk: `python -m tests.load.bench_spool`.

`--files N` sets the backlog that is drained (a million takes some minutes), `--directory` the disk. Prints figures and
exits 0 whatever they are; compare ratios within one run.
"""

import argparse
import contextlib
import gzip
import os
import resource
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
from core.spool import Spool
from core.spool_files import make_header

BODY = b'{"format":"json","content":{"x":"' + b"0123456789abcdef" * 360 + b'"}}'
"""About 5.8 kB, the mean of the sample."""

REPORT = "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop"
SECONDS = 4.0
LINES = 3000
BATCH = 500


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=20_000, help="size of the backlog; default: 20000")
    parser.add_argument("--directory", type=Path, help="where to measure; default: the temporary directory")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        root = Path(name)
        _commits(root / "commits")
        _repeats(root / "repeats")
        _reads(root / "reads")
        _drain(root / "drain", options.files)
    return 0


class OneSyncEach(GroupSync):
    """What group commit is compared with: every caller pays for an fsync of the directory of its own."""

    def directory(self, path: Path) -> None:
        """Synchronise a directory, one caller after the other."""
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _commits(root: Path) -> None:
    for clients in (1, 10, 100):
        rates = {}
        for name, sync in (("one fsync each", OneSyncEach()), ("group commit", GroupSync())):
            spool = Spool(root / name.replace(" ", "_") / str(clients), min_free_bytes=0)
            spool._sync = sync  # the one difference that is measured
            taken = _saturate(spool, clients)
            rates[name] = len(taken) / SECONDS
            _say(
                f"put, {clients} clients, {name}: {rates[name]:,.0f}/s, p50 {_quantile(taken, 0.5):.1f} ms, "
                f"p99 {_quantile(taken, 0.99):.1f} ms"
            )
        ratio = rates["group commit"] / rates["one fsync each"]
        _say(f"put, {clients} clients: group commit is {ratio:.2f} times as fast")


def _saturate(spool: Spool, clients: int) -> list[float]:
    """Put from so many threads at the same time; return how long each took, in seconds."""
    end = time.monotonic() + SECONDS
    lock, taken = threading.Lock(), list[float]()

    def work(client: int) -> None:
        own, number = [], 0
        while time.monotonic() < end:
            number += 1
            body = BODY + f"{client}.{number}".encode()
            uid = new_measurement_uid(datetime.now(UTC), "IT", "ndt", body)
            started = time.perf_counter()
            spool.put(uid, body, REPORT)
            own.append(time.perf_counter() - started)
        with lock:
            taken.extend(own)

    with ThreadPoolExecutor(clients) as pool:
        list(pool.map(work, range(clients)))
    return sorted(taken)


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
    _say(f"body read by position: {member.length:,} bytes, {near * 1000:.2f} ms")
    _say(f"body read from the start of the object ({size:,} bytes): {fetched:,} bytes, {far * 1000:.0f} ms")
    _say(f"body read by position: {fetched / member.length:,.0f} times fewer bytes, {far / near:,.0f} times faster")


def _drain(root: Path, files: int) -> None:
    """All in one directory: an hour, a country, a test."""
    spool = Spool(root, min_free_bytes=0)
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - timedelta(hours=2)
    _say(f"backlog of {files:,} files of {len(BODY):,} bytes, all in one directory")
    took = _timed(lambda: _fill(spool, hour, files))
    _say(f"made without fsync in {took:.0f} s, {files / took:,.0f}/s")
    before = _memory_mb()
    _say(f"counts: {_timed(spool.counts):.2f} s; again, unchanged: {_timed(spool.counts) * 1000:.1f} ms")
    _say(f"age of the oldest: {_timed(spool.oldest_incoming_s) * 1000:.0f} ms")
    moved = 0

    def score() -> None:
        nonlocal moved
        batch: list[str] = []
        for uid in spool.incoming():
            batch.append(uid)
            if len(batch) == BATCH:
                spool.mark_scored(batch)
                moved += len(batch)
                batch = []
        spool.mark_scored(batch)
        moved += len(batch)

    took = _timed(score)
    _say(f"scored: {moved:,} in {took:.0f} s, {moved / took:,.0f}/s")
    removed = 0

    def remove() -> None:
        nonlocal removed
        for directory in spool.scored_directories():
            while uids := spool.scored(directory, limit=100_000):
                for start in range(0, len(uids), 5 * BATCH):
                    spool.remove_scored(uids[start : start + 5 * BATCH])
                removed += len(uids)

    took = _timed(remove)
    _say(f"removed: {removed:,} in {took:.0f} s, {removed / took:,.0f}/s")
    _say(f"memory: {before:.0f} MB before, at most {_memory_mb():.0f} MB")
    assert spool.counts().incoming == spool.counts().scored == 0


def _fill(spool: Spool, hour: datetime, files: int) -> None:
    """Write files as `put` names them, without waiting for the disk."""
    header = make_header(BODY, REPORT)
    for number in range(files):
        uid = new_measurement_uid(hour + timedelta(microseconds=number * 3000), "IT", "ndt", str(number).encode())
        path = spool.path("incoming", uid)
        if number == 0:
            path.parent.mkdir()
        path.write_bytes(header + BODY)


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _memory_mb() -> float:
    """Greatest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(share * (len(ordered) - 1))] * 1000 if ordered else 0.0


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        sys.exit(main())
