"""Interrupted and shared reruns: killed, stopped, with a dead database, by several processes on one range."""

import os
import re
import signal
import subprocess
import time
import urllib.request
from typing import Any

import psycopg
import pytest

from core.objectstore import open_store
from fastpath import rerun_pool
from fastpath.config import FastpathSettings
from fastpath.fingerprints import from_rows
from fastpath.ledger import DatabaseLedger, Finished, LocalLedger
from fastpath.sources import Filters, Kind, WorkObject, list_day

Archive = Any


@pytest.fixture
def large(archive: Archive) -> Archive:
    """An archive of 40 objects, with a trigger that makes writing slow, so that there is time to interfere."""
    archive.receive_many(400)
    archive.upload()
    archive.execute(
        "CREATE OR REPLACE FUNCTION slow_row() RETURNS trigger LANGUAGE plpgsql AS"
        " 'BEGIN PERFORM pg_sleep(0.01); RETURN NEW; END'"
    )
    archive.execute("CREATE TRIGGER slow_row BEFORE INSERT ON fastpath_202401 FOR EACH ROW EXECUTE FUNCTION slow_row()")
    yield archive
    archive.execute("DROP TRIGGER slow_row ON fastpath_202401")


def wait_until(archive: Archive, statement: str, process: "subprocess.Popen[str]", timeout_s: float = 60) -> None:
    deadline = time.monotonic() + timeout_s
    while not archive.query(statement)[0][0]:
        if process.poll() is not None:
            pytest.fail(f"it ended early: {process.communicate()[0]}")
        assert time.monotonic() < deadline
        time.sleep(0.05)


def assert_complete(archive: Archive) -> None:
    assert set(archive.rows()) == set(archive.sent)
    assert archive.differences() == []


def test_a_killed_rerun_goes_on_where_it_was(large: Archive) -> None:
    process = large.start("--noapi", *large.range, "--workers", "1")
    wait_until(large, "SELECT count(*) > 0 FROM rerun_progress WHERE state = 'claimed'", process)
    wait_until(large, "SELECT pg_sleep(0.5) IS NOT NULL", process)
    process.kill()
    said, _ = process.communicate()
    assert "rerun finished" not in said
    assert large.query("SELECT count(*) FROM rerun WHERE finished_at IS NULL") == [(1,)]
    done = {key for (key,) in large.query("SELECT object_key FROM rerun_progress WHERE state = 'done'")}
    said = large.rerun(*large.range)
    assert "rerun resumed" in said
    assert large.number_of(said, "objects") == len(list(large.objects.rglob("*.tar.gz"))) - len(done)
    assert_complete(large)
    assert large.query("SELECT count(*) FROM rerun_progress") == [(0,)]
    assert large.query("SELECT count(*), sum(measurements) FROM rerun WHERE finished_at IS NOT NULL") == [(1, 400)]


def test_workers_end_with_their_parent(large: Archive) -> None:
    process = large.start("--noapi", *large.range, "--workers", "2")
    wait_until(large, "SELECT count(*) > 0 FROM rerun_progress WHERE state = 'claimed'", process)
    children = subprocess.run(
        ["pgrep", "-P", str(process.pid)], check=True, capture_output=True, text=True
    ).stdout.split()
    assert len(children) >= 2
    process.kill()
    process.communicate()
    deadline = time.monotonic() + 30
    while any(
        subprocess.run(["kill", "-0", child], check=False, capture_output=True).returncode == 0 for child in children
    ):
        assert time.monotonic() < deadline, "orphans are left"
        time.sleep(0.1)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_stops_in_order_and_the_rest_is_done_later(large: Archive, number: signal.Signals) -> None:
    process = large.start("--noapi", *large.range, "--workers", "1")
    wait_until(large, "SELECT count(*) > 0 FROM rerun_progress WHERE state = 'claimed'", process)
    process.send_signal(number)
    time.sleep(0.3)
    process.send_signal(number)  # asked twice, it gives up what it has in hand
    said, _ = process.communicate(timeout=30)
    assert process.returncode == 4, said
    assert "Run the same command again to go on" in said
    assert "Traceback" not in said
    assert large.query("SELECT count(*) FROM rerun_progress WHERE state = 'claimed'") == [(0,)]
    large.rerun(*large.range)
    assert_complete(large)


