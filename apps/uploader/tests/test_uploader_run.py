"""What a run archives, under which names, and what it leaves alone."""

import fcntl
import gzip
import json
import subprocess
import tarfile
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from core.archive import entry_name
from core.envelope import inner_document

HOUR = datetime(2024, 1, 2, 3, tzinfo=UTC)
PREFIX = "raw/20240102/03/IT/webconnectivity/2024010203_IT_webconnectivity.n1"


def lines(host, key: str) -> list[bytes]:
    return gzip.decompress((host.objects / key).read_bytes()).split(b"\n")[:-1]


def test_measurements_become_two_objects_and_rows(host) -> None:
    uids = host.receive_many(4)
    printed = host.succeed()

    assert host.object_keys() == [f"{PREFIX}.0.jsonl.gz", f"{PREFIX}.0.tar.gz"]
    assert lines(host, f"{PREFIX}.0.jsonl.gz") == [inner_document(host.sent[uid]) for uid in uids]
    with tarfile.open(host.objects / f"{PREFIX}.0.tar.gz") as tar:
        assert tar.getnames() == [entry_name(uid) for uid in uids]
        assert [tar.extractfile(entry).read() for entry in tar] == [host.sent[uid] for uid in uids]
    for number, (row, uid) in enumerate(zip(host.rows(), uids, strict=True)):
        assert (row["measurement_uid"], row["linenum"]) == (uid, number)
        assert (row["report_id"], row["input"]) == (f"report-{number}", f"https://example.com/{number}")
        assert row["s3path"] == f"{PREFIX}.0.jsonl.gz"
        assert row["raw_s3path"] is row["raw_offset"] is row["raw_length"] is None
        member = (host.objects / row["s3path"]).read_bytes()[row["member_offset"] :][: row["member_length"]]
        assert gzip.decompress(member) == inner_document(host.sent[uid]) + b"\n"
    [manifest] = host.rows("SELECT * FROM upload_manifest")
    assert manifest["measurements"] == 4
    assert manifest["jsonl_bytes"] == (host.objects / f"{PREFIX}.0.jsonl.gz").stat().st_size
    assert manifest["postcan_bytes"] == (host.objects / f"{PREFIX}.0.tar.gz").stat().st_size
    checksums = subprocess.run(
        ["sha256sum", *host.object_keys()], cwd=host.objects, capture_output=True, check=True, text=True
    )
    assert checksums.stdout.split()[::2] == [manifest["jsonl_sha256"], manifest["postcan_sha256"]]
    assert host.spool.counts().scored == 0
    assert host.spool.scored_directories() == []
    assert host.left() == []
    assert printed.startswith("4 measurements archived in 1 batches")


def test_a_second_run_changes_nothing(host) -> None:
    host.receive_many(3)
    host.succeed()
    before = host.rows(), host.rows("SELECT * FROM upload_manifest"), host.object_keys()
    assert host.succeed().startswith("0 measurements archived in 0 batches (0 bytes), 0 set aside, 0 failures, 0 ")
    assert (host.rows(), host.rows("SELECT * FROM upload_manifest"), host.object_keys()) == before
    host.assert_readable()


def test_each_hour_country_and_test_has_objects_of_its_own(host) -> None:
    for options in (
        {"at": HOUR},
        {"at": HOUR + timedelta(hours=1)},
        {"at": HOUR, "cc": "BR"},
        {"at": HOUR, "test_name": "signal"},
    ):
        host.receive(b'{"report_id": "x"}', **options)
    host.succeed()
    assert [key for key in host.object_keys() if key.endswith(".jsonl.gz")] == [
        "raw/20240102/03/BR/webconnectivity/2024010203_BR_webconnectivity.n1.0.jsonl.gz",
        "raw/20240102/03/IT/signal/2024010203_IT_signal.n1.0.jsonl.gz",
        "raw/20240102/03/IT/webconnectivity/2024010203_IT_webconnectivity.n1.0.jsonl.gz",
        "raw/20240102/04/IT/webconnectivity/2024010204_IT_webconnectivity.n1.0.jsonl.gz",
    ]
    host.assert_readable()


