"""Rows and counters in a real PostgreSQL: written once, counted once, whatever happens in between."""

import threading
from collections.abc import Iterator
from datetime import datetime
from typing import Any

import psycopg
import pytest

from core.counters import TABLES
from fastpath.row import Row
from fastpath.store import _TAKE_OUT, Conflict, RowsRefused, Store, Unavailable, _windows


@pytest.fixture
def store(fastpath_dsn: str) -> Iterator[Store]:
    made = Store(fastpath_dsn)
    yield made
    made.close()


TEXTS = (
    "blocking_type",
    "platform",
    "architecture",
    "engine_name",
    "engine_version",
    "software_name",
    "software_version",
    "test_version",
    "test_helper_address",
    "test_helper_type",
)


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


def uid(number: int, *, cc: str = "IT", test: str = "webconnectivity", hour: str = "2024010203") -> str:
    return f"{hour}0405.{number:06d}_{cc}_{test}_{number:016x}"


def row(number: int, **changes: Any) -> Row:
    values: dict[str, Any] = {
        **dict.fromkeys(TEXTS, ""),
        "measurement_uid": uid(number),
        "report_id": "20240102T030405Z_webconnectivity_IT_30722_n1_0000000000000000",
        "input": "https://example.org/",
        "domain": "example.org",
        "probe_cc": "IT",
        "probe_asn": 30722,
        "test_name": "web_connectivity",
        "test_start_time": at("2024-01-02 03:04:00"),
        "measurement_start_time": at("2024-01-02 03:04:05"),
        "scores": '{"blocking_general":0.0}',
        "anomaly": False,
        "confirmed": False,
        "msm_failure": False,
        "test_runtime": 1.5,
        "ooni_run_link_id": None,
        "is_verified": "u",
    }
    return Row(**{**values, **changes})


def query(dsn: str, statement: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement).fetchall()  # type: ignore[arg-type, no-any-return, unused-ignore] # tests


def test_a_row_is_written_with_every_value(store: Store, fastpath_dsn: str) -> None:
    assert store.insert([row(1, ooni_run_link_id=2**64 - 1, input='/\t\\N\n"é"', reason="odd")]) == {uid(1)}
    [(got_input, asn, start, link, scores, reason, other)] = query(
        fastpath_dsn,
        "SELECT input, probe_asn, measurement_start_time::text, ooni_run_link_id, scores::text, reason, test_name_other"
        " FROM fastpath",
    )
    assert (got_input, asn, start) == ('/\t\\N\n"é"', 30722, "2024-01-02 03:04:05")
    assert (int(link), scores, reason, other) == (2**64 - 1, '{"blocking_general":0.0}', "odd", None)


def test_writing_again_changes_nothing_and_says_so(store: Store, fastpath_dsn: str) -> None:
    assert store.insert([row(1), row(2)]) == {uid(1), uid(2)}
    assert store.insert([row(2, anomaly=True), row(3)]) == {uid(3)}
    assert store.insert([row(1), row(2), row(3)]) == set()
    assert query(fastpath_dsn, "SELECT count(*), count(*) FILTER (WHERE anomaly) FROM fastpath") == [(3, 0)]
    assert query(fastpath_dsn, "SELECT measurement_count, ok_count FROM counters_country") == [(3, 3)]
    assert store.counters_difference() == []


def test_counts_exclude_each_other(store: Store, fastpath_dsn: str) -> None:
    flags = [(a, c, f) for a in (False, True) for c in (False, True) for f in (False, True)]
    store.insert(
        [row(n, anomaly=a, confirmed=c, msm_failure=f, blocking_type="dns") for n, (a, c, f) in enumerate(flags)]
    )
    for table in TABLES:
        counts = f"SELECT ok_count, anomaly_count, confirmed_count, failure_count, measurement_count FROM {table.name}"
        assert query(fastpath_dsn, counts) == [(1, 1, 2, 4, 8)], table
    assert store.counters_difference() == []


