"""`uploader verify` finds each kind of difference, repairs what it may, and never the only copy of anything."""

import json
import os
import re
import sys
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import psycopg
import pytest

from core.objectstore import ObjectNotFound
from core.spool import Spool
from uploader.verify import KINDS

PREFIX = "raw/20240102/03/IT/webconnectivity/2024010203_IT_webconnectivity.n1"
DAY = ("--since", "2024-01-02", "--until", "2024-01-02", "--settle-s", "0")


def verify(host, *arguments: str, **environment: str) -> dict[str, Any]:
    """Run `uploader verify --json`; return differences by kind, what was repaired, and the exit code."""
    done = host.call("verify", *DAY, "--json", *arguments, **environment)
    assert done.returncode in (0, 4), done.stderr
    *differences, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert summary["found"] == {
        kind: count for kind in KINDS if (count := sum(one["kind"] == kind for one in differences))
    }
    left = sum(not one["repaired"] for one in differences)
    assert done.returncode == (4 if left else 0)
    return {"found": summary["found"], "left": left, "differences": differences}


def execute(host, statement: str, *values: Any) -> None:
    with psycopg.connect(host.dsn) as connection:
        connection.execute(statement.encode(), values)


def score(host, uid: str) -> None:
    """Give a measurement its row, as the fastpath does."""
    execute(
        host,
        "INSERT INTO fastpath (measurement_uid, report_id, measurement_start_time, scores, anomaly, confirmed,"
        " msm_failure) VALUES (%s, %s, '2024-01-02 03:00', '{}', false, false, false)",
        uid,
        "from the row" if "_BR_" in uid else "",
    )


@pytest.fixture
def archived(host):
    """A host with two batches in the store: five measurements and one of another country."""
    host.receive_many(4)
    host.receive(b'{"n":\n1}')
    host.receive(b"not JSON", cc="BR")
    for uid in host.sent:
        score(host, uid)
    assert host.call().returncode == 0
    return host


def test_where_all_is_well_there_is_no_difference(archived) -> None:
    for arguments in ((), ("--deep",), ("--repair",), ("--deep", "--repair")):
        assert verify(archived, *arguments)["found"] == {}
    printed = archived.succeed("verify", *DAY)
    assert printed == (
        "2024-01-02 to 2024-01-02: 4 objects and 6 measurements compared; differences: none; 0 repaired, 0 left.\n"
    )
    assert archived.left() == []


def test_the_last_week_is_the_default(archived) -> None:
    execute(archived, "UPDATE upload_manifest SET committed_at = now() - interval '10 days'")
    printed = archived.call("verify").stdout
    assert "0 objects and 0 measurements compared" in printed
    for days, first in (("1", "2024-01-02"), ("2", "2024-01-01")):
        printed = archived.call("verify", "--until", "2024-01-02", "--days", days).stdout
        assert printed.startswith(f"{first} to 2024-01-02: 4 objects")


def test_hours_of_another_time_come_too_when_they_were_archived_in_the_days_compared(archived) -> None:
    """A clock that was wrong, or a host that was away for long: nothing of the last week bears that hour."""
    printed = archived.call("verify", "--days", "1").stdout
    assert "4 objects and 6 measurements compared; differences: none" in printed
    execute(archived, "UPDATE jsonl SET member_offset = 100000 WHERE linenum = 1")
    assert archived.call("verify").returncode == 4
    today = str(datetime.now(UTC).date())
    printed = archived.call("verify", "--since", today).stdout
    assert "0 objects and 0 measurements compared; differences: none" in printed, "only what was asked for"


def test_hours_of_another_time_come_too_when_the_spool_has_something_of_them(archived) -> None:
    execute(archived, "UPDATE upload_manifest SET committed_at = now() - interval '10 days'")
    [uid] = [uid for uid in archived.sent if "_BR_" in uid]
    archived.receive(archived.sent[uid], cc="BR")
    done = archived.call("verify")
    assert f"spool_archived {uid}: " in done.stdout
    assert "4 objects and 6 measurements compared" in done.stdout


