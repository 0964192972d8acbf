"""Directories of the spool stay small: what comes after the limit lies in overflow folders, and nobody notices."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from core.ids import new_measurement_uid
from core.spool import INCOMING, QUARANTINE, SCORED, Spool

REPORT = "20240101T000000Z_ndt_IT_1234_n1_abcdefghijklmnop"
LIMIT = 20
START = datetime(2024, 1, 1, 0, 0, 5, tzinfo=UTC)


def body(number: int) -> bytes:
    return b'{"number": %d}' % number


def uids_of(count: int, *, step: timedelta = timedelta(seconds=4)) -> list[str]:
    return [new_measurement_uid(START + number * step, "IT", "ndt", body(number)) for number in range(count)]


def fill(spool: Spool, uids: list[str]) -> None:
    for number, uid in enumerate(uids):
        spool.put(uid, body(number), REPORT)


def largest(spool: Spool) -> int:
    sizes = Counter(path.parent for path in spool.root.rglob("*.post"))
    return max(sizes.values(), default=0)


@pytest.fixture
def spool(tmp_path: Path) -> Spool:
    return Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=LIMIT)


def test_ordinary_amounts_lie_where_the_interface_says(spool: Spool) -> None:
    uids = uids_of(LIMIT)
    fill(spool, uids)
    for uid in uids:
        assert spool.path(INCOMING, uid) == spool.root / INCOMING / "2024010100_IT_ndt" / f"{uid}.post"


def test_directories_are_bounded_in_every_state_and_everything_is_found(spool: Spool) -> None:
    uids = uids_of(20 * LIMIT, step=timedelta(seconds=2))
    fill(spool, uids)
    assert largest(spool) <= LIMIT
    assert list(spool.incoming()) == sorted(uids)
    assert spool.counts().incoming == len(uids)
    assert [spool.read(uid).body for uid in uids] == [body(number) for number in range(len(uids))]  # type: ignore[union-attr]
    assert all(spool.confirm(uid) for uid in uids)
    for first in range(0, len(uids), 2):
        spool.mark_scored(uids[first : first + 2])
    assert largest(spool) <= LIMIT + 2
    assert list(spool.incoming()) == []
    assert spool.scored_directories() == ["2024010100_IT_ndt"]
    assert spool.scored("2024010100_IT_ndt") == sorted(uids)
    assert spool.scored("2024010100_IT_ndt", 3 * LIMIT) == sorted(uids)[: 3 * LIMIT]
    assert spool.counts().scored == len(uids)
    spool.remove_scored(uids[:-1])
    assert spool.scored("2024010100_IT_ndt") == uids[-1:]
    spool.remove_scored(uids[-1:])
    assert not (spool.root / SCORED / "2024010100_IT_ndt").exists()
    spool.prune()
    assert list(spool.root.rglob("*_IT_ndt")) == []


def test_one_large_batch_does_not_fill_a_directory_either(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=LIMIT)
    uids = uids_of(1000, step=timedelta(milliseconds=500))
    fill(spool, uids)
    spool.mark_scored(uids)
    assert largest(spool) <= LIMIT + 200
    assert spool.scored("2024010100_IT_ndt") == sorted(uids)


def test_what_overflowed_is_set_aside_released_and_erased(spool: Spool) -> None:
    uids = uids_of(3 * LIMIT)
    fill(spool, uids)
    late = uids[-1]
    assert spool.path(INCOMING, late).parent.parent.name == "2024010100_IT_ndt"
    assert spool.quarantine(late, "a reason")
    assert [(item.uid, item.reason) for item in spool.quarantined()] == [(late, "a reason")]
    assert spool.release(late)
    assert spool.path(INCOMING, late).exists()
    assert not spool.path(QUARANTINE, late).parent.exists()
    assert spool.erase(late)
    assert spool.read(late) is None
    assert spool.counts().incoming == len(uids) - 1


def test_a_repeated_put_does_not_make_a_second_file(spool: Spool) -> None:
    uids = uids_of(2 * LIMIT)
    fill(spool, uids)
    fill(spool, uids)
    assert spool.counts().incoming == len(list(spool.root.rglob("*.post"))) == len(uids)


def test_processes_that_fill_one_directory_overshoot_by_a_share_only(tmp_path: Path) -> None:
    spools = [Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=200) for _ in range(4)]
    uids = uids_of(1200, step=timedelta(milliseconds=20))
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: spools[n % 4].put(uids[n], body(n), REPORT), range(len(uids))))
    flat = sum(path.suffix == ".post" for path in (tmp_path / "spool" / INCOMING / "2024010100_IT_ndt").iterdir())
    assert 200 <= flat <= 200 + 4 * 50
    assert sorted(spools[0].incoming()) == sorted(uids)


def test_files_that_an_older_release_left_in_one_directory_are_worked_off(tmp_path: Path) -> None:
    older = Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=10**9)
    uids = uids_of(5 * LIMIT)
    fill(older, uids[: 4 * LIMIT])
    spool = Spool(tmp_path / "spool", min_free_bytes=0, overflow_after=LIMIT)
    spool.put(uids[-1], body(len(uids) - 1), REPORT)
    assert spool.path(INCOMING, uids[-1]).parent.name == uids[-1][10:13]
    everything = [*uids[: 4 * LIMIT], uids[-1]]
    assert list(spool.incoming()) == everything
    spool.mark_scored(everything)
    assert spool.scored("2024010100_IT_ndt") == everything


def test_overflow_folders_belong_to_the_group_of_the_apps(spool: Spool) -> None:
    uids = uids_of(2 * LIMIT)
    former = os.umask(0o077)
    try:
        fill(spool, uids)
    finally:
        os.umask(former)
    folders = {spool.path(INCOMING, uid).parent for uid in uids}
    assert len(folders) > 1
    assert {folder.stat().st_mode & 0o7777 for folder in folders} == {0o2770}
