"""When the store or the database is away, the run fails loudly, keeps everything, and a later one makes up for it."""

import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

import psycopg
import pytest


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port that refuses connections: bound, so that nobody else gets it, but not listening."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


def assert_failed(host, done: "subprocess.CompletedProcess[str]", step: str, times: int) -> None:
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert host.metric("uploader_failures_total", step=step) == times
    assert host.metric("uploader_last_success_timestamp_seconds") == 0
    assert host.metric("uploader_backlog_files") == 3
    assert host.metric("uploader_backlog_oldest_seconds") > 24 * 3600
    assert host.spool.counts().scored == 3
    assert host.rows() == []
    host.assert_readable()


def assert_recovers(host) -> None:
    host.succeed()
    host.assert_readable()
    assert host.spool.counts().scored == 0
    assert len(host.rows()) == 3
    assert len(host.object_keys()) == 2
    assert host.left() == []
    assert time.time() - host.metric("uploader_last_success_timestamp_seconds") < 60


def test_an_unreachable_s3_endpoint(host, closed_port: int) -> None:
    host.receive_many(3)
    failed = host.run(
        OONI_UPLOADER_STORE_URL="s3://bucket",
        OONI_UPLOADER_STORE_ENDPOINT=f"http://127.0.0.1:{closed_port}",
        OONI_UPLOADER_STORE_REGION="nowhere",
        OONI_UPLOADER_STORE_ACCESS_KEY_ID="key",
        OONI_UPLOADER_STORE_SECRET_ACCESS_KEY="secret",
    )
    assert_failed(host, failed, "plan", 2)
    assert_recovers(host)


def test_a_store_that_fails_after_the_plan(host) -> None:
    host.receive_many(3)
    host.run(OONI_CRASH_AT="uploader.after_plan")
    directory = host.objects / "raw" / "20240102"
    directory.parent.mkdir(parents=True, exist_ok=True)
    directory.write_bytes(b"a file where a directory is needed, which stops root as well")
    failed = host.run()
    assert failed.returncode == 1
    assert "Traceback" not in failed.stderr
    assert host.metric("uploader_failures_total", step="put") >= 1
    assert host.spool.counts().scored == 3
    assert any(name.endswith(".plan") for name in host.left())
    host.assert_readable()
    directory.unlink()
    assert_recovers(host)


def test_an_unreachable_database(host, closed_port: int) -> None:
    host.receive_many(3)
    failed = host.run(OONI_UPLOADER_DB_URI=f"host=127.0.0.1 port={closed_port} dbname=x user=x")
    assert_failed(host, failed, "compare", 2)
    assert_recovers(host)


