"""`analysis update-counters` on a real PostgreSQL: it proves, repairs, and leaves alone what it must not touch."""

import time
from datetime import date, timedelta
from pathlib import Path

import psycopg
import pytest
from prometheus_client.parser import text_string_to_metric_families

from core.counters import TABLES


def metric(directory: Path, name: str) -> float:
    text = (directory / "analysis_update_counters.prom").read_text()
    return next(
        sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
        if sample.name == name
    )


def test_counts_every_kind_of_row_into_its_exclusive_class(analysis, rows, today):
    for flags in ({}, {"anomaly": True, "blocking": "dns"}, {"anomaly": True, "confirmed": True}, {"confirmed": True}):
        rows.add(today, **flags)
    rows.add(today, anomaly=True, confirmed=True, failure=True)
    rows.add(today, asn=1, input="", test=None, other="my_test")
    done = analysis("update-counters")
    assert done.returncode == 0, done.stderr
    assert rows.counters("counters_country") == [
        (today, "my_test", "IT", 1, 0, 0, 0, 1),
        (today, "web_connectivity", "IT", 1, 1, 2, 1, 5),
    ]
    assert rows.counters("counters_network") == [
        (today, "my_test", "IT", 1, 1, 0, 0, 0, 1),
        (today, "web_connectivity", "IT", 30722, 1, 1, 2, 1, 5),
    ]
    assert [row[3:6] for row in rows.counters("counters_input")] == [
        (1, "example.org", ""),
        (30722, "example.org", "https://example.org/"),
    ]
    month = today.replace(day=1)
    assert rows.counters("counters_month_country") == [
        (month, "my_test", "IT", 1, 0, 0, 0, 1),
        (month, "web_connectivity", "IT", 1, 1, 2, 1, 5),
    ]
    assert rows.counters("counters_blocking") == [(today, "web_connectivity", "IT", "dns", 0, 1, 0, 0, 1)]


def test_second_run_finds_nothing_and_writes_nothing(analysis, rows, today, tmp_path):
    rows.add(today)
    assert analysis("update-counters").returncode == 0
    before = rows.connection.execute("SELECT array_agg(xmin::text) FROM counters_input").fetchone()
    done = analysis("update-counters")
    assert done.returncode == 0
    assert "counters equal rows" in done.stderr
    assert rows.connection.execute("SELECT array_agg(xmin::text) FROM counters_input").fetchone() == before
    assert metric(tmp_path, "analysis_counters_repaired_rows") == 0
    assert metric(tmp_path, "analysis_counters_checked_days") == 1


def test_repairs_counters_that_are_too_high_too_low_missing_or_for_no_row_at_all(analysis, rows, today, tmp_path):
    for asn in (1, 2, 3):
        rows.add(today, asn=asn)
    assert analysis("update-counters").returncode == 0
    right = {table.name: rows.counters(table.name) for table in TABLES}
    execute = rows.connection.execute
    execute("UPDATE counters_input SET ok_count = 7, measurement_count = 7 WHERE probe_asn = 1")
    execute("UPDATE counters_network SET ok_count = -1 WHERE probe_asn = 2")
    execute("DELETE FROM counters_input WHERE probe_asn = 3")
    execute("UPDATE counters_country SET failure_count = 1, ok_count = 2")
    execute(
        "INSERT INTO counters_network (measurement_start_day, test_name, probe_cc, probe_asn, measurement_count)"
        " VALUES (%s, 'ndt', 'ZZ', 9, 4)",
        [today],
    )
    dry = analysis("update-counters", "--dry-run")
    assert dry.returncode == 3
    assert set(dry.stdout.splitlines()) == {
        f"{today} counters_input web_connectivity IT 1 example.org https://example.org/: 7/0/0/0/7 -> 1/0/0/0/1",
        f"{today} counters_input web_connectivity IT 3 example.org https://example.org/: 0/0/0/0/0 -> 1/0/0/0/1",
        f"{today} counters_network ndt ZZ 9: 0/0/0/0/4 -> 0/0/0/0/0",
        f"{today} counters_network web_connectivity IT 2: -1/0/0/0/1 -> 1/0/0/0/1",
        f"{today} counters_country web_connectivity IT: 2/0/0/1/3 -> 3/0/0/0/3",
        f"{today:%Y-%m}: not compared, because counters of its days are wrong",
    }
    assert rows.counters("counters_country")[0][3] == 2, "a dry run must not change anything"
    assert analysis("update-counters").returncode == 0
    assert {table: rows.counters(table) for table in right} == right
    assert metric(tmp_path, "analysis_counters_repaired_rows") == 5
    assert analysis("update-counters", "--dry-run").returncode == 0


