"""Children, their supervisor, the watchdog and the directory's lock: with real processes."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from devstack.children import LOG_LIMIT, Child, Watchdog
from devstack.errors import StackError, Stopping
from devstack.places import Places
from devstack.supervisor import Supervisor
from devstack.watchdog import start_time


class Fixture:
    """A directory with a lock and a watchdog, and a supervisor that remembers what it said."""

    def __init__(self, places: Places, watchdog: Watchdog) -> None:
        self.places = places
        self.watchdog = watchdog
        self.said: list[str] = []
        self.supervisor = Supervisor(self.said.append)

    def child(self, code: str, name: str = "child") -> Child:
        return Child(name, [sys.executable, "-c", code], os.environ, self.places.logs, self.watchdog)


@pytest.fixture
def stack(tmp_path) -> Iterator[Fixture]:
    places = Places(tmp_path / "run")
    places.prepare()
    with places.lock(print, lambda: None) as lock:
        watchdog = Watchdog(lock)
        fixture = Fixture(places, watchdog)
        yield fixture
        fixture.supervisor.stop()
        watchdog.close()


SLEEP = "import time; time.sleep(60)"


def wait_until(condition, seconds: float = 10, meanwhile=lambda: None) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen in time"
        meanwhile()
        time.sleep(0.02)


def test_a_child_that_dies_is_started_again(stack):
    child = stack.child(SLEEP)
    stack.supervisor.keep(child)
    first = child.pid
    assert first is not None
    os.kill(first, signal.SIGKILL)
    wait_until(lambda: child.pid not in (None, first), meanwhile=stack.supervisor.tick)
    assert stack.said == [f"child was killed by signal 9; starting it again (its log: {child.log_file})"]


def test_a_child_that_keeps_dying_is_started_less_and_less_often(stack):
    child = stack.child("import sys; print('started', flush=True); sys.exit(3)")
    stack.supervisor.keep(child)
    stack.supervisor.sleep(3)
    starts = child.log_file.read_text().count("started")
    assert 2 <= starts <= 5
    assert "child ended with status 3; starting it again" in stack.said[0]


def test_a_service_that_ends_before_it_is_healthy_is_an_error_with_its_last_words(stack):
    child = stack.child("import sys; sys.exit('the disk is made of cheese')")
    with pytest.raises(StackError, match=r"child ended with status 1 before it was ready(.|\n)*made of cheese"):
        stack.supervisor.start([(child, lambda: False)])


def test_a_service_that_is_not_healthy_in_time_is_an_error(stack):
    with pytest.raises(StackError, match="not ready after 0 s"):
        stack.supervisor.start([(stack.child(SLEEP), lambda: False)], patience_s=0.3)


def test_a_failing_command_is_an_error_with_its_last_words(stack):
    stack.supervisor.run(stack.child("print('fine')"))
    with pytest.raises(StackError, match=r"failed with status 1(.|\n)*no cheese"):
        stack.supervisor.run(stack.child("import sys; sys.exit('no cheese')"))
    with pytest.raises(StackError, match="did not end within"):
        stack.supervisor.run(stack.child(SLEEP), patience_s=0.2)


def test_stopping_kills_what_does_not_stop_and_what_a_child_started(stack, tmp_path):
    code = (
        "import signal, subprocess, sys, time; signal.signal(signal.SIGTERM, signal.SIG_IGN);"
        f"grandchild = subprocess.Popen([sys.executable, '-c', {SLEEP!r}]); print(grandchild.pid, flush=True);"
        "time.sleep(60)"
    )
    child = stack.child(code)
    child.start()
    wait_until(lambda: child.log_file.read_text().endswith("\n"))
    grandchild = int(child.log_file.read_text())
    child.stop(patience_s=0.2)
    assert child.pid is None
    wait_until(lambda: start_time(grandchild) is None)


def test_the_wish_to_stop_ends_every_wait_once(stack):
    old = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        stack.supervisor.listen()
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(Stopping):
            stack.supervisor.sleep(5)
        stack.supervisor.sleep(0.05)  # while stopping, waiting is possible again
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)


def test_logs_are_set_aside_at_the_start_and_bounded_later(stack):
    child = stack.child("print('one')")
    stack.supervisor.run(child)
    again = stack.child("print('two')")
    stack.supervisor.run(again)
    assert child.log_file.with_suffix(".log.1").read_text() == "one\n"
    assert again.log_file.read_text() == "two\n"
    os.truncate(again.log_file, LOG_LIMIT + 1)
    again.bound_log()
    assert again.log_file.stat().st_size == 0
    assert again.log_file.with_suffix(".log.1").stat().st_size == LOG_LIMIT + 1


KILLED_STACK = """
import os, sys, time
from pathlib import Path
from devstack.children import Child, Watchdog
from devstack.places import Places
places = Places(Path(sys.argv[1])); places.prepare()
with places.lock(print, lambda: None) as lock:
    watchdog = Watchdog(lock)
    polite = Child("polite", [sys.executable, "-c", "import time; time.sleep(60)"], os.environ, places.logs, watchdog)
    gone = Child("gone", [sys.executable, "-c", ""], os.environ, places.logs, watchdog)
    polite.start(); gone.start().wait(); gone.stop()
    print(polite.pid, flush=True)
    time.sleep(60)
"""


def test_nothing_outlives_a_killed_stack_and_the_next_one_waits_for_that(tmp_path):
    run = tmp_path / "run"
    with subprocess.Popen([sys.executable, "-c", KILLED_STACK, str(run)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = int(process.stdout.readline())
        assert start_time(child) is not None
        process.kill()
    said: list[str] = []
    with Places(run).lock(said.append, lambda: None):
        assert start_time(child) is None, "the lock is free only when everything is gone"


def test_a_second_stack_is_told_who_is_there(stack):
    code = "import sys; from pathlib import Path; from devstack.places import Places\n"
    code += "with Places(Path(sys.argv[1])).lock(print, lambda: None): pass"
    done = subprocess.run(
        [sys.executable, "-c", code, str(stack.places.root)], capture_output=True, text=True, timeout=60, check=False
    )
    assert f"Another stack (process {os.getpid()}) is running" in done.stderr


def test_forgetting_leaves_what_belongs_to_somebody_else(tmp_path):
    places = Places(tmp_path / "run")
    places.prepare()
    mine = places.root / "notes.txt"
    mine.write_text("keep me")
    elsewhere = places.postgres_elsewhere()
    try:
        elsewhere.mkdir()
        assert Places(places.root).remembered_postgres() == elsewhere
        assert {path.name for path in places.forget()} >= {"spool", "objects", "log", elsewhere.parent.name}
        assert list(places.root.iterdir()) == [mine]
        assert not elsewhere.parent.exists()
    finally:
        with contextlib.suppress(OSError):
            elsewhere.rmdir()
            elsewhere.parent.rmdir()


def test_forgetting_a_directory_that_is_only_ours_removes_it(tmp_path):
    places = Places(tmp_path / "run")
    places.prepare()
    places.forget()
    assert not Path(places.root).exists()
