"""Killed at every step, the uploader loses nothing, archives nothing twice, and the next run finishes the work."""

import re
import signal
import subprocess
from collections import Counter
from pathlib import Path

import pytest

import uploader.run
from core.archive import entry_name

SMALL_BATCHES = {"OONI_UPLOADER_POSTCAN_BYTES": "12000"}
COUNT = 120

# "name:N" dies the N-th time; with these sizes there are several batches, and removal takes two rounds in the first.
POINTS = [
    "uploader.after_pack",
    "uploader.after_pack:2",
    "uploader.after_plan",
    "uploader.after_plan:2",
    "uploader.after_put_postcan",
    "uploader.after_put_postcan:2",
    "uploader.after_put",
    "uploader.after_put:2",
    "uploader.after_commit",
    "uploader.after_commit:2",
    "uploader.during_remove",
    "uploader.during_remove:2",
    "uploader.after_remove",
    "uploader.after_drop",
]


def assert_archived_once(host) -> None:
    """Objects, rows and manifest agree, as seen by ordinary tools, and hold every measurement exactly once."""
    rows = host.rows()
    assert Counter(row["measurement_uid"] for row in rows) == Counter(list(host.sent))
    entries, lines = Counter(), 0
    for key in host.object_keys():
        path = host.objects / key
        if key.endswith(".tar.gz"):
            listed = subprocess.run(["tar", "tzf", str(path)], capture_output=True, check=True, text=True)
            entries.update(listed.stdout.split())
        else:
            lines += subprocess.run(["zcat", str(path)], capture_output=True, check=True).stdout.count(b"\n")
    assert entries == Counter(entry_name(uid) for uid in host.sent)
    assert lines == len(host.sent)
    manifest = host.rows("SELECT * FROM upload_manifest ORDER BY counter")
    assert [row["counter"] for row in manifest] == list(range(len(manifest)))
    assert (
        sorted(row[column] for row in manifest for column in ("jsonl_s3path", "postcan_s3path")) == host.object_keys()
    )


def test_the_list_of_points_is_complete() -> None:
    source = Path(uploader.run.__file__).read_text()
    assert set(re.findall(r'crash_point\("([^"]+)"\)', source)) == {point.partition(":")[0] for point in POINTS}


@pytest.mark.parametrize("point", POINTS)
def test_killed_and_run_again(host, point: str) -> None:
    host.receive_many(COUNT)
    killed = host.run(OONI_CRASH_AT=point, **SMALL_BATCHES)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    host.assert_readable()

    host.succeed(**SMALL_BATCHES)

    host.assert_readable()
    assert_archived_once(host)
    assert len(host.object_keys()) > 2, "the sizes above should give more than one batch"
    assert host.spool.counts().scored == 0
    assert host.left() == []


def test_killed_at_one_step_after_another(host) -> None:
    """Each run gets a little further than the one before; none of them undoes anything."""
    host.receive_many(COUNT)
    for point in POINTS:
        assert host.run(OONI_CRASH_AT=point, **SMALL_BATCHES).returncode in (0, -signal.SIGKILL)
        host.assert_readable()
    host.succeed(**SMALL_BATCHES)
    host.assert_readable()
    assert_archived_once(host)


def test_a_repeated_upload_gives_the_same_bytes(host) -> None:
    """Repeating an upload does not change the object, so whoever fetched it meanwhile has the right one."""
    host.receive_many(20)
    host.run(OONI_CRASH_AT="uploader.after_put")
    before = {key: (host.objects / key).read_bytes() for key in host.object_keys()}
    assert len(before) == 2
    host.succeed()
    assert {key: (host.objects / key).read_bytes() for key in host.object_keys()} == before


def test_arrivals_between_crash_and_next_run_get_a_batch_of_their_own(host) -> None:
    host.receive_many(5)
    host.run(OONI_CRASH_AT="uploader.after_put")
    host.receive(b'{"report_id": "late"}')
    host.succeed()
    host.assert_readable()
    assert_archived_once(host)
    assert [row["measurements"] for row in host.rows("SELECT * FROM upload_manifest ORDER BY counter")] == [5, 1]


def test_a_row_is_needed_before_a_spool_file_goes(host) -> None:
    """Even where the manifest says that the batch is done: rows that are missing keep their files in the spool."""
    uids = host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_commit")
    with host.pool.connection() as connection:
        connection.execute("DELETE FROM jsonl WHERE measurement_uid = %s", [uids[1]])
    host.succeed()
    host.assert_readable()
    assert {row["measurement_uid"] for row in host.rows()} == set(uids)
    assert [row["counter"] for row in host.rows("SELECT * FROM upload_manifest ORDER BY counter")] == [0, 1]


def test_a_file_that_broke_after_the_crash_is_set_aside(host) -> None:
    uids = host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_plan")
    broken = host.spool.path("scored", uids[1])
    broken.write_bytes(broken.read_bytes()[:-1])
    host.succeed()
    assert [row["measurement_uid"] for row in host.rows()] == [uids[0], uids[2]]
    assert host.spool.counts().quarantine == 1
    assert host.left() == []