def test_one_day_over_the_example_limit_says_how_many_more(analysis, rows, today):
    for asn in range(12):
        rows.add(today, asn=asn)
    done = analysis("update-counters", "--dry-run")
    assert f"{today} counters_network: 2 more" in done.stdout


def test_a_hostile_key_is_repaired_and_printed_on_one_line(analysis, rows, today):
    rows.add(today, input="x" * 100_000 + "\n2024-01-01 forged", cc="I\x1b[2JT")
    dry = analysis("update-counters", "--dry-run")
    assert len(dry.stdout.splitlines()) == 6  # five tables, and the month
    assert "\x1b" not in dry.stdout
    assert analysis("update-counters").returncode == 0
    assert analysis("update-counters", "--dry-run").returncode == 0


def test_errors_outside_the_window_are_found_in_turn_and_every_day_gets_its_turn(analysis, rows, today, tmp_path):
    old = [today - timedelta(days=number) for number in (30, 31, 100, 2000)] + [date(1, 1, 1), date(9999, 12, 31)]
    for day in old:
        rows.add(day)
    rows.add(today)
    for _ in range(3):
        assert analysis("update-counters", counters_sweep_days=2).returncode == 0
    assert {row[0] for row in rows.counters("counters_country")} == {*old, today}
    # The round begins again: an error on the day that came first is found by the fourth run.
    rows.connection.execute("UPDATE counters_country SET ok_count = 5 WHERE measurement_start_day = '9999-12-31'")
    assert analysis("update-counters", counters_sweep_days=2).returncode == 0
    assert metric(tmp_path, "analysis_counters_repaired_rows") == 1


def test_sweep_looks_at_no_day_twice_in_one_run_and_survives_a_damaged_cursor(
    analysis, rows, today, long_ago, tmp_path
):
    rows.add(today)
    rows.add(long_ago)
    (tmp_path / "update-counters.day").write_bytes(b"\xffgarbage")
    for _ in range(2):
        assert analysis("update-counters", counters_sweep_days=50).returncode == 0
        assert metric(tmp_path, "analysis_counters_checked_days") == 2
    assert analysis("update-counters", counters_sweep_days=0).returncode == 0
    assert metric(tmp_path, "analysis_counters_checked_days") == 1


def test_full_rebuilds_emptied_counters_of_all_time(analysis, rows, today, long_ago):
    for day in (today, long_ago, date(1970, 1, 1), today + timedelta(days=300)):
        rows.add(day)
        rows.add(day, anomaly=True, input="http://b.example/")
    assert analysis("update-counters", "--full").returncode == 0
    right = rows.counters("counters_input")
    assert len(right) == 8
    all_right = {table.name: rows.counters(table.name) for table in TABLES}
    rows.connection.execute(f"TRUNCATE {', '.join(all_right)}")
    assert analysis("update-counters", "--full").returncode == 0
    assert {table.name: rows.counters(table.name) for table in TABLES} == all_right


def test_dates_limit_the_days(analysis, rows, today, long_ago):
    rows.add(today)
    rows.add(long_ago)
    assert analysis("update-counters", "--since", str(long_ago), "--until", str(long_ago)).returncode == 0
    assert [row[0] for row in rows.counters("counters_country")] == [long_ago]
    assert analysis("update-counters", "--full", "--since", str(today)).returncode == 2


def test_days_whose_rows_are_gone_are_refused_until_told_otherwise(analysis, rows, today, long_ago, tmp_path):
    rows.add(long_ago)
    rows.add(today)
    assert analysis("update-counters", "--full").returncode == 0
    month = f"{long_ago:%Y%m}"
    rows.connection.execute(f"ALTER TABLE fastpath DETACH PARTITION fastpath_{month}")
    done = analysis("update-counters", "--full")
    assert done.returncode == 1
    assert f"day={long_ago}" in done.stderr
    assert len(rows.counters("counters_country")) == 2
    assert metric(tmp_path, "analysis_counters_refused_days") == 1
    assert metric(tmp_path, "analysis_job_failed") == 1
    assert analysis("update-counters", "--full", "--empty-days").returncode == 0
    assert [row[0] for row in rows.counters("counters_country")] == [today]


