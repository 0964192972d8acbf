"""The processes beside the workers come back by themselves when they alone die."""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from api.companions import MASTER_VARIABLE, PAUSE_MAX_S, PAUSE_MIN_S, STEADY_S, Companions

MODULES = {"metrics": "api.metrics_server", "spool": "api.spool_server"}


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any]) -> Any:
    """An API with both of them, without a database."""
    return start_api("host=/nonexistent dbname=ooni", spool_listen=f"127.0.0.1:{free_port()}", workers=2)


def free_port() -> int:
    """A port that nobody listens on at the moment."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
    return port


def children(api: Any) -> dict[str, str]:
    """The processes below the master: number -> command."""
    pid = api.process.pid
    found = {}
    for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
        found[child] = Path(f"/proc/{child}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    return found


def pid_of(api: Any, module: str) -> str | None:
    """The process that runs a module, None when there is none."""
    return next((pid for pid, command in children(api).items() if f"-m {module} " in command), None)


def wait(what: Callable[[], Any], why: str) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not what():
        assert time.monotonic() < deadline, why
        time.sleep(0.05)


def answers(api: Any, name: str) -> bool:
    """Whether a process takes connections."""
    address = f"127.0.0.1:{api.metrics_port}" if name == "metrics" else api.settings["spool_listen"]
    try:
        httpx.get(f"http://{address}/", timeout=10)
    except httpx.TransportError:
        return False
    return True


@pytest.mark.parametrize("name", MODULES)
def test_one_that_is_killed_comes_back(api: Any, name: str) -> None:
    wait(lambda: answers(api, name), "it serves before it is killed")
    workers = {pid for pid, command in children(api).items() if " -m api." not in command}
    killed = pid_of(api, MODULES[name])
    assert killed is not None
    os.kill(int(killed), signal.SIGKILL)
    wait(lambda: pid_of(api, MODULES[name]) not in (None, killed), f"{name} is started again")
    wait(lambda: answers(api, name), f"{name} serves again")
    assert {pid for pid, command in children(api).items() if " -m api." not in command} == workers
    assert len(children(api)) == len(workers) + len(MODULES), "nothing runs twice"
    assert api.metric("api_companion_restarts_total", process=name) == 1
    assert "process beside the workers ended" in api.log()
    assert "measurement_uid" in api.submit(b"{}").json()


def test_one_that_ended_leaves_no_metrics(start_api: Callable[..., Any], tmp_path: Path) -> None:
    """Or each scrape would read the files of all that ever ended."""
    api = start_api("host=/nonexistent dbname=ooni", spool_listen=f"127.0.0.1:{free_port()}", metrics_dir=tmp_path)

    def files_of(pid: str | None) -> list[str]:
        return sorted(path.name for path in tmp_path.glob(f"*_{pid}.db"))

    for name, module in MODULES.items():
        wait(lambda: answers(api, name), "it serves before it is killed")  # noqa: B023 called before the next turn
        killed = pid_of(api, module)
        assert killed is not None
        assert len(files_of(killed)) > 2, "it has counters, histograms and gauges"
        os.kill(int(killed), signal.SIGKILL)
        wait(lambda: pid_of(api, module) not in (None, killed), "it is started again")  # noqa: B023
        assert files_of(killed) == []
        wait(lambda: files_of(pid_of(api, module)), "those of the next one are there")  # noqa: B023
    wait(lambda: answers(api, "metrics"), "it serves again")
    assert api.submit(b"{}").status_code == 200
    assert api.metric("api_measurements_acknowledged_total", route="report") == 1, "those of workers stay"


def test_they_end_with_the_api(start_api: Callable[..., Any]) -> None:
    """Those that were started again as well, and the end of the API starts none."""
    api = start_api("host=/nonexistent dbname=ooni", spool_listen=f"127.0.0.1:{free_port()}")
    killed = pid_of(api, MODULES["metrics"])
    assert killed is not None
    os.kill(int(killed), signal.SIGKILL)
    wait(lambda: pid_of(api, MODULES["metrics"]) not in (None, killed), "it is started again")
    pids = [pid for pid, command in children(api).items() if " -m api." in command]
    assert len(pids) == len(MODULES)
    assert api.stop() == 0
    wait(lambda: not any(Path(f"/proc/{pid}/stat").exists() for pid in pids), "they end")


@pytest.mark.parametrize("name", MODULES)
def test_they_end_when_the_master_was_gone_before_they_looked(name: str, tmp_path: Path) -> None:
    """Or they would stay for ever and keep their port from those of the next master."""
    arguments = ["127.0.0.1", str(free_port()), str(tmp_path)]
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    environment = os.environ | {MASTER_VARIABLE: str(gone.pid)}
    with subprocess.Popen([sys.executable, "-m", MODULES[name], *arguments], env=environment) as process:
        try:
            assert process.wait(30) == 0
        finally:
            process.kill()


class Clock:
    """A monotonic time that stands still until it is moved."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def starts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A directory with a module `ends` that leaves a line in a file and ends at once."""
    (tmp_path / "ends.py").write_text("import sys\nopen(sys.argv[1], 'a').write('x')\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return tmp_path / "starts"


def test_one_that_ends_at_once_is_started_with_growing_pauses(starts: Path) -> None:
    clock = Clock()
    companions = Companions(clock)
    companions.add("spool", "ends", str(starts))

    def count() -> int:
        return len(starts.read_text()) if starts.exists() else 0

    pause, total = PAUSE_MIN_S, 1
    while pause < PAUSE_MAX_S:
        wait(lambda: count() == total, "it was started")  # noqa: B023 called before the next turn
        wait(lambda: not running(companions), "it ended and that was seen")
        clock.now += pause * 0.99
        companions.tend()
        assert not running(companions), f"not before {pause} s"
        clock.now += pause * 0.02
        companions.tend()
        total += 1
        pause *= 2
    wait(lambda: count() == total, "it was started for the last time")
    wait(lambda: not running(companions), "it ended")


def test_one_that_lived_long_is_started_at_once(starts: Path) -> None:
    clock = Clock()
    companions = Companions(clock)
    companions.add("spool", "ends", str(starts))
    wait(lambda: starts.exists() and starts.read_text() == "x", "it was started")
    clock.now += STEADY_S
    wait(lambda: (companions.tend(), starts.read_text())[1] == "xx", "it is started again without a pause")
    wait(lambda: not running(companions), "it ended")


def test_one_that_cannot_be_started_is_no_end_of_the_others(starts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    companions = Companions(clock)
    monkeypatch.setattr(sys, "executable", "/nonexistent/python")
    companions.add("metrics", "ends", str(starts))
    monkeypatch.undo()
    companions.tend()
    assert not running(companions)


def running(companions: Companions) -> bool:
    """Whether any of them runs, after a look at them."""
    companions.tend()
    return any(one.process is not None for one in companions._all)