def test_batches_end_when_the_postcan_passes_its_size(host) -> None:
    host.receive_many(10)
    one = len(gzip.compress(host.sent[next(iter(host.sent))])) + 100
    host.succeed(OONI_UPLOADER_POSTCAN_BYTES=str(3 * one))
    manifest = host.rows("SELECT * FROM upload_manifest ORDER BY counter")
    assert [row["counter"] for row in manifest] == list(range(len(manifest)))
    assert sum(row["measurements"] for row in manifest) == 10
    assert len(manifest) > 2
    assert all(row["postcan_bytes"] > 3 * one for row in manifest[:-1])
    assert all(row["measurements"] < 6 for row in manifest)
    host.assert_readable()


def test_batches_also_end_when_bodies_add_up(host) -> None:
    """Compressible bodies would otherwise never fill a postcan."""
    for number in range(4):
        host.receive(b'{"x": "%s", "n": %d}' % (b"a" * 50_000, number))
    host.succeed(OONI_UPLOADER_UNPACKED_BYTES="99000")
    assert [row["measurements"] for row in host.rows("SELECT * FROM upload_manifest ORDER BY counter")] == [2, 2]
    host.assert_readable()


def test_late_arrivals_get_the_next_number(host) -> None:
    host.receive_many(2)
    host.succeed()
    host.receive(b'{"report_id": "late"}')
    host.succeed()
    assert [key for key in host.object_keys() if key.endswith(".tar.gz")] == [
        f"{PREFIX}.0.tar.gz",
        f"{PREFIX}.1.tar.gz",
    ]
    host.assert_readable()


def test_only_scored_measurements_are_taken(host) -> None:
    waiting = host.receive(b'{"n": 1}', scored=False)
    aside = host.receive(b'{"n": 2}')
    host.spool.quarantine(aside, "a test")
    host.succeed()
    assert host.object_keys() == []
    counts = host.spool.counts()
    assert (counts.incoming, counts.scored, counts.quarantine) == (1, 0, 1)
    assert host.spool.read(waiting) is not None
    host.assert_readable()


def test_an_hour_is_left_alone_until_the_margin_has_passed(host) -> None:
    now = datetime.now(UTC)
    last_hour = now.replace(minute=0, second=0, microsecond=0) - timedelta(hours=1)
    host.receive(b'{"n": 1}', at=last_hour)
    since_its_end = (now - last_hour).total_seconds() - 3600
    host.succeed(OONI_UPLOADER_HOURS_MARGIN_S=str(since_its_end + 300))
    assert host.object_keys() == []
    assert host.metric("uploader_backlog_files") == 1
    host.succeed(OONI_UPLOADER_HOURS_MARGIN_S=str(since_its_end))
    assert len(host.object_keys()) == 2


def test_an_hour_still_to_come_is_taken_since_the_clock_was_set_back(host) -> None:
    """It would wait for that hour in silence; what comes into it later becomes another batch."""
    tomorrow = datetime.now(UTC).replace(minute=0, second=0, microsecond=0) + timedelta(days=1)
    host.receive(b'{"n": 1}', at=tomorrow)
    host.succeed()
    assert len(host.object_keys()) == 2
    host.receive(b'{"n": 2}', at=tomorrow)
    host.succeed()
    assert len(host.object_keys()) == 4
    assert host.metric("uploader_backlog_files") == 0
    host.assert_readable()


def test_now_takes_hours_that_are_not_over(host) -> None:
    host.receive(b'{"n": 1}', at=datetime.now(UTC))
    host.succeed()
    assert host.object_keys() == []
    host.succeed("--now")
    assert len(host.object_keys()) == 2
    host.assert_readable()


