"""What was received is remembered by all processes of a host, in bounded space, and never in anybody's way."""

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import received as module
from core.ids import new_measurement_uid
from core.received import PAGE_BYTES, PAGES, Received, received_key
from core.spool import Spool
from core.spool_received import received_in

FIRST, LAST = (datetime(year, 1, 1) for year in (2000, 2100))  # noqa: DTZ001 the strategy adds the zone
NOW = datetime(2024, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)


@pytest.fixture
def memory(tmp_path: Path) -> Received:
    return Received(tmp_path / "received", lambda: NOW)


def remember(memory: Received, key: bytes, at: datetime = NOW, *, acknowledged: bool = True) -> None:
    with memory.hold(key) as entry:
        entry.claim(at)
        if acknowledged:
            entry.acknowledge()


def recall(memory: Received, key: bytes) -> tuple[datetime | None, bool]:
    with memory.hold(key) as entry:
        return entry.received_at, entry.acknowledged


@given(st.datetimes(FIRST, LAST, timezones=st.just(UTC)), st.binary(), st.text(max_size=80), st.booleans())
def test_any_time_comes_back_to_the_microsecond(
    tmp_path_factory: pytest.TempPathFactory, at: datetime, body: bytes, scope: str, acknowledged: bool
) -> None:
    memory = Received(tmp_path_factory.mktemp("received"), lambda: at)
    remember(memory, received_key(scope, body), at, acknowledged=acknowledged)
    assert recall(memory, received_key(scope, body)) == (at, acknowledged)


def test_keys_differ_by_scope_and_body() -> None:
    assert len({received_key(scope, body) for scope in ("a", "ab", "") for body in (b"", b"b", b"\0b")}) == 9


def test_another_process_knows_it(memory: Received, tmp_path: Path) -> None:
    key = received_key("r", b"x")
    assert recall(memory, key) == (None, False)
    remember(memory, key)
    assert recall(Received(tmp_path / "received", lambda: NOW), key) == (NOW, True)


def test_a_claim_is_known_before_it_is_acknowledged(memory: Received) -> None:
    key = received_key("r", b"x")
    remember(memory, key, acknowledged=False)
    assert recall(memory, key) == (NOW, False)
    with memory.hold(key) as entry:
        entry.acknowledge()
    assert recall(memory, key) == (NOW, True)


def test_it_lasts_until_the_end_of_the_next_day(tmp_path: Path) -> None:
    clock = [NOW]
    memory = Received(tmp_path / "received", lambda: clock[0])
    key = received_key("r", b"x")
    remember(memory, key)
    clock[0] = NOW.replace(day=3, hour=23)
    assert recall(memory, key) == (NOW, True)
    clock[0] = NOW.replace(day=4, hour=0)
    assert recall(memory, key) == (None, False)


def test_a_table_is_deleted_when_nothing_was_written_to_it_for_long(tmp_path: Path) -> None:
    clock = [NOW]
    memory = Received(tmp_path / "received", lambda: clock[0])
    remember(memory, received_key("r", b"x"))
    remember(memory, received_key("r", b"y"), NOW + timedelta(days=2))  # as if the clock had been ahead
    tables = [tmp_path / "received" / name for name in ("20240102.0", "20240104.0")]
    for table in tables:
        os.utime(table, (NOW.timestamp(), NOW.timestamp()))
    clock[0] = NOW + timedelta(days=2, hours=1)
    recall(memory, b"k" * 16)
    assert [table.exists() for table in tables] == [True, True]
    clock[0] = NOW + timedelta(days=3)
    recall(memory, b"k" * 16)
    assert [table.exists() for table in tables] == [False, False]


def hours(count: float) -> timedelta:
    return timedelta(hours=count)


