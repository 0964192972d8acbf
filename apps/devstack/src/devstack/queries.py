"""What the stack reads from the database, for its report."""

from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import TupleRow

from core.db import connect


class Figures(NamedTuple):
    """Numbers of measurements."""

    rows: int
    anomalies: int
    confirmed: int
    failures: int
    without_sense: int
    archived: int


class Example(NamedTuple):
    """One measurement to look at; `s3path` and `linenum` (from 0) are None while it is in the spool alone."""

    measurement_uid: str
    report_id: str
    test_name: str
    probe_cc: str
    probe_asn: int
    input: str
    confirmed: bool
    scores: Any
    s3path: str | None
    linenum: int | None


def open_connection(dsn: str) -> Connection[TupleRow]:
    """Connect for a few queries. Raises core.db.DatabaseUnavailable."""
    return connect(dsn, autocommit=True, application_name="devstack")


def figures(connection: Connection[TupleRow]) -> Figures:
    """Count what is in the database."""
    row = connection.execute(
        """SELECT count(*), count(*) FILTER (WHERE anomaly), count(*) FILTER (WHERE confirmed),
                  count(*) FILTER (WHERE msm_failure), count(reason), (SELECT count(*) FROM jsonl)
           FROM fastpath"""
    ).fetchone()
    assert row is not None
    return Figures(*row)


def scored(connection: Connection[TupleRow], uids: list[str]) -> int:
    """Count the rows of some measurements."""
    row = connection.execute("SELECT count(*) FROM fastpath WHERE measurement_uid = ANY(%s)", [uids]).fetchone()
    assert row is not None
    return int(row[0])


def has_fingerprints(connection: Connection[TupleRow]) -> bool:
    """Tell whether both lists of fingerprints have something."""
    row = connection.execute(
        "SELECT EXISTS (SELECT FROM fingerprints_dns) AND EXISTS (SELECT FROM fingerprints_http)"
    ).fetchone()
    assert row is not None
    return bool(row[0])


def has_test_lists(connection: Connection[TupleRow]) -> bool:
    """Tell whether there is anything that probes can be asked to measure."""
    row = connection.execute("SELECT EXISTS (SELECT FROM citizenlab)").fetchone()
    assert row is not None
    return bool(row[0])


def has_network_names(connection: Connection[TupleRow]) -> bool:
    """Tell whether any network has a name."""
    row = connection.execute("SELECT EXISTS (SELECT FROM asnmeta)").fetchone()
    assert row is not None
    return bool(row[0])


def example(connection: Connection[TupleRow]) -> Example | None:
    """Choose a measurement worth looking at: a recent confirmed blocking that is archived, or the next best."""
    row = connection.execute(
        """SELECT f.measurement_uid, f.report_id, coalesce(f.test_name::text, f.test_name_other), f.probe_cc,
                  f.probe_asn, f.input, f.confirmed, f.scores, j.s3path, j.linenum
           FROM fastpath AS f LEFT JOIN jsonl AS j USING (measurement_uid)
           ORDER BY j.s3path IS NOT NULL DESC, f.confirmed DESC, f.anomaly DESC, f.msm_failure, f.measurement_uid DESC
           LIMIT 1"""
    ).fetchone()
    return None if row is None else Example(*row)
