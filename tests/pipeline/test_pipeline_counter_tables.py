"""All counter tables equal the rows after any sequence of writes, in turn and all at once, and without a deadlock."""

import random
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import msgspec
import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from psycopg import sql

from core.counters import COUNTS, TABLES, CounterTable
from devstack.postgres import PostgresCluster
from fastpath.row import Row, fallback_row
from fastpath.store import Store
from uploader.catalog import Catalog

REPORT_ID = "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000"
TIMES = (
    "2024-01-02 03:04:05",
    "2024-01-31 23:59:59.999999",
    "2024-02-01 00:00:00",
    "2024-02-29 12:00:00",
    "0001-01-01 00:00:00",
    "1969-12-31 23:59:59",
    "9999-12-31 23:59:59",
)
WRITERS = 5
ROUNDS = 25


def uid(number: int) -> str:
    return f"20240102{3 + number % 3:02d}0405.{number:06d}_IT_webconnectivity_{number:016x}"


def row(number: int, **values: Any) -> Row:
    return msgspec.structs.replace(fallback_row(uid(number), None, "pipeline_test", REPORT_ID), **values)


def any_row(number: int, chance: random.Random) -> Row:
    return row(
        number,
        input=chance.choice(("https://a.example/", "https://b.example/", "")),
        domain=chance.choice(("a.example", "b.example", "")),
        probe_cc=chance.choice(("IT", "DE", "ÉT")),
        probe_asn=chance.randrange(3),
        test_name=chance.choice(("web_connectivity", "unheard_of", "")),
        measurement_start_time=datetime.fromisoformat(chance.choice(TIMES)),
        anomaly=chance.random() < 0.4,
        confirmed=chance.random() < 0.2,
        msm_failure=chance.random() < 0.2,
        blocking_type=chance.choice(("", "dns", "tcp_ip")),
    )


ROWS = st.builds(
    row,
    st.integers(0, 7),
    input=st.sampled_from(["", "https://a.example/"]),
    domain=st.sampled_from(["", "a.example"]),
    probe_cc=st.sampled_from(["IT", "DE"]),
    probe_asn=st.integers(1, 2),
    test_name=st.sampled_from(["web_connectivity", "unheard_of"]),
    measurement_start_time=st.sampled_from(TIMES).map(datetime.fromisoformat),
    anomaly=st.booleans(),
    confirmed=st.booleans(),
    msm_failure=st.booleans(),
    blocking_type=st.sampled_from(["", "dns"]),
)
STEPS = st.lists(
    st.tuples(st.sampled_from(["insert", "insert_missing", "replace", "take_out"]), st.lists(ROWS, max_size=5)),
    max_size=8,
)


def in_tables(connection: psycopg.Connection, table: CounterTable) -> dict[Any, tuple[int, ...]]:
    """What a counter table says, without rows that count nothing."""
    names = sql.SQL(", ").join(map(sql.Identifier, (*table.columns, *COUNTS)))
    found = connection.execute(sql.SQL("SELECT {} FROM {}").format(names, sql.Identifier(table.name))).fetchall()
    split = len(table.columns)
    return {line[:split]: line[split:] for line in found if any(line[split:])}


def in_rows(connection: psycopg.Connection, table: CounterTable) -> dict[Any, tuple[int, ...]]:
    """The same, counted here from the rows."""
    sums: dict[Any, Counter[str]] = {}
    for start, name, other, cc, asn, domain, url, blocking, anomaly, confirmed, failure in connection.execute(
        "SELECT measurement_start_time, test_name::text, test_name_other, probe_cc, probe_asn, domain, input,"
        " blocking_type, anomaly, confirmed, msm_failure FROM fastpath"
    ):
        if table.name == "counters_blocking" and not blocking:
            continue
        values = {
            "measurement_start_day": start.date(),
            "measurement_start_month": start.date().replace(day=1),
            "test_name": other if name is None else name,
            "probe_cc": cc,
            "probe_asn": asn,
            "domain": domain,
            "input": url,
            "blocking_type": blocking,
        }
        kind = "failure" if failure else "confirmed" if confirmed else "anomaly" if anomaly else "ok"
        sums.setdefault(tuple(values[column] for column in table.columns), Counter())[f"{kind}_count"] += 1
    return {key: (*(found[count] for count in COUNTS[:4]), found.total()) for key, found in sums.items()}