def archive_twice(host) -> None:
    """Archive what is in the spool, then again as a release did that did not ask for rows."""
    host.receive_many(3)
    assert host.call().returncode == 0
    with psycopg.connect(host.dsn) as connection:
        connection.execute("CREATE TEMPORARY TABLE former AS SELECT * FROM jsonl")
        connection.execute("DELETE FROM jsonl")
        connection.commit()
        host.receive_many(3)
        assert host.call().returncode == 0
        connection.execute("DELETE FROM jsonl USING former WHERE jsonl.measurement_uid = former.measurement_uid")
        connection.execute("INSERT INTO jsonl SELECT * FROM former")


def test_a_batch_that_was_archived_twice_is_found_and_its_second_copy_deleted(host) -> None:
    archive_twice(host)
    assert len(host.object_keys()) == 4
    result = verify(host)
    assert result["found"] == {"archived_twice": 3}
    assert {one["subject"] for one in result["differences"]} == set(host.sent)
    assert verify(host, "--repair")["left"] == 0
    assert [key[len(PREFIX) :] for key in host.object_keys()] == [".0.jsonl.gz", ".0.tar.gz"]
    assert [row["counter"] for row in host.rows("SELECT * FROM upload_manifest")] == [0]
    assert verify(host, "--deep")["found"] == {}
    host.assert_readable()


@pytest.mark.parametrize("damage", ["changed", "cut", "gone"])
def test_a_second_copy_in_the_manifest_stays_when_the_first_is_damaged(host, damage: str) -> None:
    archive_twice(host)
    path = host.objects / f"{PREFIX}.0.jsonl.gz"
    whole = path.read_bytes()
    if damage == "changed":
        path.write_bytes(whole[:30] + bytes([whole[30] ^ 1]) + whole[31:])
    elif damage == "cut":
        path.write_bytes(whole[:-9])
    else:
        path.unlink()
        (host.objects / f"{PREFIX}.0.tar.gz").unlink()
    verify(host, "--repair")
    second = [f"{PREFIX}.1.jsonl.gz", f"{PREFIX}.1.tar.gz"]
    if damage == "cut":  # it is made anew from its postcan first, and then the second copy is one
        assert path.read_bytes() == whole
    else:
        assert [key for key in host.object_keys() if key in second] == second


def test_a_second_copy_among_others_is_found_and_left(host) -> None:
    first, _ = host.receive_many(2)
    assert host.call().returncode == 0
    execute(host, "DELETE FROM jsonl WHERE measurement_uid = %s", first)
    host.receive_many(1)
    assert host.call().returncode == 0
    assert verify(host)["found"] == {"archived_twice": 1}
    result = verify(host, "--repair")
    assert (result["found"], result["left"]) == ({"archived_twice": 1}, 1)
    host.assert_readable()


def test_it_works_where_nothing_is(host) -> None:
    assert verify(host, "--deep", "--repair")["found"] == {}


def test_rows_that_are_missing_are_written_from_the_objects(archived) -> None:
    before = archived.rows("SELECT * FROM jsonl ORDER BY measurement_uid")
    execute(archived, "TRUNCATE jsonl")
    assert verify(archived)["found"] == {"row_missing": 6, "body_missing": 6}
    assert archived.rows() == []
    assert verify(archived, "--repair")["left"] == 0
    assert verify(archived, "--deep")["found"] == {}
    after = archived.rows("SELECT * FROM jsonl ORDER BY measurement_uid")
    for old, new in zip(before, after, strict=True):
        del old["update_time"], new["update_time"]
        if old["report_id"].startswith("2024"):  # a body without a document: only the spool file knew
            assert new.pop("report_id") == "from the row"
            del old["report_id"]
        assert old == new
    archived.assert_readable()


@pytest.mark.parametrize("change", ["member_offset = member_offset + 1", "linenum = linenum + 1"])
def test_rows_that_point_to_another_place_are_corrected(archived, change: str) -> None:
    execute(archived, f"UPDATE jsonl SET {change}")
    found = verify(archived, "--deep")["found"]
    assert found == {"row_wrong": 6}
    assert verify(archived, "--deep", "--repair")["left"] == 0
    assert verify(archived, "--deep")["found"] == {}
    archived.assert_readable()


