"""`ooni-spool`: look at the disk queue, bring back what was set aside, undo overflow folders.

ooni-spool counts
ooni-spool list
ooni-spool release 20240101000102.123456_IT_ndt_0123456789abcdef
ooni-spool release --all --reason internal_error
ooni-spool flatten
"""

import argparse
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from core.ids import IdentifierError
from core.spool import INCOMING, SCORED, STATES, Quarantined, Spool
from core.spool_flatten import flatten

DEFAULT_ROOT = "/var/lib/ooniapi/measurements"
VARIABLE = "OONI_SPOOL"

EXIT_NOT_ALL = 1
EXIT_USAGE = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0 done, 1 not all of it could be, 2 wrong use or no spool."""
    options = _parser().parse_args(arguments)
    root = Path(options.root)
    # Opening a spool makes it; a wrong path must not.
    if not all((root / state).is_dir() for state in (INCOMING, SCORED)):
        print(f"ooni-spool: {root} is no spool. Name its directory with --root or {VARIABLE}.", file=sys.stderr)
        return EXIT_USAGE
    try:
        spool = Spool(root)
        if options.command == "counts":
            return _counts(spool)
        if options.command == "list":
            return _list(spool, options.reason)
        return _flatten(root) if options.command == "flatten" else _release(spool, options)
    except PermissionError as error:
        print(f"ooni-spool: {error}. Run it as one of the spool's users or as root.", file=sys.stderr)
        return EXIT_USAGE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="ooni-spool", description="Look at the disk queue and its quarantine.")
    default = os.environ.get(VARIABLE) or DEFAULT_ROOT
    parser.add_argument(
        "--root", default=default, help=f"directory of the spool; default: ${VARIABLE} or {DEFAULT_ROOT}"
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("counts", help="print the number of measurements in each state, and the age of the oldest")
    listing = commands.add_parser("list", help="print what is in quarantine: uid, bytes, since when, why; with tabs")
    release = commands.add_parser("release", help="move measurements from quarantine back to where they are scored")
    release.add_argument("uids", nargs="*", metavar="UID")
    release.add_argument("--all", action="store_true", help="all that are in quarantine")
    commands.add_parser(
        "flatten",
        help="move everything out of overflow folders, for a release that does not know them; stop the services before",
        description="Move everything out of overflow folders (<state>/<directory>/<MMS>/), which a release before them "
        "does not see. Stop API, fastpath and uploader before, or they may make folders again; nothing is lost if they "
        "run. Interrupted, it is simply run again. Exit status 1: something lies in overflow folders again.",
    )
    for each in (listing, release):
        each.add_argument("--reason", default="", help="only those whose reason contains this text")
    return parser


def _counts(spool: Spool) -> int:
    counts = spool.counts()
    for state in STATES:
        print(f"{state} {getattr(counts, state)}")
    print(f"oldest_incoming_seconds {spool.oldest_incoming_s():.0f}")
    if counts.quarantine_full:
        print("The quarantine is full: what else cannot be scored waits in its place. See `ooni-spool list`.")
    return 0


def _list(spool: Spool, reason: str) -> int:
    for found in _matching(spool, reason):
        print(f"{found.uid}\t{found.size}\t{found.since:%Y-%m-%dT%H:%M:%SZ}\t{' '.join(found.reason.split())}")
    return 0


def _release(spool: Spool, options: argparse.Namespace) -> int:
    if bool(options.uids) == options.all:
        print("ooni-spool: name the measurements to release, or --all.", file=sys.stderr)
        return EXIT_USAGE
    uids = [found.uid for found in _matching(spool, options.reason)] if options.all else options.uids
    released = 0
    for uid in uids:
        try:
            done = spool.release(uid)
        except IdentifierError:
            done = False
        if not done:
            print(f"ooni-spool: {uid} is not in quarantine.", file=sys.stderr)
        released += done
    print(f"released {released}")
    return 0 if released == len(uids) else EXIT_NOT_ALL


def _flatten(root: Path) -> int:
    done = flatten(root, STATES)
    print(f"moved {done.moved}")
    for folder in done.left:
        print(f"ooni-spool: {folder} was filled again. Stop the services that use the spool.", file=sys.stderr)
    return EXIT_NOT_ALL if done.left else 0


def _matching(spool: Spool, reason: str) -> Iterator[Quarantined]:
    return (found for found in spool.quarantined() if reason in found.reason)


if __name__ == "__main__":
    sys.exit(main())
