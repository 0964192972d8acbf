"""Files that change under a running process: the new content is taken, the last good one kept."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from api.watched_file import CHECK_EVERY_S, RETRY_AFTER_S, WatchedFile


class Clock:
    """The monotonic clock of the module under test, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float = CHECK_EVERY_S) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr("api.watched_file.time.monotonic", moved)
    return moved


def number(path: Path) -> int:
    return int(path.read_text())


def put(path: Path, text: str, *, rested_s: float = 100) -> None:
    """Replace a file by one that appears to be older."""
    draft = path.with_suffix(".tmp")
    draft.write_text(text)
    os.utime(draft, (time.time() - rested_s,) * 2)
    draft.rename(path)


def test_a_replaced_file_is_read_again_at_most_once_a_second(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    put(path, "1")
    file = WatchedFile(path, number)
    assert (file.current(), file.problem) == (1, None)
    put(path, "2")
    assert file.current() == 1
    clock.later()
    assert file.current() == 2


def test_a_file_written_in_place_is_read_again(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    file = WatchedFile(path, number)
    path.write_text("2")
    clock.later()
    assert file.current() == 2


def test_a_change_within_one_tick_of_the_file_system_is_seen(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    path.write_text("1")
    before = path.stat()
    file = WatchedFile(path, number)
    path.write_text("2")  # the same size, and made to bear the same time
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    clock.later()
    assert file.current() == 2


@pytest.mark.parametrize("spoil", [lambda path: path.write_text("x"), lambda path: path.unlink()], ids=["bad", "gone"])
def test_the_last_good_content_stays(tmp_path: Path, clock: Clock, spoil: Callable[[Path], object]) -> None:
    path = tmp_path / "file"
    put(path, "1")
    file = WatchedFile(path, number)
    spoil(path)
    clock.later()
    assert file.current() == 1
    assert file.problem is not None
    assert str(path) in file.problem
    put(path, "3")
    clock.later()
    assert (file.current(), file.problem) == (3, None)


def test_nothing_is_none_until_there_is_something(tmp_path: Path, clock: Clock) -> None:
    file = WatchedFile(tmp_path / "file", number)
    assert file.current() is None
    assert "does not exist" in (file.problem or "")
    put(tmp_path / "file", "5")
    clock.later()
    assert (file.current(), file.problem) == (5, None)


def test_a_directory_and_a_parser_that_trips_are_problems_not_errors(tmp_path: Path, clock: Clock) -> None:
    assert WatchedFile(tmp_path, number).problem is not None

    def trip(path: Path) -> int:
        raise KeyError

    (tmp_path / "file").write_text("1")
    file = WatchedFile(tmp_path / "file", trip)
    assert file.current() is None
    assert "KeyError" in (file.problem or "")


def test_what_failed_is_tried_again_later_though_it_did_not_change(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    put(path, "1")
    failures = [OSError(24, "Too many open files")]
    reads = []

    def parse(path: Path) -> int:
        reads.append(path)
        if failures:
            raise failures.pop()
        return number(path)

    file = WatchedFile(path, parse)
    clock.later()
    assert (file.current(), len(reads)) == (None, 1)
    clock.later(RETRY_AFTER_S)
    assert (file.current(), file.problem, len(reads)) == (1, None, 2)
    clock.later(RETRY_AFTER_S)
    assert (file.current(), len(reads)) == (1, 2)


def test_a_file_that_must_rest_is_left_alone_while_it_is_written(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    put(path, "1")
    file = WatchedFile(path, number, settle_s=60)
    assert file.current() == 1
    path.write_text("2")
    clock.later()
    assert (file.current(), file.problem) == (1, None)
    put(path, "2", rested_s=61)
    clock.later()
    assert file.current() == 2


def test_changes_are_told(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    put(path, "1")
    told: list[tuple[int | None, bool]] = []
    file = WatchedFile(path, number, on_change=lambda file: told.append((file.peek(), file.problem is None)))
    path.unlink()
    clock.later()
    file.refresh()
    put(path, "2")
    clock.later()
    file.refresh()
    assert told == [(1, True), (1, False), (2, True)]


def test_one_thread_reads_and_others_do_not_wait(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "file"
    put(path, "1")
    entered, release = threading.Event(), threading.Event()

    def parse(path: Path) -> int:
        if path.read_text() == "2":
            entered.set()
            assert release.wait(60)
        return number(path)

    file = WatchedFile(path, parse)
    put(path, "2")
    clock.later()
    reader = threading.Thread(target=file.refresh)
    reader.start()
    assert entered.wait(60)
    assert file.current() == 1
    release.set()
    reader.join(60)
    assert file.peek() == 2
