"""A dozen rows of fastpath, each different in one thing, for tests of the routes that read measurements."""

from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
from counters_fill import fill_counters

NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
DAY = timedelta(days=1)

RESULT_KEYS = {
    *("measurement_uid", "measurement_url", "report_id", "probe_cc", "probe_asn", "test_name"),
    *("measurement_start_time", "input", "anomaly", "confirmed", "failure", "scores", "verification_status"),
}
META_KEYS = {
    *("anomaly", "category_code", "confirmed", "failure", "input", "measurement_start_time", "measurement_uid"),
    *("probe_asn", "probe_cc", "report_id", "scores", "test_name", "test_start_time", "verification_status"),
}


def uid_at(when: datetime, number: int, cc: str = "IT", test: str = "webconnectivity") -> str:
    return f"{when:%Y%m%d%H%M%S}.{number:06d}_{cc}_{test}_{number:016x}"


def rid_at(when: datetime, number: int, cc: str = "IT", asn: int = 1234, test: str = "webconnectivity") -> str:
    return f"{when:%Y%m%dT%H%M%SZ}_{test}_{cc}_{asn}_n1_{number:016d}"


def make_rows() -> list[dict[str, Any]]:
    """Rows 0..11: newest first when sorted by start time; row 0 is the plain one, the others differ in one thing."""
    plain = {
        "input": "https://www.example.org/a",
        "domain": "www.example.org",
        "probe_cc": "IT",
        "probe_asn": 1234,
        "test_name": "web_connectivity",
        "test_name_other": None,
        "anomaly": False,
        "confirmed": False,
        "msm_failure": False,
        "software_version": "3.0.0",
        "test_version": "0.4.3",
        "engine_version": "3.0.0",
        "ooni_run_link_id": None,
        "scores": '{"blocking_general":0.0}',
    }
    differences: list[dict[str, Any]] = [
        {},
        {"probe_cc": "DE", "probe_asn": 3320, "anomaly": True, "scores": '{"blocking_general":1.0,"x":[1]}'},
        {"test_name": "ndt", "input": "", "domain": ""},
        {"test_name": None, "test_name_other": "never_heard_of", "input": "", "domain": ""},
        {"confirmed": True, "anomaly": True, "domain": "other.example", "input": "https://other.example/" + "x" * 3000},
        {"msm_failure": True, "software_version": "3.1.0", "test_version": "0.5", "engine_version": "3.1.0"},
        {"ooni_run_link_id": 18446744073709551615, "domain": "exämple.org:8080"},
        {"measurement_start_time": NOW - 40 * DAY},
        {"measurement_start_time": datetime(2035, 1, 1), "at": NOW - 3 * DAY},  # noqa: DTZ001 the column has no zone
        {"probe_cc": "ZZ"},
        {"probe_asn": 0},
        {"measurement_start_time": NOW.replace(microsecond=123000) - 20 * DAY, "scores": '{"n":1e400}'},
    ]
    rows = []
    for number, difference in enumerate(differences):
        row = {**plain, "measurement_start_time": NOW - timedelta(hours=number + 1), **difference}
        at = row.pop("at", row["measurement_start_time"])
        test = (row["test_name"] or row["test_name_other"]).replace("_", "")
        row["measurement_uid"] = uid_at(at, number, row["probe_cc"], test)
        row["report_id"] = rid_at(at, number, row["probe_cc"], row["probe_asn"], test)
        row["test_start_time"] = row["measurement_start_time"] - timedelta(seconds=60)
        rows.append(row)
    return rows


ROWS = make_rows()


def insert(dsn: str, rows: list[dict[str, Any]]) -> None:
    """Write rows into fastpath, and count all that are there."""
    columns = list(rows[0])
    statement = f"INSERT INTO fastpath ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(statement, [[row[column] for column in columns] for row in rows])
        fill_counters(connection)