def test_two_processes_share_a_range_and_do_nothing_twice(large: Archive) -> None:
    first = large.start("--noapi", *large.range, "--workers", "1")
    wait_until(large, "SELECT count(*) > 0 FROM rerun_progress", first)
    second = large.start("--noapi", *large.range, "--workers", "1")
    reports = [process.communicate(timeout=120)[0] for process in (first, second)]
    assert [first.returncode, second.returncode] == [0, 0], reports
    counts = [large.number_of(said, "measurements") for said in reports]
    assert sum(counts) == 400
    assert "rerun resumed" in reports[1]
    assert_complete(large)
    assert large.query("SELECT count(*) FROM rerun") == [(1,)]


def test_what_a_dead_process_claimed_is_taken_over(large: Archive) -> None:
    first = large.start("--noapi", *large.range, "--workers", "1")
    wait_until(large, "SELECT count(*) > 0 FROM rerun_progress WHERE state = 'claimed'", first)
    second = large.start("--noapi", *large.range, "--workers", "1")
    wait_until(large, "SELECT count(DISTINCT owner) > 0 FROM rerun_progress WHERE state = 'claimed'", second)
    first.kill()
    first.communicate()
    said, _ = second.communicate(timeout=120)
    assert second.returncode == 0, said
    assert_complete(large)


def test_the_database_may_go_away_for_a_while(large: Archive, pg_cluster: Any) -> None:
    process = large.start("--noapi", *large.range, "--workers", "1")
    wait_until(large, "SELECT count(*) > 0 FROM rerun_progress WHERE state = 'claimed'", process)
    pg_cluster.stop()
    time.sleep(1)
    pg_cluster.start()
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    assert_complete(large)


def test_the_progress_is_exported_while_it_goes_on(large: Archive, unused_port: int) -> None:
    process = large.start("--noapi", *large.range, "--workers", "1", rerun_metrics_port=unused_port)
    wait_until(large, "SELECT count(*) > 3 FROM rerun_progress WHERE state = 'done'", process)
    time.sleep(2.5)
    with urllib.request.urlopen(f"http://127.0.0.1:{unused_port}/metrics", timeout=10) as answer:
        exported = dict(line.rpartition(" ")[::2] for line in answer.read().decode().splitlines())
    second = large.start("--noapi", *large.range, "--workers", "1", rerun_metrics_port=unused_port)
    said, _ = process.communicate(timeout=120)
    assert process.returncode == 0, said
    said, _ = second.communicate(timeout=120)
    assert "rerun without metrics" in said
    assert second.returncode == 0, said
    assert 0 < float(exported["fastpath_rerun_progress_ratio"]) < 1
    assert float(exported["fastpath_rerun_eta_timestamp_seconds"]) > time.time() - 60
    assert float(exported["fastpath_rerun_measurements_per_second"]) > 0
    assert float(exported['fastpath_rerun_objects_total{outcome="done"}']) > 3
    assert float(exported['fastpath_rerun_measurements_total{outcome="new"}']) > 0


def test_a_rerun_without_the_database_goes_on_from_its_file(archive: Archive) -> None:
    archive.receive_many(60)
    archive.upload()
    objects = sorted(archive.objects.rglob("*.tar.gz"))
    sound = objects[0].read_bytes()
    objects[0].write_bytes(b"\x1f\x8b" + sound[2:200])
    archive.rerun(*archive.range, "--no-write-to-db", code=3)
    [state] = archive.state.glob("rerun-*.jsonl")
    objects[0].write_bytes(sound)
    said = archive.rerun(*archive.range, "--no-write-to-db")
    assert archive.number_of(said, "objects") == 1
    assert not state.exists()
    assert archive.rows() == {}


def test_an_object_that_ends_each_process_is_named_and_left(archive: Archive, monkeypatch: pytest.MonkeyPatch) -> None:
    archive.receive_many(24)
    archive.upload()
    objects = len(list(archive.objects.rglob("*.tar.gz")))
    monkeypatch.setenv("OONI_CRASH_AT", "fastpath.rerun_before_flush")
    said = archive.rerun(*archive.range, "--workers", "1", code=3)
    assert said.count("object unreadable") == min(objects, 20)
    assert "ends each process that reads it (signal 9)" in said
    assert archive.rows() == {}
    monkeypatch.setenv("OONI_CRASH_AT", "fastpath.rerun_after_flush:4")  # some processes die, none twice over the same
    said = archive.rerun(*archive.range, "--workers", "1")
    assert "process died" in said
    assert_complete(archive)


