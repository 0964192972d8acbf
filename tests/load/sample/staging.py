"""Tables that are filled beside the schema and moved into it when they are whole.

What columns, indexes and constraints there are is asked of the catalog, so that a new migration needs nothing here.
"""

from dataclasses import dataclass
from datetime import date

from psycopg import Connection, sql
from psycopg.rows import TupleRow
from tests.load.sample.draw import COLUMNS, Month, Sampler, next_month

SCHEMA = "sample_loading"
"""Holds what is not whole yet; what an interrupted run left in it is dropped by the next one."""

_CHECK = "sample_month"


@dataclass(frozen=True, slots=True)
class Index:
    """An index of a table, with the statements that drop it and make it again."""

    name: str
    drop: sql.Composed
    create: sql.Composed


def partition(month: date) -> str:
    """Return the name of the partition of a month, as fastpath_ensure_partitions gives it."""
    return f"fastpath_{month:%Y%m}"


def staged(month: date) -> sql.Composable:
    """Return the table in which a month is filled."""
    return sql.Identifier(SCHEMA, partition(month))


def indexes(connection: Connection[TupleRow], table: sql.Composable) -> list[Index]:
    """Return all indexes of a table, those of constraints (primary keys) first."""
    found = connection.execute(
        """SELECT i.indexrelid::regclass::text, c.relname, pg_get_indexdef(i.indexrelid), k.conname,
                  pg_get_constraintdef(k.oid)
           FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid
           LEFT JOIN pg_constraint k ON k.conindid = i.indexrelid AND k.conrelid = i.indrelid
           WHERE i.indrelid = %s::regclass ORDER BY k.conname IS NULL, c.relname""",
        [table.as_string(connection)],
    ).fetchall()
    result = []
    for qualified, name, definition, constraint, constraint_definition in found:
        if constraint is None:
            drop = sql.SQL("DROP INDEX {}").format(_trusted(qualified))
            create = sql.Composed([_trusted(definition)])
        else:
            drop = sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(table, sql.Identifier(constraint))
            create = sql.SQL("ALTER TABLE {} ADD CONSTRAINT {} {}").format(
                table, sql.Identifier(constraint), _trusted(constraint_definition)
            )
        result.append(Index(name, drop, create))
    return result


def fill(connection: Connection[TupleRow], sampler: Sampler, month: Month) -> None:
    """Make the table of a month, fill it and build its indexes, in the transaction of the connection.

    FREEZE needs a table of the same transaction. It leaves nothing to VACUUM, and where the server logs as little as
    it may (wal_level = minimal), nothing of this table is logged.
    """
    table = staged(month.first)
    connection.execute(sql.SQL("CREATE TABLE {} (LIKE fastpath INCLUDING ALL)").format(table))
    wanted = indexes(connection, table)
    for index in wanted:
        connection.execute(index.drop)
    with connection.cursor() as cursor:
        columns = sql.SQL(", ").join(map(sql.Identifier, COLUMNS))
        with cursor.copy(sql.SQL("COPY {} ({}) FROM STDIN WITH (FREEZE)").format(table, columns)) as copy:
            for chunk in sampler.chunks(month):
                copy.write(chunk)
    for index in wanted:
        connection.execute(index.create)
    # With it ATTACH PARTITION believes what it would otherwise read the whole table for.
    connection.execute(
        sql.SQL(
            "ALTER TABLE {} ADD CONSTRAINT {} CHECK (measurement_start_time >= {} AND measurement_start_time < {})"
        ).format(table, sql.Identifier(_CHECK), sql.Literal(month.first), sql.Literal(next_month(month.first)))
    )


def swap_in(connection: Connection[TupleRow], month: date) -> None:
    """Put the filled table of a month in the place of its partition, which must be empty, or absent.

    Raises:
        LookupError: the partition has rows.
    """
    name = partition(month)
    if connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone() == (True,):
        connection.execute(sql.SQL("LOCK TABLE {} IN ACCESS EXCLUSIVE MODE").format(sql.Identifier(name)))
        if holds_rows(connection, name):
            raise LookupError(name)
        connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    connection.execute(
        sql.SQL("DO $$ BEGIN EXECUTE format('ALTER TABLE {} SET SCHEMA %I', current_schema()); END $$").format(
            staged(month)
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE fastpath ATTACH PARTITION {} FOR VALUES FROM ({}) TO ({})").format(
            sql.Identifier(name), sql.Literal(month), sql.Literal(next_month(month))
        )
    )
    connection.execute(
        sql.SQL("ALTER TABLE {} DROP CONSTRAINT {}").format(sql.Identifier(name), sql.Identifier(_CHECK))
    )


def holds_rows(connection: Connection[TupleRow], table: str) -> bool:
    """Whether a table has any row."""
    row = connection.execute(sql.SQL("SELECT EXISTS (SELECT FROM {})").format(sql.Identifier(table))).fetchone()
    return row == (True,)


def _trusted(text: str) -> sql.SQL:
    """SQL that the database's own catalog gave."""
    return sql.SQL(text)
