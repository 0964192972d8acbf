"""What the intake refuses for a while: 503 with Retry-After, so that probes send again, and nothing is acknowledged."""

import errno
import json
import os
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from flask import Flask
from prometheus_client import REGISTRY

from api.app import create_app
from api.clock import ReceiptClock
from api.config import ApiSettings
from core.groupsync import GroupSync
from core.received import received_key

BODY = b'{"format":"json","content":{"test_name":"web_connectivity"}}'
CONTENT = {"probe_cc": "IE", "probe_asn": "AS34245", "test_name": "ndt"}

Send = Callable[[], Any]


@pytest.fixture
def app(tmp_path: Path) -> Iterator[Flask]:
    """The application in this process, without a database."""
    (tmp_path / "objects").mkdir()
    app = create_app(
        ApiSettings(
            db_uri="host=/nonexistent dbname=ooni",
            spool_directory=str(tmp_path / "spool"),
            spool_min_free_bytes=1024,
            state_directory=str(tmp_path / "state"),
            store_url=f"file://{tmp_path}/objects",
            fastpath_url="http://127.0.0.1:1",
            fastpath_timeout_s=0.5,
        )
    )
    yield app
    app.extensions["api"].close()


@pytest.fixture(params=["report", "submit_measurement"])
def send(app: Flask, rid: str, request: pytest.FixtureRequest) -> Send:
    """Send the same measurement once more."""
    client = app.test_client()
    if request.param == "report":
        return lambda: client.post(f"/report/{rid}", data=BODY)
    document = {"format": "json", "content": json.dumps(CONTENT)}
    return lambda: client.post("/api/v1/submit_measurement", json=document)


def refusals(reason: str) -> float:
    return REGISTRY.get_sample_value("api_spool_put_failures_total", {"reason": reason}) or 0.0


def stored(app: Flask) -> list[str]:
    return list(app.extensions["api"].intake.spool.incoming())


@pytest.mark.parametrize("year", [1970, 1999, 3000, 9999])
def test_a_clock_that_is_wrong_refuses_until_it_is_set(app: Flask, send: Send, year: int) -> None:
    now = [datetime(year, 1, 1, tzinfo=UTC)]
    app.extensions["api"].intake.clock = ReceiptClock(now=lambda: now[0])
    before = refusals("clock")
    for _ in range(2):
        refused = send()
        assert refused.status_code == 503, refused.text
        assert int(refused.headers["Retry-After"]) > 0
        assert "clock" in refused.json["error"]
    assert refusals("clock") == before + 2
    assert stored(app) == []
    now[0] = datetime.now(UTC)
    taken = send()
    assert taken.status_code == 200, taken.text
    assert stored(app) == [taken.json["measurement_uid"]]


def test_a_disk_that_fails_when_a_repeated_measurement_is_looked_for_refuses(
    app: Flask, rid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt died before it was acknowledged, so that its file has to be brought to disk."""
    intake = app.extensions["api"].intake
    client = app.test_client()
    uid = client.post(f"/report/{rid}", data=BODY).json["measurement_uid"]
    with intake._received.hold(received_key(rid, BODY)) as entry:
        received_at = entry.received_at
        assert received_at is not None
    for table in (intake.spool.root / "received").glob("2*"):
        table.unlink()
    with intake._received.hold(received_key(rid, BODY)) as entry:
        entry.claim(received_at)

    def fails(_sync: GroupSync, path: Path) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    before = refusals("disk_error")
    with monkeypatch.context() as patch:
        patch.setattr(GroupSync, "directory", fails)
        refused = client.post(f"/report/{rid}", data=BODY)
    assert refused.status_code == 503, refused.text
    assert int(refused.headers["Retry-After"]) > 0
    assert refusals("disk_error") == before + 1
    taken = client.post(f"/report/{rid}", data=BODY)
    assert (taken.status_code, taken.json["measurement_uid"]) == (200, uid)
    assert stored(app) == [uid]