def test_the_same_measurements_give_the_same_bytes(make_host: Callable[[str], object]) -> None:
    """Two hosts, other order of arrival, other time of packing, other clock."""
    one, two = make_host("one"), make_host("two")
    bodies = [json.dumps({"format": "json", "content": {"n": n, "pad": "x" * n * 50}}).encode() for n in range(40)]
    for body in bodies:
        one.receive(body, at=HOUR + timedelta(seconds=len(body)))
    for body in reversed(bodies):
        two.receive(body, at=HOUR + timedelta(seconds=len(body)))
    one.succeed(TZ="Asia/Tokyo", OONI_UPLOADER_POSTCAN_BYTES="3000")
    with one.pool.connection() as connection:
        connection.execute("TRUNCATE jsonl, upload_manifest")
    two.succeed(TZ="America/Lima", PYTHONHASHSEED="1", OONI_UPLOADER_POSTCAN_BYTES="3000")
    assert one.object_keys() == two.object_keys()
    assert len(one.object_keys()) > 2
    assert [(one.objects / key).read_bytes() for key in one.object_keys()] == [
        (two.objects / key).read_bytes() for key in two.object_keys()
    ]


def test_collectors_do_not_get_in_each_others_way(make_host: Callable[[str], object]) -> None:
    one, two = make_host("one"), make_host("two")
    one.receive(b'{"n": 1}')
    two.receive(b'{"n": 2}')
    one.succeed()
    two.succeed(OONI_UPLOADER_COLLECTOR_ID="2")
    assert [row["directory"] for row in one.rows("SELECT * FROM upload_manifest ORDER BY directory")] == [
        "2024010203_IT_webconnectivity.n1",
        "2024010203_IT_webconnectivity.n2",
    ]
    one.assert_readable()
    two.assert_readable()


def test_an_object_without_a_manifest_line_is_not_overwritten(host) -> None:
    """It may hold the only copy of what a host uploaded before it was lost."""
    stranger = host.objects / f"{PREFIX}.0.tar.gz"
    stranger.parent.mkdir(parents=True)
    stranger.write_bytes(b"of another life")
    host.receive_many(2)
    host.succeed()
    assert stranger.read_bytes() == b"of another life"
    assert [row["counter"] for row in host.rows("SELECT * FROM upload_manifest")] == [1]


def test_a_damaged_plan_is_set_aside(host) -> None:
    host.receive_many(2)
    host.run(OONI_CRASH_AT="uploader.after_put")
    [plan] = (host.spool.root / "packing").glob("*.plan")
    plan.write_bytes(b"{")
    host.succeed()
    host.assert_readable()
    assert host.left() == [plan.with_suffix(".damaged").name]
    assert [row["counter"] for row in host.rows("SELECT * FROM upload_manifest")] == [1]


def test_two_runs_on_one_spool_are_kept_apart(host) -> None:
    host.receive_many(1)
    packing = host.spool.root / "packing"
    packing.mkdir()
    with open(packing / "lock", "wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = host.run()
    assert refused.returncode == 75
    assert refused.stderr.startswith("uploader: Another uploader works on ")
    assert host.spool.counts().scored == 1
    host.succeed()


def test_two_hosts_with_one_collector_id_are_kept_apart(host) -> None:
    host.receive_many(1)
    with psycopg.connect(host.dsn, autocommit=True) as connection:
        connection.execute("SELECT pg_advisory_lock(hashtextextended('uploader 1', 0))")
        refused = host.run()
        assert refused.returncode == 75
        assert "collector_id of its own" in refused.stderr
        assert host.spool.counts().scored == 1
        host.receive(b'{"n": 9}')
        host.succeed(OONI_UPLOADER_COLLECTOR_ID="2")


@pytest.mark.parametrize("value", ["", "a_b", "../x", "n" * 33])
def test_a_bad_collector_id_is_explained(host, value: str) -> None:
    refused = host.run(OONI_UPLOADER_COLLECTOR_ID=value)
    assert refused.returncode == 2
    assert "collector_id" in refused.stderr
    assert "Traceback" not in refused.stderr
