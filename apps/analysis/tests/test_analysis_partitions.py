"""`analysis ensure-partitions` on a real PostgreSQL."""

from datetime import date, timedelta

import psycopg


def next_month(day: date, months: int) -> date:
    return date(day.year + (day.month - 1 + months) // 12, (day.month - 1 + months) % 12 + 1, 1)


def exists(rows, month: date) -> bool:
    row = rows.connection.execute("SELECT to_regclass(%s) IS NOT NULL", [f"fastpath_{month:%Y%m}"]).fetchone()
    return bool(row and row[0])


def test_makes_the_months_ahead_once(analysis, rows, today):
    last = next_month(today, 18)
    assert not exists(rows, last)
    dry = analysis("ensure-partitions", "--dry-run", partitions_months_ahead=18)
    assert dry.returncode == 0
    assert f"fastpath_{last:%Y%m}" in dry.stderr
    assert not exists(rows, last)
    assert analysis("ensure-partitions", partitions_months_ahead=18).returncode == 0
    assert exists(rows, last)
    assert not exists(rows, next_month(today, 19))
    again = analysis("ensure-partitions", partitions_months_ahead=18)
    assert again.returncode == 0
    assert "made 0 partitions" in again.stderr
    assert "all partitions are there" in analysis("ensure-partitions", "--dry-run", partitions_months_ahead=18).stderr


def test_moves_rows_and_keeps_counters_equal_to_them(analysis, rows, today, tmp_path):
    ahead = next_month(today, 20) + timedelta(days=3)
    rows.add(ahead)
    assert analysis("update-counters", "--full").returncode == 0
    assert analysis("ensure-partitions", partitions_months_ahead=20).returncode == 0
    assert analysis("update-counters", "--full", "--dry-run").returncode == 0
    text = (tmp_path / "analysis_ensure_partitions.prom").read_text()
    assert "analysis_default_partition_rows 0.0" in text
    assert 'analysis_job_failed{job="ensure-partitions"} 0.0' in text


def test_a_check_waits_for_a_move_and_then_sees_the_moved_rows(analysis, rows, today, dsn):
    """A snapshot taken before the move, with a plan that does not know the new partition, would see no row at all."""
    ahead = next_month(today, 20) + timedelta(days=3)
    rows.add(ahead)
    assert analysis("update-counters", "--full").returncode == 0
    with psycopg.connect(dsn) as mover:
        mover.execute("SELECT fastpath_ensure_partitions(%s, %s)", [ahead, ahead + timedelta(days=1)])
        day = f"{ahead}"
        blocked = analysis("update-counters", "--since", day, "--until", day, lock_timeout_s=0.2, attempts=1)
        assert blocked.returncode == 1
        assert "in the way" in blocked.stderr
    done = analysis("update-counters", "--since", day, "--until", day, "--dry-run")
    assert done.returncode == 0, done.stdout


def test_without_the_owners_rights_it_says_whose_are_needed(analysis, rows, dsn):
    rows.connection.execute(
        "DO $$ BEGIN CREATE ROLE analysis_reader LOGIN; EXCEPTION WHEN duplicate_object THEN NULL; END $$"
    )
    done = analysis("ensure-partitions", db_uri=f"{dsn} user=analysis_reader", partitions_months_ahead=18)
    assert done.returncode == 1
    assert "owns the tables" in done.stderr
