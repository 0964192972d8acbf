"""What a sample takes on the disk: by table and by index, and per row."""

from psycopg import Connection
from psycopg.rows import TupleRow

from core.counters import TABLES

# Tables with their partitions' parts added up; an index of a partition counts as that of the parent.
_SIZES = """
WITH RECURSIVE trees AS (
    SELECT c.oid AS root, c.oid AS leaf FROM pg_class c WHERE c.oid = ANY (%(tables)s::regclass[])
    UNION ALL SELECT t.root, i.inhrelid FROM trees t JOIN pg_inherits i ON i.inhparent = t.leaf
)
SELECT root::regclass::text AS name, NULL AS index, sum(pg_table_size(leaf))::bigint AS bytes FROM trees GROUP BY root
UNION ALL
SELECT t.root::regclass::text, coalesce(p.inhparent, x.indexrelid)::regclass::text,
    sum(pg_relation_size(x.indexrelid))::bigint
FROM trees t JOIN pg_index x ON x.indrelid = t.leaf LEFT JOIN pg_inherits p ON p.inhrelid = x.indexrelid
JOIN pg_class c ON c.oid = x.indexrelid WHERE c.relkind = 'i' GROUP BY 1, 2
ORDER BY 1, 2 NULLS FIRST
"""


def sizes(connection: Connection[TupleRow]) -> list[tuple[str, str | None, int]]:
    """Return table, index (None for the table itself) and bytes, of fastpath and all counter tables."""
    names = ["fastpath", *(table.name for table in TABLES)]
    return [(str(table), index, int(size)) for table, index, size in connection.execute(_SIZES, {"tables": names})]


def table(connection: Connection[TupleRow]) -> list[str]:
    """Return lines that say what everything takes, in bytes per row of fastpath."""
    row = connection.execute("SELECT count(*) FROM fastpath").fetchone()
    rows = max(1, row[0] if row else 0)
    found = sizes(connection)
    lines = [f"{'what':56} {'MB':>9} {'bytes/row':>10} {'counters/row':>13}"]
    for name in ("fastpath", *(counter.name for counter in TABLES)):
        per_row = ""
        if name != "fastpath":
            counted = connection.execute(f"SELECT count(*) FROM {name}".encode()).fetchone()
            per_row = f"{(counted[0] if counted else 0) / rows:.3f}"
        for table_, index, size in found:
            if table_ == name:
                what = f"  index {index}" if index else name
                lines.append(_line(what, size, rows, "" if index else per_row))
    heap = sum(size for name, index, size in found if name == "fastpath" and index is None)
    indexes = sum(size for name, index, size in found if name == "fastpath" and index is not None)
    counters = sum(size for name, _, size in found if name != "fastpath")
    lines.append(_line("all: rows", heap, rows))
    lines.append(_line("all: index entries of rows", indexes, rows))
    lines.append(_line("all: counters with their indexes", counters, rows))
    lines.append(_line("all", heap + indexes + counters, rows))
    return lines


def _line(what: str, size: int, rows: int, counters: str = "") -> str:
    return f"{what:56} {size / 1e6:9,.0f} {size / rows:10,.1f} {counters:>13}".rstrip()
