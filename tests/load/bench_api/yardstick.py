"""The yardstick: an embedded ClickHouse (chdb) with the same rows, ordered and typed as the reference keeps them."""

import json
import statistics
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import date
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql as pg

_COLUMNS = {  # name: type here, expression in PostgreSQL where it is not the column itself
    "measurement_uid": ("String", ""),
    "report_id": ("String", ""),
    "input": ("String", ""),
    "probe_cc": ("LowCardinality(String)", ""),
    "probe_asn": ("UInt32", ""),
    "test_name": ("LowCardinality(String)", "coalesce(test_name::text, test_name_other, '')"),
    "test_start_time": ("DateTime", ""),
    "measurement_start_time": ("DateTime", ""),
    "scores": ("String", ""),
    "platform": ("LowCardinality(String)", ""),
    "anomaly": ("LowCardinality(String)", ""),
    "confirmed": ("LowCardinality(String)", ""),
    "msm_failure": ("LowCardinality(String)", ""),
    "domain": ("String", ""),
    "software_name": ("LowCardinality(String)", ""),
    "software_version": ("LowCardinality(String)", ""),
    "test_version": ("LowCardinality(String)", ""),
    "engine_name": ("LowCardinality(String)", ""),
    "engine_version": ("LowCardinality(String)", ""),
    "architecture": ("LowCardinality(String)", ""),
    "test_runtime": ("Float32", ""),
    "blocking_type": ("LowCardinality(String)", ""),
    "test_helper_address": ("LowCardinality(String)", ""),
    "test_helper_type": ("LowCardinality(String)", ""),
    "ooni_run_link_id": ("Nullable(UInt64)", ""),
    "is_verified": ("LowCardinality(String)", ""),
}
_OTHERS = {
    "citizenlab": {"domain": "String", "url": "String", "cc": "String", "category_code": "String"},
    "asnmeta": {"asn": "UInt32", "changed": "Date", "org_name": "String", "cc": "String"},
}
_ORDER = {"citizenlab": "domain, url, cc, category_code", "asnmeta": "asn, changed"}
_REPEAT, _SECONDS = 9, 1.0


class Yardstick:
    """A session of chdb on a directory."""

    def __init__(self, directory: Path) -> None:
        from chdb import session

        self._directory = directory
        self._session: Any = session.Session(str(directory))
        self._session.query("CREATE DATABASE IF NOT EXISTS sample")
        self._session.query("USE sample")

    def close(self) -> None:
        """End the session."""
        self._session.close()

    def fill(self, dsn: str, months: Sequence[tuple[date, date]]) -> float:
        """Copy the rows of these months, the test lists and the names of networks; return the seconds."""
        started = time.perf_counter()
        columns = ", ".join(f"{name} {kind}" for name, (kind, _) in _COLUMNS.items())
        self._session.query("DROP TABLE IF EXISTS fastpath")
        self._session.query(
            f"CREATE TABLE fastpath ({columns}, INDEX uids measurement_uid TYPE minmax GRANULARITY 1,"
            " INDEX reports report_id TYPE minmax GRANULARITY 1) ENGINE = MergeTree"
            " ORDER BY (measurement_start_time, report_id, input, measurement_uid)"
        )
        selected = ", ".join(expression or name for name, (_, expression) in _COLUMNS.items())
        rows = f"SELECT {selected} FROM fastpath WHERE measurement_start_time >= %s AND measurement_start_time < %s"
        with ThreadPoolExecutor(1) as pool:  # the next month is read while one is written
            reading = None
            for number, month in enumerate(months):
                reading = reading or pool.submit(_export, dsn, rows, month, self._directory / f"rows{number % 2}.tsv")
                file = reading.result()
                following = months[number + 1] if number + 1 < len(months) else None
                reading = (
                    pool.submit(_export, dsn, rows, following, self._directory / f"rows{(number + 1) % 2}.tsv")
                    if following
                    else None
                )
                self._take("fastpath", columns, file)
        for table, kinds in _OTHERS.items():
            types = ", ".join(f"{name} {kind}" for name, kind in kinds.items())
            self._session.query(f"DROP TABLE IF EXISTS {table}")
            self._session.query(f"CREATE TABLE {table} ({types}) ENGINE = MergeTree ORDER BY ({_ORDER[table]})")
            file = _export(dsn, f"SELECT {', '.join(kinds)} FROM {table}", None, self._directory / "other.tsv")
            self._take(table, types, file)
        self._session.query("OPTIMIZE TABLE fastpath FINAL")
        return time.perf_counter() - started

    def rows(self, sql: str) -> list[list[Any]]:
        """Return the rows of a query."""
        return list(json.loads(self._session.query(sql, "JSONCompact").bytes())["data"])

    def ms(self, sql: str) -> float:
        """Return the median of how long a query takes when its data are in memory, in milliseconds."""
        taken: list[float] = []
        for _ in range(2):
            self._session.query(sql, "Native")
        started = time.perf_counter()
        while len(taken) < _REPEAT and (len(taken) < 3 or time.perf_counter() - started < _SECONDS):
            before = time.perf_counter()
            self._session.query(sql, "Native")
            taken.append(time.perf_counter() - before)
        return statistics.median(taken) * 1000

    def _take(self, table: str, types: str, file: Path) -> None:
        self._session.query(f"INSERT INTO {table} SELECT * FROM file('{file}', 'TSV', '{types}')")
        file.unlink()


def _export(dsn: str, query: str, window: Iterable[date] | None, file: Path) -> Path:
    with psycopg.connect(dsn) as connection, file.open("wb") as out:
        statement = pg.SQL("COPY ({}) TO STDOUT").format(
            pg.SQL(query.replace("%s", "{}")).format(*map(pg.Literal, window or ()))
        )
        with connection.cursor().copy(statement) as copy:
            for data in copy:
                out.write(data)
    return file
