"""What the database did for a request, from its own log; and why, from EXPLAIN.

The log works with every PostgreSQL, whatever extensions it has: for a while every statement is written with its
duration and its parameters. Durations of parsing, planning and executing are added up.
"""

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psycopg

PREFIX = "@@%p@@%a@@"
"""Setting log_line_prefix of the server: where an entry begins, and whose it is."""

_ENTRY = re.compile(r"^@@(\d+)@@(.*?)@@", re.MULTILINE)
_DURATION = re.compile(r"LOG:  duration: ([0-9.]+) ms(?:  (parse|bind|execute|statement)[^:]*: (.*))?", re.DOTALL)
_PARAMETERS = re.compile(r"DETAIL:  [Pp]arameters: (.*)", re.DOTALL)
_VALUE = re.compile(r"\$(\d+) = (NULL|'(?:[^']|'')*')")


@dataclass(slots=True)
class Statement:
    """A statement as the server ran it; `ms` with parsing and planning."""

    sql: str
    ms: float
    parameters: dict[str, str]


class Log:
    """The log of one server."""

    def __init__(self, file: Path, dsn: str) -> None:
        self._file = file
        self._dsn = dsn
        self._offset = 0

    def write_all(self, *, wanted: bool) -> None:
        """Have all statements logged, or none."""
        with psycopg.connect(self._dsn, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET log_min_duration_statement = {0 if wanted else -1}".encode())
            connection.execute("SELECT pg_reload_conf()")
        time.sleep(0.3)
        self._offset = self._file.stat().st_size

    def since(self, application: str) -> list[Statement]:
        """Return what sessions of an application ran since the last call."""
        with self._file.open("rb") as file:
            file.seek(self._offset)
            text = file.read()
        self._offset += len(text)
        return list(_statements(text.decode(errors="replace"), application))


def _statements(text: str, application: str) -> Iterator[Statement]:
    starts = list(_ENTRY.finditer(text))
    pending: dict[str, float] = {}  # by process: what parsing and planning took
    last: dict[str, Statement] = {}
    for number, match in enumerate(starts):
        process, whose = match[1], match[2]
        if whose != application:
            continue
        entry = text[match.end() : starts[number + 1].start() if number + 1 < len(starts) else len(text)]
        entry = entry.rstrip("\n").replace("\n\t", "\n")  # the log indents what a statement has on further lines
        if found := _PARAMETERS.match(entry):
            if process in last:
                last[process].parameters |= dict(_VALUE.findall(found[1]))
            continue
        found = _DURATION.match(entry)
        if found is None:
            continue
        ms = float(found[1])
        if found[2] in ("parse", "bind"):
            pending[process] = pending.get(process, 0.0) + ms
            last.pop(process, None)
            continue
        statement = Statement(found[3] or "", ms + pending.pop(process, 0.0), {})
        last[process] = statement
        yield statement


def explain(dsn: str, statement: Statement) -> str:
    """Return EXPLAIN (ANALYZE, BUFFERS) of a statement with the values that it had; or why there is none."""
    sql = re.sub(r"\$(\d+)", lambda match: statement.parameters.get(match[1], match[0]), statement.sql)
    try:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET statement_timeout = '60s'")
            connection.execute("SET plan_cache_mode = force_custom_plan")
            rows = connection.execute(f"EXPLAIN (ANALYZE, BUFFERS) {sql}".encode()).fetchall()
    except psycopg.Error as error:
        return f"no plan: {error}"
    return "\n".join(row[0] for row in rows)
