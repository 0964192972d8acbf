"""Rows are taken out while the fastpath writes others: counters equal rows, exactly, and nothing of them is left."""

import random
import threading
from datetime import datetime

import msgspec
import psycopg

from fastpath.row import Row, fallback_row
from fastpath.store import Conflict, Store
from uploader.catalog import Catalog

REPORT_ID = "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000"


def row(number: int, chance: random.Random) -> Row:
    uid = f"2024010203{number // 60 % 60:02d}{number % 60:02d}.{number:06d}_IT_webconnectivity_{number:016x}"
    return msgspec.structs.replace(
        fallback_row(uid, None, "pipeline_test", REPORT_ID),
        input=f"https://{chance.randrange(5)}.example/",
        probe_cc=chance.choice(("IT", "DE")),
        probe_asn=chance.randrange(3),
        test_name=chance.choice(("web_connectivity", "unheard_of")),
        measurement_start_time=datetime.fromisoformat(
            chance.choice(("2024-01-02 03:04:05", "2024-01-03 01:00:00", "1999-01-01 00:00:00"))
        ),
        anomaly=chance.random() < 0.3,
        confirmed=chance.random() < 0.1,
        msm_failure=chance.random() < 0.1,
    )


def test_counters_are_those_of_the_rows_that_are_left(dsn: str) -> None:
    chance = random.Random(7)
    rows = [row(number, chance) for number in range(3000)]
    store = Store(dsn)
    store.insert(rows[:1500])
    failures: list[BaseException] = []

    def write() -> None:
        try:
            for start in range(1500, 3000, 100):
                while True:
                    try:
                        store.insert(rows[start : start + 100])
                        break
                    except Conflict:
                        continue
        except BaseException as error:  # noqa: BLE001 the test reports it
            failures.append(error)

    writer = threading.Thread(target=write)
    writer.start()
    gone = [one.measurement_uid for one in rows[:1500] if one.probe_asn == 1]
    taken = 0
    with Catalog(dsn) as catalog:
        for start in range(0, len(gone), 50):
            taken += catalog.take_out(gone[start : start + 50])
        writer.join()
        assert not failures
        assert taken == len(gone)
        assert store.counters_difference() == []
        assert catalog.take_out(gone) == 0, "again changes nothing"
        assert store.counters_difference() == []
        rest = [one.measurement_uid for one in rows if one.measurement_uid not in set(gone)]
        assert catalog.scored([one.measurement_uid for one in rows]) == set(rest)
        catalog.take_out(rest)
    store.close()
    with psycopg.connect(dsn) as connection:
        for table in ("fastpath", "fastpath_misdated", "counters_input", "counters_network", "counters_country"):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,), table