def test_each_table_counts_by_its_own_keys(store: Store, fastpath_dsn: str) -> None:
    store.insert(
        [
            row(1),
            row(2, input="https://example.org/b"),
            row(3, probe_asn=4),
            row(4, probe_cc="DE"),
            row(5, test_name="telegram", input="", domain=""),
            row(6, measurement_start_time=at("2024-01-03 00:00:00"), blocking_type="dns"),
            row(7, measurement_start_time=at("2024-02-01 00:00:00"), blocking_type="tcp_ip"),
        ]
    )
    sizes = {
        table.name: query(fastpath_dsn, f"SELECT count(*), count(DISTINCT {table.time_column}) FROM {table.name}")[0]
        for table in TABLES
    }
    assert sizes == {
        "counters_input": (7, 3),
        "counters_domain": (5, 3),
        "counters_url": (5, 3),
        "counters_network": (6, 3),
        "counters_country": (5, 3),
        "counters_blocking": (2, 2),
        "counters_month_input": (5, 2),
        "counters_month_network": (5, 2),
        "counters_month_url": (4, 2),
        "counters_month_country": (4, 2),
    }
    assert query(fastpath_dsn, "SELECT measurement_start_month::text FROM counters_month_country ORDER BY 1")[-1] == (
        "2024-02-01",
    )
    assert store.counters_difference() == []


def test_unknown_test_names_are_kept_beside_the_type(store: Store, fastpath_dsn: str) -> None:
    store.insert([row(1, test_name="teleport_test"), row(2, test_name=""), row(3, test_name="x" * 5000)])
    assert query(
        fastpath_dsn, "SELECT test_name, left(test_name_other, 20) FROM fastpath ORDER BY measurement_uid"
    ) == [
        (None, "teleport_test"),
        (None, ""),
        (None, "x" * 20),
    ]
    assert store.counters_difference() == []


def test_a_name_that_the_database_learned_is_used_by_the_next_connection(store: Store, fastpath_dsn: str) -> None:
    with psycopg.connect(fastpath_dsn, autocommit=True) as connection:
        connection.execute("ALTER TYPE ootest ADD VALUE IF NOT EXISTS 'learned_test'")
    store.insert([row(1, test_name="learned_test")])
    assert query(fastpath_dsn, "SELECT test_name::text, test_name_other FROM fastpath") == [("learned_test", None)]


@pytest.mark.parametrize(
    "poison",
    [
        {"input": "a\0b"},
        {"domain": "\ud800"},
        {"scores": "{"},
        {"probe_asn": 2**63},
        {"probe_cc": None},
        {"ooni_run_link_id": 10**20},
        {"platform": {"not": "text"}},
    ],
    ids=lambda poison: next(iter(poison)),
)
def test_poison_is_refused_as_a_whole_and_the_store_goes_on(
    store: Store, fastpath_dsn: str, poison: dict[str, Any]
) -> None:
    with pytest.raises(RowsRefused):
        store.insert([row(1), row(2, **poison)])
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath") == [(0,)]
    assert store.insert([row(1)]) == {uid(1)}
    assert store.counters_difference() == []


def test_values_beyond_an_index_entry_are_no_problem(store: Store) -> None:
    huge = "".join(chr(0x4E00 + n * 7919 % 20000) for n in range(50_000))
    names = ("input", "domain", "report_id", "probe_cc", "test_name")
    store.insert([row(n, **{name: huge}) for n, name in enumerate(names)])
    assert store.counters_difference() == []


def test_replacing_corrects_rows_and_counters(store: Store, fastpath_dsn: str) -> None:
    store.insert([row(n) for n in range(5)])
    moved = at("1970-01-01 00:00:00")
    store.replace(
        [
            row(0, anomaly=True),
            row(1, probe_cc="DE"),
            row(2, measurement_start_time=moved),
            row(9, input="https://new.example/"),
        ]
    )
    assert query(fastpath_dsn, "SELECT count(*), count(DISTINCT measurement_uid) FROM fastpath") == [(6, 6)]
    assert store.counters_difference() == []
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath_misdated") == [(1,)]
    store.replace([row(n) for n in (0, 1, 2, 9)])
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath") == [(6,)]
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath_misdated") == [(0,)]
    assert query(fastpath_dsn, "SELECT sum(measurement_count), sum(anomaly_count) FROM counters_country") == [(6, 0)]
    assert store.counters_difference() == []


