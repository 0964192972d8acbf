"""The object store on a directory and on real S3 servers, which check signatures; also when they fail."""

import hashlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from urllib.request import urlopen

import pytest

from core import objectstore
from core.objectstore import Content, InvalidKey, ObjectNotFound, ObjectStore, StoreError, StoreUnavailable, open_store
from devstack.faultproxy import FaultProxy, Kind
from devstack.ports import free_ports
from devstack.s3server import BUCKET, CREDENTIALS, SERVERS, S3Server, program

KEYS = CREDENTIALS


@pytest.fixture(scope="module", params=SERVERS)
def s3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server on loopback with one empty bucket."""
    if program(request.param) is None:
        pytest.skip(f"{request.param} is not on this machine; tools/setup-s3 builds it where Go is there")
    with S3Server(request.param, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def s3_endpoint(s3: S3Server) -> str:
    return s3.endpoint


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    """Stands before the S3 server and fails on demand."""
    with FaultProxy(s3.address) as proxy:
        yield proxy


@pytest.fixture
def proxied(proxy: FaultProxy) -> Iterator[ObjectStore]:
    """The store as seen through the proxy."""
    store = open_store(f"s3://{BUCKET}", endpoint=proxy.endpoint, **KEYS)
    yield store
    proxy.heal()
    for info in list(store.list()):
        store.delete(info.key)


@pytest.fixture(
    scope="module", params=["local", *(f"{server}{prefix}" for server in SERVERS for prefix in ("", "-prefix"))]
)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def endpoint_of_kind(kind: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server = kind.removesuffix("-prefix")
    if server == "local":
        yield ""
        return
    if program(server) is None:
        pytest.skip(f"{server} is not on this machine; tools/setup-s3 builds it where Go is there")
    with S3Server(server, tmp_path_factory.mktemp("s3")) as running:
        yield running.endpoint


@pytest.fixture
def store(kind: str, endpoint_of_kind: str, tmp_path: Path) -> Iterator[ObjectStore]:
    if kind == "local":
        yield open_store(f"file://{tmp_path}/objects")
        return
    prefix = "/deep/prefix" if kind.endswith("-prefix") else ""
    store = open_store(f"s3://{BUCKET}{prefix}", endpoint=endpoint_of_kind, **KEYS)
    yield store
    for info in list(store.list()):
        store.delete(info.key)


def _file(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "source"
    path.write_bytes(content)
    return path


def test_what_was_put_comes_back_whole_and_in_ranges(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(100_000)
    store.put("jsonl/ndt/IT/a_1.x.jsonl.gz", _file(tmp_path, content))
    assert store.get("jsonl/ndt/IT/a_1.x.jsonl.gz") == content
    assert store.get_range("jsonl/ndt/IT/a_1.x.jsonl.gz", 99_990, 10) == content[-10:]
    assert store.get_range("jsonl/ndt/IT/a_1.x.jsonl.gz", 0, 1) == content[:1]
    assert store.get_range("jsonl/ndt/IT/a_1.x.jsonl.gz", 50, 0) == b""
    info = store.head("jsonl/ndt/IT/a_1.x.jsonl.gz")
    assert info is not None
    assert (info.key, info.size) == ("jsonl/ndt/IT/a_1.x.jsonl.gz", 100_000)
    assert info.modified.tzinfo is not None


def test_an_object_of_several_parts_is_stored_whole(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 36  # three parts on S3
    store.put("big", _file(tmp_path, content))
    assert store.get("big") == content


def test_putting_again_replaces(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/b", _file(tmp_path, b"first"))
    store.put("a/b", _file(tmp_path, b"second one"))
    store.put("a/b", _file(tmp_path, b"second one"))
    assert store.get("a/b") == b"second one"
    assert [info.key for info in store.list()] == ["a/b"]


def test_an_empty_object(store: ObjectStore, tmp_path: Path) -> None:
    store.put("empty", _file(tmp_path, b""))
    assert store.get("empty") == b""
    info = store.head("empty")
    assert info is not None
    assert info.size == 0


def test_reading_all_of_an_object_piece_by_piece(store: ObjectStore, tmp_path: Path) -> None:
    content = os.urandom(1 << 20) * 5 + b"end"
    store.put("big", _file(tmp_path, content))
    pieces = list(store.chunks("big"))
    assert b"".join(pieces) == content
    assert len(pieces) > 1
    assert store.content("big") == Content(len(content), hashlib.sha256(content).hexdigest())
    store.put("empty", _file(tmp_path, b""))
    assert store.content("empty") == Content(0, hashlib.sha256(b"").hexdigest())
    with pytest.raises(ObjectNotFound):
        store.content("absent")


def test_a_listing_longer_than_a_page(store: ObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectstore, "LISTED_AT_ONCE", 10)
    source = _file(tmp_path, b"x")
    keys = [*(f"a/{number % 7}-{number}/o" for number in range(45)), "a/7-", "a/7.x/y", "a/7/z", "a/70"]
    for key in keys:
        store.put(key, source)
    assert [info.key for info in store.list("a")] == sorted(keys)


def test_list_takes_whole_path_segments_in_order(store: ObjectStore, tmp_path: Path) -> None:
    source = _file(tmp_path, b"x")
    for key in ("a/b/2", "a/b/1", "a/bc", "z"):
        store.put(key, source)
    assert [info.key for info in store.list()] == ["a/b/1", "a/b/2", "a/bc", "z"]
    assert [info.key for info in store.list("a/b")] == ["a/b/1", "a/b/2"]
    assert [info.key for info in store.list("a/b/")] == ["a/b/1", "a/b/2"]
    assert list(store.list("nothing")) == []


def test_absent_objects(store: ObjectStore) -> None:
    assert store.head("no/such") is None
    with pytest.raises(ObjectNotFound, match="no/such"):
        store.get("no/such")
    with pytest.raises(ObjectNotFound, match="no/such"):
        store.get_range("no/such", 0, 1)
    store.delete("no/such")  # nothing to do is not an error


def test_delete(store: ObjectStore, tmp_path: Path) -> None:
    store.put("a/gone", _file(tmp_path, b"x"))
    store.delete("a/gone")
    assert store.head("a/gone") is None


@pytest.mark.parametrize(("offset", "length"), [(5, 6), (10, 1), (1000, 5)])
def test_a_range_past_the_end_is_an_error_and_never_short(
    store: ObjectStore, tmp_path: Path, offset: int, length: int
) -> None:
    store.put("ten", _file(tmp_path, b"0123456789"))
    with pytest.raises(StoreError, match=r"ends after 10 bytes.*damaged") as caught:
        store.get_range("ten", offset, length)
    assert not isinstance(caught.value, StoreUnavailable)


@pytest.mark.parametrize(
    "key", ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.", "a\nb", "a b", "a\0", "é", "a#1", "x" * 1025]
)
def test_keys_that_are_none_are_refused_before_anything_happens(store: ObjectStore, tmp_path: Path, key: str) -> None:
    source = _file(tmp_path, b"x")
    uses: list[Callable[[], object]] = [
        lambda: store.put(key, source),
        lambda: store.get(key),
        lambda: store.head(key),
        lambda: store.delete(key),
    ]
    for use in uses:
        with pytest.raises(InvalidKey, match="not a key"):
            use()
    assert not (tmp_path / "a").exists()


def test_a_missing_source_is_the_callers_error(store: ObjectStore, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        store.put("a", tmp_path / "absent")


def test_unfinished_local_uploads_are_never_listed(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/objects")
    store.put("a/b", _file(tmp_path, b"x"))
    (tmp_path / "objects/a/b#12000001").write_bytes(b"half")  # what a kill in the middle of put leaves
    assert [info.key for info in store.list()] == ["a/b"]


def test_local_put_syncs_content_before_the_name_and_every_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    events: list[str] = []
    real_fsync, real_replace = os.fsync, Path.replace

    def fsync(descriptor: int) -> None:
        name = Path(f"/proc/self/fd/{descriptor}").readlink()
        events.append("sync " + os.path.relpath(name, tmp_path).partition("#")[0])
        real_fsync(descriptor)

    def replace(self: Path, target: Path) -> Path:
        events.append("rename " + os.path.relpath(target, tmp_path))
        return real_replace(self, target)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(Path, "replace", replace)
    open_store(f"file://{tmp_path}/objects").put("a/b/c", _file(tmp_path, b"x"))
    assert events == [
        "sync objects/a/b/c",
        "rename objects/a/b/c",
        "sync objects/a/b",
        "sync objects/a",
        "sync objects",
        "sync .",
    ]


def test_a_directory_that_went_away_is_unavailable_not_empty(tmp_path: Path) -> None:
    store = open_store(f"file://{tmp_path}/objects")
    store.put("a", _file(tmp_path, b"x"))
    assert store.head("a") is not None
    shutil.rmtree(tmp_path / "objects")
    with pytest.raises(StoreUnavailable, match="gone"):
        store.head("a")
    with pytest.raises(StoreUnavailable, match="gone"):
        store.delete("a")


def test_a_full_disk_is_unavailable_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    store = open_store(f"file://{tmp_path}/objects")
    monkeypatch.setattr(shutil, "copyfileobj", full)
    with pytest.raises(StoreUnavailable, match="No space left on device"):
        store.put("a", _file(tmp_path, b"x"))
    assert list((tmp_path / "objects").iterdir()) == []


def test_a_wrong_secret_is_refused(s3_endpoint: str) -> None:
    store = open_store(f"s3://{BUCKET}", endpoint=s3_endpoint, **{**KEYS, "secret_access_key": "wrong" * 8})
    with pytest.raises(StoreUnavailable, match="access key") as caught:
        store.get("a")
    assert "wrongwrong" not in str(caught.value)


def test_a_bucket_that_does_not_exist(s3_endpoint: str, tmp_path: Path) -> None:
    store = open_store("s3://no-such-bucket", endpoint=s3_endpoint, **KEYS)
    with pytest.raises(StoreUnavailable, match=r"s3://no-such-bucket .*\."):
        store.put("a", _file(tmp_path, b"x"))


def test_a_server_that_is_down_is_unavailable_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 1)
    store = open_store(f"s3://{BUCKET}", endpoint=f"http://127.0.0.1:{free_ports(1)[0]}", **KEYS)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable, match="Check that it runs"):
        store.head("a")
    assert time.monotonic() - started < 20


@pytest.mark.parametrize(
    "url", ["", "measurements", "file://host/dir", "file:dir", "s3:///x", "s3://user:pw@b", "http://x/y", "s3://b/../c"]
)
def test_addresses_that_are_none(url: str) -> None:
    with pytest.raises(StoreError, match=r"is not (the address|a key)"):
        open_store(url)


def test_use_before_a_fork_is_refused_in_the_child(tmp_path: Path) -> None:
    # In a process of its own: the library's threads make forking this one unsafe.
    program = f"""