def test_a_row_that_points_behind_the_end_needs_no_reading_to_be_found(archived) -> None:
    execute(archived, "UPDATE jsonl SET member_offset = 100000 WHERE linenum = 1")
    assert verify(archived)["found"] == {"row_wrong": 1}
    assert verify(archived, "--repair")["left"] == 0
    archived.assert_readable()


def test_a_row_for_what_the_object_does_not_have(archived) -> None:
    execute(
        archived,
        "INSERT INTO jsonl SELECT '20240102030000.000009_IT_webconnectivity_0123456789abcdef', report_id, input,"
        " s3path, 99, member_offset, member_length FROM jsonl LIMIT 1",
    )
    assert verify(archived)["found"] == {"row_stray": 1}
    assert verify(archived, "--repair")["left"] == 1  # there is no body to archive again


def test_a_batch_that_the_manifest_does_not_have_is_entered(archived) -> None:
    before = archived.rows("SELECT * FROM upload_manifest ORDER BY jsonl_s3path")
    execute(archived, "TRUNCATE jsonl, upload_manifest")
    found = verify(archived)["found"]
    assert found == {"object_unlisted": 4, "body_missing": 6}
    assert verify(archived, "--repair")["left"] == 0
    after = archived.rows("SELECT * FROM upload_manifest ORDER BY jsonl_s3path")
    for one in (*before, *after):
        del one["committed_at"]
    assert after == before
    assert verify(archived, "--deep")["found"] == {}
    archived.assert_readable()


def test_a_postcan_alone_is_enough_to_enter_a_batch(archived) -> None:
    execute(archived, "TRUNCATE jsonl, upload_manifest")
    whole = (archived.objects / f"{PREFIX}.0.jsonl.gz").read_bytes()
    (archived.objects / f"{PREFIX}.0.jsonl.gz").unlink()
    assert verify(archived, "--repair")["left"] == 0
    assert (archived.objects / f"{PREFIX}.0.jsonl.gz").read_bytes() == whole
    archived.assert_readable()


def test_a_jsonl_object_alone_is_left_for_a_human(archived) -> None:
    execute(archived, "DELETE FROM upload_manifest WHERE directory LIKE '%%_IT_%%'")
    (archived.objects / f"{PREFIX}.0.tar.gz").unlink()
    result = verify(archived, "--repair")
    assert result["found"] == {"object_unlisted": 1}
    assert result["left"] == 1
    assert (archived.objects / f"{PREFIX}.0.jsonl.gz").exists()


def test_young_objects_and_batches_on_their_way_are_no_difference(host) -> None:
    host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_put")
    assert verify(host)["found"] == {}, "this host has a plan for it"
    for plan in (host.spool.root / "packing").glob("*.plan"):
        plan.unlink()
    assert verify(host, "--settle-s", "3600")["found"] == {}, "may be that of another host"
    assert verify(host)["found"] == {"object_unlisted": 2}


def test_a_second_copy_is_deleted_once_each_body_was_compared(host) -> None:
    """A run was killed after the upload, its plan was lost, and everything was archived again."""
    host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_put")
    for plan in (host.spool.root / "packing").glob("*.plan"):
        plan.unlink()
    host.succeed()
    assert len(host.object_keys()) == 4
    assert verify(host)["found"] == {"object_unlisted": 2}
    assert verify(host, "--repair")["left"] == 0
    assert [key[len(PREFIX) :] for key in host.object_keys()] == [".1.jsonl.gz", ".1.tar.gz"]
    host.assert_readable()
    assert verify(host, "--deep")["found"] == {}


def test_a_second_copy_stays_when_the_first_is_damaged(host) -> None:
    host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_put")
    for plan in (host.spool.root / "packing").glob("*.plan"):
        plan.unlink()
    host.succeed()
    path = host.objects / f"{PREFIX}.1.jsonl.gz"
    damaged = bytearray(path.read_bytes())
    damaged[30] ^= 1
    path.write_bytes(damaged)
    result = verify(host, "--repair")
    assert result["left"] == 2
    assert len(host.object_keys()) == 4