def test_the_same_measurement_twice_in_a_batch_counts_once(store: Store, fastpath_dsn: str) -> None:
    assert store.insert([row(1, anomaly=True), row(2), row(1)]) == {uid(1), uid(2)}
    assert store.insert_missing([row(3, anomaly=True), row(3)]) == {uid(3)}
    assert store.counters_difference() == []
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath WHERE anomaly") == [(2,)]  # the first one stayed
    assert store.replace([row(1), row(1, confirmed=True), row(4)]) == {uid(1)}
    assert store.counters_difference() == []
    assert query(fastpath_dsn, "SELECT anomaly, confirmed FROM fastpath WHERE measurement_uid LIKE '%1'") == [
        (False, True)  # the last one stayed
    ]


def test_a_measurement_with_another_start_time_is_not_missing(store: Store, fastpath_dsn: str) -> None:
    near, far = at("2024-01-05 00:00:00"), at("2016-02-03 04:05:06")
    old = [row(1, measurement_start_time=near), row(2, measurement_start_time=far), row(3)]
    store.insert(old)
    assert store.insert_missing([row(1), row(2), row(3), row(4)]) == {uid(4)}
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath") == [(4,)]
    assert store.replace([row(number) for number in range(1, 6)]) == {uid(1), uid(2), uid(3), uid(4)}
    assert query(fastpath_dsn, "SELECT DISTINCT measurement_start_time::text FROM fastpath") == [
        ("2024-01-02 03:04:05",)
    ]
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath_misdated") == [(0,)]
    assert store.counters_difference() == []


def test_replacing_old_measurements_finds_them_by_the_day_in_their_uid(store: Store, fastpath_dsn: str) -> None:
    uids = {
        "01" + day + f"{number:030x}" for number, day in enumerate(("20240131", "20240229", "00000000", "99999999"))
    }
    rows = [row(1, measurement_uid=name) for name in uids]
    assert store.insert_missing(rows) == uids
    assert store.insert_missing(rows) == set()
    assert store.replace(rows) == uids
    assert store.counters_difference() == []


def test_replacing_visits_few_partitions(store: Store, fastpath_dsn: str) -> None:
    store.insert([row(1)])
    with store._transaction() as connection:
        store._copy(connection, [row(1)])
        [window] = _windows(connection, [row(1)])
        connection.execute(_TAKE_OUT, window)
        locked = connection.execute(
            "SELECT DISTINCT relation::regclass::text FROM pg_locks"
            " WHERE pid = pg_backend_pid() AND mode = 'RowExclusiveLock'"
        ).fetchall()
    tables = {name for (name,) in locked if name.startswith("fastpath_") and name[9:].isdigit()}
    assert tables == {"fastpath_202401"}


def test_who_verified_a_measurement_is_kept_on_request(store: Store, fastpath_dsn: str) -> None:
    store.insert([row(1, is_verified="t"), row(2)])
    store.replace([row(1, anomaly=True), row(2, anomaly=True)], keep_verified=True)
    assert query(fastpath_dsn, "SELECT is_verified, anomaly FROM fastpath ORDER BY 1") == [("t", True), ("u", True)]
    store.replace([row(1)])
    assert query(fastpath_dsn, "SELECT is_verified, anomaly FROM fastpath ORDER BY 2") == [("u", False), ("u", True)]


@pytest.mark.parametrize("exists", [False, True])
def test_replacing_while_another_writes_the_same_row_counts_it_once(
    store: Store, fastpath_dsn: str, exists: bool
) -> None:
    if exists:
        store.insert([row(1), row(2)])
    other = Store(fastpath_dsn)
    replacing = threading.Thread(target=store.replace, args=([row(1, anomaly=True), row(2, anomaly=True)],))
    with other._transaction() as connection:
        if exists:
            connection.execute("DELETE FROM fastpath")
            for table in TABLES:
                connection.execute(f"DELETE FROM {table.name}")  # type: ignore[arg-type, unused-ignore]  # tests
        other._copy(connection, [row(1)])
        other._insert_and_count(connection, 1)
        replacing.start()
        replacing.join(1.0)
        assert replacing.is_alive()  # it waits for the row
    replacing.join(20.0)
    assert not replacing.is_alive()
    other.close()
    assert store.counters_difference() == []
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath") == [(2,)]


