"""The whole uploader against a real S3 server, which fails in all the ways a network has."""

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from core import objectstore
from core.bodies import BodyReader
from core.objectstore import ObjectStore, open_store
from devstack.faultproxy import FaultProxy, Kind
from devstack.s3server import BUCKET, CREDENTIALS, S3Server, best

SERVER = best()
DAY = ("--since", "2024-01-02", "--until", "2024-01-02", "--settle-s", "0")


@pytest.fixture(scope="module", params=[SERVER or "no-s3-server"])
def s3(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    if SERVER is None:
        pytest.skip("no S3 server on this machine: run tools/setup-s3, or pip install nanio")
    with S3Server(SERVER, tmp_path_factory.mktemp("s3")) as server:
        yield server


@pytest.fixture
def proxy(s3: S3Server) -> Iterator[FaultProxy]:
    with FaultProxy(s3.address) as proxy:
        yield proxy


@pytest.fixture
def on_s3(host, s3: S3Server, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch):
    """A host that archives into the S3 server, through the proxy; each test has a prefix of its own."""
    prefix = hashlib.sha256(str(host.root).encode()).hexdigest()[:12]
    environment = {
        "OONI_UPLOADER_STORE_URL": f"s3://{BUCKET}/{prefix}",
        "OONI_UPLOADER_STORE_ENDPOINT": proxy.endpoint,
        **{f"OONI_UPLOADER_STORE_{name.upper()}": value for name, value in CREDENTIALS.items()},
    }
    monkeypatch.setattr(type(host), "settings", property(lambda _self, given=host.settings: given | environment))
    direct = open_store(f"s3://{BUCKET}/{prefix}", endpoint=s3.endpoint, **CREDENTIALS)
    monkeypatch.setattr(type(host), "store", property(lambda _self: direct))
    return host


def assert_archived(host: Any, count: int) -> None:
    """Rows, manifest, objects and checksums agree, and every body comes back out of the store."""
    assert len(host.rows()) == count
    assert host.spool.counts().scored == 0
    assert host.left() == []
    manifest = host.rows("SELECT * FROM upload_manifest")
    store: ObjectStore = host.store
    assert sorted(info.key for info in store.list()) == sorted(
        line[column] for line in manifest for column in ("jsonl_s3path", "postcan_s3path")
    )
    for line in manifest:
        for kind in ("jsonl", "postcan"):
            found = store.content(line[f"{kind}_s3path"])
            assert (found.size, found.sha256) == (line[f"{kind}_bytes"], line[f"{kind}_sha256"])
    for uid in host.sent:
        assert BodyReader(host.spool, store, host.pool).read(uid).source == "store"
    host.assert_readable()


def test_archived_compared_repaired_and_taken_down(on_s3) -> None:
    """In processes of their own, as in production."""
    uids = on_s3.receive_many(20)
    assert on_s3.succeed().startswith("20 measurements archived in 1 batches")
    assert_archived(on_s3, 20)
    assert "differences: none" in on_s3.succeed("verify", *DAY, "--deep")
    [key] = {row["s3path"] for row in on_s3.rows()}
    on_s3.store.delete(key)
    assert "object_missing" in on_s3.run("verify", *DAY).stdout
    assert on_s3.run("verify", *DAY, "--repair").returncode == 0
    on_s3.assert_readable()
    on_s3.succeed("takedown", "--measurement-uid", uids[7], "--reason", "r", "--go")
    del on_s3.sent[uids[7]]
    assert_archived(on_s3, 19)
    assert "differences: none" in on_s3.succeed("verify", *DAY, "--deep")


def test_an_object_of_several_parts(on_s3, proxy: FaultProxy) -> None:
    for number in range(10):
        on_s3.receive(b'{"n": %d, "x": "%s"}' % (number, os.urandom(2_000_000).hex().encode()))
    assert on_s3.call(OONI_UPLOADER_POSTCAN_BYTES="40000000").returncode == 0
    assert any("partNumber=2" in request.path for request in proxy.requests)
    assert_archived(on_s3, 10)


@pytest.mark.parametrize("fault", ["error", "refuse", "break-before", "break-after"])
@pytest.mark.parametrize("method", ["PUT", "GET", "HEAD"])
def test_a_request_that_fails_is_made_again(on_s3, proxy: FaultProxy, fault: Kind, method: str) -> None:
    on_s3.receive_many(5)
    proxy.inject(fault, method=method)
    assert on_s3.call().returncode == 0
    assert proxy.injected == 1
    assert_archived(on_s3, 5)


def test_an_upload_that_took_effect_and_was_never_confirmed(
    on_s3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The run gives up, the object is there, the next run puts the same bytes again."""
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 0)
    on_s3.receive_many(5)
    proxy.inject("break-after", method="PUT", times=None)
    assert on_s3.call().returncode == 1
    assert len(list(on_s3.store.list())) == 1, "the postcan arrived"
    assert on_s3.spool.counts().scored == 5
    on_s3.assert_readable()
    proxy.heal()
    assert on_s3.call().returncode == 0
    assert_archived(on_s3, 5)
    assert [row["counter"] for row in on_s3.rows("SELECT * FROM upload_manifest")] == [0]


def test_a_slow_store_is_waited_for_and_a_silent_one_is_not(
    on_s3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch
) -> None:
    on_s3.receive_many(5)
    proxy.inject("slow", times=None, seconds=0.2)
    assert on_s3.call().returncode == 0
    assert_archived(on_s3, 5)
    proxy.heal()
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 0)
    monkeypatch.setattr(objectstore, "REQUEST_TIMEOUT", objectstore.timedelta(seconds=0.3))
    on_s3.receive_many(3, cc="BR")
    proxy.inject("slow", times=None, seconds=1.5)
    assert on_s3.call().returncode == 1
    assert on_s3.spool.counts().scored == 3
    proxy.heal()
    assert on_s3.call().returncode == 0
    assert_archived(on_s3, 8)


def test_bytes_that_change_on_the_way_delete_nothing(on_s3, proxy: FaultProxy, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether the server notices (it is asked to) or the uploader does, when it reads back what it put."""
    monkeypatch.setattr(objectstore, "MAX_RETRIES", 0)
    on_s3.receive_many(5)
    proxy.inject("corrupt", method="PUT", path="tar.gz", times=2)
    assert on_s3.call().returncode == 1
    assert on_s3.spool.counts().scored == 5
    assert on_s3.rows() == []
    assert on_s3.metric("uploader_failures_total", step="put") == 2
    assert on_s3.call().returncode == 0
    assert_archived(on_s3, 5)


def test_what_the_store_changed_after_it_said_yes_is_noticed(on_s3, proxy: FaultProxy) -> None:
    on_s3.receive_many(5)
    proxy.inject("corrupt-answer", method="GET", path="tar.gz", times=2)
    assert on_s3.call().returncode == 1
    assert on_s3.spool.counts().scored == 5
    assert on_s3.call().returncode == 0
    assert_archived(on_s3, 5)


def test_without_reading_back_only_sizes_are_compared(on_s3, proxy: FaultProxy) -> None:
    on_s3.receive_many(5)
    assert on_s3.call(OONI_UPLOADER_READ_BACK="false").returncode == 0
    assert not any(request.method == "GET" and "gz" in request.path for request in proxy.requests)
    assert_archived(on_s3, 5)


def test_a_store_that_is_down_for_a_run(host, tmp_path: Path, on_s3, s3: S3Server) -> None:
    on_s3.receive_many(5)
    s3.stop()
    try:
        failed = on_s3.run(OONI_UPLOADER_ATTEMPTS="1")
        assert failed.returncode == 1
        assert "Traceback" not in failed.stderr
    finally:
        s3.start()
    assert on_s3.spool.counts().scored == 5
    assert on_s3.succeed().startswith("5 measurements archived")
    assert_archived(on_s3, 5)
