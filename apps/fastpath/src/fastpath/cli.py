"""The command line of `fastpath`: what can be asked for, and what is wrong with how it was asked."""

import argparse
import difflib
import os
import re
import sys
import time
from datetime import UTC, date, datetime
from pathlib import Path
from typing import NoReturn

import msgspec
import structlog

import core.log
from core.config import ConfigError, load_settings
from core.metrics import MetricsUnavailable
from core.objectstore import StoreError
from core.testnames import KNOWN_TEST_NAMES
from fastpath import rerun
from fastpath.config import FastpathSettings
from fastpath.countries import KNOWN_COUNTRIES
from fastpath.fingerprints import FingerprintError
from fastpath.progress import CurrentStream
from fastpath.sources import PREFERENCES, Filters, short_name
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

DEVEL_CONFIG = Path("etc/ooni/fastpath.toml")
DEVEL_STATE = Path("var/lib/fastpath")
"""Where `--devel` looks, below the current directory."""


class UsageError(Exception):
    """The command line asks for something that makes no sense; the text says what and what to do."""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        self.exit(rerun.WRONG_USAGE, f"fastpath: {message}. See fastpath --help.\n")


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = _Parser(
        prog="fastpath",
        description="Score measurements as they come in, or history again, and write them to the database.",
        epilog="Exit codes: 0 done, 1 failure, 2 wrong usage or settings; of a rerun also 3: done, but some objects "
        "could not be read, and 4: stopped by a signal. After 1, 3 and 4 the same command goes on where it ended.",
        allow_abbrev=False,
    )
    made.add_argument("--config", type=Path, metavar="PATH", help="settings file (default /etc/ooni/fastpath.toml)")
    made.add_argument("--db-uri", metavar="URI", help="database to use instead of the one in the settings")
    made.add_argument("--stdout", action="store_true", help="log to standard output; with --stdin: answers there")
    made.add_argument("--debug", action="store_true", help="log at level DEBUG")
    made.add_argument(
        "--devel", action="store_true", help="settings and state below the current directory; log to standard output"
    )
    made.add_argument("--no-write-to-db", action="store_true", help="score only: no row is written, nothing is moved")
    made.add_argument(
        "--import-fingerprints",
        type=Path,
        metavar="DIR",
        help="load fingerprints_dns.json and fingerprints_http.json from DIR into the database, then exit",
    )
    made.add_argument(
        "--fingerprints", type=Path, metavar="DIR", help="fingerprints of --stdin and reruns, instead of the database's"
    )
    made.add_argument(
        "--fingerprint-mode",
        choices=("declared", "reference", "compare"),
        help="how patterns match (default: the setting fingerprints_mode); compare is for --stdin",
    )
    made.add_argument("--stdin", action="store_true", help="score JSON lines on standard input, then exit")
    _add_rerun(made.add_argument_group("rerun", "score history out of the object store again; the daemon may run on"))
    return made


def _add_rerun(group: "argparse._ArgumentGroup") -> None:
    group.add_argument("--noapi", action="store_true", help="no HTTP intake: this is a rerun (implied by --start-day)")
    group.add_argument("--start-day", type=_day, metavar="YYYY-MM-DD", help="first day")
    group.add_argument(
        "--end-day", type=_day, metavar="YYYY-MM-DD", help="first day that is not done (default, and latest: today)"
    )
    group.add_argument("--ccs", metavar="CC,CC", help="only these countries")
    group.add_argument("--testnames", metavar="NAME,NAME", help="only these tests; underscores may be left out")
    group.add_argument("--update", action="store_true", help="replace rows that exist, and correct their counters")
    group.add_argument("--no-write-msmt", action="store_true", help="write nothing to the local disk")
    group.add_argument("--stop-after", type=_positive, metavar="N", help="a sample: end after N measurements")
    group.add_argument("--keep-s3-cache", action="store_true", help="keep downloaded objects for the next rerun")
    group.add_argument("--workers", type=_positive, metavar="N", help="processes (default: one per core)")
    group.add_argument("--source", choices=PREFERENCES, default="auto", help="which of two equal objects is read")
    group.add_argument("--store-url", metavar="URL", help="object store instead of the one in the settings")
    group.add_argument("--restart", action="store_true", help="forget what an unfinished rerun of this range has done")


def main() -> int:
    """Run the command; return its exit code, as `--help` lists them."""
    arguments = parser().parse_args()
    os.environ["TZ"] = "UTC"
    time.tzset()
    try:
        settings = settings_from(arguments)
        request = rerun_request(arguments, settings)
        stdout = (arguments.stdout or arguments.devel) and not arguments.stdin
        stream = CurrentStream("stdout" if stdout else "stderr") if stdout or request is not None else None
        core.log.setup("fastpath", settings.log_level, stream=stream)  # type: ignore[arg-type]  # write and flush do
    except (ConfigError, UsageError) as error:
        print(f"fastpath: {error}", file=sys.stderr)
        return rerun.WRONG_USAGE
    try:
        return _do(arguments, settings, request)
    except (MetricsUnavailable, FingerprintError, StoreError, Unavailable, Conflict, RowsRefused, OSError) as error:
        print(f"fastpath: {error}", file=sys.stderr)
        return rerun.FAILED