@pytest.mark.parametrize("ahead", [hours(13), hours(48), hours(-13), hours(-48), hours(21)], ids=str)
def test_a_clock_that_jumps_and_comes_back_loses_nothing(
    tmp_path: Path, ahead: timedelta, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another process as well, which sleeps meanwhile; files have the times of the clock that is wrong."""
    clock = [NOW.replace(hour=18)]
    right = clock[0]
    write = module._write

    def write_at_this_time(path: str, offset: int, record: bytes) -> None:
        write(path, offset, record)
        os.utime(path, (clock[0].timestamp(), clock[0].timestamp()))

    monkeypatch.setattr(module, "_write", write_at_this_time)
    awake, asleep = (Received(tmp_path / "received", lambda: clock[0]) for _ in range(2))
    before, meanwhile, unknown = (received_key("r", body) for body in (b"before", b"meanwhile", b"unknown"))
    remember(awake, before, clock[0])
    assert recall(asleep, unknown) == (None, False)
    clock[0] = right + ahead
    remember(awake, meanwhile, clock[0])
    assert recall(awake, meanwhile) == (right + ahead, True)
    clock[0] = right + timedelta(minutes=1)
    for memory in (awake, asleep):
        assert recall(memory, before) == (right, True)
        if ahead > -hours(24):  # what came the day before yesterday is forgotten anyway
            assert recall(memory, meanwhile) == (right + ahead, True)
        assert recall(memory, unknown) == (None, False)


def test_the_directory_is_listed_only_when_it_changed(memory: Received, monkeypatch: pytest.MonkeyPatch) -> None:
    remember(memory, received_key("r", b"x"))
    recall(memory, received_key("r", b"x"))
    listed = []
    monkeypatch.setattr(os, "listdir", lambda where: listed.append(where) or [])
    for number in range(10):
        recall(memory, received_key("r", b"%d" % number))
    assert listed == []


def test_full_pages_go_on_in_the_next_table_and_space_is_bounded(
    memory: Received, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MAX_TABLES", 2)
    keys = [number.to_bytes(13, "little") + b"\0\0\0" for number in range(1, 401)]  # all on one page
    for key in keys:
        remember(memory, key)
    assert [recall(memory, key)[0] for key in keys] == [NOW] * 340 + [None] * 60
    tables = sorted((tmp_path / "received").glob("20240102.*"))
    assert [path.name for path in tables] == ["20240102.0", "20240102.1"]
    assert all(path.stat().st_size <= PAGES * PAGE_BYTES for path in tables)


def test_one_key_is_held_by_one_thread_at_a_time_and_others_go_on(memory: Received) -> None:
    key, other = received_key("r", b"x"), received_key("r", b"y")
    order: list[str] = []

    def second() -> None:
        with memory.hold(key) as entry:
            order.append(f"second sees {entry.received_at is not None}")

    with memory.hold(key) as entry:
        thread = threading.Thread(target=second)
        thread.start()
        remember(memory, other)
        time.sleep(0.2)
        order.append("first")
        entry.claim(NOW)
    thread.join(10)
    assert order == ["first", "second sees True"]


def test_a_process_that_dies_lets_go(memory: Received, tmp_path: Path) -> None:
    key = received_key("r", b"x")
    program = (
        "import os, sys; from datetime import datetime; from pathlib import Path; from core.received import Received\n"
        "now = datetime.fromisoformat(sys.argv[2])\n"
        "with Received(Path(sys.argv[1]), lambda: now).hold(bytes.fromhex(sys.argv[3])) as entry:\n"
        "    entry.claim(now); os._exit(9)\n"
    )
    arguments = [str(tmp_path / "received"), NOW.isoformat(), key.hex()]
    assert subprocess.run([sys.executable, "-c", program, *arguments], check=False, timeout=30).returncode == 9
    assert recall(memory, key) == (NOW, False)


def test_half_a_record_is_no_record(memory: Received, tmp_path: Path) -> None:
    """A power cut may keep the key and lose the time, or leave garbage."""
    key = received_key("r", b"x")
    remember(memory, key)
    table = tmp_path / "received" / "20240102.0"
    content = bytearray(table.read_bytes())
    position = content.index(key) + len(key)
    for garbage in (bytes(8), b"\xff" * 8, b"\xff" * 5 + bytes(3), b"\xff" * 7 + b"\0"):
        content[position : position + 8] = garbage
        table.write_bytes(content)
        assert recall(memory, key)[0] is None


def test_a_directory_that_cannot_be_made_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    memory = Received(tmp_path / "file" / "received", lambda: NOW)
    with memory.hold(b"k" * 16) as entry:
        assert entry.received_at is None
        entry.claim(NOW)
        entry.acknowledge()


def test_restore_takes_all_or_the_last_minutes_once_per_start(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=0)
    bodies = {}
    for age_s in (7200, 60, 0):
        body = b'{"age": %d}' % age_s
        uid = new_measurement_uid(datetime.now(UTC) - timedelta(seconds=age_s), "IT", "ndt", body)
        spool.put(uid, body, "r")
        bodies[age_s] = body
    spool.mark_scored(list(spool.incoming(limit=1)))
    memory = Received(tmp_path / "received")

    def after(everything: bool) -> Iterator[tuple[bytes, datetime]]:
        return received_in(spool, everything=everything)

    def known() -> list[int]:
        return [age for age, body in bodies.items() if recall(memory, received_key("r", body))[0] is not None]

    assert memory.restore(after, "boot 1") == 3
    assert known() == [7200, 60, 0]
    assert memory.restore(after, "boot 1") == 0
    for table in (tmp_path / "received").glob("2*"):
        table.write_bytes(b"")  # there, but a power cut took what was in it
    assert memory.restore(after, "boot 1") == 0
    assert memory.restore(after, "boot 2") == 2
    assert known() == [60, 0]


def test_what_is_from_the_future_does_not_hide_what_came_before_a_power_cut(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=0)
    for age_s in (7200, 600, 540, -86400):
        body = b'{"age": %d}' % age_s
        spool.put(new_measurement_uid(datetime.now(UTC) - timedelta(seconds=age_s), "IT", "ndt", body), body, "r")

    def found() -> set[bytes]:
        return {key for key, _ in received_in(spool, everything=False)}

    assert found() == {received_key("r", b'{"age": %d}' % age_s) for age_s in (600, 540, -86400)}
    for uid in list(spool.incoming())[:-1]:
        spool.erase(uid)
    assert found() == {received_key("r", b'{"age": -86400}')}