@pytest.mark.parametrize("damage", ["gone", "short", "changed"])
def test_a_jsonl_object_is_made_again_from_its_postcan(archived, damage: str) -> None:
    path = archived.objects / f"{PREFIX}.0.jsonl.gz"
    whole = path.read_bytes()
    if damage == "gone":
        path.unlink()
    elif damage == "short":
        path.write_bytes(whole[:-1])
    else:
        path.write_bytes(whole[:40] + bytes([whole[40] ^ 1]) + whole[41:])
    kind = "object_missing" if damage == "gone" else "object_changed"
    assert verify(archived)["found"] == ({} if damage == "changed" else {kind: 1})
    assert verify(archived, "--deep")["found"] == {kind: 1}
    assert verify(archived, "--deep", "--repair")["left"] == 0
    assert path.read_bytes() == whole
    archived.assert_readable()


def test_objects_are_put_again_from_the_spool(host) -> None:
    host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_commit")
    before = {key: (host.objects / key).read_bytes() for key in host.object_keys()}
    for key in before:
        (host.objects / key).unlink()
    assert verify(host)["found"] == {"object_missing": 2}
    assert verify(host, "--repair")["left"] == 0
    assert {key: (host.objects / key).read_bytes() for key in host.object_keys()} == before
    host.succeed()
    host.assert_readable()


def test_a_postcan_that_is_gone_for_good_is_reported_every_time(archived) -> None:
    (archived.objects / f"{PREFIX}.0.tar.gz").unlink()
    for arguments in ((), ("--repair",), ("--deep", "--repair")):
        result = verify(archived, *arguments)
        assert result["found"] == {"object_missing": 1}
        assert result["left"] == 1


def test_a_spool_file_goes_only_after_its_archived_body_was_compared(archived) -> None:
    uids = list(archived.sent)
    for uid in uids:  # a restored disk, say
        archived.spool.put(uid, archived.sent[uid], "r")
    archived.spool.mark_scored(uids)
    assert verify(archived)["found"] == {"spool_archived": 6}
    path = archived.objects / f"{PREFIX}.0.jsonl.gz"
    whole = path.read_bytes()
    row = archived.rows(f"SELECT * FROM jsonl WHERE s3path = '{PREFIX}.0.jsonl.gz' AND linenum = 1")[0]
    at = row["member_offset"] + 15
    path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
    result = verify(archived, "--repair")
    assert result["left"] == 1
    assert archived.spool.counts().scored == 1
    assert archived.spool.path("scored", row["measurement_uid"]).exists()
    path.write_bytes(whole)
    assert verify(archived, "--repair")["left"] == 0
    assert archived.spool.counts().scored == 0
    archived.assert_readable()


def test_files_in_overflow_folders_of_the_spool_are_compared_too(archived) -> None:
    uids = list(archived.sent)
    overflowing = Spool(archived.spool.root, min_free_bytes=0, overflow_after=0)
    for uid in uids:
        overflowing.put(uid, archived.sent[uid], "r")
    overflowing.mark_scored(uids)
    assert all(len(overflowing.path("scored", uid).parent.name) == 3 for uid in uids)
    assert verify(archived)["found"] == {"spool_archived": 6}
    assert verify(archived, "--repair")["left"] == 0
    assert archived.spool.counts().scored == 0


def test_a_row_to_nowhere_goes_when_the_spool_has_the_body(archived) -> None:
    [uid] = [uid for uid in archived.sent if "_BR_" in uid]
    archived.spool.put(uid, archived.sent[uid], "r")
    archived.spool.mark_scored([uid])
    execute(archived, "DELETE FROM upload_manifest WHERE directory LIKE '%%_BR_%%'")
    for path in archived.objects.rglob("*_BR_*.gz"):
        path.unlink()
    assert verify(archived)["found"] == {"row_stray": 1, "spool_archived": 1}
    verify(archived, "--repair")
    archived.succeed()
    archived.assert_readable()
    assert verify(archived, "--deep")["found"] == {}


def test_a_row_without_a_body_anywhere_is_the_worst(archived) -> None:
    lost = "20240102030000.000009_IT_webconnectivity_0123456789abcdef"
    score(archived, lost)
    waiting = archived.receive(b'{"n": 77}', scored=False)
    score(archived, waiting)
    result = verify(archived, "--repair")
    assert [(one["kind"], one["subject"]) for one in result["differences"]] == [("body_missing", lost)]
    printed = archived.call("verify", *DAY).stdout
    assert printed.startswith(f"body_missing {lost}: No spool and no object has it.\n")


