"""The command `fastpath`: reads the command line and the settings, then runs the daemon."""

import argparse
import os
import sys
import time
from pathlib import Path

import msgspec
import structlog

import core.log
from core.config import ConfigError, load_settings
from core.metrics import MetricsUnavailable
from fastpath.config import FastpathSettings
from fastpath.daemon import Daemon
from fastpath.fingerprint_source import import_directory
from fastpath.fingerprints import FingerprintError
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser(
        prog="fastpath",
        description="Score measurements as they come in and write them to the database.",
        allow_abbrev=False,
    )
    made.add_argument("--config", type=Path, metavar="PATH", help="settings file (default /etc/ooni/fastpath.toml)")
    made.add_argument("--db-uri", metavar="URI", help="database to use instead of the one in the settings")
    made.add_argument("--stdout", action="store_true", help="log to standard output")
    made.add_argument("--debug", action="store_true", help="log at level DEBUG")
    made.add_argument("--no-write-to-db", action="store_true", help="score only: no row is written, nothing is moved")
    made.add_argument(
        "--import-fingerprints",
        type=Path,
        metavar="DIR",
        help="load fingerprints_dns.json and fingerprints_http.json from DIR into the database, then exit",
    )
    return made


def settings_from(arguments: argparse.Namespace) -> FastpathSettings:
    """Return the settings with the command line laid over them. Raises ConfigError."""
    settings = load_settings(FastpathSettings, app="fastpath", path=arguments.config)
    changes: dict[str, object] = {}
    if arguments.db_uri is not None:
        changes["db_uri"] = arguments.db_uri
    if arguments.debug:
        changes["log_level"] = "DEBUG"
    if arguments.no_write_to_db:
        changes["write_to_db"] = False
    return msgspec.structs.replace(settings, **changes)


def main() -> int:
    """Run the command; return its exit code: 0 success, 1 failure, 2 wrong usage or settings."""
    arguments = parser().parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        settings = settings_from(arguments)
        core.log.setup("fastpath", settings.log_level, stream=sys.stdout if arguments.stdout else None)
    except ConfigError as error:
        print(f"fastpath: {error}", file=sys.stderr)
        return 2
    try:
        if arguments.import_fingerprints is None:
            return Daemon(settings).run()
        return import_fingerprints(settings, arguments.import_fingerprints)
    except (MetricsUnavailable, FingerprintError, Unavailable, Conflict, RowsRefused, OSError) as error:
        print(f"fastpath: {error}", file=sys.stderr)
        return 1


def import_fingerprints(settings: FastpathSettings, directory: Path) -> int:
    """Load the fingerprints of `directory` into the database; return the exit code 0. Raises as `import_directory`."""
    store = Store(settings.db_uri)
    try:
        counts = import_directory(store, directory)
    finally:
        store.close()
    log.info("fingerprints imported", **counts)
    return 0


if __name__ == "__main__":
    sys.exit(main())
