"""The spool keeps what it was given, moves it forward only, and says when a file is damaged."""

import os
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import spool_cli, spool_scan
from core.groupsync import GroupSync
from core.ids import IdentifierError, new_measurement_uid
from core.spool import FILE_MODE, Spool, SpoolCounts, SpoolFull, TornFile

REPORT = "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop"


def make_uid(body: bytes = b"{}", age_s: float = 0, cc: str = "IT") -> str:
    return new_measurement_uid(datetime.now(UTC) - timedelta(seconds=age_s), cc, "ndt", body)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", min_free_bytes=0)


def test_what_was_put_can_be_read_in_every_state(spool: Spool) -> None:
    uid = make_uid(b'{"a":\n1}')
    spool.put(uid, b'{"a":\n1}', REPORT)
    for change in (lambda: None, lambda: spool.mark_scored([uid]), lambda: spool.quarantine(uid, "why")):
        change()
        record = spool.read(uid)
        assert record is not None
        assert (record.uid, record.report_id, record.body) == (uid, REPORT, b'{"a":\n1}')


@given(st.binary(max_size=300))
def test_any_body_survives(tmp_path_factory: pytest.TempPathFactory, body: bytes) -> None:
    spool = Spool(tmp_path_factory.mktemp("spool"), min_free_bytes=0)
    uid = make_uid(body)
    spool.put(uid, body, REPORT)
    record = spool.read(uid)
    assert record is not None
    assert record.body == body


def test_states_are_directories_and_files_carry_the_documented_names(spool: Spool) -> None:
    uid = make_uid()
    spool.put(uid, b"{}", REPORT)
    directory = f"{uid[:10]}_IT_ndt"
    assert (spool.root / "incoming" / directory / f"{uid}.post").is_file()
    spool.mark_scored([uid])
    assert (spool.root / "scored" / directory / f"{uid}.post").is_file()
    assert spool.scored_directories() == [directory]
    assert spool.scored(directory) == [uid]
    assert list(spool.incoming()) == []
    spool.remove_scored([uid])
    assert spool.read(uid) is None
    assert spool.scored_directories() == []


def test_moves_can_be_repeated(spool: Spool) -> None:
    uid = make_uid()
    spool.put(uid, b"{}", REPORT)
    for _ in range(2):
        spool.mark_scored([uid])
    for _ in range(2):
        spool.remove_scored([uid])
    assert spool.counts() == SpoolCounts(0, 0, 0)


def test_incoming_is_listed_oldest_first_and_the_youngest_can_be_left_out(spool: Spool) -> None:
    old, middle, new = make_uid(age_s=7200, cc="TR"), make_uid(age_s=60), make_uid(cc="BR")
    for uid in (new, old, middle):
        spool.put(uid, b"{}", REPORT)
    assert next(spool.incoming()) == old
    assert set(spool.incoming(older_than_s=30)) == {old, middle}
    assert list(spool.incoming(limit=1)) == [old]
    assert 7100 < spool.oldest_incoming_s() < 7300


def test_a_measurement_from_the_future_is_not_left_waiting(spool: Spool) -> None:
    uid = make_uid(age_s=-86400)
    spool.put(uid, b"{}", REPORT)
    assert list(spool.incoming(older_than_s=30)) == [uid]