def test_a_database_without_the_tables(host) -> None:
    host.receive_many(3)
    with psycopg.connect(host.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE upload_manifest RENAME TO away")
    try:
        failed = host.run()
    finally:
        with psycopg.connect(host.dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE away RENAME TO upload_manifest")
    assert_failed(host, failed, "plan", 1)
    assert_recovers(host)


def roll_back_after_a_timeout(blocker: psycopg.Connection, dsn: str) -> None:
    """Free the table once a first statement has waited for it and given up; gives up itself after a minute."""
    deadline = time.monotonic() + 60
    waiters: set[int] = set()
    with psycopg.connect(dsn, autocommit=True) as watcher:
        while time.monotonic() < deadline:
            waiting = {
                pid
                for (pid,) in watcher.execute(
                    "SELECT pid FROM pg_locks WHERE NOT granted AND relation = 'jsonl'::regclass"
                )
            }
            if waiters - waiting:
                break
            waiters |= waiting
            time.sleep(0.01)
    blocker.rollback()


def test_a_commit_that_fails_is_repeated_within_the_run(host) -> None:
    """The table is locked against writing for longer than a statement may take, then free again."""
    host.receive_many(3)
    with psycopg.connect(host.dsn) as blocker:
        blocker.execute("LOCK TABLE jsonl IN SHARE MODE")
        release = threading.Thread(target=roll_back_after_a_timeout, args=(blocker, host.dsn))
        release.start()
        host.succeed(OONI_UPLOADER_STATEMENT_TIMEOUT_S="0.5", OONI_UPLOADER_ATTEMPTS="20")
        release.join()
    assert host.metric("uploader_failures_total", step="commit") >= 1
    host.assert_readable()
    assert len(host.rows()) == 3
    assert len(host.object_keys()) == 2


def test_a_commit_that_keeps_failing_leaves_everything(host) -> None:
    host.receive_many(3)
    with psycopg.connect(host.dsn) as blocker:
        blocker.execute("LOCK TABLE jsonl IN SHARE MODE")
        failed = host.run(OONI_UPLOADER_STATEMENT_TIMEOUT_S="0.3")
    assert_failed(host, failed, "commit", 2)
    assert_recovers(host)


def test_a_connection_that_the_server_ends_is_made_anew(host) -> None:
    """The lock goes with the connection; the run takes it again and goes on."""
    host.receive_many(3)
    with psycopg.connect(host.dsn, autocommit=True) as blocker, blocker.transaction():
        blocker.execute("LOCK TABLE jsonl IN SHARE MODE")
        ended = threading.Event()

        def end_it() -> None:
            with psycopg.connect(host.dsn, autocommit=True) as killer:
                for _ in range(200):
                    row = killer.execute(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE application_name = 'uploader' AND wait_event_type = 'Lock'"
                    ).fetchone()
                    if row:
                        ended.set()
                        break
                    time.sleep(0.05)
                blocker_pid = blocker.info.backend_pid
                killer.execute("SELECT pg_terminate_backend(%s)", [blocker_pid])

        thread = threading.Thread(target=end_it)
        thread.start()
        host.succeed(OONI_UPLOADER_ATTEMPTS="10", OONI_UPLOADER_RETRY_MIN_S="0.2")
        thread.join()
        assert ended.is_set()
        with pytest.raises(psycopg.OperationalError):
            blocker.execute("SELECT 1")
    assert host.metric("uploader_failures_total", step="commit") == 1
    assert len(host.rows()) == 3
    host.assert_readable()


def test_one_batch_that_fails_does_not_stop_the_others(host) -> None:
    """A row that the database refuses for good concerns its own batch only."""
    host.receive_many(2)
    refused = host.receive(b'{"report_id": "refuse me"}', cc="BR")
    with psycopg.connect(host.dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE jsonl ADD CONSTRAINT c CHECK (report_id <> 'refuse me')")
    try:
        for _ in range(2):
            failed = host.run()
            assert failed.returncode == 1
            assert {row["report_id"] for row in host.rows()} == {"report-0", "report-1"}
            assert host.spool.scored_directories() == ["2024010203_BR_webconnectivity"]
            host.assert_readable()
        assert len(host.object_keys()) == 4
    finally:
        with psycopg.connect(host.dsn, autocommit=True) as connection:
            connection.execute("ALTER TABLE jsonl DROP CONSTRAINT c")
    host.succeed()
    assert refused in {row["measurement_uid"] for row in host.rows()}
    assert len(host.object_keys()) == 4
    host.assert_readable()


def test_bodies_are_readable_at_every_moment_of_a_run(host) -> None:
    """Readers in this process, the uploader in another."""
    uids = host.receive_many(60)
    stop = threading.Event()
    lost: list[str] = []
    sources: set[str] = set()

    def read_all() -> None:
        reader = host.reader
        while not stop.is_set():
            for uid in uids:
                body = reader.read(uid)
                if body is None or host.sent[uid] != b'{"format": "json", "content": ' + body.document + b"}":
                    lost.append(uid)
                else:
                    sources.add(body.source)

    threads = [threading.Thread(target=read_all) for _ in range(3)]
    for thread in threads:
        thread.start()
    try:
        host.succeed(OONI_UPLOADER_POSTCAN_BYTES="2000")
    finally:
        time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
    assert lost == []
    assert sources == {"spool", "store"}


def test_memory_does_not_grow_with_the_batch(host) -> None:
    """Inputs of a megabyte each: rows and archives must go to files."""
    program = (
        "import re, sys\n"
        "from uploader.__main__ import main\n"
        "code = main([])\n"
        "status = open('/proc/self/status').read()\n"  # getrusage would include the parent's peak
        "print(re.search(r'VmHWM:\\s+(\\d+)', status)[1], file=sys.stderr)\n"
        "sys.exit(code)\n"
    )
    host.run_program = [sys.executable, "-c", program]
    peaks = []
    for count in (4, 100):
        for number in range(count):
            host.receive(b'{"n": %d, "input": "%s"}' % (number + 1000 * count, b"a" * 1_000_000))
        done = host.run()
        assert done.returncode == 0, done.stderr
        peaks.append(int(done.stderr.splitlines()[-1]) / 1024)
    assert peaks[1] < peaks[0] + 25, f"peaks in MB: {peaks}"
    assert len(host.object_keys()) == 4
    assert len(host.rows("SELECT 1 AS one FROM jsonl")) == 104
