"""What choosing URLs for a probe costs: `python -m tests.load.bench_urls`.

A real PostgreSQL with test lists of `--urls` entries, all of them candidates in one country, the counters of two weeks
of `--networks` networks, and those of one day of a crowd of networks that ask in turn. Prints figures and exits 0
whatever they are; compare ratios within one run.
"""

import argparse
import contextlib
import resource
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import psycopg

from api.metrics import URL_COUNTS_READ
from api.url_networks import counted_days
from api.url_queries import UrlQueries
from api.url_selection import UrlSelection
from core import schema
from core.db import open_pool
from core.testlists import CATEGORIES
from devstack.postgres import PostgresCluster

REQUESTS = 2000
THREADS = 8
MEASURED = 5000  # URLs of the lists that each network measured on each day

CROWD = 1000
CROWD_MEASURED = 300
CROWD_FROM = 100_000  # number of the first of these networks

_LISTS = """INSERT INTO citizenlab SELECT d, 'https://' || d || '/', CASE WHEN n %% 2 = 0 THEN 'ZZ' ELSE 'it' END,
    (%(categories)s::text[])[1 + n %% cardinality(%(categories)s::text[])]
    FROM (SELECT n, n || '.example.org' AS d FROM generate_series(1, %(urls)s) n) urls"""
_COUNTERS = """INSERT INTO counters_input
    (measurement_start_day, test_name, probe_cc, probe_asn, domain, input, measurement_count)
    SELECT %(since)s::date + day, 'web_connectivity', 'IT', asn, d, 'https://' || d || '/', 1 + n %% 7
    FROM generate_series(0, %(days)s) day, generate_series(%(first)s::int, %(last)s::int) asn,
         LATERAL (SELECT n, (1 + (n * 7 + asn) %% %(urls)s) || '.example.org' AS d
                  FROM generate_series(1, least(%(measured)s, %(urls)s)) n) urls
    ON CONFLICT DO NOTHING"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run all parts and print a line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--urls", type=int, default=30_000, help="entries of the lists; default: 30000")
    parser.add_argument("--networks", type=int, default=20, help="networks with counters; default: 20")
    parser.add_argument("--crowd", type=int, default=CROWD, help=f"networks that ask in turn; default: {CROWD}")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as state, _database(options) as dsn:
        pool = open_pool(dsn)
        selection = UrlSelection(UrlQueries(pool), Path(state))
        try:
            before = _memory_mb()
            _say(f"{options.urls:,} URLs read and saved: {_timed(selection.refresh):.2f} s")
            _say(f"looked for changes, found none: {_timed(selection.refresh) * 1000:.0f} ms")
            _measure(selection, options.networks)
            _measure_crowd(selection, range(CROWD_FROM, CROWD_FROM + options.crowd))
            _say(f"memory: {before:.0f} MB before, at most {_memory_mb():.0f} MB")
        finally:
            selection.close()
            pool.close()
    return 0


def _measure(selection: UrlSelection, networks: int) -> None:
    first = sorted(_timed(partial(selection.select, "IT", asn, (), 20)) for asn in range(1, networks + 1))
    _show("first request of a network", first)
    _show("first request of a country", [_timed(lambda: selection.listing("IT", (), 20))])
    asked: list[tuple[str, Callable[[], object]]] = [
        ("20 URLs", lambda: selection.select("IT", 1, (), 20)),
        ("100 URLs", lambda: selection.select("IT", 2, (), 100)),
        ("100 URLs of 3 categories", lambda: selection.select("IT", 3, ("NEWS", "HUMR", "GMB"), 100)),
        ("the whole list", lambda: selection.select("IT", 4, (), 9_999_999)),
        ("old probes' list, 100 URLs", lambda: selection.listing("IT", (), 100)),
    ]
    for name, ask in asked:
        _show(f"warm, {name}", sorted(_timed(ask) for _ in range(REQUESTS)))
    taken: list[float] = []

    def work(number: int) -> None:
        taken.extend([_timed(lambda: selection.select("IT", number, (), 100)) for _ in range(REQUESTS // THREADS)])

    threads = [threading.Thread(target=work, args=(number + 1,)) for number in range(THREADS)]
    took = _timed(lambda: _run(threads))
    _show(f"warm, 100 URLs, {THREADS} threads ({len(taken) / took:,.0f}/s)", sorted(taken))


def _measure_crowd(selection: UrlSelection, networks: Sequence[int]) -> None:
    before = _memory_mb()
    for turn in ("first", "second", "third"):
        readings = _readings()
        took = sorted(_timed(partial(selection.select, "IT", asn, (), 100)) for asn in networks)
        _show(f"{len(networks):,} networks in turn, {turn} time ({_readings() - readings:.0f} readings)", took)
    _say(f"memory of these networks: {_memory_mb() - before:.0f} MB at most")


def _readings() -> float:
    return sum(float(URL_COUNTS_READ.labels(result)._value.get()) for result in ("ok", "failed"))


def _run(threads: Sequence[threading.Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextlib.contextmanager
def _database(options: argparse.Namespace) -> Iterator[str]:
    directory = Path(tempfile.mkdtemp(prefix="bench-pg-"))
    cluster = PostgresCluster(directory)
    try:
        cluster.start()
        cluster.ensure_database("bench")
        dsn = cluster.dsn("bench")
        schema.upgrade(dsn)
        today = datetime.now(UTC).date()
        since, _ = counted_days(today)
        values = {
            "urls": options.urls,
            "categories": sorted(CATEGORIES),
            "first": 1,
            "last": options.networks,
            "measured": MEASURED,
            "since": since,
            "days": (today - since).days,
        }
        crowd = {
            "first": CROWD_FROM,
            "last": CROWD_FROM + options.crowd - 1,
            "measured": CROWD_MEASURED,
            "since": today,
            "days": 0,
        }
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(_LISTS, values)
            rows = sum(connection.execute(_COUNTERS, {**values, **of}).rowcount for of in ({}, crowd))
            connection.execute("VACUUM ANALYZE")
        _say(f"{rows:,} counters of {options.networks} networks, and of {options.crowd:,} for a day")
        yield dsn
    finally:
        cluster.stop()
        shutil.rmtree(directory)


def _timed(act: Callable[[], object]) -> float:
    started = time.perf_counter()
    act()
    return time.perf_counter() - started


def _show(name: str, ordered: Sequence[float]) -> None:
    p50, p99 = (ordered[int(share * (len(ordered) - 1))] * 1000 for share in (0.5, 0.99))
    _say(f"{name}: p50 {p50:.2f} ms, p99 {p99:.2f} ms")


def _memory_mb() -> float:
    """Greatest memory of this process so far, in megabytes."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
