"""Everything comes out of overflow folders, for a release without them: interrupted, or beside running services."""

import errno
import os
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core import spool_cli, spool_flatten, spool_places
from core.groupsync import GroupSync
from core.ids import new_measurement_uid
from core.spool import INCOMING, QUARANTINE, SCORED, STATES, Spool
from core.spool_flatten import flatten

REPORT = "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop"
START = datetime(2024, 1, 1, 0, 0, 5, tzinfo=UTC)
COUNT = 30


def body(number: int) -> bytes:
    return b'{"number": %d}' % number


def uid_of(number: int) -> str:
    return new_measurement_uid(START + timedelta(seconds=4 * number), "IT", "ndt", body(number))


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    """In each state some measurements in the directory and more in overflow folders."""
    spool = Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=3)
    uids = [uid_of(number) for number in range(COUNT)]
    for number, uid in enumerate(uids):
        spool.put(uid, body(number), REPORT)
    for uid in uids[::3]:
        spool.mark_scored([uid])
    for uid in uids[1::3]:
        assert spool.quarantine(uid, f"why {uid}")
    assert {state for state in STATES if overflowed(spool, state)} == set(STATES)
    return spool


def overflowed(spool: Spool, state: str) -> list[Path]:
    return list((spool.root / state).glob("*/*/*"))


def seen_by_an_older_release(spool: Spool, state: str) -> list[str]:
    return sorted(path.stem for path in (spool.root / state).glob("*/*.post"))


def assert_flat(spool: Spool) -> None:
    uids = [uid_of(number) for number in range(COUNT)]
    assert seen_by_an_older_release(spool, INCOMING) == uids[2::3]
    assert seen_by_an_older_release(spool, SCORED) == uids[::3]
    assert seen_by_an_older_release(spool, QUARANTINE) == uids[1::3]
    assert [spool.read(uid).body for uid in uids] == [body(number) for number in range(COUNT)]  # type: ignore[union-attr]
    assert [item.reason for item in spool.quarantined()] == [f"why {uid}" for uid in uids[1::3]]
    assert not any(path.is_dir() for path in spool.root.glob("*/*/*")), "no folder is left"


def test_the_command_moves_everything_back(spool: Spool, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["--root", str(spool.root), "flatten"]
    folders = sum(len([path for path in overflowed(spool, state) if path.suffix == ".post"]) for state in STATES)
    assert spool_cli.main(arguments) == 0
    assert capsys.readouterr().out == f"moved {folders}\n"
    assert_flat(spool)
    assert spool_cli.main(arguments) == 0
    assert capsys.readouterr().out == "moved 0\n"


def test_the_help_says_that_services_are_to_be_stopped(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        spool_cli.main(["flatten", "--help"])
    assert "Stop API, fastpath and uploader before" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize("good", [0, 1, 5, 17])
def test_an_interrupted_one_is_continued(spool: Spool, good: int, monkeypatch: pytest.MonkeyPatch) -> None:
    rename, left = os.rename, [good]

    def fails_later(source: Path, target: Path) -> None:
        if left[0] == 0:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(source))
        left[0] -= 1
        rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(spool_flatten.os, "rename", fails_later)
        with pytest.raises(OSError, match="Input/output"):
            flatten(spool.root, STATES)
    assert sum(spool.read(uid_of(number)) is not None for number in range(COUNT)) == COUNT
    assert flatten(spool.root, STATES).left == []
    assert_flat(spool)


def test_what_was_moved_is_on_disk_before_its_folder_goes(spool: Spool, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[tuple[str, Path]] = []
    sync, rmdir, rename = GroupSync.directory, Path.rmdir, os.rename

    def synced(self: GroupSync, path: Path) -> None:
        done.append(("sync", path))
        sync(self, path)

    def removed(path: Path) -> None:
        done.append(("rmdir", path))
        rmdir(path)

    def renamed(source: Path, target: Path) -> None:
        done.append(("rename", target.parent))
        rename(source, target)

    monkeypatch.setattr(GroupSync, "directory", synced)
    monkeypatch.setattr(Path, "rmdir", removed)
    monkeypatch.setattr(spool_flatten.os, "rename", renamed)
    flatten(spool.root, STATES)
    unsafe: set[Path] = set()
    for what, path in done:
        if what == "rename":
            unsafe.add(path)
        elif what == "sync":
            unsafe.discard(path)
        else:
            assert path.parent not in unsafe, path
            unsafe.add(path.parent)
    assert not unsafe
    assert {what for what, _ in done} == {"sync", "rmdir", "rename"}


def test_services_that_run_lose_nothing(tmp_path: Path) -> None:
    """They fill folders again, which the command says or a second one empties; each measurement stays readable."""
    services, readers = (Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=3) for _ in range(2))
    uids = [uid_of(number) for number in range(400)]
    put: list[str] = []
    missed: list[str] = []
    done = threading.Event()

    def serve() -> None:
        try:
            for number, uid in enumerate(uids):
                services.put(uid, body(number), REPORT)
                put.append(uid)
                if number % 4 == 3:
                    services.mark_scored(uids[number - 3 : number : 2])
        finally:
            done.set()

    def read() -> None:
        while not done.is_set():
            missed.extend(uid for uid in put[-20:] if readers.read(uid) is None)

    threads = [threading.Thread(target=target) for target in (serve, read)]
    for thread in threads:
        thread.start()
    calls = 0
    while not done.is_set():
        flatten(services.root, STATES)
        calls += 1
    for thread in threads:
        thread.join()
    assert calls > 1
    assert missed == []
    assert flatten(services.root, STATES).left == []
    assert sorted([*seen_by_an_older_release(services, INCOMING), *seen_by_an_older_release(services, SCORED)]) == uids
    assert len(seen_by_an_older_release(services, SCORED)) == 200


def test_temporary_files_stay_with_their_writers_and_folders_filled_again_are_named(
    spool: Spool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = overflowed(spool, INCOMING)[0].parent
    writing = folder / "x.post.1-1.tmp"
    writing.write_bytes(b"half")
    assert flatten(spool.root, STATES).left == []
    assert writing.exists()
    empty = spool_flatten._empty

    def filled_again(place: Path, directory: Path, sync: GroupSync) -> int:
        moved = empty(place, directory, sync)
        late = uid_of(1000)
        (directory / spool_places.overflow_folder(late)).mkdir(exist_ok=True)
        (directory / spool_places.overflow_folder(late) / f"{late}.post").write_bytes(b"")
        return moved

    monkeypatch.setattr(spool_flatten, "_empty", filled_again)
    assert spool_cli.main(["--root", str(spool.root), "flatten"]) == 1
    assert "Stop the services" in capsys.readouterr().err


def test_a_test_may_set_the_limit_of_whole_programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(spool_places.VARIABLE, "2")
    spool = Spool(tmp_path / "spool", min_free_bytes=0)
    for number in range(5):
        spool.put(uid_of(number), body(number), REPORT)
    assert len(seen_by_an_older_release(spool, INCOMING)) == 2
    assert len(overflowed(spool, INCOMING)) == 3
    monkeypatch.delenv(spool_places.VARIABLE)
    assert spool_places.default_limit() == spool_places.OVERFLOW_AFTER
