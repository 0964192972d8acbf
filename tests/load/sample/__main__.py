"""The command behind `make load-sample`."""

import argparse
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from urllib.parse import quote

from tests.load.sample import checks, cluster, figures, loading
from tests.load.sample.draw import Sampler
from tests.load.sample.loading import Clock, LoadError
from tests.load.sample.world import FIRST_DAY

from core import schema
from core.db import DatabaseUnavailable
from devstack.database import DATABASE
from devstack.errors import StackError
from devstack.places import Places
from devstack.postgres import PORT, SUPERUSER, DataDirectoryUnreachable, PostgresCluster, PostgresError


def main(arguments: Sequence[str] | None = None) -> int:
    """Load, prove, print; return the exit status: 0, or 1 with a sentence on standard error."""
    options = _parser().parse_args(arguments)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # stops the server on the way out
    until = options.until or datetime.now(UTC).date()
    try:
        if options.rows < 1 or until < FIRST_DAY:
            raise LoadError(f"ROWS is at least 1 and UNTIL no day before {FIRST_DAY}: make load-sample ROWS=1000000")
        sampler = Sampler(options.rows, options.seed, until)
        if options.dsn:
            schema.upgrade(options.dsn)
            return _load_carefully(options.dsn, sampler)
        return _load_at_home(Path(options.run_dir).resolve(), sampler)
    except (LoadError, StackError, DatabaseUnavailable, PostgresError, schema.SchemaError) as error:
        print(f"load-sample: {error}", file=sys.stderr)
        return 1


def _load_at_home(run_dir: Path, sampler: Sampler) -> int:
    """Load into the database of `make run`, whether that is running or not."""
    places = Places(run_dir)
    server = PostgresCluster(places.remembered_postgres())
    if server.leftover_pid() is not None:
        address = f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(server.socket_dir))}&port={PORT}"
        _say(f"The stack in {run_dir} is running; the sample is loaded into its database.")
        return _load_carefully(address, sampler)
    places.prepare()
    with places.lock(_say, lambda: None):
        try:
            server.start()
        except DataDirectoryUnreachable:
            server = PostgresCluster(places.postgres_elsewhere())
            server.start()
        try:
            if cluster.has_database(server, DATABASE):
                dsn = server.dsn(DATABASE)
                schema.upgrade(dsn)
                return _load_carefully(dsn, sampler)
        finally:
            server.stop()
        clock = Clock()
        cluster.load(server.data_dir, DATABASE, sampler, _say, clock)
        with PostgresCluster(server.data_dir, settings=cluster.machine_settings()) as server:
            return _show(server.dsn(DATABASE), sampler, clock)


def _load_carefully(dsn: str, sampler: Sampler) -> int:
    clock = Clock()
    loading.carefully(dsn, sampler, _say, clock)
    return _show(dsn, sampler, clock)


def _show(dsn: str, sampler: Sampler, clock: Clock) -> int:
    rows = sum(month.rows for month in sampler.months)
    for name, seconds in clock.parts.items():
        _say(f"{name}: {seconds:.1f} s")
    _say(
        f"loaded {rows:,} rows with all indexes and counters in {clock.total:.1f} s: {rows / clock.total:,.0f} rows/s "
        f"({loading.WORKERS} cores)"
    )
    proving = Clock()
    with proving.part("proof"):
        proof = checks.prove(dsn, sampler.months)
    for sentence in proof.wrong:
        _say(f"WRONG: {sentence}")
    if not proof.wrong:
        _say(
            f"proved in {proving.total:.1f} s: {proof.counters:,} counters equal {proof.rows:,} rows, and every row is "
            "found by its identifiers"
        )
    with loading.session(dsn, {"max_parallel_workers_per_gather": str(loading.WORKERS)}) as connection:
        for line in figures.table(connection):
            _say(line)
    return 1 if proof.wrong else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="load-sample", description=__doc__)
    parser.add_argument("--rows", type=int, required=True, help="how many measurements")
    parser.add_argument("--seed", type=int, default=1, help="the same seed gives the same rows; default: 1")
    parser.add_argument("--until", type=date.fromisoformat, help="last day of the measurements; default: today (UTC)")
    parser.add_argument("--dsn", default="", help="database to fill; default: the one of `make run` in RUN_DIR")
    parser.add_argument("--run-dir", default="run", help="directory of `make run`; default: run")
    return parser


def _say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
