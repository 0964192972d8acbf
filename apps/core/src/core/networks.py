"""Names of networks: read from CSV and written to table asnmeta, from which the API takes them.

A file has the columns asn, changed (the day from which the name holds), org_name, cc, aut_name and source. Loading is
safe to repeat; names of the same network and day are replaced, others stay.

    with core.db.connect(dsn) as connection:
        load(connection, read(SAMPLE))

As a command: `python3 -m core.networks FILE`, see `--help`.
"""

import argparse
import csv
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import date
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg import Connection
from psycopg.rows import TupleRow

from core import db
from core.schema import CONFIG_FILE, DSN_VARIABLE, SchemaError, find_dsn

SAMPLE = Path(__file__).parent / "data" / "networks.csv"
"""Made-up names of the networks of simulated probes, for a stack without any others."""

EXIT_REFUSED = 1
EXIT_USAGE = 2
EXIT_UNREACHABLE = 3

_MAX_ASN = 2**32 - 1

_WRITE = """
INSERT INTO asnmeta (asn, changed, org_name, cc, aut_name, source) VALUES (%s, %s, %s, %s, %s, %s)
ON CONFLICT (asn, changed) DO UPDATE
SET org_name = excluded.org_name, cc = excluded.cc, aut_name = excluded.aut_name, source = excluded.source"""


class NetworksError(Exception):
    """A file is not a list of names of networks; the text names the line and says what should stand there."""


class NetworkName(NamedTuple):
    """What a network was called from a day on. `cc`: country of its holder; `aut_name`: its short technical name."""

    asn: int
    changed: date
    org_name: str
    cc: str = ""
    aut_name: str = ""
    source: str = ""


def read(path: Path) -> Iterator[NetworkName]:
    """Give the names in a CSV file.

    Raises:
        NetworksError: a line cannot be understood.
        OSError: the file cannot be read.
    """
    with path.open(encoding="utf-8-sig", newline="") as file:
        lines = csv.DictReader(file, strict=True)
        try:
            for line in lines:
                yield _name(line)
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise NetworksError(
                f"Line {lines.line_num} of {path.name} is no name of a network ({error}). The first line is "
                f"{','.join(NetworkName._fields)}, the others are like 30722,2024-01-31,Example ISP,IT,EXAMPLE,x."
            ) from None


def load(connection: Connection[TupleRow], names: Iterable[NetworkName]) -> int:
    """Write names; the caller commits. Return how many. Raises psycopg.Error."""
    found = list(names)
    with connection.cursor() as cursor:
        cursor.executemany(_WRITE, found)
    return len(found)


def _name(line: dict[str, str | None]) -> NetworkName:
    texts = {column: (line[column] or "").strip() for column in NetworkName._fields if line[column] is not None}
    asn = int(texts["asn"])
    if not 0 <= asn <= _MAX_ASN:
        raise ValueError(f"network {asn}")
    return NetworkName(
        asn,
        date.fromisoformat(texts["changed"]),
        texts["org_name"],
        texts["cc"],
        texts["aut_name"],
        texts["source"],
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Load a file into the database, whole or not at all, and return the exit code; see `--help`."""
    parser = argparse.ArgumentParser(
        prog="core.networks",
        description="Load names of networks from a CSV file. Safe to run again: names of the same network and day are "
        "replaced, others stay.",
        epilog="Exit codes: 0 loaded, 1 the database refused, 2 no address given or a file that cannot be used, "
        "3 database unreachable. After anything but 0 nothing has changed.",
    )
    parser.add_argument(
        "file", type=Path, metavar="FILE", help=f"CSV file; first line: {','.join(NetworkName._fields)}"
    )
    parser.add_argument("--dsn", help=f"database address (default: {DSN_VARIABLE}, else key dsn in {CONFIG_FILE})")
    options = parser.parse_args(arguments)
    try:
        dsn = find_dsn(options.dsn)
        if dsn is None:
            return _complain(
                EXIT_USAGE,
                f'No database address. Pass --dsn, set {DSN_VARIABLE}, or put `dsn = "…"` into {CONFIG_FILE}.',
            )
        names = list(read(options.file))
        if not names:
            return _complain(EXIT_USAGE, f"{options.file} holds no names. Give a file with a line for each network.")
        with db.connect(dsn, application_name="networks") as connection:
            load(connection, names)
    except (NetworksError, SchemaError) as error:
        return _complain(EXIT_USAGE, str(error))
    except OSError as error:
        return _complain(EXIT_USAGE, f"{options.file} cannot be read: {error.strerror}. Give another file.")
    except db.DatabaseUnavailable as error:
        return _complain(EXIT_UNREACHABLE, str(error))
    except psycopg.Error as error:
        return _complain(
            EXIT_REFUSED,
            f"The database refused: {str(error).splitlines()[0]}. Run it as the owner of the tables, after "
            "database_upgrade_schema.",
        )
    print(f"{len(names)} names of networks loaded")
    return 0


def _complain(exit_code: int, sentence: str) -> int:
    print(f"core.networks: {sentence}", file=sys.stderr)
    return exit_code


if __name__ == "__main__":
    sys.exit(main())
