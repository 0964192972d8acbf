"""The measurement tables: partitions, look-ups by identifier, hostile text, indexes that lists are read from."""

import threading
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

from core import schema
from core.counters import TABLES
from core.testnames import KNOWN_TEST_NAMES, SCORED_TEST_NAMES

ALL = [path.name for path in sorted(schema.MIGRATIONS.glob("*.sql"))]
UID = "20240208220710.181572_MA_ndt_7888edc7748936bf"
RID = "20240208T220700Z_ndt_MA_36903_n1_0123456789abcdef"


@pytest.fixture
def connection(dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def _insert(connection: psycopg.Connection, **values: object) -> None:
    row: dict[str, object] = {
        "measurement_uid": UID,
        "report_id": RID,
        "probe_cc": "MA",
        "probe_asn": 36903,
        "test_name": "ndt",
        "measurement_start_time": "2024-02-08 22:07:05",
        "scores": "{}",
        "anomaly": False,
        "confirmed": False,
        "msm_failure": False,
        **values,
    }
    connection.execute(
        sql.SQL("INSERT INTO fastpath ({}) VALUES ({})").format(
            sql.SQL(", ").join(map(sql.Identifier, row)), sql.SQL(", ").join(map(sql.Placeholder, row))
        ),
        row,
    )


def _partition(connection: psycopg.Connection, uid: str = UID) -> str:
    row = connection.execute(
        "SELECT tableoid::regclass::text FROM fastpath WHERE measurement_uid = %s", [uid]
    ).fetchone()
    assert row is not None
    return str(row[0])


def test_the_type_has_exactly_the_known_test_names(connection: psycopg.Connection) -> None:
    found = connection.execute("SELECT unnest(enum_range(NULL::ootest))::text").fetchall()
    assert sorted(name for (name,) in found) == sorted(KNOWN_TEST_NAMES)
    assert len(set(KNOWN_TEST_NAMES)) == len(KNOWN_TEST_NAMES)
    assert len(SCORED_TEST_NAMES) >= 21


def test_a_row_goes_into_the_partition_of_its_month(connection: psycopg.Connection) -> None:
    _insert(connection)
    assert _partition(connection) == "fastpath_202402"


@pytest.mark.parametrize(
    "start", ["0001-01-01 00:00:00", "1970-01-01 00:00:00", "2012-11-30 23:59:59", "9999-12-31 23:59:59"]
)
def test_impossible_dates_land_in_the_default_partition_and_are_found(
    connection: psycopg.Connection, start: str
) -> None:
    _insert(connection, measurement_start_time=start)
    assert _partition(connection) == "fastpath_default"
    for call in ("fastpath_by_uid", "fastpath_by_report_id"):
        argument = UID if call == "fastpath_by_uid" else RID
        found = connection.execute(f"SELECT measurement_start_time::text FROM {call}(%s)", [argument]).fetchall()
        assert found == [(start,)]


def test_partitions_reach_twelve_months_ahead(connection: psycopg.Connection) -> None:
    row = connection.execute(
        "SELECT to_regclass('fastpath_201212'), to_regclass('fastpath_201211'),"
        " to_regclass('fastpath_' || to_char((now() AT TIME ZONE 'UTC') + interval '12 months', 'YYYYMM')) IS NOT NULL"
    ).fetchone()
    assert row == ("fastpath_201212", None, True)


def test_the_upgrade_makes_missing_months(dsn: str, connection: psycopg.Connection) -> None:
    month = connection.execute("SELECT to_char((now() AT TIME ZONE 'UTC') + interval '7 months', 'YYYYMM')").fetchone()
    assert month is not None
    name = f"fastpath_{month[0]}"
    connection.execute(sql.SQL("DROP TABLE {}").format(sql.Identifier(name)))
    assert schema.upgrade(dsn) == []
    assert connection.execute("SELECT to_regclass(%s) IS NOT NULL", [name]).fetchone() == (True,)


def test_a_new_partition_takes_its_rows_out_of_the_default_one(connection: psycopg.Connection) -> None:
    _insert(connection, measurement_start_time="2011-05-31 23:59:59.999")
    _insert(connection, measurement_uid=UID + "b", measurement_start_time="2011-06-01")
    connection.execute("SELECT fastpath_ensure_partitions('2011-05-15', '2011-06-01')")
    assert _partition(connection) == "fastpath_201105"
    assert _partition(connection, UID + "b") == "fastpath_default"
    assert connection.execute("SELECT fastpath_ensure_partitions('2011-05-01', '2011-06-02')").fetchone() == (1,)
    assert _partition(connection, UID + "b") == "fastpath_201106"
    assert connection.execute("SELECT fastpath_ensure_partitions('2011-05-01', '2011-06-02')").fetchone() == (0,)
    assert connection.execute("SELECT count(*) FROM fastpath").fetchone() == (2,)


def test_a_new_partition_is_like_the_others(connection: psycopg.Connection) -> None:
    connection.execute("SELECT fastpath_ensure_partitions('2011-05-01', '2011-05-02')")

    def indexes(table: str) -> list[tuple[str]]:
        return connection.execute(
            "SELECT regexp_replace(pg_get_indexdef(indexrelid), '.* USING', '') FROM pg_index i"
            " JOIN pg_inherits ON inhrelid = indexrelid WHERE indrelid = %s::regclass ORDER BY 1",
            [table],
        ).fetchall()

    assert indexes("fastpath_201105") == indexes("fastpath_202402") == indexes("fastpath_default")
    assert len(indexes("fastpath_201105")) == 16
    _insert(connection, measurement_start_time="2011-05-05")  # far from the day in the uid
    assert connection.execute("SELECT count(*) FROM fastpath_misdated").fetchone() == (1,)


def test_what_counts_as_misdated(connection: psycopg.Connection) -> None:
    _insert(connection, measurement_uid=UID + "c")
    _insert(connection, measurement_uid=UID + "d", report_id="")  # nobody looks for it by a report id
    _insert(connection, measurement_uid=UID + "e", report_id="odd")
    _insert(connection, measurement_uid=UID + "f", report_id="", measurement_start_time="2011-05-05")
    misdated = connection.execute("SELECT measurement_uid FROM fastpath_misdated ORDER BY 1").fetchall()
    assert misdated == [(UID + "e",), (UID + "f",)]
    assert len(connection.execute("SELECT FROM fastpath_by_uid(%s)", [UID + "f"]).fetchall()) == 1


def test_two_sessions_make_the_same_partitions_while_a_third_writes(dsn: str, connection: psycopg.Connection) -> None:
    failures: list[BaseException] = []

    def make() -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as own:
                own.execute("SELECT fastpath_ensure_partitions('2010-01-01', '2011-01-01')")
        except psycopg.Error as error:
            failures.append(error)

    def write() -> None:
        try:
            with psycopg.connect(dsn, autocommit=True) as own:
                for number in range(60):
                    month = number % 12 + 1
                    _insert(own, measurement_uid=f"{UID}{number}", measurement_start_time=f"2010-{month:02}-03")
        except psycopg.Error as error:
            failures.append(error)

    threads = [threading.Thread(target=make), threading.Thread(target=make), threading.Thread(target=write)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert connection.execute("SELECT count(*) FROM fastpath").fetchone() == (60,)
    assert connection.execute("SELECT count(*) FROM fastpath_default").fetchone() == (0,)


def test_a_detached_partition_is_not_replaced_silently(dsn: str, connection: psycopg.Connection) -> None:
    connection.execute("ALTER TABLE fastpath DETACH PARTITION fastpath_201302")
    with pytest.raises(psycopg.errors.RaiseException, match="fastpath_201302 exists but is not a partition"):
        connection.execute("SELECT fastpath_ensure_partitions('2013-02-01', '2013-02-02')")


@pytest.mark.parametrize(("since", "until"), [("0001-01-01", "2013-01-01"), ("2013-01-01", "9999-01-01")])
def test_partitions_are_not_made_for_impossible_dates(connection: psycopg.Connection, since: str, until: str) -> None:
    with pytest.raises(psycopg.errors.RaiseException, match="1990 to 2199 only"):
        connection.execute("SELECT fastpath_ensure_partitions(%s, %s)", [since, until])


@pytest.mark.parametrize(
    ("uid", "start"),
    [
        (UID, "2024-02-08 22:07:05"),
        (UID, "2024-02-10 23:59:59"),
        (UID, "2024-02-11 00:00:00"),
        (UID, "2024-01-08 00:00:00"),
        (UID, "2024-01-07 23:59:59"),
        (UID, "2019-05-05 00:00:00"),
        (UID, "1901-01-01 00:00:00"),
        ("01202402087f9c2ba4e88f827d61604550760585", "2024-02-08 00:00:00"),
        ("01202102037f9c2ba4e88f827d61604550760585", "2024-02-08 00:00:00"),
        ("01000000007f9c2ba4e88f827d61604550760585", "2024-02-08 00:00:00"),
        ("something else", "2024-02-08 00:00:00"),
    ],
)
def test_every_uid_finds_its_row_whatever_the_probe_says_about_time(
    connection: psycopg.Connection, uid: str, start: str
) -> None:
    _insert(connection, measurement_uid=uid, measurement_start_time=start)
    found = connection.execute("SELECT measurement_uid FROM fastpath_by_uid(%s)", [uid]).fetchall()
    assert found == [(uid,)]
    assert connection.execute("SELECT count(*) FROM fastpath_by_uid('20240208x')").fetchone() == (0,)


@pytest.mark.parametrize("rid", [RID, "20240208T000000Z_AS123_" + "a" * 50, "b" * 50, ""])
def test_every_report_id_finds_all_its_rows_once(connection: psycopg.Connection, rid: str) -> None:
    starts = ["2024-02-08", "2024-02-09", "2024-01-07", "2024-01-05", "2019-05-05", "1901-01-01", "9999-12-31"]
    for number, start in enumerate(starts):
        _insert(connection, measurement_uid=f"{UID}{number}", report_id=rid, measurement_start_time=start)
    # In the report's window, but far from the day of its uid: it must not come out twice.
    _insert(connection, measurement_uid="20200101000000.000000_MA_ndt_0", report_id=rid)
    found = connection.execute("SELECT measurement_uid FROM fastpath_by_report_id(%s)", [rid]).fetchall()
    assert len(found) == len({uid for (uid,) in found}) == len(starts) + 1


def test_a_lookup_by_identifier_locks_few_partitions(connection: psycopg.Connection) -> None:
    """All partitions with their indexes are some 2000 locks: a few such lookups at once would fill the lock table."""
    for call in ("fastpath_by_uid", "fastpath_by_report_id"):
        for argument in (UID, "20240208absent"):
            with connection.transaction():
                connection.execute(f"SELECT * FROM {call}(%s)", [argument])
                row = connection.execute(
                    "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND locktype = 'relation'"
                ).fetchone()
            assert row is not None
            assert row[0] < 60


HOSTILE = "".join(chr(0x4E00 + (number * 7919) % 20000) for number in range(5000))  # 15 kB that do not compress


def test_hostile_text_fits_into_every_index(connection: psycopg.Connection) -> None:
    hostile = dict.fromkeys(
        ("report_id", "input", "domain", "probe_cc", "test_name_other", "platform", "software_name"), HOSTILE
    )
    _insert(connection, test_name=None, **hostile)
    assert connection.execute("SELECT count(*) FROM fastpath_by_report_id(%s)", [HOSTILE]).fetchone() == (1,)
    for table in TABLES:
        names = ", ".join(table.keys)
        values = ", ".join("1" if key == "probe_asn" else "%(hostile)s" for key in table.keys)
        for _ in range(2):
            connection.execute(
                f"INSERT INTO {table.name} AS c ({table.time_column}, {names}, ok_count)"
                f" VALUES ('2024-01-01', {values}, 1)"
                f" ON CONFLICT ({table.time_column}, key) DO UPDATE SET ok_count = c.ok_count + excluded.ok_count",
                {"hostile": HOSTILE},
            )
        assert connection.execute(f"SELECT ok_count FROM {table.name}").fetchall() == [(2,)]


def test_counters_of_different_fields_never_share_a_key(connection: psycopg.Connection) -> None:
    rows = [
        ("ndt", "IT", 1, "", "a"),
        ("ndt", "IT", 1, "a", ""),
        ("ndt", "IT1", 1, "", "a"),
        ("ndt", "IT", 11, "", "a"),
        ("ndtI", "T", 1, "", "a"),
        ("ndt", "IT", 1, "0:", "a"),
        ("3:ndt", "IT", 1, "", "a"),
        ("ndt", "IT", -1, "", "a"),
    ]
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO counters_input (measurement_start_day, test_name, probe_cc, probe_asn, domain, input)"
            " VALUES ('2024-01-01', %s, %s, %s, %s, %s)",
            rows,
        )
    assert connection.execute("SELECT count(DISTINCT key) FROM counters_input").fetchone() == (len(rows),)


def test_an_unordinary_run_link_and_odd_scores_fit(connection: psycopg.Connection) -> None:
    _insert(connection, ooni_run_link_id=2**64 - 1, scores='{"a":"\\u0000"}', test_runtime=1e300, probe_asn=2**32 - 1)
    row = connection.execute("SELECT ooni_run_link_id, scores::text, probe_asn FROM fastpath").fetchone()
    assert row == (2**64 - 1, '{"a":"\\u0000"}', 2**32 - 1)


@pytest.mark.parametrize(
    ("where", "index"),
    [
        ("left(probe_cc, 200) = 'IT' AND probe_cc = 'IT'", "left_measurement_start_time"),
        ("probe_asn = 30722", "probe_asn"),
        ("test_name = 'website_probe'", "test_name"),
        ("left(domain, 200) = 'www.example.org' AND domain = 'www.example.org'", "left"),
        ("left(input, 200) = 'x' AND input = 'x'", "left"),
        ("true", "measurement_start_time"),
    ],
)
def test_lists_of_the_newest_are_read_from_an_index(connection: psycopg.Connection, where: str, index: str) -> None:
    connection.execute(
        """INSERT INTO fastpath (measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name,
               measurement_start_time, scores, anomaly, confirmed, msm_failure)
           SELECT '20240208' || n, '20240208T' || n, 'https://' || n % 500, n % 500, 'C' || n % 100, n % 900,
               (enum_range(NULL::ootest))[1 + n % 50], timestamp '2024-02-08' + n * interval '1 s', '{}',
               false, false, false
           FROM generate_series(1, 20000) AS n"""
    )
    connection.execute("ANALYZE fastpath_202402")
    plan = "\n".join(
        line
        for (line,) in connection.execute(
            f"EXPLAIN SELECT * FROM fastpath WHERE {where} AND measurement_start_time >= '2024-02-01'"
            " AND measurement_start_time < '2024-03-01' ORDER BY measurement_start_time DESC LIMIT 100"
        )
    )
    assert f"using fastpath_202402_{index}" in plan or f"on fastpath_202402_{index}" in plan, plan
    assert "Seq Scan" not in plan
    assert "Sort" not in plan or "Bitmap" in plan, plan