def test_a_process_that_hangs_is_killed_and_its_work_done_by_another(
    archive: Archive, fingerprints: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive.receive_many(24)
    archive.upload()
    monkeypatch.setattr(rerun_pool, "STUCK_AFTER_S", 6.0)
    settings = FastpathSettings(db_uri=archive.dsn, store_url=archive.store_url)
    job = rerun_pool.Job(settings, from_rows(*fingerprints), "declared", "missing", Filters(), cache=False)
    listed = list_day(open_store(archive.store_url), archive.day.date(), Filters(), "auto")
    finished: list[Finished] = []
    stopped: list[int] = []

    def stop_first() -> None:
        [process] = pool._processes
        if not stopped:
            stopped.append(process.process.pid or 0)
            os.kill(stopped[0], signal.SIGSTOP)

    pool = rerun_pool.Pool(
        job,
        1,
        rerun_pool.Allowance(None),
        on_progress=lambda _: None,
        on_finished=finished.extend,
        tick=stop_first,
    )
    pool.run(rerun_pool.in_tasks(listed, 1))
    assert {one.work.key for one in finished if one.error is None} == {work.key for work in listed}
    assert len(archive.rows()) == sum(uid.startswith("20240102") for uid in archive.sent)


def test_restart_forgets_what_was_done(archive: Archive) -> None:
    archive.receive_many(60)
    archive.upload()
    victim = min(archive.objects.rglob("*.tar.gz"))
    sound = victim.read_bytes()
    victim.write_bytes(sound[:100])
    archive.rerun(*archive.range, code=3)
    victim.write_bytes(sound)
    said = archive.rerun(*archive.range, "--restart")
    assert archive.number_of(said, "measurements") == 60
    assert re.search("rerun started", said)


# The ledger itself ----------------------------------------------------------------------------------------------------


def works(archive: Archive, count: int) -> list[WorkObject]:
    return [WorkObject(f"raw/{number:04}.tar.gz", 1000, archive.day.date(), Kind.POSTCAN) for number in range(count)]


def test_objects_are_claimed_once_and_freed_by_the_end_of_a_connection(archive: Archive) -> None:
    day = archive.day.date()
    listed = works(archive, 20)
    one = DatabaseLedger(archive.dsn, {"start": "x"}, restart=False)
    two = DatabaseLedger(archive.dsn, {"start": "x"}, restart=False)
    assert (one.resumed, two.resumed) == (False, True)
    for ledger in (one, two):
        assert ledger.open_day(day, lambda _: listed) == 20
    one._chunk[day] = two._chunk[day] = 8
    claimed = [one.claim(day), two.claim(day), one.claim(day), two.claim(day)]
    assert sorted(work.key for chunk in claimed for work in chunk) == [work.key for work in listed]
    assert two.claim(None) == []
    assert (one.elsewhere(), two.elsewhere()) == (8, 12)
    one.close()
    two._chunk[day] = 100
    freed: list[WorkObject] = []
    deadline = time.monotonic() + 20
    while not freed and time.monotonic() < deadline:  # the server ends a session a moment after its client
        freed = two.claim(None)
    assert len(freed) == 12
    one.finish([Finished(claimed[0][0], 1)])  # it lost the object: that counts for nothing
    assert archive.query("SELECT count(*) FROM rerun_progress WHERE state = 'done'") == [(0,)]
    two.finish([Finished(work, 2) for work in listed])
    assert two.days_done() == 1.0
    assert two.complete()
    assert two.complete()
    for ledger in (one, two):
        ledger.close()


def test_a_connection_that_broke_is_made_again_with_its_lock(archive: Archive) -> None:
    day = archive.day.date()
    ledger = DatabaseLedger(archive.dsn, {"start": "y"}, restart=False)
    ledger.open_day(day, lambda _: works(archive, 3))
    ledger._chunk[day] = 3
    assert len(ledger.claim(day)) == 3
    with psycopg.connect(archive.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory'")
    with pytest.raises(Exception, match=r"terminat|clos|connection"):
        ledger.days_done()
    assert ledger.days_done() == 0
    other = DatabaseLedger(archive.dsn, {"start": "y"}, restart=False)
    assert other.claim(None) == []
    assert other.elsewhere() == 3
    other.close()
    ledger.close()


def test_a_local_ledger_survives_a_line_that_was_cut_short(archive: Archive) -> None:
    day, path = archive.day.date(), archive.root / "ledger"
    one = LocalLedger(path, {}, restart=False)
    one.open_day(day, lambda _: works(archive, 3))
    first, *_ = one.claim(day)
    one.finish([Finished(first, 1)])
    one.close()
    with path.open("a") as file:
        file.write('{"key": "raw/00')
    two = LocalLedger(path, {}, restart=False)
    assert two.resumed
    two.open_day(day, lambda _: works(archive, 3))
    assert [work.key for work in two.claim(day)] == ["raw/0001.tar.gz", "raw/0002.tar.gz"]
    assert not two.complete()
    two.close()