class Peer(ThreadingHTTPServer):
    """Another host that has one body in its spool."""

    def __init__(self, uid: str, body: bytes) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = self.path.endswith(f"/{uid}.post")
                self.send_response(200 if found else 404)
                self.send_header("Content-Length", str(len(body) if found else 0))
                self.end_headers()
                if found:
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        super().__init__(("127.0.0.1", 0), Handler)


def test_bodies_in_the_spools_of_other_hosts_count(archived, make_host: Callable[[str], Any]) -> None:
    uid = make_host("other").receive(b'{"n": 78}')
    score(archived, uid)
    with Peer(uid, b'{"n": 78}') as peer:
        thread = threading.Thread(target=peer.serve_forever)
        thread.start()
        address = f"http://127.0.0.1:{peer.server_port}"
        assert verify(archived, OONI_UPLOADER_PEERS=address)["found"] == {}
        peer.shutdown()
        thread.join()
    done = archived.call("verify", *DAY, OONI_UPLOADER_PEERS=address)
    assert done.returncode == 1
    assert "1 bodies undecided because a peer did not answer" in done.stdout
    assert verify(archived)["found"] == {"body_missing": 1}


def test_an_unfinished_takedown_is_a_difference(host) -> None:
    execute(
        host,
        "INSERT INTO takedown_audit (report_id, measurement_uids, reason, host) VALUES ('r1', ARRAY['u'], 'x', 'h')",
    )
    [difference] = verify(host)["differences"]
    assert (difference["kind"], difference["subject"]) == ("takedown_unfinished", "r1")


def test_metrics_are_written_beside_those_of_the_runs(archived) -> None:
    execute(archived, "TRUNCATE jsonl")
    verify(archived)
    assert archived.figure("uploader_verify_differences", kind="row_missing") == 6
    assert archived.figure("uploader_verify_differences", kind="object_missing") == 0
    assert archived.figure("uploader_verify_measurements") == 6
    assert time.time() - archived.figure("uploader_verify_last_run_timestamp_seconds") < 60
    verify(archived, "--repair")
    assert archived.figure("uploader_verify_differences", kind="row_missing") == 0


def test_a_comparison_that_cannot_be_finished_says_so_and_keeps_the_old_figures(archived) -> None:
    verify(archived)
    figures = archived.textfile.with_name("uploader_verify.prom")
    before = figures.read_bytes()
    done = archived.call("verify", *DAY, OONI_UPLOADER_DB_URI="host=127.0.0.1 port=1 dbname=x")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("uploader: The comparison could not be finished: ")
    assert "Traceback" not in done.stderr
    assert figures.read_bytes() == before


def test_repair_waits_for_a_run_at_work(archived) -> None:
    with psycopg.connect(archived.dsn, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(hashtextextended('uploader 1', 0))")
        execute(archived, "TRUNCATE jsonl")
        assert verify(archived)["found"]["row_missing"] == 6  # comparing needs no lock
        assert archived.call("verify", *DAY, "--repair").returncode == 75
    assert archived.rows() == []


def test_memory_does_not_grow_with_the_objects(host, tmp_path: Path) -> None:
    """Deep comparison of 40 MB of bodies, one megabyte each, in far less."""
    program = (
        "import re, sys\n"
        "from uploader.__main__ import main\n"
        "code = main(sys.argv[1:])\n"
        "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    host.run_program = [sys.executable, "-c", program]
    peaks = []
    for count in (1, 40):
        for number in range(count):
            host.receive(b'{"n": %d, "x": "%s"}' % (number + 1000 * count, os.urandom(500_000).hex().encode()))
        host.succeed()
        done = host.run("verify", *DAY, "--deep")
        assert done.returncode == 0, done.stderr
        peaks.append(int(re.findall(r"\d+", done.stderr.splitlines()[-1])[-1]) / 1024)
    assert peaks[1] < peaks[0] + 12, f"peaks in MB: {peaks}"


def test_a_missing_object_is_no_object_at_all(archived) -> None:
    """Keeps the tests above honest."""
    with pytest.raises(ObjectNotFound):
        archived.store.content(f"{PREFIX}.7.tar.gz")