def test_months_are_compared_with_their_days_once_each(analysis, rows, today, tmp_path):
    days = [date(2024, 1, 30), date(2024, 1, 31), date(2024, 2, 1)]
    for day in days:
        rows.add(day)
        rows.add(day, anomaly=True, blocking="dns", input="http://b.example/")
    assert analysis("update-counters", "--full").returncode == 0
    assert metric(tmp_path, "analysis_counters_checked_months") == 2
    right = {table.name: rows.counters(table.name) for table in TABLES}
    assert rows.counters("counters_month_country") == [
        (date(2024, 1, 1), "web_connectivity", "IT", 2, 2, 0, 0, 4),
        (date(2024, 2, 1), "web_connectivity", "IT", 1, 1, 0, 0, 2),
    ]
    execute = rows.connection.execute
    execute("UPDATE counters_month_country SET ok_count = 9 WHERE measurement_start_month = '2024-01-01'")
    execute(
        "DELETE FROM counters_month_input WHERE measurement_start_month = '2024-02-01' AND input LIKE '%b.example/'"
    )
    execute("UPDATE counters_month_url SET failure_count = -1 WHERE measurement_start_month = '2024-02-01'")
    execute(
        "INSERT INTO counters_month_network (measurement_start_month, test_name, probe_cc, probe_asn, ok_count)"
        " VALUES ('2024-01-01', 'ndt', 'ZZ', 9, 4)"
    )
    dry = analysis("update-counters", "--full", "--dry-run")
    assert dry.returncode == 3
    assert set(dry.stdout.splitlines()) == {
        "2024-01 counters_month_country web_connectivity IT: 9/2/0/0/4 -> 2/2/0/0/4",
        "2024-01 counters_month_network ndt ZZ 9: 4/0/0/0/0 -> 0/0/0/0/0",
        "2024-02 counters_month_input web_connectivity IT example.org http://b.example/: 0/0/0/0/0 -> 0/1/0/0/1",
        "2024-02 counters_month_url web_connectivity example.org http://b.example/: 0/1/0/-1/1 -> 0/1/0/0/1",
        "2024-02 counters_month_url web_connectivity example.org https://example.org/: 1/0/0/-1/1 -> 1/0/0/0/1",
    }
    assert analysis("update-counters", "--since", "2024-01-31", "--until", "2024-01-31").returncode == 0
    assert rows.counters("counters_month_country") == right["counters_month_country"]
    assert rows.counters("counters_month_url") != right["counters_month_url"], "a month that was not asked for"
    assert analysis("update-counters", "--full").returncode == 0
    assert {table.name: rows.counters(table.name) for table in TABLES} == right
    assert metric(tmp_path, "analysis_counters_repaired_rows") == 3


def test_an_hourly_run_compares_the_months_of_the_window_and_one_other_in_turn(analysis, rows, today, tmp_path):
    months = [date(2024, 1, 1), date(2023, 12, 1), date(2023, 5, 1)]
    for month in months:
        rows.add(month)
    rows.add(today)
    assert analysis("update-counters", "--full").returncode == 0
    damage = "UPDATE counters_month_country SET ok_count = 9"
    wrong = "SELECT measurement_start_month FROM counters_month_country WHERE ok_count = 9 ORDER BY 1 DESC"
    rows.connection.execute(damage)
    assert analysis("update-counters", counters_sweep_days=0).returncode == 0
    assert metric(tmp_path, "analysis_counters_checked_months") == 1
    assert [month for (month,) in rows.connection.execute(wrong)] == months
    assert not (tmp_path / "update-counters.month").exists()
    for left in (months[1:], months[2:], []):
        assert analysis("update-counters", "--dry-run").returncode == 3
        assert analysis("update-counters").returncode == 0
        assert metric(tmp_path, "analysis_counters_checked_months") == 2
        assert [month for (month,) in rows.connection.execute(wrong)] == left
    rows.connection.execute(damage)
    assert analysis("update-counters").returncode == 0
    assert [month for (month,) in rows.connection.execute(wrong)] == months[1:], "the round begins again"


def test_the_month_of_a_day_that_was_wrong_is_compared_at_once(analysis, rows, today, tmp_path):
    for month in (date(2024, 1, 1), date(2023, 12, 1), date(2023, 5, 1)):
        rows.add(month)
    assert analysis("update-counters", "--full").returncode == 0
    (tmp_path / "update-counters.month").write_text("2024-01-01")
    rows.add(date(2023, 5, 2))  # by a script that forgets the counters
    assert analysis("update-counters").returncode == 0
    assert rows.counters("counters_month_country")[0] == (date(2023, 5, 1), "web_connectivity", "IT", 2, 0, 0, 0, 2)
    assert metric(tmp_path, "analysis_counters_checked_months") == 2, "this one, and December in turn"