def test_the_lines_of_an_object_are_listed_in_order(store: Store, fastpath_dsn: str) -> None:
    with psycopg.connect(fastpath_dsn) as connection:
        connection.execute("DELETE FROM jsonl")
        for number in (1, 0):
            connection.execute(
                "INSERT INTO jsonl (measurement_uid, report_id, input, s3path, linenum) VALUES (%s, '', '', 'a', %s)",
                [uid(number), number],
            )
    assert [(line.linenum, line.measurement_uid) for line in store.archived_lines("a")] == [(0, uid(0)), (1, uid(1))]
    assert store.archived_lines("b") == []


@pytest.mark.parametrize(
    "damage",
    [
        "UPDATE counters_input SET ok_count = ok_count + 1",
        "UPDATE counters_network SET measurement_count = measurement_count - 1",
        "DELETE FROM counters_country",
        "DELETE FROM fastpath",
        "UPDATE fastpath SET confirmed = true",
    ],
)
def test_every_difference_is_found(store: Store, fastpath_dsn: str, damage: str) -> None:
    store.insert([row(1)])
    with psycopg.connect(fastpath_dsn) as connection:
        connection.execute(damage)  # type: ignore[arg-type, unused-ignore] # tests
    assert store.counters_difference() != []


def test_writers_of_the_same_counters_do_not_deadlock(fastpath_dsn: str) -> None:
    def rows(writer: int, batch: int) -> list[Row]:
        numbers = range(40) if writer % 2 else range(39, -1, -1)
        return [
            row(writer * 10_000 + batch * 100 + n, probe_cc=f"A{n % 10}", input=f"https://{n}.example/", probe_asn=n)
            for n in numbers
        ]

    errors: list[Exception] = []

    def write(writer: int) -> None:
        mine = Store(fastpath_dsn)
        try:
            for batch in range(15):
                mine.insert(rows(writer, batch))
        except (Conflict, RowsRefused, Unavailable) as error:
            errors.append(error)
        finally:
            mine.close()

    writers = [threading.Thread(target=write, args=(number,)) for number in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert errors == []
    checker = Store(fastpath_dsn)
    assert checker.counters_difference() == []
    checker.close()
    assert query(fastpath_dsn, "SELECT count(*) FROM fastpath") == [(4 * 15 * 40,)]


def test_a_broken_connection_is_made_anew(store: Store, fastpath_dsn: str) -> None:
    store.insert([row(1)])
    query(fastpath_dsn, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'fastpath'")
    with pytest.raises(Unavailable):
        store.insert([row(2)])
    assert store.insert([row(1), row(2)]) == {uid(2)}
    assert store.counters_difference() == []


def test_a_database_without_the_schema_counts_as_unavailable(empty_dsn: str) -> None:
    store = Store(empty_dsn)
    with pytest.raises(Unavailable, match="fastpath"):
        store.ping()


def test_a_slow_statement_counts_as_unavailable(fastpath_dsn: str) -> None:
    store = Store(fastpath_dsn, statement_timeout_s=0.2)
    with psycopg.connect(fastpath_dsn) as blocker:
        blocker.execute("LOCK TABLE counters_network")
        with pytest.raises(Unavailable, match="timeout"):
            store.insert([row(1)])
    assert store.insert([row(1)]) == {uid(1)}
    store.close()


def test_fingerprints_are_replaced_as_a_whole(store: Store) -> None:
    first = {
        "name": "one",
        "scope": "nat",
        "other_names": "",
        "location_found": "dns",
        "pattern_type": "full",
        "pattern": "192.0.2.1",
        "confidence_no_fp": 5,
        "expected_countries": "IT",
    }
    store.replace_fingerprints([first], [{**first, "name": "two", "location_found": "body"}])
    store.replace_fingerprints([{**first, "name": "three"}], [])
    dns, http = store.fingerprints()
    assert [found["name"] for found in dns] == ["three"]
    assert http == []
    with pytest.raises(RowsRefused):
        store.replace_fingerprints([first, first], [])
    assert [found["name"] for found in store.fingerprints()[0]] == ["three"]
