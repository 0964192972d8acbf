"""Reruns from a store that the real uploader filled: the three documented forms, and what the options do."""

import json
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.counters import TABLES
from core.counters_sql import count, facts
from fastpath.fingerprints import from_rows
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.row import Row
from fastpath.store import Store

Archive = Any


def expected_rows(archive: Archive, fingerprints: Any) -> dict[str, Row]:
    """What the daemon would have written for everything that was received."""
    matcher = Matcher(from_rows(*fingerprints), "declared")
    outcomes = {uid: process(uid, body, matcher) for uid, body in archive.sent.items()}
    return {uid: outcome.row for uid, outcome in outcomes.items() if outcome.row is not None}


def write_as_daemon(archive: Archive, rows: list[Row]) -> None:
    store = Store(archive.dsn)
    store.insert(rows)
    store.close()


@pytest.fixture
def filled(archive: Archive) -> Archive:
    """An archive of 240 measurements over two days, and some odd ones."""
    archive.receive_many(240)
    archive.receive(b"no json at all")
    archive.receive(b'{"format": "json", "content": {"probe_cc": "IT",\n "lines": "two"}}')
    archive.receive(archive.submission(9001, archive.day, "ZZ", "web_connectivity"), cc="ZZ")
    archive.receive(archive.submission(9002, archive.day, "IT", "web_connectivity", probe_asn=30722))
    archive.upload()
    return archive


def test_the_form_that_touches_neither_disk_nor_database(filled: Archive, fingerprints: Any) -> None:
    write_as_daemon(filled, list(expected_rows(filled, fingerprints).values())[:50])
    database, files = filled.everything(), filled.files()
    said = filled.rerun(*filled.range, "--no-write-msmt", "--no-write-to-db", "--stdout")
    assert filled.number_of(said, "measurements") == len(filled.sent)
    assert filled.number_of(said, "rows") == len(expected_rows(filled, fingerprints))
    assert filled.everything() == database
    assert filled.files() == files


@pytest.mark.parametrize("source", ["auto", "postcan", "jsonl"])
def test_the_form_that_writes_to_the_database_only(filled: Archive, fingerprints: Any, source: str) -> None:
    expected = expected_rows(filled, fingerprints)
    assert any(row.reason for row in expected.values())
    write_as_daemon(filled, list(expected.values()))
    as_daemon = filled.rows()
    filled.execute("UPDATE fastpath SET scores = '{}' WHERE probe_cc = 'DE'")
    changed = filled.rows()
    filled.execute("DELETE FROM fastpath WHERE probe_cc = 'BR'")
    recount(filled)
    assert filled.differences() == []
    files = filled.files()
    said = filled.rerun(*filled.range, "--no-write-msmt", "--source", source)
    rows = filled.rows()
    if source == "jsonl":  # lines do not tell who verified a measurement
        rows = {uid: as_daemon[uid] if row[4] == "BR" and row[-2] == "u" else row for uid, row in rows.items()}
        assert {uid: row[:-2] for uid, row in filled.rows().items()} == {uid: row[:-2] for uid, row in changed.items()}
    assert rows == changed  # rows that were there stayed, whatever they said
    assert {row[:-2] for row in rows.values() if row[4] == "BR"} == {
        row[:-2] for row in as_daemon.values() if row[4] == "BR"
    }
    assert filled.number_of(said, "new") == sum(row[4] == "BR" for row in rows.values())
    assert filled.differences() == []
    assert filled.files() == files


