"""The invariant: what was acknowledged is scored and archived, each exactly once, and reads back byte for byte."""

import subprocess
import sys
import tempfile
import urllib.request
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg

from crashlab.probes import Sent
from crashlab.stack import BIN, Stack
from fastpath.store import Store
from uploader.objects import entries, fetch


def settle_and_check(stack: Stack, sent: list[Sent], *, within_s: float = 120.0, read: int = 300) -> dict[str, Any]:
    """Let the stack come to rest, then check the invariant; return figures.

    `read`: how many bodies are read through the API, evenly spread; the others are compared in the object store.

    Raises:
        AssertionError: something is lost, twice, or changed.
    """
    assert sent, "nothing was acknowledged, so that nothing is shown"
    stack.settle(within_s)
    with psycopg.connect(stack.dsn) as connection:
        rows = Counter(uid for (uid,) in connection.execute("SELECT measurement_uid FROM fastpath"))
        places = Counter(uid for (uid,) in connection.execute("SELECT measurement_uid FROM jsonl"))
    acknowledged = {one.uid: one for one in sent}
    assert len(acknowledged) == len(sent), "a uid was given to two measurements"
    _assert_none("acknowledged and not scored", acknowledged.keys() - rows.keys())
    _assert_none("acknowledged and not archived", acknowledged.keys() - places.keys())
    _assert_none("scored twice", [uid for uid, count in rows.items() if count != 1])
    _assert_none("archived and not scored", places.keys() - rows.keys())
    _assert_none("scored and not archived", rows.keys() - places.keys())
    archived, bodies = _archived(stack)
    _assert_none("in the object store twice", [uid for uid, count in archived.items() if count != 1])
    _assert_none(
        "in the object store otherwise than sent", [u for u, one in acknowledged.items() if bodies[u] != one.body]
    )
    store = Store(stack.dsn)
    assert store.counters_difference() == []
    store.close()
    _compare(stack)
    for one in sent[:: max(1, len(sent) // read)]:
        address = f"{stack.url}/api/v1/raw_measurement?measurement_uid={quote(one.uid)}"
        with urllib.request.urlopen(address, timeout=20) as response:
            assert response.read() == one.document, f"{one.uid} reads back otherwise than sent"
    assert stack.spool.counts().quarantine == 0
    again = Counter(bodies.values())
    return {
        "acknowledged": len(sent),
        "archived": len(archived),
        "stored again": sum(count - 1 for count in again.values()),
    }


def _archived(stack: Stack) -> tuple[Counter[str], dict[str, bytes]]:
    found: Counter[str] = Counter()
    bodies: dict[str, bytes] = {}
    with tempfile.TemporaryDirectory() as directory:
        for info in stack.store.list():
            if info.key.endswith(".tar.gz"):
                path = Path(directory) / "postcan"
                fetch(stack.store, info.key, path)
                for entry in entries(path):
                    assert entry.uid is not None
                    found[entry.uid] += 1
                    bodies[entry.uid] = entry.body
    return found, bodies


def _compare(stack: Stack) -> None:
    """`uploader verify` finds nothing either, not even among what came while the clock was ahead."""
    last_day = str(datetime.now(UTC).date() + timedelta(days=2))
    done = subprocess.run(
        [BIN / "uploader", "verify", "--deep", "--settle-s", "0", "--days", "5", "--until", last_day],
        env=stack.programs["uploader"].environ,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


def _assert_none(what: str, uids: Any) -> None:
    found = sorted(uids)
    if found:
        print(what, *found[:20], sep="\n  ", file=sys.stderr)
    assert not found, f"{len(found)} measurements {what}"