import os
from core.objectstore import open_store
store = open_store("file://{tmp_path}/objects")
store.head("a")
if os.fork() == 0:
    try:
        store.head("a")
    except RuntimeError as error:
        os._exit(7 if "before the fork" in str(error) else 8)
    os._exit(9)
print(os.waitstatus_to_exitcode(os.wait()[1]))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "7"


def test_made_before_and_used_after_a_fork_works(tmp_path: Path) -> None:
    program = f"""
import os
from core.objectstore import open_store
store = open_store("file://{tmp_path}/objects")
for _ in range(2):
    if os.fork() == 0:
        os._exit(0 if store.head("a") is None else 1)
print([os.waitstatus_to_exitcode(os.wait()[1]) for _ in range(2)])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.strip() == "[0, 0]"


def test_the_s3_server_checks_signatures(s3_endpoint: str) -> None:
    """Keeps the tests above honest: without a signature this server gives nothing."""
    with pytest.raises(OSError, match=r"40\d"), urlopen(f"{s3_endpoint}/{BUCKET}", timeout=10):
        pass


def test_a_failing_server_is_asked_again(proxied: ObjectStore, proxy: FaultProxy, tmp_path: Path) -> None:
    proxy.inject("error", times=2)
    proxied.put("a", _file(tmp_path, b"x"))
    assert proxy.injected == 2
    assert proxied.get("a") == b"x"


@pytest.mark.parametrize("fault", ["refuse", "break-before", "break-after"])
def test_a_connection_that_breaks_during_a_put(
    proxied: ObjectStore, proxy: FaultProxy, tmp_path: Path, fault: Kind
) -> None:
    """Also when the server did it: then it is done twice, which changes nothing."""
    proxy.inject(fault, method="PUT")
    proxied.put("a", _file(tmp_path, b"x" * 1000))
    assert proxy.injected == 1
    assert proxied.get("a") == b"x" * 1000


def test_an_upload_of_several_parts_survives_failures_of_each_kind(
    proxied: ObjectStore, proxy: FaultProxy, tmp_path: Path
) -> None:
    content = os.urandom(1 << 20) * 36
    proxy.inject("break-after", method="POST", path="uploads")  # its number is never heard; a second upload is begun
    proxy.inject("error", method="PUT", path="partNumber=1")
    proxy.inject("break-after", method="PUT", path="partNumber=2")
    proxy.inject("slow", method="PUT", path="partNumber=3", seconds=0.5)
    proxied.put("big", _file(tmp_path, content))
    assert proxied.content("big").sha256 == hashlib.sha256(content).hexdigest()
    assert proxy.injected == 4
    assert max(request.length for request in proxy.requests) == objectstore.PART_BYTES


def test_a_server_that_keeps_failing_is_unavailable(
    proxied: ObjectStore, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 1)
    proxy.inject("error", times=None)
    with pytest.raises(StoreUnavailable, match="Check that it runs"):
        proxied.put("a", _file(tmp_path, b"x"))
    with pytest.raises(StoreUnavailable):
        list(proxied.list())
    proxy.heal()
    proxied.put("a", _file(tmp_path, b"x"))


def test_a_server_that_does_not_answer_in_time_is_unavailable(
    proxied: ObjectStore, proxy: FaultProxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(objectstore, "REQUEST_TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 1)
    proxy.inject("slow", times=None, seconds=1)
    started = time.monotonic()
    with pytest.raises(StoreUnavailable):
        proxied.put("a", _file(tmp_path, b"x"))
    assert time.monotonic() - started < 10


def test_bytes_that_change_on_the_way_are_noticed(
    proxied: ObjectStore, proxy: FaultProxy, s3: S3Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server compares what arrives with the checksum in the request; reading it back shows it in any case."""
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 1)
    proxy.inject("corrupt", method="PUT", times=None)
    if s3.server == "nanio":  # does not compare
        proxied.put("a", _file(tmp_path, b"x" * 1000))
        assert proxied.content("a").sha256 != hashlib.sha256(b"x" * 1000).hexdigest()
        return
    with pytest.raises(StoreUnavailable):
        proxied.put("a", _file(tmp_path, b"x" * 1000))
    proxy.heal()
    assert proxied.head("a") is None


@pytest.mark.parametrize("fault", ["truncate", "corrupt-answer"])
def test_an_answer_that_breaks_off_is_never_taken_for_the_object(
    proxied: ObjectStore, proxy: FaultProxy, tmp_path: Path, fault: Kind
) -> None:
    content = os.urandom(100_000)
    proxied.put("a", _file(tmp_path, content))
    proxy.inject(fault, method="GET")
    try:
        found = proxied.content("a")
    except StoreUnavailable:
        return
    if fault == "truncate":  # the library asked for the rest
        assert found.sha256 == hashlib.sha256(content).hexdigest()
    else:
        assert found.sha256 != hashlib.sha256(content).hexdigest()