def _do(arguments: argparse.Namespace, settings: FastpathSettings, request: "rerun.Request | None") -> int:
    """Do what was asked for. The parts are imported when they are needed: each start pays for one only."""
    if request is not None:
        return rerun.run(settings, request)
    if arguments.import_fingerprints is not None:
        return _import_fingerprints(settings, arguments.import_fingerprints)
    if arguments.stdin:
        from fastpath import stdin  # noqa: PLC0415 as said above

        return stdin.run(
            settings,
            fingerprints=arguments.fingerprints,
            mode=arguments.fingerprint_mode or settings.fingerprints_mode,
            write_to_db=settings.write_to_db,
            answer=arguments.stdout,
        )
    from fastpath.daemon import Daemon  # noqa: PLC0415 as said above

    return Daemon(settings).run()


def _import_fingerprints(settings: FastpathSettings, directory: Path) -> int:
    from fastpath.fingerprint_source import import_directory  # noqa: PLC0415 as said above

    store = Store(settings.db_uri)
    try:
        counts = import_directory(store, directory)
    finally:
        store.close()
    log.info("fingerprints imported", **counts)
    return 0


def settings_from(arguments: argparse.Namespace) -> FastpathSettings:
    """Return the settings with the command line laid over them. Raises ConfigError."""
    path = arguments.config
    if path is None and arguments.devel and DEVEL_CONFIG.is_file():
        path = DEVEL_CONFIG
    settings = load_settings(FastpathSettings, app="fastpath", path=path)
    changes: dict[str, object] = {}
    if arguments.db_uri is not None:
        changes["db_uri"] = arguments.db_uri
    if arguments.store_url is not None:
        changes["store_url"] = arguments.store_url
    if arguments.debug:
        changes["log_level"] = "DEBUG"
    if arguments.devel:
        changes["state_directory"] = str(DEVEL_STATE.absolute())
    if arguments.no_write_to_db:
        changes["write_to_db"] = False
    return msgspec.structs.replace(settings, **changes)


_RERUN_ONLY = ("end_day", "ccs", "testnames", "update", "stop_after", "keep_s3_cache", "workers", "restart")


def rerun_request(arguments: argparse.Namespace, settings: FastpathSettings) -> "rerun.Request | None":
    """Return the rerun that is asked for, None when it is something else. Raises UsageError."""
    if arguments.start_day is None:
        if arguments.noapi:
            raise UsageError("A rerun needs a range of days. Add --start-day YYYY-MM-DD and --end-day YYYY-MM-DD.")
        for name in _RERUN_ONLY:
            if getattr(arguments, name):
                option = f"--{name.replace('_', '-')}"
                raise UsageError(f"The option {option} is for reruns. Add --noapi --start-day YYYY-MM-DD.")
        return None
    if arguments.stdin or arguments.import_fingerprints:
        raise UsageError("A rerun reads the object store only. Leave out --stdin and --import-fingerprints.")
    start, end = arguments.start_day, arguments.end_day
    today = datetime.now(UTC).date()
    if end is not None and end <= start:
        raise UsageError(
            f"The end {end} is not after the start {start}. --end-day is the first day that is not done: for one day "
            "give the next day."
        )
    if start >= today:
        raise UsageError(f"The start {start} is not before today, {today}. A day can be rerun once it is over.")
    if arguments.update and not settings.write_to_db:
        raise UsageError("--update replaces rows and --no-write-to-db writes none. Leave out one of them.")
    if arguments.keep_s3_cache and arguments.no_write_msmt:
        raise UsageError("--keep-s3-cache keeps objects on the disk, which --no-write-msmt forbids. Leave out one.")
    mode = arguments.fingerprint_mode or settings.fingerprints_mode
    if mode == "compare":
        raise UsageError("--fingerprint-mode compare is for --stdin. Use declared or reference.")
    return rerun.Request(
        start=start,
        end=end,
        filters=Filters(_countries(arguments.ccs), _tests(arguments.testnames)),
        source=arguments.source,
        write="none" if not settings.write_to_db else "replace" if arguments.update else "missing",
        write_to_disk=not arguments.no_write_msmt,
        keep_cache=arguments.keep_s3_cache,
        stop_after=arguments.stop_after,
        workers=arguments.workers or rerun.default_workers(),
        restart=arguments.restart,
        fingerprints=arguments.fingerprints,
        mode=mode,
    )


_DAY = re.compile(r"([0-9]{4})-([0-9]{1,2})-([0-9]{1,2})", re.ASCII)


def _day(text: str) -> date:
    match = _DAY.fullmatch(text.strip())
    try:
        if match is not None:
            return date(int(match[1]), int(match[2]), int(match[3]))
    except ValueError:
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is no day; write it like 2024-01-31")


def _positive(text: str) -> int:
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number above zero; write it like 4")


def _countries(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    codes = _items(text, "--ccs", "IT,DE")
    for code in sorted(codes):
        if code.upper() not in KNOWN_COUNTRIES:
            raise UsageError(f"{code!r} is no country code. Write two letters each, like --ccs IT,DE.")
    return frozenset(code.upper() for code in codes)


def _tests(text: str | None) -> frozenset[str]:
    if text is None:
        return frozenset()
    known = {short_name(name) for name in KNOWN_TEST_NAMES}
    names = frozenset(short_name(name) for name in _items(text, "--testnames", "webconnectivity,signal"))
    for name in sorted(names - known):
        nearest = difflib.get_close_matches(name, sorted(known), n=1, cutoff=0.0)[0]
        raise UsageError(f"{name!r} is no test name. The nearest one is {nearest}.")
    return names


def _items(text: str, option: str, example: str) -> frozenset[str]:
    items = frozenset(part.strip() for part in text.split(",") if part.strip())
    if not items:
        raise UsageError(f"{option} names nothing. Write it like {option} {example}, or leave it out.")
    return items