def test_counters_of_nothing_are_deleted_because_they_name_inputs(analysis, rows, today, long_ago):
    rows.add(today)
    rows.add(long_ago)
    assert analysis("update-counters", "--full").returncode == 0
    right = {table.name: rows.counters(table.name) for table in TABLES}
    for start, table in ((today, "counters_input"), (long_ago, "counters_url"), (long_ago, "counters_month_url")):
        known = next(one for one in TABLES if one.name == table)
        values = [start.replace(day=1) if known.period == "month" else start, *("9" for _ in known.keys)]
        rows.connection.execute(
            f"INSERT INTO {table} ({', '.join(known.columns)}) VALUES ({', '.join(['%s'] * len(values))})", values
        )
    damaged = {table.name: rows.counters(table.name) for table in TABLES}
    assert analysis("update-counters", "--dry-run").returncode == 0
    assert {table.name: rows.counters(table.name) for table in TABLES} == damaged
    done = analysis("update-counters")
    assert done.returncode == 0
    assert "counters equal rows" in done.stderr
    assert {table.name: rows.counters(table.name) for table in TABLES} == right


def test_a_month_without_days_is_refused_until_told_otherwise(analysis, rows, today, tmp_path):
    rows.add(today)
    assert analysis("update-counters", "--full").returncode == 0
    rows.connection.execute(
        "INSERT INTO counters_month_country (measurement_start_month, test_name, probe_cc, measurement_count)"
        " VALUES ('2015-03-01', 'ndt', 'IT', 4)"
    )
    assert analysis("update-counters").returncode == 0, "an ordinary run does months of days"
    done = analysis("update-counters", "--full")
    assert done.returncode == 1
    assert "month=2015-03" in done.stderr
    assert len(rows.counters("counters_month_country")) == 2
    assert metric(tmp_path, "analysis_counters_refused_days") == 1
    assert analysis("update-counters", "--full", "--empty-days").returncode == 0
    assert [row[0] for row in rows.counters("counters_month_country")] == [today.replace(day=1)]


def test_a_second_run_does_not_wait_and_says_so(analysis, rows, dsn):
    with psycopg.connect(dsn) as other:
        other.execute("SELECT pg_advisory_lock(%s)", [0x636F756E])
        done = analysis("update-counters")
    assert done.returncode == 75
    assert "Another run" in done.stderr


def test_a_lock_in_the_way_is_waited_for_briefly_and_then_reported(analysis, rows, today, dsn):
    rows.add(today)
    assert analysis("update-counters").returncode == 0
    rows.connection.execute("UPDATE counters_country SET ok_count = 9")
    with psycopg.connect(dsn) as other:
        other.execute("UPDATE counters_country SET ok_count = ok_count + 1")
        done = analysis("update-counters", lock_timeout_s=0.1, attempts=2)
    assert done.returncode == 1
    assert "in the way 2 times" in done.stderr


def test_a_failure_keeps_the_time_of_the_last_success(analysis, rows, today, tmp_path):
    rows.add(today)
    started = time.time()
    assert analysis("update-counters").returncode == 0
    success = metric(tmp_path, "analysis_job_last_success_timestamp_seconds")
    assert started - 1 <= success <= time.time() + 1
    done = analysis("update-counters", db_uri="host=127.0.0.1 port=1 dbname=nowhere connect_timeout=2")
    assert done.returncode == 1
    assert "not available" in done.stderr
    assert metric(tmp_path, "analysis_job_last_success_timestamp_seconds") == success
    assert metric(tmp_path, "analysis_job_failed") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["analysis_update_counters.prom"]


def test_an_empty_database_is_in_order_and_one_without_schema_is_an_error(analysis, empty_dsn):
    assert analysis("update-counters").returncode == 0
    done = analysis("update-counters", db_uri=empty_dsn)
    assert done.returncode == 1
    assert "database_upgrade_schema" in done.stderr


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"counters_window_days": 0}, "counters_window_days is 0"),
        ({"lock_timeout_s": -1}, "lock_timeout_s is -1"),
        ({"atempts": 3}, "nearest known one is OONI_ANALYSIS_ATTEMPTS"),
        ({"metrics_directory": "/nonexistent"}, "metrics_directory"),
    ],
)
def test_bad_settings_are_refused_with_the_name_of_the_setting(analysis, settings, says):
    done = analysis("update-counters", **settings)
    assert done.returncode in (1, 2)
    assert says in done.stderr
