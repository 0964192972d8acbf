"""The command `analysis`: one job, started by a timer or by hand."""

import argparse
import sys
import time
from collections.abc import Sequence
from contextlib import nullcontext
from datetime import date
from pathlib import Path

import prometheus_client
import structlog

import core.log
from analysis.config import APP, AnalysisSettings
from analysis.counters import Show, Wanted, update_counters
from analysis.download import DownloadError, downloaded
from analysis.metrics import Metrics
from analysis.partitions import ensure_partitions
from analysis.store import AnotherRun, Store, StoreError
from analysis.testlists import Refused, update_test_lists
from core.config import ConfigError, load_settings
from core.db import DatabaseUnavailable

EXIT_FAILED = 1
EXIT_USAGE = 2
EXIT_DIFFERENT = 3
EXIT_BUSY = 75

log = structlog.get_logger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="analysis",
        description="Run one job. All of them may be run at any time, also while measurements are being written.",
        epilog="Exit codes: 0 done, 1 failed, 2 bad usage or settings, 3 a dry run found counters that are wrong, "
        "75 another run of the same job is at work.",
        allow_abbrev=False,
    )
    made.add_argument("--config", type=Path, metavar="FILE", help="settings file (default: /etc/ooni/analysis.toml)")
    jobs = made.add_subparsers(dest="job", metavar="JOB", required=True)

    counters = jobs.add_parser(
        "update-counters",
        help="prove that the counters equal the rows, and correct those that do not",
        description="Without dates: the last days, and in turn some of the others (see the settings).",
    )
    counters.add_argument("--since", type=date.fromisoformat, metavar="DAY", help="first day, as YYYY-MM-DD")
    counters.add_argument("--until", type=date.fromisoformat, metavar="DAY", help="last day")
    counters.add_argument("--full", action="store_true", help="all days")
    counters.add_argument("--empty-days", action="store_true", help="also empty the counters of days without any row")
    counters.add_argument("--dry-run", action="store_true", help="print what would change, change nothing")

    lists = jobs.add_parser(
        "update-test-lists",
        help="put the test lists of a directory or archive in place of those in the database",
        description="The files are lists/global.csv and lists/<cc>.csv with the columns url and category_code.",
    )
    where = lists.add_mutually_exclusive_group(required=True)
    where.add_argument("--from", dest="source", type=Path, metavar="PATH", help="directory, .zip, .tar or .tar.gz")
    where.add_argument("--url", metavar="URL", help="address of such an archive")
    lists.add_argument("--force", action="store_true", help="also when a list loses more than half of its entries")
    lists.add_argument("--dry-run", action="store_true", help="tell what would change, change nothing")

    partitions = jobs.add_parser("ensure-partitions", help="make the monthly partitions of the months ahead")
    partitions.add_argument("--dry-run", action="store_true", help="name the missing ones, make none")
    return made


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one job. Exit codes: 0 done, 1 failed, 2 bad usage or settings, 3 differences (dry run), 75 busy."""
    made = parser()
    options = made.parse_args(arguments)
    if options.job == "update-counters" and options.full and (options.since or options.until):
        made.error("--full means all days; leave out --since and --until")
    try:
        settings = load_settings(AnalysisSettings, app=APP, path=options.config)
    except ConfigError as error:
        return _complain(str(error), EXIT_USAGE)
    problem = settings.problem()
    if problem:
        return _complain(problem, EXIT_USAGE)
    core.log.setup(APP, settings.log_level)
    prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]  # the library has no annotations here

    metrics = Metrics(options.job)
    started = time.monotonic()
    try:
        code = _run(options, settings, metrics)
    except AnotherRun as error:
        return _complain(str(error), EXIT_BUSY)
    except (StoreError, DatabaseUnavailable, DownloadError, Refused, OSError) as error:
        log.error("job failed", job=options.job, error=str(error))
        code = EXIT_FAILED
    if settings.metrics_directory and not options.dry_run:
        try:
            metrics.write(Path(settings.metrics_directory), succeeded=code == 0, duration_s=time.monotonic() - started)
        except OSError as error:
            log.error("metrics not written; check the setting metrics_directory", error=str(error))
            code = code or EXIT_FAILED
    return code


def _run(options: argparse.Namespace, settings: AnalysisSettings, metrics: Metrics) -> int:
    store = Store(
        settings.db_uri,
        statement_timeout_s=settings.statement_timeout_s,
        lock_timeout_s=settings.lock_timeout_s,
        attempts=settings.attempts,
    )
    try:
        if options.job == "ensure-partitions":
            log.info(
                "job done", job=options.job, result=ensure_partitions(store, settings, metrics, dry_run=options.dry_run)
            )
            return 0
        if options.job == "update-test-lists":
            with downloaded(options.url) if options.url else nullcontext(options.source) as source:
                change = update_test_lists(store, metrics, source, force=options.force, dry_run=options.dry_run)
            log.info("job done", job=options.job, result=f"would be: {change}" if options.dry_run else str(change))
            return 0
        wanted = Wanted(options.since, options.until, options.full, options.dry_run, options.empty_days)
        summary = update_counters(store, settings, metrics, wanted, Show() if options.dry_run else None)
    finally:
        store.close()
    log.info("job done", job=options.job, result=str(summary), refused=len(summary.refused))
    if options.dry_run:
        return EXIT_DIFFERENT if summary.different else 0
    return EXIT_FAILED if summary.refused else 0


def _complain(sentence: str, code: int) -> int:
    print(f"analysis: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
