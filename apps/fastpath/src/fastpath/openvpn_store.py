"""The SQL of table `obs_openvpn`, for use inside the transaction that writes the rows."""

from collections.abc import Sequence

import msgspec
import psycopg
from psycopg import sql

from fastpath.observation import Observation
from fastpath.row import Row

ROW_COLUMNS = (
    "measurement_uid",
    "report_id",
    "input",
    "probe_cc",
    "probe_asn",
    "test_start_time",
    "measurement_start_time",
    "software_name",
    "software_version",
    "test_runtime",
)
"""Columns with the value of the measurement's row."""

COLUMNS = (*ROW_COLUMNS, *Observation.__struct_fields__)

_INSERT = sql.SQL("INSERT INTO obs_openvpn ({}) VALUES ({}) ON CONFLICT (measurement_uid) DO NOTHING").format(
    sql.SQL(", ").join(map(sql.Identifier, COLUMNS)), sql.SQL(", ").join([sql.Placeholder()] * len(COLUMNS))
)


def write_observations(connection: psycopg.Connection, rows: Sequence[Row], *, replace: bool = False) -> int:
    """Write the observations of `rows` that do not exist yet; return how many rows have one.

    With `replace`, what exists for these measurements goes first. Raises psycopg.Error.
    """
    if replace:
        uids = [row.measurement_uid for row in rows]
        connection.execute("DELETE FROM obs_openvpn WHERE measurement_uid = ANY(%s)", [uids])
    values = [
        [*(getattr(row, column) for column in ROW_COLUMNS), *msgspec.structs.astuple(row.observation)]
        for row in sorted(rows, key=lambda row: row.measurement_uid)  # one order for all, against deadlocks
        if row.observation is not None
    ]
    if values:
        with connection.cursor() as cursor:
            cursor.executemany(_INSERT, values)
    return len(values)