@pytest.mark.parametrize("source", ["auto", "jsonl"])
def test_the_form_that_overwrites(filled: Archive, fingerprints: Any, source: str) -> None:
    write_as_daemon(filled, list(expected_rows(filled, fingerprints).values()))
    rows, counters = filled.rows(), filled.counters()
    # As if an older scorer had written them: other scores and flags, another start time, another country.
    for statement in (
        "UPDATE fastpath SET scores = '{}', anomaly = NOT anomaly WHERE probe_asn % 2 = 0",
        "UPDATE fastpath SET measurement_start_time = measurement_start_time + interval '3 hours' WHERE probe_asn = 3",
        "UPDATE fastpath SET measurement_start_time = '2019-05-06 07:08:09' WHERE probe_asn = 5",
        "UPDATE fastpath SET probe_cc = 'FR' WHERE probe_asn = 7",
    ):
        filled.execute(statement)
    recount(filled)
    assert filled.rows() != rows
    assert filled.counters() != counters
    assert filled.query("SELECT count(*) FROM fastpath_misdated")[0][0] > 0
    said = filled.rerun(*filled.range, "--no-write-msmt", "--update", "--source", source)
    assert filled.rows() == rows
    assert filled.counters() == counters
    assert filled.differences() == []
    assert filled.number_of(said, "replaced") == len(rows)
    assert filled.query("SELECT count(*) FROM fastpath") == [(len(rows),)]


def recount(archive: Archive) -> None:
    """Make the counters what the rows say, by way of writing all rows anew."""
    with psycopg.connect(archive.dsn) as connection:
        for table in TABLES:
            connection.execute(f"DELETE FROM {table.name}")  # type: ignore[arg-type, unused-ignore]  # tests
            connection.execute(count(table, facts("fastpath")))


def test_a_rerun_adds_nothing_to_what_it_wrote(filled: Archive) -> None:
    filled.rerun(*filled.range)
    rows, counters = filled.rows(), filled.counters()
    said = filled.rerun(*filled.range)
    assert filled.number_of(said, "existing") == len(rows)
    assert (filled.rows(), filled.counters()) == (rows, counters)


def test_filters_and_ranges_choose_what_is_read(filled: Archive) -> None:
    said = filled.rerun(*filled.range, "--ccs", "it", "--testnames", "web_connectivity")
    rows = filled.rows().values()
    assert {(row[4], row[6]) for row in rows} == {("IT", "web_connectivity")}
    assert filled.number_of(said, "measurements") < len(filled.sent)
    filled.rerun("--start-day", "2024-1-3", "--end-day", "2024-1-4", "--ccs", "DE,BR")
    days = {uid[:8] for uid, row in filled.rows().items() if row[4] in ("DE", "BR")}
    assert days == {"20240103"}
    assert filled.differences() == []


def test_a_sample_ends_after_as_many_measurements_and_is_no_beginning(filled: Archive) -> None:
    said = filled.rerun(*filled.range, "--stop-after", "25", "--workers", "2")
    assert filled.number_of(said, "measurements") == 25
    assert 15 <= len(filled.rows()) <= 25
    assert filled.query("SELECT count(*) FROM rerun") == [(0,)]
    said = filled.rerun(*filled.range)
    assert filled.number_of(said, "measurements") == len(filled.sent)
    assert filled.differences() == []


