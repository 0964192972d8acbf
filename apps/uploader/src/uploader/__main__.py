"""The command `uploader`: a run, started every hour by a timer, and `verify` and `takedown` beside it."""

import argparse
import sys
import time
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import msgspec
import psycopg
import structlog

from core import log as logging_setup
from core.archive import ArchiveError
from core.config import ConfigError, load_settings
from core.db import DatabaseUnavailable
from core.objectstore import ObjectStore, StoreError, open_store
from core.peers import PeerSpools
from core.schema import SchemaError, find_dsn
from core.spool import Spool
from uploader.catalog import Catalog
from uploader.config import UploaderSettings
from uploader.metrics import Metrics, VerifyMetrics
from uploader.plan import AnotherRun, PackingDirectory
from uploader.queries import Manifest
from uploader.repair import Repair
from uploader.run import Outage, Summary, Uploader
from uploader.takedown import SETTLE_S, Takedown, TakedownError
from uploader.verify import KINDS, Difference, Verifier

EXIT_FAILED = 1
EXIT_CONFIG = 2
EXIT_DIFFERENCES = 4
EXIT_NOT_FOUND = 5
EXIT_BUSY = 75

VERIFY_DAYS = 7

_INTERRUPTED = (StoreError, DatabaseUnavailable, ArchiveError, TakedownError, Outage, psycopg.Error, OSError)