def test_measurements_from_the_future_wait_as_long_as_they_are_seen_to(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a backlog of nothing else would look like none."""
    now = [1000.0]
    monkeypatch.setattr("core.spool.time.monotonic", lambda: now[0])
    first, second = make_uid(age_s=-86400), make_uid(age_s=-86500)
    for uid in (first, second):
        spool.put(uid, b"{}", REPORT)
    assert spool.oldest_incoming_s() == 0
    now[0] += 300
    assert spool.oldest_incoming_s() == 300
    spool.mark_scored([first])
    assert spool.oldest_incoming_s() == 0
    now[0] += 60
    assert spool.oldest_incoming_s() == 60
    spool.put(make_uid(age_s=7200), b"{}", REPORT)
    assert 7100 < spool.oldest_incoming_s() < 7300


def test_quarantine_keeps_the_reason_and_can_be_undone(spool: Spool) -> None:
    uid = make_uid()
    spool.put(uid, b"{}", REPORT)
    spool.quarantine(uid, "two\nlines")
    assert spool.path("quarantine", uid).with_suffix(".reason").read_text() == "two\nlines\n"
    assert spool.counts() == SpoolCounts(0, 0, 1)
    spool.release(uid)
    assert spool.counts() == SpoolCounts(1, 0, 0)
    assert not spool.path("quarantine", uid).with_suffix(".reason").exists()


@pytest.mark.parametrize("cut", [0, 5, 40, 100, -1])
def test_a_truncated_file_is_torn(spool: Spool, cut: int) -> None:
    uid = make_uid()
    spool.put(uid, b"x" * 200, REPORT)
    path = spool.path("incoming", uid)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(TornFile, match=uid[:20]):
        spool.read(uid)


@pytest.mark.parametrize("position", [7, 20, 60, -1])
def test_a_flipped_bit_anywhere_is_torn(spool: Spool, position: int) -> None:
    uid = make_uid()
    spool.put(uid, b"x" * 200, REPORT)
    path = spool.path("incoming", uid)
    raw = bytearray(path.read_bytes())
    raw[position] ^= 1
    path.write_bytes(raw)
    with pytest.raises(TornFile):
        spool.read(uid)


def test_a_full_disk_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    spool = Spool(tmp_path, min_free_bytes=1 << 60)
    with pytest.raises(SpoolFull, match="Make room"):
        spool.put(make_uid(), b"{}", REPORT)
    assert spool.counts() == SpoolCounts(0, 0, 0)


def test_a_uid_cannot_lead_out_of_the_spool(spool: Spool) -> None:
    for uid in ("../../etc/passwd", "20240101000000.000000_IT_ndt_0123456789abcdef/../../x"):
        with pytest.raises(IdentifierError):
            spool.read(uid)
        with pytest.raises(IdentifierError):
            spool.put(uid, b"{}", REPORT)


def test_many_threads_put_and_nothing_is_missing(spool: Spool) -> None:
    uids = [make_uid(str(number).encode()) for number in range(200)]

    def put(part: list[str]) -> None:
        for uid in part:
            spool.put(uid, b"{}", REPORT)

    threads = [threading.Thread(target=put, args=(uids[start::8],)) for start in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(spool.incoming()) == sorted(uids)


def test_prune_removes_stale_temporaries_and_past_empty_hours_only(spool: Spool) -> None:
    past, present = make_uid(age_s=7200), make_uid()
    for uid in (past, present):
        spool.put(uid, b"{}", REPORT)
    spool.mark_scored([past, present])
    stale, fresh = (spool.path("incoming", past).parent / name for name in ("a.post.1-1.tmp", "b.post.1-2.tmp"))
    for path in (stale, fresh):
        path.write_bytes(b"half")
    os.utime(stale, (0, 0))
    spool.prune()
    assert not stale.exists()
    assert fresh.exists()
    fresh.unlink()
    spool.prune()
    assert not spool.path("incoming", past).parent.exists()
    assert spool.path("incoming", present).parent.exists() or past[:10] == present[:10]


def test_a_directory_that_is_removed_while_empty_is_made_again(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """The uploader and the sweeper remove emptied directories at any moment."""
    uid = make_uid()
    make, removed = Spool._make_directory, []

    def make_and_lose(self: Spool, directory: Path) -> None:
        make(self, directory)
        if len(removed) < 3 and directory.parent.name in ("incoming", "scored", "quarantine"):
            directory.rmdir()
            removed.append(directory)

    monkeypatch.setattr(Spool, "_make_directory", make_and_lose)
    spool.put(uid, b"{}", REPORT)
    assert len(removed) == 3
    removed.clear()
    spool.mark_scored([uid])
    assert len(removed) == 3
    assert spool.scored(f"{uid[:10]}_IT_ndt") == [uid]


def test_files_and_directories_are_shared_with_the_group_alone(spool: Spool) -> None:
    uid = make_uid()
    spool.put(uid, b"{}", REPORT)
    path = spool.path("incoming", uid)
    assert stat.S_IMODE(path.stat().st_mode) == FILE_MODE
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o2770


def test_foreign_files_are_ignored(spool: Spool) -> None:
    uid = make_uid()
    spool.put(uid, b"{}", REPORT)
    (spool.root / "incoming" / "lost+found").mkdir()
    (spool.path("incoming", uid).parent / "notes.post").write_text("x")
    assert list(spool.incoming()) == [uid]


def test_a_directory_with_any_number_of_files_is_listed_in_slices(
    spool: Spool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each slice is in order and the memory for names is bounded by it; nothing is left out or given twice."""
    monkeypatch.setattr(spool_scan, "SORTED_AT_ONCE", 10)
    uids = [make_uid(str(number).encode(), age_s=7200) for number in range(35)]
    for uid in uids:
        spool.put(uid, b"{}", REPORT)
    found = list(spool.incoming())
    assert sorted(found) == sorted(uids)
    for start in range(0, 35, 10):
        assert found[start : start + 10] == sorted(found[start : start + 10])
    spool.mark_scored(uids)
    directory = f"{uids[0][:10]}_IT_ndt"
    assert spool.scored(directory, limit=7) == sorted(uids)[:7]
    assert spool.scored(directory) == sorted(uids)


def test_names_that_belong_elsewhere_are_left_out(spool: Spool) -> None:
    uid = make_uid(age_s=7200)
    spool.put(uid, b"{}", REPORT)
    directory = spool.path("incoming", uid).parent
    for name in (
        make_uid(age_s=0) + ".post",  # another hour
        uid.replace("_IT_", "_FR_") + ".post",
        uid[:10] + "6160" + uid[14:] + ".post",  # minute 61
        uid + ".post.1-2.tmp",
        uid + ".reason",
    ):
        (directory / name).write_text("x")
    for name in ("2024013200_IT_ndt", "2024010124_IT_ndt", "2024010100_ITA_ndt", "1024010100_IT_ndt"):
        (spool.root / "incoming" / name).mkdir()
    assert list(spool.incoming()) == [uid]


def test_counts_look_again_only_where_something_changed(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = make_uid(age_s=7200), make_uid(b"new", age_s=3600)
    spool.put(old, b"{}", REPORT)
    spool.put(new, b"new", REPORT)
    past = spool.path("incoming", old).parent
    os.utime(past, (1, 1))
    assert spool.counts() == SpoolCounts(2, 0, 0)
    counted: list[str] = []
    real = spool_scan._number_of_files
    monkeypatch.setattr(
        spool_scan, "_number_of_files", lambda directory: counted.append(directory.name) or real(directory)
    )
    assert spool.counts() == SpoolCounts(2, 0, 0)
    assert past.name not in counted
    spool.mark_scored([old])
    assert spool.counts() == SpoolCounts(1, 1, 0)
    spool.remove_scored([old])
    assert spool.counts() == SpoolCounts(1, 0, 0)


def test_a_full_quarantine_leaves_measurements_where_they_are(tmp_path: Path) -> None:
    for limits in ({"quarantine_max_files": 2}, {"quarantine_max_bytes": 500}):
        spool = Spool(tmp_path / next(iter(limits)), min_free_bytes=0, **limits)
        uids = [make_uid(str(number).encode()) for number in range(3)]
        for uid in uids:
            spool.put(uid, b"x" * 100, REPORT)
        assert [spool.quarantine(uid, "why") for uid in uids] == [True, True, False]
        assert spool.counts() == SpoolCounts(1, 0, 2, quarantine_full="quarantine_max_files" in limits)
        assert list(spool.incoming()) == uids[2:]
        assert not spool.path("quarantine", uids[2]).with_suffix(".reason").exists()
        assert spool.quarantine(uids[0], "another reason")  # it is there already


def test_what_is_gone_cannot_be_set_aside(spool: Spool) -> None:
    assert not spool.quarantine(make_uid(), "why")
    assert list((spool.root / "quarantine").iterdir()) == []


def test_erase_finds_a_measurement_in_every_state(spool: Spool) -> None:
    for change in (lambda uid: None, lambda uid: spool.mark_scored([uid]), lambda uid: spool.quarantine(uid, "why")):
        uid = make_uid()
        spool.put(uid, b"{}", REPORT)
        change(uid)
        assert spool.erase(uid)
        assert not spool.erase(uid)
        assert not [path for path in spool.root.rglob("*") if path.is_file()]


def test_confirm_tells_whether_a_measurement_is_there(spool: Spool) -> None:
    uid = make_uid()
    assert not spool.confirm(uid)
    spool.put(uid, b"{}", REPORT)
    for change in (lambda: None, lambda: spool.mark_scored([uid]), lambda: spool.quarantine(uid, "why")):
        change()
        assert spool.confirm(uid)


def test_what_a_killed_process_left_is_not_in_the_way_of_one_with_its_number(tmp_path: Path) -> None:
    """In a container numbers of processes come again at every start, and a measurement sent again has the same uid."""
    uid = make_uid()
    names = [Spool(tmp_path, min_free_bytes=0)._temporary(Path(uid)).name for _ in range(2)]
    assert names[0] != names[1]


def run_command(capsys: pytest.CaptureFixture[str], spool: Spool, *arguments: str) -> tuple[int, str, str]:
    status = spool_cli.main(["--root", str(spool.root), *arguments])
    said = capsys.readouterr()
    return status, said.out, said.err


def test_the_command_lists_and_releases_what_was_set_aside(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    uids = sorted(make_uid(str(number).encode(), age_s=60 * number) for number in range(3))
    for uid in uids:
        spool.put(uid, b"{}", REPORT)
    spool.quarantine(uids[0], "internal_error: KeyError\n'x'")
    spool.quarantine(uids[1], "torn")
    status, out, _ = run_command(capsys, spool, "counts")
    assert status == 0
    assert out.splitlines()[:3] == ["incoming 1", "scored 0", "quarantine 2"]
    assert out.splitlines()[3].startswith("oldest_incoming_seconds ")
    status, out, _ = run_command(capsys, spool, "list")
    rows = [line.split("\t") for line in out.splitlines()]
    assert [(row[0], row[3]) for row in rows] == [(uids[0], "internal_error: KeyError 'x'"), (uids[1], "torn")]
    assert int(rows[0][1]) == spool.path("quarantine", uids[0]).stat().st_size
    assert run_command(capsys, spool, "list", "--reason", "torn")[1].startswith(uids[1])
    assert run_command(capsys, spool, "release", "--all", "--reason", "internal")[:2] == (0, "released 1\n")
    assert spool.counts() == SpoolCounts(2, 0, 1)
    status, out, err = run_command(capsys, spool, "release", uids[1], uids[2], "nonsense")
    assert (status, out) == (1, "released 1\n")
    assert err.count("is not in quarantine") == 2
    assert spool.counts() == SpoolCounts(3, 0, 0)


def test_the_command_refuses_wrong_use_and_makes_no_spool(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert spool_cli.main(["--root", str(tmp_path / "typo"), "counts"]) == 2
    assert not (tmp_path / "typo").exists()
    assert "is no spool" in capsys.readouterr().err
    spool = Spool(tmp_path, min_free_bytes=0)
    for arguments in (["release"], ["release", "--all", make_uid()]):
        status, _, err = run_command(capsys, spool, *arguments)
        assert (status, "or --all" in err) == (2, True)


def test_callers_share_directory_syncs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    started, go_on = threading.Event(), threading.Event()
    real = os.fsync

    def slow_fsync(descriptor: int) -> None:
        calls.append(descriptor)
        started.set()
        go_on.wait(10)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", slow_fsync)
    group = GroupSync()
    threads = [threading.Thread(target=group.directory, args=(tmp_path,)) for _ in range(20)]
    threads[0].start()
    assert started.wait(10)
    for thread in threads[1:]:
        thread.start()
    while len(group._waiting[str(tmp_path)]) < 19:
        threading.Event().wait(0.01)
    go_on.set()
    for thread in threads:
        thread.join(10)
    assert len(calls) == 2  # the first caller's own, then one for the nineteen that came meanwhile


def test_a_failed_directory_sync_reaches_every_caller(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        GroupSync().directory(tmp_path / "missing")


def test_the_order_of_writes_loses_nothing_in_a_power_cut(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    """File data first, then the name, then the directory: each step rests on what is already on disk."""
    events: list[str] = []
    real_fsync, real_rename = os.fsync, os.rename

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink().name
        events.append("sync file" if name.endswith(".tmp") else "sync directory")
        real_fsync(descriptor)

    def rename(source: Path, target: Path) -> None:
        events.append("rename")
        real_rename(source, target)

    spool.put(make_uid(b"1"), b"1", REPORT)
    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "rename", rename)
    spool.put(make_uid(b"2"), b"2", REPORT)
    assert events[-3:] == ["sync file", "rename", "sync directory"]
