"""Indexes made beside writers, on partitioned tables too.

PostgreSQL makes an index concurrently on an ordinary table only. For a partitioned one the same comes of three steps:
an index `ON ONLY` the table, which is invalid and costs nothing; an index made concurrently on each partition; and
`ATTACH PARTITION` for each. With the last one attached, the index of the table becomes valid. A partition that is made
from then on, or meanwhile, gets its index from `LIKE fastpath INCLUDING ALL`.

Every step may be interrupted, and all of it repeated: what is there is kept, what was left unfinished is made anew.
"""

import re
import time
from typing import NamedTuple

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

_STATEMENT = re.compile(
    r"CREATE (?P<unique>UNIQUE )?INDEX CONCURRENTLY IF NOT EXISTS (?P<name>[a-z0-9_]+)\s+ON (?P<table>[a-z0-9_]+)\s+"
    r"(?P<rest>\S.*)",
    re.ASCII | re.DOTALL,
)
_COMMENT = re.compile(r"--[^\n]*")

# The short steps need a lock that readers or writers hold. Who comes after waits behind the one who waits, so each
# attempt gives up soon.
_ATTEMPTS = 20
_ATTEMPT_MS = 500
_PAUSE_S = 0.5


class Index(NamedTuple):
    """What one statement asks for: `rest` are the columns and what follows them."""

    unique: bool
    name: str
    table: str
    rest: str


def parse(text: str) -> list[Index] | None:
    """Return the indexes that `text` makes concurrently, None when it holds another statement as well."""
    found = []
    for statement in _COMMENT.sub("", text).split(";"):
        if not statement.strip():
            continue
        match = _STATEMENT.fullmatch(statement.strip())
        if match is None:
            return None
        found.append(Index(bool(match["unique"]), match["name"], match["table"], match["rest"]))
    return found or None


def make(connection: Connection[TupleRow], index: Index) -> None:
    """Make an index unless it is there; writers go on meanwhile. The connection commits by itself (autocommit).

    Raises psycopg errors: LockNotAvailable when a short step did not get its lock in 20 attempts.
    """
    if not _is_partitioned(connection, index.table):
        _make_on(connection, index, index.name, index.table)
        return
    exists = _one(connection, "SELECT to_regclass(%s) IS NOT NULL", index.name)
    if not exists:
        # Nobody waits for long while an empty table is indexed.
        only = sql.SQL("") if _is_empty(connection, index.table) else sql.SQL("ONLY ")
        _patiently(connection, _create(index, sql.Identifier(index.name), only + sql.Identifier(index.table)))
    while missing := _without_index(connection, index):
        for partition in missing:
            name = partition + index.name.removeprefix(index.table)
            _make_on(connection, index, name, partition)
            attach = sql.SQL("ALTER INDEX {} ATTACH PARTITION {}")
            _patiently(connection, attach.format(sql.Identifier(index.name), sql.Identifier(name)))


def _make_on(connection: Connection[TupleRow], index: Index, name: str, table: str) -> None:
    """Make an index on a table that has no partitions."""
    _drop_unfinished(connection, name)
    if _is_empty(connection, table):
        _patiently(connection, _create(index, sql.Identifier(name), sql.Identifier(table)))
    else:
        connection.execute("SET lock_timeout = 0")  # it waits for writers, and nobody waits for it
        connection.execute(_create(index, sql.Identifier(name), sql.Identifier(table), concurrently=True))


def _create(index: Index, name: sql.Composable, on: sql.Composable, *, concurrently: bool = False) -> sql.Composed:
    return sql.SQL("CREATE {}INDEX {}IF NOT EXISTS {} ON {} {}").format(
        sql.SQL("UNIQUE " if index.unique else ""),
        sql.SQL("CONCURRENTLY " if concurrently else ""),
        name,
        on,
        sql.SQL(index.rest),
    )


def _patiently(connection: Connection[TupleRow], statement: sql.Composed) -> None:
    """Run a statement that is short once it has its lock."""
    connection.execute(f"SET lock_timeout = {_ATTEMPT_MS}")
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            connection.execute(statement)
            return
        except psycopg.errors.LockNotAvailable:
            if attempt == _ATTEMPTS:
                raise
            time.sleep(_PAUSE_S)


def _drop_unfinished(connection: Connection[TupleRow], name: str) -> None:
    """Remove what an interrupted attempt left: IF NOT EXISTS would take an invalid index for a finished one."""
    invalid = "SELECT EXISTS (SELECT FROM pg_index WHERE indexrelid = to_regclass(%s) AND NOT indisvalid)"
    if _one(connection, invalid, name):
        connection.execute("SET lock_timeout = 0")
        connection.execute(sql.SQL("DROP INDEX CONCURRENTLY {}").format(sql.Identifier(name)))


def _is_partitioned(connection: Connection[TupleRow], table: str) -> bool:
    return bool(
        _one(connection, "SELECT EXISTS (SELECT FROM pg_partitioned_table WHERE partrelid = to_regclass(%s))", table)
    )


def _is_empty(connection: Connection[TupleRow], table: str) -> bool:
    size = "SELECT coalesce(sum(pg_relation_size(relid)), 0) = 0 FROM pg_partition_tree(%s::regclass)"
    if _is_partitioned(connection, table):
        return bool(_one(connection, size, table))
    return _one(connection, "SELECT pg_relation_size(%s::regclass) = 0", table) is True


def _without_index(connection: Connection[TupleRow], index: Index) -> list[str]:
    """Return the partitions that have no part of the index."""
    found = connection.execute(
        """SELECT relname FROM pg_inherits AS p JOIN pg_class ON pg_class.oid = p.inhrelid
           WHERE p.inhparent = %s::regclass AND NOT EXISTS (
               SELECT FROM pg_index JOIN pg_inherits AS i ON i.inhrelid = indexrelid
               WHERE indrelid = p.inhrelid AND i.inhparent = %s::regclass)
           ORDER BY relname""",
        [index.table, index.name],
    ).fetchall()
    return [name for (name,) in found]


def _one(connection: Connection[TupleRow], query: str, *parameters: object) -> object:
    row = connection.execute(query.encode(), parameters).fetchone()
    assert row is not None
    return row[0]