def assert_exact(dsn: str) -> None:
    with psycopg.connect(dsn) as connection:
        for table in TABLES:
            assert in_tables(connection, table) == in_rows(connection, table), table.name


@pytest.fixture(scope="module")
def module_dsn(pg_cluster: PostgresCluster, pg_template: str) -> str:
    """One database for all examples, with few partitions, which are fast to read."""
    with psycopg.connect(pg_cluster.dsn(), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE counter_tables TEMPLATE {}").format(sql.Identifier(pg_template)))
    with psycopg.connect(pg_cluster.dsn("counter_tables"), autocommit=True) as connection:
        for (partition,) in connection.execute(
            "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = 'fastpath'::regclass"
            " AND inhrelid NOT IN ('fastpath_default'::regclass, 'fastpath_202401'::regclass)"
        ).fetchall():
            connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(partition)))
    return pg_cluster.dsn("counter_tables")


@pytest.fixture(scope="module")
def writers(module_dsn: str) -> Iterator[tuple[Store, Catalog]]:
    store = Store(module_dsn)
    with Catalog(module_dsn) as catalog:
        yield store, catalog
    store.close()


@given(steps=STEPS)
@settings(max_examples=60)
def test_any_sequence_of_writes_leaves_every_table_equal_to_the_rows(
    module_dsn: str, writers: tuple[Store, Catalog], steps: list[tuple[str, list[Row]]]
) -> None:
    store, catalog = writers
    with psycopg.connect(module_dsn) as connection:
        for name in ("fastpath", "fastpath_misdated", *(table.name for table in TABLES)):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(name)))
    for work, rows in steps:
        if work == "take_out":
            catalog.take_out([one.measurement_uid for one in rows])
        else:
            getattr(store, work)(rows)
        assert store.counters_difference() == []
    assert_exact(module_dsn)


def test_replacing_with_the_same_results_writes_no_counter(dsn: str) -> None:
    chance = random.Random(3)
    rows = [any_row(number, chance) for number in range(40)]
    store = Store(dsn)
    store.insert(rows)
    changed = msgspec.structs.replace(rows[0], input="https://new.example/", blocking_type=rows[0].blocking_type)

    def versions() -> dict[str, dict[Any, Any]]:
        with psycopg.connect(dsn) as connection:
            return {
                table.name: dict(
                    connection.execute(
                        sql.SQL("SELECT {}::text || key, xmin::text FROM {}").format(
                            sql.Identifier(table.time_column), sql.Identifier(table.name)
                        )
                    ).fetchall()
                )
                for table in TABLES
            }

    before = versions()
    store.replace(rows)
    assert versions() == before
    store.replace([*rows[1:], changed])
    after = versions()
    store.close()
    written = {name: len(after[name].items() - before[name].items()) for name in before if after[name] != before[name]}
    # One counter less and one more, where the input counts; nothing elsewhere.
    assert written == dict.fromkeys(("counters_input", "counters_url", "counters_month_input", "counters_month_url"), 2)
    assert_exact(dsn)


def test_writers_of_every_kind_at_once_meet_no_deadlock_and_count_exactly(dsn: str) -> None:
    errors: list[BaseException] = []
    done: Counter[str] = Counter()

    def write(seed: int) -> None:
        chance = random.Random(seed)
        store = Store(dsn)
        try:
            with Catalog(dsn) as catalog:
                for turn in range(ROUNDS):
                    numbers = chance.sample(range(120), 30)
                    work = ("insert", "replace", "insert_missing", "take_out")[(seed + turn) % 4]
                    if work == "take_out":
                        catalog.take_out([uid(number) for number in numbers[:8]])
                    else:
                        # An error of any kind fails the test: the store would repeat after a deadlock, silently.
                        getattr(store, work)([any_row(number, chance) for number in numbers])
                    done[work] += 1
        except BaseException as error:  # noqa: BLE001 the test reports it
            errors.append(error)
        finally:
            store.close()

    threads = [threading.Thread(target=write, args=(seed,)) for seed in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert errors == []
    assert done.total() == WRITERS * ROUNDS
    with psycopg.connect(dsn) as connection:
        assert connection.execute(
            "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
        ).fetchone() == (0,)
        uids = connection.execute("SELECT measurement_uid FROM fastpath").fetchall()
    assert uids
    assert_exact(dsn)
