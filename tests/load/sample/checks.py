"""Proves after a load that the counters equal the rows, and that every row is found by its identifiers."""

import re
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from psycopg import Connection, sql
from psycopg.rows import TupleRow
from tests.load.sample import counting
from tests.load.sample.draw import Month, next_month
from tests.load.sample.loading import WORKERS, session

from core.counters import TABLES


@dataclass(slots=True)
class Proof:
    """What was compared; `wrong` has a sentence for everything that does not hold."""

    rows: int
    counters: int
    wrong: list[str]


def prove(dsn: str, months: Sequence[Month]) -> Proof:
    """Compare all counters of these months with their rows, and look for rows that no lookup would find."""
    proof = Proof(0, 0, [])
    with ThreadPoolExecutor(WORKERS) as pool:
        for rows, counters, wrong in pool.map(lambda month: _month(dsn, month), months):
            proof.rows += rows
            proof.counters += counters
            proof.wrong += wrong
    expected = sum(month.rows for month in months)
    if proof.rows != expected:
        proof.wrong.append(f"there are {proof.rows:,} rows in these months instead of {expected:,}")
    return proof


def _month(dsn: str, month: Month) -> tuple[int, int, list[str]]:
    wrong, counters = [], 0
    window = [month.first, next_month(month.first)]
    with session(dsn, {"work_mem": "256MB"}) as connection, connection.transaction():
        counting.gather(connection, sql.Identifier("fastpath"), month.first)
        for table in TABLES:
            compared, different = counting.differences(connection, table, month.first)
            counters += compared
            if different:
                wrong.append(f"{different:,} of {compared:,} counters of {table.name} are wrong in {month.first:%Y-%m}")
        lost = connection.execute(
            sql.SQL(
                "SELECT count(*), count(*) FILTER (WHERE ({misdated}) AND NOT EXISTS (SELECT FROM fastpath_misdated m"
                " WHERE m.measurement_uid = f.measurement_uid AND m.measurement_start_time = f.measurement_start_time))"
                " FROM fastpath f WHERE measurement_start_time >= %s AND measurement_start_time < %s"
            ).format(misdated=_misdated(connection)),
            window,
        ).fetchone()
        assert lost is not None
        if lost[1]:
            wrong.append(f"{lost[1]:,} rows of {month.first:%Y-%m} are far from their ids and not in fastpath_misdated")
    return int(lost[0]), counters, wrong


def _misdated(connection: Connection[TupleRow]) -> sql.SQL:
    """The condition of the trigger that fills fastpath_misdated, as the database has it now, about a row `f`."""
    row = connection.execute(
        "SELECT pg_get_triggerdef(oid) FROM pg_trigger"
        " WHERE tgrelid = 'fastpath'::regclass AND tgname = 'fastpath_note_misdated'"
    ).fetchone()
    found = re.search(r" WHEN \((.*)\) EXECUTE FUNCTION ", row[0], re.DOTALL) if row else None
    assert found is not None, "fastpath has no trigger fastpath_note_misdated with a condition"
    return sql.SQL(re.sub(r"\bnew\.", "f.", found[1]).replace("%", "%%"))