log = structlog.get_logger(__name__)


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says; the exit codes are in its help."""
    options = _parse(arguments)
    try:
        settings = load_settings(UploaderSettings, app="uploader", path=options.config)
        logging_setup.setup("uploader", settings.log_level)
    except ConfigError as error:
        return _complain(str(error), EXIT_CONFIG)
    problem = settings.problem()
    if problem:
        return _complain(problem, EXIT_CONFIG)
    try:
        if options.command == "verify":
            return _verify(settings, options)
        if options.command == "takedown":
            return _takedown(settings, options)
        return _archive(settings, include_current=options.now)
    except AnotherRun as error:
        return _complain(str(error), EXIT_BUSY)


def _archive(settings: UploaderSettings, *, include_current: bool) -> int:
    metrics = Metrics()
    textfile = _textfile(settings)
    if textfile:
        metrics.restore(textfile)
    started = time.monotonic()
    try:
        spool = Spool(settings.spool_root)
        with _manifest(settings) as manifest:
            uploader = Uploader(settings, spool, _store(settings), manifest, metrics)
            summary = uploader.run(include_current=include_current)
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


def _verify(settings: UploaderSettings, options: argparse.Namespace) -> int:
    if options.dsn:
        settings = msgspec.structs.replace(settings, db_uri=options.dsn)
    until = options.until or datetime.now(UTC).date()
    since = options.since or until - timedelta(days=options.days - 1)
    failed_peers: list[str] = []
    spool, store, packing = Spool(settings.spool_root), _store(settings), PackingDirectory(settings.spool_root)
    peers = PeerSpools(settings.peers, lambda result: failed_peers.extend(["x"] * (result == "failed")))
    show = _show_json if options.json else _show
    try:
        with _catalog(settings) as catalog:

            def verify(repair: Repair | None) -> int:
                verifier = Verifier(
                    spool,
                    store,
                    catalog,
                    note=show,
                    peers=peers if settings.peers else None,
                    peer_failed=lambda: bool(failed_peers),
                    repair=repair,
                    deep=options.deep,
                    settle_s=options.settle_s,
                )
                result = verifier.run(since, until, all_recent=options.since is None)
                textfile = _textfile(settings)
                if textfile:
                    VerifyMetrics().write(textfile, result)
                if options.json:
                    print(msgspec.json.encode({"since": since, "until": until, **_as_dict(result)}).decode())
                else:
                    print(f"{since} to {until}: {result}", flush=True)
                if result.left:
                    return EXIT_DIFFERENCES
                return EXIT_FAILED if result.undecided else 0

            if not options.repair:
                return verify(None)
            with packing.locked():
                return verify(Repair(spool, store, catalog))
    except _INTERRUPTED as error:
        return _complain(f"The comparison could not be finished: {error}", EXIT_FAILED)


def _takedown(settings: UploaderSettings, options: argparse.Namespace) -> int:
    if not options.reason.strip():
        return _complain("--reason is empty. Say why, for the audit.", EXIT_CONFIG)
    try:
        # Rows and counters are the fastpath's, not the uploader's: this is for who owns the database.
        owner = msgspec.structs.replace(settings, db_uri=find_dsn(options.dsn) or settings.db_uri)
    except SchemaError as error:
        return _complain(str(error), EXIT_CONFIG)
    spool, store, packing = Spool(settings.spool_root), _store(settings), PackingDirectory(settings.spool_root)
    try:
        with _catalog(owner) as catalog:
            takedown = Takedown(spool, store, catalog, read_back=settings.read_back, settle_s=options.settle_s)
            found = takedown.find(report_id=options.report_id, uid=options.measurement_uid)
            if not options.go:
                print(found)
            if not found.uids:
                return _complain("Neither the database nor the spool of this host has it.", EXIT_NOT_FOUND)
            if options.go:
                with packing.locked():
                    # What an interrupted run put and did not record could bring it back.
                    with _manifest(settings) as manifest:
                        Uploader(settings, spool, store, manifest, Metrics()).finish_plans()
                    if packing.plans():
                        return _complain("A batch of an earlier run cannot be finished. Run `uploader`.", EXIT_FAILED)
                    found = takedown.find(report_id=options.report_id, uid=options.measurement_uid)
                    audit = takedown.carry_out(found, options.reason)
                print(
                    f"{len(audit.measurement_uids)} measurements taken down, number {audit.takedown_id} of the audit."
                )
    except _INTERRUPTED as error:
        return _complain(f"The takedown was interrupted, run the same command again: {error}", EXIT_FAILED)
    _say_what_is_left(settings, options)
    return 0


def _say_what_is_left(settings: UploaderSettings, options: argparse.Namespace) -> None:
    if not options.go:
        print("Nothing was changed. Add --go to do it.")
    if settings.peers:
        print(f"Other hosts have spools of their own ({', '.join(settings.peers)}). Run the same command on each.")
    if settings.store_url.startswith("s3:"):
        print("If the bucket keeps former versions of objects, delete those of the objects that were rewritten.")


def _show(difference: Difference) -> None:
    mark = "repaired " if difference.repaired else ""
    print(f"{mark}{difference.kind} {difference.subject}: {difference.detail}")


def _show_json(difference: Difference) -> None:
    print(msgspec.json.encode(difference).decode())


def _as_dict(result: object) -> dict[str, object]:
    return dict(msgspec.to_builtins(result))


def _textfile(settings: UploaderSettings) -> Path | None:
    return Path(settings.metrics_textfile) if settings.metrics_textfile else None


def _store(settings: UploaderSettings) -> ObjectStore:
    return open_store(
        settings.store_url,
        endpoint=settings.store_endpoint,
        region=settings.store_region,
        access_key_id=settings.store_access_key_id,
        secret_access_key=settings.store_secret_access_key,
    )


def _manifest(settings: UploaderSettings) -> Manifest:
    return Manifest(settings.db_uri, settings.collector_id, statement_timeout_s=settings.statement_timeout_s)


def _catalog(settings: UploaderSettings) -> Catalog:
    return Catalog(settings.db_uri, statement_timeout_s=settings.statement_timeout_s)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="uploader",
        description="Pack scored measurements into postcans and jsonl objects, put them into the object store, record "
        "where each one is, then delete them from the spool. Safe to kill and to run again at any time.",
        epilog="Exit codes: 0 everything due is archived, compared or taken down; 1 something failed and is kept for "
        "the next run; 2 bad settings; 4 differences are left; 5 there is no such measurement; 75 another run is at "
        "work.",
    )
    parser.add_argument("--now", action="store_true", help="also archive hours that are not over yet")
    parser.add_argument("--config", type=Path, metavar="FILE", help="settings file (default: /etc/ooni/uploader.toml)")
    commands = parser.add_subparsers(dest="command", title="commands", metavar="[verify|takedown]")

    verify = commands.add_parser(
        "verify",
        help="compare spool, manifest, rows and objects",
        description="Compare what spool, manifest, rows and objects say of each other. Changes nothing without "
        "--repair. Kinds of differences: " + "; ".join(f"{kind}: {text}" for kind, text in KINDS.items()) + ".",
    )
    verify.add_argument("--since", type=date.fromisoformat, metavar="DAY", help="first day, as 2024-01-31")
    verify.add_argument("--until", type=date.fromisoformat, metavar="DAY", help="last day (default: today, UTC)")
    verify.add_argument(
        "--days",
        type=int,
        default=VERIFY_DAYS,
        help="number of days without --since (default: 7); hours that were archived in these days, or wait in the "
        "spool, are then compared whatever their date",
    )
    verify.add_argument("--deep", action="store_true", help="read all objects; compare checksums, lines and positions")
    verify.add_argument("--repair", action="store_true", help="repair what can be repaired without losing anything")
    verify.add_argument("--json", action="store_true", help="print one JSON object per difference, then the summary")
    verify.add_argument(
        "--settle-s",
        type=float,
        default=3600.0,
        metavar="S",
        help="age in seconds from which an object has to be in the manifest (default: 3600)",
    )

    verify.add_argument(
        "--dsn", help="database (default: db_uri); takedown_undone can be repaired by the owner of the database alone"
    )

    takedown = commands.add_parser(
        "takedown",
        help="remove a report or a measurement from wherever it is kept",
        description="Remove a report, or one measurement, from the spool of this host, the object store and the "
        "database, with a line in the table takedown_audit. Prints what it found and changes nothing without --go.",
    )
    what = takedown.add_mutually_exclusive_group(required=True)
    what.add_argument("--report-id", default="", help="all measurements of this report")
    what.add_argument("--measurement-uid", default="", help="this measurement alone")
    takedown.add_argument("--reason", required=True, help="why, for the audit; say nothing about its content")
    takedown.add_argument(
        "--dsn",
        help="database, as its owner (default: OONI_DSN, else /etc/ooni/database.toml, else db_uri)",
    )
    takedown.add_argument(
        "--settle-s",
        type=float,
        default=SETTLE_S,
        metavar="S",
        help="seconds until the fastpath has written what it was scoring; waited for only where the spool had "
        "something unscored, or a takedown is resumed (default: %(default)g)",
    )
    takedown.add_argument("--go", action="store_true", help="do it")
    return parser.parse_args(arguments)


def _complain(sentence: str, code: int) -> int:
    print(f"uploader: {sentence}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
