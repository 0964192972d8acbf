"""The whole stack as `make run` starts it: real PostgreSQL, API, fastpath, uploader and simulated probes.

One stack runs through the life of a checkout: first start, a killed fastpath, measurements and their bodies, stop,
second start. The tests of this module follow it in order.
"""

import contextlib
import gzip
import hashlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

BIN = Path(sys.executable).parent
COUNT = 60
OWN_VARIABLES = ("COUNT", "SESSIONS", "CORPUS", "TRICKLE")
START_S = 120  # seconds; a start takes 10 on an idle machine with two cores


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Devstack:
    """One run of the command."""

    def __init__(self, run_dir: Path, port: int, **variables: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        environ = {name: value for name, value in os.environ.items() if name not in OWN_VARIABLES}
        self.output = run_dir.with_name(f"{run_dir.name}-{time.monotonic_ns()}.out")
        with self.output.open("wb") as out:
            self.process = subprocess.Popen(
                [BIN / "devstack"],
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**environ, "RUN_DIR": str(run_dir), "PORT": str(port), **variables},
                start_new_session=True,
            )

    def lines(self) -> list[str]:
        return self.output.read_text(errors="replace").splitlines()

    def wait_for(self, pattern: str, seconds: float = START_S) -> str:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            for line in self.lines():
                if re.search(pattern, line):
                    return line
            if self.process.poll() is not None:
                break
            time.sleep(0.05)
        raise AssertionError(f"no line {pattern!r} from devstack, which printed:\n{self.output.read_text()}")

    def children(self) -> dict[int, str]:
        """Command lines of all processes below this one, by pid."""
        parents: dict[int, tuple[int, str]] = {}
        for directory in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError, ValueError):
                fields = (directory / "stat").read_text().rpartition(")")[2].split()
                command = (directory / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if fields[0] != "Z":
                    parents[int(directory.name)] = (int(fields[1]), command)
        found: dict[int, str] = {}
        wave = {self.process.pid}
        while wave:
            wave = {pid for pid, (parent, _) in parents.items() if parent in wave}
            found |= {pid: parents[pid][1] for pid in wave}
        return found

    def child(self, name: str) -> int:
        """Pid of the child with this program."""
        (pid,) = [
            int(Path(f"/proc/{pid}").name)
            for pid, command in self.children().items()
            if command.split()[1:2] == [str(BIN / name)] and _parent(pid) == self.process.pid
        ]
        return pid

    def dsn(self) -> str:
        return self.wait_for(r"^DSN postgresql://\S+$").removeprefix("DSN ")

    def get(self, path: str, **query: object) -> bytes:
        url = f"{self.url}{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(url, timeout=20) as response:
            return bytes(response.read())

    def get_json(self, path: str, **query: object) -> Any:
        return json.loads(self.get(path, **query))

    def stop(self, number: int = signal.SIGTERM) -> int:
        self.process.send_signal(number)
        return self.process.wait(40)

    def kill(self) -> None:
        if self.process.poll() is None:
            self.stop()


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def still_alive(pids: dict[int, str], seconds: float) -> dict[int, str]:
    """Which of some processes are left after at most `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        left = {pid: command for pid, command in pids.items() if _runs(pid, command)}
        if not left or time.monotonic() > deadline:
            return left
        time.sleep(0.1)


def _runs(pid: int, command: str) -> bool:
    try:
        if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
            return False
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace") == command
    except OSError:
        return False


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    directory = tmp_path_factory.mktemp("stack") / "run"
    yield directory
    subprocess.run(
        [BIN / "devstack", "--forget"], env={**os.environ, "RUN_DIR": str(directory)}, timeout=60, check=True
    )
    assert not directory.exists(), "make clean-run leaves nothing"


@pytest.fixture(scope="module")
def port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def stack(run_dir: Path, port: int) -> Iterator[Devstack]:
    """The first run. Its fastpath is killed while documents are being submitted."""
    running = Devstack(run_dir, port, COUNT=str(COUNT), SESSIONS="0", TRICKLE="0")
    try:
        running.dsn()
        _wait_for_first_measurement(run_dir, running)
        os.kill(running.child("fastpath"), signal.SIGKILL)
        running.wait_for(r"^READY ")
        yield running
    finally:
        running.kill()


def _wait_for_first_measurement(run_dir: Path, running: Devstack) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and running.process.poll() is None:
        if any((run_dir / "spool").rglob("*.post")):
            return
        time.sleep(0.005)
    raise AssertionError(f"no measurement arrived:\n{running.output.read_text()}")


@pytest.fixture(scope="module")
def rows(stack: Devstack) -> list[dict[str, Any]]:
    results = stack.get_json("/api/v1/measurements", limit=100)["results"]
    assert isinstance(results, list)
    return results


def test_machine_lines_are_alone_on_their_lines(stack):
    assert f"READY {stack.url}" in stack.lines()
    with psycopg.connect(stack.dsn()) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_a_killed_fastpath_is_started_again_and_leaves_nothing_unscored(stack, run_dir):
    assert stack.wait_for(r"^fastpath was killed by signal 9; starting it again", 1)
    with psycopg.connect(stack.dsn()) as connection:
        assert connection.execute("SELECT count(*), count(DISTINCT measurement_uid) FROM fastpath").fetchone() == (
            COUNT,
            COUNT,
        )
    assert not any((run_dir / "spool" / "incoming").rglob("*.post"))


def test_every_document_is_listed_and_some_are_confirmed(stack, rows):
    assert len(rows) == COUNT
    assert sum(row["anomaly"] for row in rows) >= 10
    assert len(stack.get_json("/api/v1/measurements", confirmed="true")["results"]) >= 2


def test_the_report_says_what_happened(stack):
    said = "\n".join(stack.lines())
    for line in (rf"accepted \(with a uid\)\s+│\s+{COUNT} ", rf"in the object store\s+│\s+{COUNT} "):
        assert re.search(line, said), said
    assert re.search(r"in quarantine\s+│\s+0 ", said), said


def test_meta_and_body_of_the_example(stack):
    meta = stack.wait_for(r"^  meta ", 1).split()[1]
    body = stack.wait_for(r"^  body ", 1).split()[1]
    with urllib.request.urlopen(meta, timeout=10) as response:
        found = json.load(response)
    with urllib.request.urlopen(body, timeout=10) as response:
        measurement = json.load(response)
    assert found["report_id"] == measurement["report_id"]
    assert found["confirmed"] is True


def test_bodies_are_what_the_probes_sent(stack, run_dir, rows):
    """Byte for byte, for every document that a probe (and not the server) put together."""
    replay_lines = _replayed(stack, run_dir)
    assert len(replay_lines) == 20
    compared = 0
    for line in replay_lines:
        if line["sha256"]:
            body = stack.get("/api/v1/raw_measurement", measurement_uid=line["uid"])
            assert hashlib.sha256(body).hexdigest() == line["sha256"], line
            compared += 1
    assert compared >= 8


def _replayed(stack: Devstack, run_dir: Path) -> list[dict[str, Any]]:
    """Submit a few more documents, whose checksums we see; they come from the spool, the others from the store."""
    done = subprocess.run(
        [BIN / "probesim", "replay", "--url", stack.url, "--count", "20", "--seed", "99", "--json"],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return [event for line in done.stdout.splitlines() if (event := json.loads(line))["event"] == "document"]


def test_archived_bodies_equal_the_lines_of_the_objects(stack, run_dir, rows):
    command = stack.wait_for(r"^  object  zcat ", 1).removeprefix("  object  ")
    line = subprocess.run(["sh", "-c", command], capture_output=True, timeout=20, check=True).stdout
    body = stack.wait_for(r"^  body ", 1).split()[1]
    with urllib.request.urlopen(body, timeout=10) as response:
        assert response.read() == line.removesuffix(b"\n")
    with psycopg.connect(stack.dsn()) as connection:
        archived = connection.execute("SELECT measurement_uid, s3path, linenum FROM jsonl").fetchall()
    assert len(archived) >= COUNT
    for uid, s3path, linenum in archived[:20]:
        lines = gzip.decompress((run_dir / "objects" / s3path).read_bytes()).splitlines()
        assert stack.get("/api/v1/raw_measurement", measurement_uid=uid) == lines[linenum]


def test_a_second_stack_in_the_same_directory_is_refused_with_a_sentence(stack, run_dir):
    done = _run_devstack(RUN_DIR=str(run_dir), PORT=str(free_port()))
    assert done.returncode == 1
    assert f"process {stack.process.pid}" in done.stderr
    assert stack.process.poll() is None


def test_a_taken_port_is_a_sentence(stack, tmp_path):
    port = urllib.parse.urlsplit(stack.url).port
    done = _run_devstack(RUN_DIR=str(tmp_path / "other"), PORT=str(port))
    assert done.returncode == 1
    assert f"Port {port} is taken" in done.stderr
    assert "make run PORT=" in done.stderr


def test_a_signal_stops_everything_and_a_second_run_continues(stack, run_dir, port):
    before = len(stack.get_json("/api/v1/measurements", limit=100)["results"])
    children = stack.children()
    assert len(children) > 5
    assert stack.stop(signal.SIGTERM) == 0
    assert still_alive(children, 1) == {}
    second = Devstack(run_dir, port, TRICKLE="0.3")
    try:
        second.wait_for(r"^READY ")
        assert any(re.match(r"Found \d+ measurements of earlier runs", line) for line in second.lines())
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            with psycopg.connect(second.dsn()) as connection:
                (count,) = connection.execute("SELECT count(*) FROM fastpath").fetchone() or (0,)
            if count > before:
                break
            time.sleep(0.1)
        assert before < count < before + COUNT, "the trickle adds a few, the sample is not submitted again"
        children = second.children()
        os.kill(second.process.pid, signal.SIGKILL)
        second.process.wait(10)
        assert still_alive(children, 30) == {}, "nothing outlives a killed stack"
    finally:
        second.kill()


def test_ctrl_c_stops_a_stack_that_took_over_from_a_killed_one_and_lost_its_database_meanwhile(run_dir, port):
    third = Devstack(run_dir, port, TRICKLE="0")
    try:
        third.wait_for(r"^READY ")
        (database,) = [pid for pid in third.children() if "postgres -D" in third.children()[pid]]
        os.kill(database, signal.SIGKILL)
        third.wait_for(r"^PostgreSQL ended; starting it again", 10)
        _wait_until_connected(third.dsn())
        children = third.children()
        assert third.stop(signal.SIGINT) == 0
        assert still_alive(children, 1) == {}
    finally:
        third.kill()


def _wait_until_connected(dsn: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(dsn).close()
        except psycopg.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)
        else:
            return


def _run_devstack(**variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [BIN / "devstack"], env={**os.environ, **variables}, capture_output=True, text=True, timeout=60, check=False
    )
