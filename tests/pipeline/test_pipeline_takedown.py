"""Rows are taken out while the fastpath writes others: counters equal rows, exactly, and nothing of them is left."""

import random
import threading
import time
from collections.abc import Callable
from datetime import date, datetime

import msgspec
import psycopg
import pytest
from psycopg import sql

import analysis.store
from core.counters import TABLES
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
        for table in ("fastpath", "fastpath_misdated", *(table.name for table in TABLES)):
            assert connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone() == (0,), table


TELLING = "https://telling.example/a-name"


def tables_with(dsn: str, text: str) -> list[str]:
    """Tables that have the text in any column of any row."""
    with psycopg.connect(dsn) as connection:
        return [
            name
            for (name,) in connection.execute(
                "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
            ).fetchall()
            if connection.execute(
                sql.SQL("SELECT FROM {} AS line WHERE strpos(line::text, %s) > 0 LIMIT 1").format(sql.Identifier(name)),
                [text],
            ).fetchone()
            is not None
        ]


def test_nothing_is_left_of_what_a_rerun_replaced_before(dsn: str) -> None:
    chance = random.Random(3)
    told = msgspec.structs.replace(row(1, chance), input=TELLING, domain="telling.example", blocking_type="dns")
    other = msgspec.structs.replace(row(2, chance), input="https://b.example/", domain="telling.example")
    store = Store(dsn)
    store.insert([told, other])
    assert {"counters_input", "counters_url", "counters_month_input", "counters_month_url"} <= set(
        tables_with(dsn, TELLING)
    )
    store.replace([msgspec.structs.replace(told, input="https://c.example/", domain="c.example")])
    assert tables_with(dsn, TELLING) == []
    with Catalog(dsn) as catalog:
        assert catalog.take_out([told.measurement_uid]) == 1
    assert tables_with(dsn, "c.example") == []
    assert tables_with(dsn, "telling.example"), "the other measurement has this domain and is still there"
    assert store.counters_difference() == []
    store.close()


def wait_until(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 60
    while not what():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("period", ["day", "month"])
def test_a_repair_does_not_bring_back_the_counter_of_a_row_that_goes_meanwhile(dsn: str, period: str) -> None:
    chance = random.Random(5)
    first, told = (msgspec.structs.replace(row(number, chance), probe_cc="IT") for number in (1, 2))
    first = msgspec.structs.replace(first, input="https://a.example/", measurement_start_time=datetime(2024, 1, 2))  # noqa: DTZ001
    told = msgspec.structs.replace(told, input=TELLING, measurement_start_time=datetime(2024, 1, 2, 3))  # noqa: DTZ001
    store = Store(dsn)
    store.insert([first, told])
    table, start = ("counters_input", date(2024, 1, 2))
    if period == "month":
        table, start = "counters_month_input", date(2024, 1, 1)
    job = analysis.store.Store(dsn, statement_timeout_s=60, lock_timeout_s=60, attempts=1)
    catalog = Catalog(dsn)
    with psycopg.connect(dsn, autocommit=True) as connection, psycopg.connect(dsn) as writer:

        def waiting(application: str) -> bool:
            return bool(
                connection.execute(
                    "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name = %s"
                    " AND wait_event_type = 'Lock'",
                    [application],
                ).fetchall()
            )

        connection.execute(
            sql.SQL("DELETE FROM {} WHERE input = %s").format(sql.Identifier(table)), [TELLING]
        )  # what the repair finds to be missing
        update = sql.SQL("UPDATE {} SET ok_count = ok_count + %s").format(sql.Identifier(table))
        connection.execute(update, [5])
        check = job.check("day" if period == "day" else "month", start)
        assert check.wrong == {table: 2}
        writer.execute(update, [0])  # the repair has to wait for this one, after it has seen what is missing
        repair = threading.Thread(target=job.repair, args=(check,))
        repair.start()
        wait_until(lambda: waiting("analysis"))
        takedown = threading.Thread(target=catalog.take_out, args=([told.measurement_uid],))
        takedown.start()
        wait_until(lambda: waiting("uploader") or not takedown.is_alive())
        writer.commit()
        repair.join(60)
        takedown.join(60)
    job.close()
    with catalog:
        pass
    assert tables_with(dsn, TELLING) == []
    assert store.counters_difference() == []
    store.close()
