"""Files that come back to the spool after they were archived are not archived again, and never lost."""

import shutil
import signal
from pathlib import Path

import psycopg
import pytest

PREFIX = "raw/20240102/03/IT/webconnectivity/2024010203_IT_webconnectivity.n1"
DAY = ("--since", "2024-01-02", "--until", "2024-01-02", "--settle-s", "0", "--deep")


def assert_archived_once(host, objects: int) -> None:
    host.assert_readable()
    assert len(host.object_keys()) == objects
    assert host.spool.counts().scored == 0
    done = host.call("verify", *DAY)
    assert done.returncode == 0, done.stdout


def test_a_restored_spool_is_compared_and_deleted(host) -> None:
    """Documents on one line, one on two lines, and a body without a document."""
    host.receive_many(5)
    host.receive(b'{"n":\n1}')
    host.receive(b"not JSON", cc="BR")
    shutil.copytree(host.spool.root / "scored", host.root / "backup")
    host.succeed()
    shutil.copytree(host.root / "backup", host.spool.root / "scored", dirs_exist_ok=True)
    before = host.rows()
    assert host.succeed().startswith(
        "0 measurements archived in 0 batches (0 bytes), 7 came back and were archived already, 0 set aside, 0 failures"
    )
    assert host.metric("uploader_returned_total") == 7
    assert host.rows() == before
    assert_archived_once(host, 4)


def test_what_is_new_beside_it_is_archived(host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("uploader.run.ASKED_AT_ONCE", 3)
    uids = host.receive_many(10)
    host.spool.remove_scored(uids[::2])
    assert host.call().returncode == 0
    host.receive_many(10)
    done = host.call()
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("5 measurements archived in 1 batches")
    assert ", 5 came back and were archived already, " in done.stdout
    assert_archived_once(host, 4)


def test_a_plan_that_was_damaged_after_its_commit(host) -> None:
    host.receive_many(4)
    assert host.run(OONI_CRASH_AT="uploader.after_commit").returncode == -signal.SIGKILL
    [plan] = (host.spool.root / "packing").glob("*.plan")
    plan.write_bytes(b"{")
    assert host.spool.counts().scored == 4
    host.succeed()
    assert_archived_once(host, 2)


def corrupt(path: Path) -> None:
    whole = path.read_bytes()
    path.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])


@pytest.mark.parametrize("damage", [corrupt, Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_file_stays_when_the_archived_body_is_not_the_same(host, damage) -> None:
    """It is the only copy then, and the row of another one would keep the new one from being found."""
    [uid, other] = host.receive_many(2)
    host.spool.remove_scored([other])
    assert host.call().returncode == 0
    del host.sent[other]
    path = host.objects / f"{PREFIX}.0.jsonl.gz"
    whole = path.read_bytes()
    damage(path)
    assert host.receive_many(1) == [uid]
    for times in (1, 2):
        done = host.call()
        assert done.returncode == 1
        assert host.metric("uploader_failures_total", step="compare") == times
        assert host.spool.counts().scored == 1
        assert len(host.rows("SELECT * FROM upload_manifest")) == 1
    host.assert_readable()
    path.write_bytes(whole)
    assert host.call().returncode == 0
    assert_archived_once(host, 2)


def test_a_row_to_nowhere_does_not_cost_the_file(host) -> None:
    """A row whose object is gone is no place for a body: only `verify --repair` may drop it."""
    host.receive_many(1)
    assert host.call().returncode == 0
    for path in host.objects.rglob("*.gz"):
        path.unlink()
    with psycopg.connect(host.dsn) as connection:
        connection.execute("TRUNCATE upload_manifest")
    host.receive_many(1)
    assert host.call().returncode == 1
    host.assert_readable()
    host.call("verify", *DAY, "--repair")
    assert host.call().returncode == 0
    assert_archived_once(host, 2)


def test_a_torn_file_that_came_back_is_set_aside(host) -> None:
    [uid] = host.receive_many(1)
    assert host.call().returncode == 0
    host.receive_many(1)
    path = host.spool.path("scored", uid)
    path.write_bytes(path.read_bytes()[:-1])
    assert host.call().returncode == 0
    assert host.spool.counts().quarantine == 1
    assert len(host.object_keys()) == 2
