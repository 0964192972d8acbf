"""The command `uploader`: one run, started every hour by a timer."""

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from core import log as logging_setup
from core.config import ConfigError, load_settings
from core.objectstore import StoreError, open_store
from core.spool import Spool
from uploader.config import UploaderSettings
from uploader.metrics import Metrics
from uploader.plan import AnotherRun
from uploader.queries import Manifest
from uploader.run import Summary, Uploader

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_BUSY = 75

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run once. Exit codes: 0 all archived, 1 something failed and is kept, 2 bad settings, 75 another run works."""
    options = _parse(arguments)
    try:
        settings = load_settings(UploaderSettings, app="uploader", path=options.config)
        logging_setup.setup("uploader", settings.log_level)
    except ConfigError as error:
        return _complain(str(error), EXIT_CONFIG)
    problem = settings.problem()
    if problem:
        return _complain(problem, EXIT_CONFIG)
    metrics = Metrics()
    textfile = Path(settings.metrics_textfile) if settings.metrics_textfile else None
    if textfile:
        metrics.restore(textfile)
    started = time.monotonic()
    try:
        summary = _run(settings, metrics, include_current=options.now)
    except AnotherRun as error:
        return _complain(str(error), EXIT_BUSY)
    except (StoreError, OSError) as error:
        metrics.failures.labels("plan").inc()
        log.error("run failed at its start", error=str(error))
        summary = Summary(failures=1)
    metrics.run_duration.set(time.monotonic() - started)
    if not summary.failures:
        metrics.last_success.set_to_current_time()
    if textfile:
        try:
            metrics.write(textfile)
        except OSError as error:
            log.error("metrics not written; check the setting metrics_textfile", error=str(error))
            summary.failures += 1
    print(summary, flush=True)
    return EXIT_FAILED if summary.failures else 0


def _run(settings: UploaderSettings, metrics: Metrics, *, include_current: bool) -> Summary:
    spool = Spool(settings.spool_root)
    store = open_store(
        settings.store_url,
        endpoint=settings.store_endpoint,
        region=settings.store_region,
        access_key_id=settings.store_access_key_id,
        secret_access_key=settings.store_secret_access_key,
    )
    manifest = Manifest(settings.db_uri, settings.collector_id, statement_timeout_s=settings.statement_timeout_s)
    with manifest:
        return Uploader(settings, spool, store, manifest, metrics).run(include_current=include_current)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="uploader",
        description="Pack scored measurements into postcans and jsonl objects, put them into the object store, record "
        "where each one is, then delete them from the spool. Safe to kill and to run again at any time.",
        epilog="Exit codes: 0 everything due is archived, 1 something failed and is kept for the next run, 2 bad "
        "settings, 75 another run is at work.",
    )
    parser.add_argument("--now", action="store_true", help="also archive hours that are not over yet")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (default: /etc/ooni/uploader.toml)")
    return parser.parse_args(arguments)


def _complain(sentence: str, code: int) -> int:
    print(f"uploader: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
