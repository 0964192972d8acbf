"""The cache of bodies is bounded, shared, and never wrong or in the way."""

import os
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.body_cache import BodyCache


@pytest.fixture
def cache(tmp_path: Path) -> BodyCache:
    return BodyCache(tmp_path / "cache", 80_000)


@given(st.text(), st.binary(max_size=9_000))
def test_any_entry_comes_back(tmp_path_factory: pytest.TempPathFactory, key: str, content: bytes) -> None:
    cache = BodyCache(tmp_path_factory.mktemp("cache"), 80_000)
    assert cache.get(key) is None
    cache.put(key, content)
    assert cache.get(key) == content
    cache.forget(key)
    assert cache.get(key) is None


def test_another_process_has_it_too(cache: BodyCache, tmp_path: Path) -> None:
    cache.put("a", b"1")
    assert BodyCache(tmp_path / "cache", 80_000).get("a") == b"1"


def test_it_never_takes_more_than_its_space_and_keeps_the_newest(tmp_path: Path) -> None:
    directory = tmp_path / "cache"
    caches = [BodyCache(directory, 80_000) for _ in range(2)]
    for number in range(200):
        caches[number % 2].put(str(number), bytes(4_000))
        os.utime(directory, None)
        assert sum(path.stat().st_size for path in directory.iterdir()) <= 80_000 + 2 * 10_000
    assert caches[0].get("199") is not None
    assert caches[0].get("0") is None


def test_what_is_too_large_is_not_kept(cache: BodyCache, tmp_path: Path) -> None:
    cache.put("a", bytes(20_000))
    assert cache.get("a") is None


@pytest.mark.parametrize("change", [b"", b"x", b"1234567890"])
def test_a_damaged_entry_is_a_miss(cache: BodyCache, tmp_path: Path, change: bytes) -> None:
    cache.put("a", b"content")
    (path,) = (tmp_path / "cache").iterdir()
    path.write_bytes(change)
    assert cache.get("a") is None


@pytest.mark.parametrize("age_s", [90_000, -90_000], ids=["old", "from before the clock was set back"])
def test_an_entry_is_forgotten_after_a_day(cache: BodyCache, tmp_path: Path, age_s: float) -> None:
    cache.put("a", b"content")
    (path,) = (tmp_path / "cache").iterdir()
    os.utime(path, (time.time() - age_s,) * 2)
    assert cache.get("a") is None


def test_nothing_is_written_while_the_disk_is_nearly_full(tmp_path: Path) -> None:
    cache = BodyCache(tmp_path / "cache", 80_000, min_free_bytes=1 << 60)
    cache.put("a", b"content")
    assert cache.get("a") is None


def test_a_directory_that_cannot_be_made_harms_nobody(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    cache = BodyCache(tmp_path / "file" / "cache", 80_000)
    cache.put("a", b"content")
    assert cache.get("a") is None
    cache.clear()


def test_without_space_there_is_no_cache(tmp_path: Path) -> None:
    cache = BodyCache(tmp_path / "cache", 0)
    cache.put("a", b"")
    assert cache.get("a") is None
    assert not (tmp_path / "cache").exists()


def test_clear_leaves_nothing(cache: BodyCache, tmp_path: Path) -> None:
    cache.put("a", b"content")
    cache.clear()
    assert list((tmp_path / "cache").iterdir()) == []
