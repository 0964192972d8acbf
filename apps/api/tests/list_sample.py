"""Random rows for the list of measurements: few values each, so that ties and equal times are frequent."""

from datetime import datetime, timedelta
from typing import Any

import psycopg
import pytest
from hypothesis import strategies as st

from api import list_counters, list_walk
from core.counters import TABLES
from core.counters_sql import count, facts

BEGIN = datetime(2012, 12, 1)  # noqa: DTZ001 the column has no zone
LONG = "x" * 200
INPUTS = ("", "https://a.example/", "https://A.example/", "_", "é", "ø/", "b c", LONG + "1", LONG + "2")
DOMAINS = ("", "a.example", "b.example")
COUNTRIES = ("IT", "DE", "ZZ", "IR")
NETWORKS = (0, 1, 2, 30722, 4294967295)
TEST_NAMES = ("web_connectivity", "ndt", "tor", "zebra", "Àpropos", "")
VERSIONS = ("3.0.0", "3.1.0", None)
TIMES = tuple(
    datetime.fromisoformat(text)
    for text in (
        *("1999-01-01", "2012-12-01", "2014-02-28T23:59:59.999999", "2014-03-01", "2014-03-01T00:00:00.000001"),
        *("2017-07-09T12:00:00", "2023-01-31", "2023-02-01", "2023-02-01T00:00:01", "2035-05-05"),
    )
)

ROW = st.fixed_dictionaries(
    {
        "input": st.sampled_from(INPUTS),
        "domain": st.sampled_from(DOMAINS),
        "probe_cc": st.sampled_from(COUNTRIES),
        "probe_asn": st.sampled_from(NETWORKS),
        "test": st.sampled_from(TEST_NAMES),
        "named_before": st.booleans(),
        "measurement_start_time": st.sampled_from(TIMES),
        "anomaly": st.booleans(),
        "confirmed": st.booleans(),
        "msm_failure": st.booleans(),
        "software_version": st.sampled_from(VERSIONS),
        "engine_version": st.sampled_from(VERSIONS),
        "test_version": st.sampled_from(VERSIONS),
        "ooni_run_link_id": st.sampled_from((None, 1, 18446744073709551615)),
    }
)


def is_listed(row: dict[str, Any]) -> bool:
    """Whether readers get to see it."""
    return bool(row["probe_cc"] != "ZZ" and row["probe_asn"] != 0)


def write(connection: psycopg.Connection, rows: list[dict[str, Any]], *, first: int = 0) -> list[str]:
    """Write rows, count them, and return their uids, which begin with their number in a mixed order.

    The names of tests of rows that were `named_before` are text: they joined the type later.
    """
    found = connection.execute("SELECT enumlabel::text FROM pg_enum WHERE enumtypid = 'ootest'::regtype").fetchall()
    typed = {name for (name,) in found}
    connection.execute("CREATE TEMP TABLE arrived (LIKE fastpath INCLUDING DEFAULTS) ON COMMIT DROP")
    uids = []
    for number, row in enumerate(rows, start=first):
        stored = {key: value for key, value in row.items() if key not in {"test", "named_before"}}
        is_text = row.get("named_before", False) or row["test"] not in typed
        uid = f"{number * 7919 % 1000:03}{number}_IT_ndt_0123456789abcdef"
        stored |= {
            "measurement_uid": uid,
            "report_id": f"20230101T000000Z_ndt_IT_1_n1_{number:016}",
            "test_name": None if is_text else row["test"],
            "test_name_other": row["test"] if is_text else None,
            "scores": "{}",
        }
        marks = ", ".join(["%s"] * len(stored))
        statement = f"INSERT INTO arrived ({', '.join(stored)}) VALUES ({marks})"
        connection.execute(statement.encode(), list(stored.values()))
        uids.append(uid)
    connection.execute("INSERT INTO fastpath SELECT * FROM arrived")
    for table in TABLES:
        connection.execute(count(table, facts("arrived")))
    connection.commit()
    return uids


SMALL_STEPS = st.fixed_dictionaries(
    {
        "_FEW_ROWS": st.sampled_from([3000, 0]),
        "_FIRST_READ": st.sampled_from([500, 1, 2, 3]),
        "_MONTHS_IN_STATEMENT": st.sampled_from([12, 1, 2, 3]),
        "_MONTHS_AT_ONCE": st.sampled_from([400, 1, 2, 3]),
    }
)
"""Bounds of steps of a walk, some so small that few rows take many steps: by year or value by value."""


def set_steps(patch: pytest.MonkeyPatch, steps: dict[str, int]) -> None:
    """Let walks go in these steps."""
    for name, step in steps.items():
        patch.setattr(list_counters if name == "_MONTHS_AT_ONCE" else list_walk, name, step)


def clear(connection: psycopg.Connection) -> None:
    """Remove all rows and their counters."""
    months = {time.replace(day=1, hour=0, minute=0, second=0, microsecond=0) for time in TIMES}
    for month in months:
        # Month by month: a statement on all partitions would take longer than the rest of an example.
        connection.execute(
            "DELETE FROM fastpath WHERE measurement_start_time >= %s AND measurement_start_time < %s",
            [month, month + timedelta(days=31)],
        )
    for table in ("fastpath_misdated", *(table.name for table in TABLES)):
        connection.execute(f"DELETE FROM {table}".encode())
    connection.commit()
