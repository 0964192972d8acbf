"""`ooni-api check-probe-config` and `ooni-api probe-config-schema`: look at probe configuration before it is used."""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path

from api.probe_files import PARSERS, ProbeFileError, load
from api.probe_shapes import schema

EXIT_CONFIG = 78
"""EX_CONFIG of sysexits.h."""


def add_to(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add both commands to those of `ooni-api`."""
    check = commands.add_parser(
        "check-probe-config",
        help="check files of probe configuration; exit status 78 when one is wrong",
        description="Check all files of a directory, or a single one. Prints a line for each problem.",
    )
    check.add_argument("path", type=Path, help="directory, or one file of it")
    check.add_argument(
        "--as", dest="name", choices=sorted(PARSERS), help="what a single file is, when its name does not say so"
    )
    check.set_defaults(run=lambda options: check_path(options.path, options.name))
    show = commands.add_parser(
        "probe-config-schema", help="print the JSON Schema of a file of probe configuration, or of all by name"
    )
    show.add_argument("name", nargs="?", choices=sorted(PARSERS), help="name of the file")
    show.set_defaults(run=lambda options: print_schema(options.name))


def check_path(path: Path, name: str | None = None) -> int:
    """Print what is wrong with a directory or a file; return the exit status."""
    problems = list(_problems(path, name))
    for problem in problems:
        print(f"ooni-api: {problem}", file=sys.stderr)
    if problems:
        return EXIT_CONFIG
    print("ooni-api: the probe configuration is fine.")
    return 0


def print_schema(name: str | None) -> int:
    """Print one JSON Schema, or an object with all of them by name of the file; return the exit status."""
    value = schema(name) if name else {each: schema(each) for each in PARSERS}
    print(json.dumps(value, indent=2, sort_keys=True))
    return 0


def _problems(path: Path, name: str | None) -> Iterator[str]:
    if path.is_dir():
        if name:
            yield f"{path} is a directory. Leave --as out, or name one file."
            return
        for each in PARSERS:
            yield from _problems_of(path / each, each)
        for stray in sorted(each.name for each in path.glob("*.json")):
            if stray not in PARSERS:
                yield f"{stray}: no file of this name is read. Known: {', '.join(PARSERS)}."
        return
    kind = name or path.name
    if kind not in PARSERS:
        yield f"{path}: its name does not say which file it is. Say it with --as, such as --as features.json."
        return
    yield from _problems_of(path, kind)


def _problems_of(path: Path, kind: str) -> list[str]:
    try:
        load(path, kind)
    except ProbeFileError as error:
        return error.problems
    return []