def test_the_cache_is_used_again_bounded_and_only_on_request(filled: Archive) -> None:
    filled.rerun(*filled.range, "--no-write-to-db", "--keep-s3-cache")
    cached = list((filled.state / "cache").rglob("*.tar.gz"))
    assert len(cached) == len(list(filled.objects.rglob("*.tar.gz")))
    for path in filled.objects.rglob("*.tar.gz"):
        path.write_bytes(b"X" * path.stat().st_size)
    said = filled.rerun(*filled.range, "--no-write-to-db", "--keep-s3-cache")
    assert filled.number_of(said, "measurements") == len(filled.sent)
    filled.rerun(*filled.range, "--no-write-to-db", code=3)  # now it reads the store, which is damaged
    for path in cached:
        path.unlink()
    limit = sum(path.stat().st_size for path in filled.objects.rglob("*.tar.gz")) // 2
    filled.rerun(*filled.range, "--no-write-to-db", "--keep-s3-cache", "--workers", "1", code=3, cache_bytes=limit)
    sizes = [path.stat().st_size for path in (filled.state / "cache").rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= limit


def test_damaged_objects_are_named_and_do_not_stop_the_others(filled: Archive) -> None:
    victim = sorted(filled.objects.rglob("*.tar.gz"))[3]
    sound = victim.read_bytes()
    victim.write_bytes(sound[:-300])
    said = filled.rerun(*filled.range, code=3)
    assert said.count(f'object unreadable" logger=fastpath.rerun key={victim.relative_to(filled.objects)}') == 1
    assert "Repair them, then run the same command again" in said
    assert filled.number_of(said, "unreadable") == 1
    before = len(filled.rows())
    victim.write_bytes(sound)
    said = filled.rerun(*filled.range)
    assert filled.number_of(said, "objects") == 1  # only what could not be read
    assert len(filled.rows()) >= before
    assert {uid for uid, body in filled.sent.items() if json_like(body)} <= set(filled.rows())
    assert filled.differences() == []


def json_like(body: bytes) -> bool:
    try:
        content = json.loads(body)["content"]
    except ValueError:
        return False
    return content.get("probe_cc") not in (None, "ZZ") and "report_id" in content


def test_lines_without_rows_get_their_uids_from_the_postcan(filled: Archive) -> None:
    filled.execute("DELETE FROM jsonl")
    filled.rerun(*filled.range, "--source", "jsonl")
    assert {uid for uid, body in filled.sent.items() if json_like(body)} <= set(filled.rows())
    for path in filled.objects.rglob("*.tar.gz"):
        path.unlink()
    said = filled.rerun(*filled.range, "--source", "jsonl", code=3)
    assert "Nothing tells the uids of the lines" in said


def test_a_measurement_whose_start_time_changed_keeps_one_row(archive: Archive, fingerprints: Any) -> None:
    archive.receive_many(30)
    archive.upload()
    write_as_daemon(archive, list(expected_rows(archive, fingerprints).values()))
    archive.execute("UPDATE fastpath SET measurement_start_time = measurement_start_time + interval '1 hour'")
    recount(archive)
    archive.rerun(*archive.range)
    assert archive.query("SELECT count(*), count(DISTINCT measurement_uid) FROM fastpath") == [(30, 30)]
    archive.rerun(*archive.range, "--update")
    assert archive.query("SELECT count(*), count(DISTINCT measurement_uid) FROM fastpath") == [(30, 30)]
    assert archive.differences() == []


def test_days_before_and_after_the_range_are_left_alone(archive: Archive) -> None:
    for number, hours in enumerate((-4, -3, 20, 21, 44)):
        at = archive.day + timedelta(hours=hours)
        archive.receive(archive.submission(number, at, "IT", "signal"), at=at, test_name="signal")
    archive.upload()
    archive.rerun("--start-day", "2024-01-02", "--end-day", "2024-01-03")
    assert sorted(uid[:10] for uid in archive.rows()) == ["2024010200", "2024010223"]


def test_the_daemon_works_on_meanwhile(archive: Archive, daemon: Any, measurement: Any) -> None:
    archive.receive_many(200)
    archive.upload()
    daemon.start()
    daemon.wait_until_ready()
    rerun = archive.start("--noapi", *archive.range, "--update", "--workers", "1")
    posted = set()
    while rerun.poll() is None:
        uid, body = measurement(len(posted))
        assert daemon.post(uid, body) == 200
        posted.add(uid)
    said, _ = rerun.communicate()
    assert rerun.returncode == 0, said
    assert len(posted) > 3
    daemon.wait_for(lambda: set(daemon.rows()) == posted | set(archive.sent))
    assert archive.differences() == []


PAGE = Path(__file__).parents[4] / "docs" / "rerun.md"


def test_the_commands_of_the_page_do_what_it_says(archive: Archive) -> None:
    page = PAGE.read_text().replace("\\\n", " ")
    commands = [line.split()[1:] for line in page.splitlines() if line.strip().startswith("fastpath --noapi ")]
    assert len(commands) == 5
    archive.receive_many(120)
    archive.upload()
    left = []
    for arguments in commands:
        archive.rerun(*arguments)
        left.append(len(archive.rows()))
    assert left == [0, 120, 120, 120, 120]
    assert archive.differences() == []
    [statement] = re.findall(r'psql ooni -c "([^"]+)"', page)
    assert archive.query(statement) == []
