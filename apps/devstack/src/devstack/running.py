"""A stack of its own for tests that need a whole one: started as a program, stopped and forgotten at the end."""

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from devstack.ports import HOST, free_ports
from devstack.services import command

_OWN_VARIABLES = ("COUNT", "SESSIONS", "CORPUS", "TRICKLE", "MAKELEVEL")
_STOPPING_S = 60.0


@dataclass(frozen=True, slots=True)
class RunningStack:
    """A stack that is up: the address of its API, that of its database, its directory, and what it printed."""

    url: str
    dsn: str
    run_dir: Path
    said: str


@contextlib.contextmanager
def running_stack(directory: Path, patience_s: float = 170.0, **variables: str) -> Iterator[RunningStack]:
    """Run a stack below `directory` until the context ends; `variables` are those of `make run`.

    Its port and directory are chosen here.

    Raises:
        RuntimeError: it ended or was not READY within `patience_s` seconds; with what it printed.
    """
    run_dir, output = directory / "run", directory / "devstack.out"
    (port,) = free_ports(1)
    outer = {name: value for name, value in os.environ.items() if name not in _OWN_VARIABLES}
    environ = {**outer, **variables, "RUN_DIR": str(run_dir), "PORT": str(port)}
    with output.open("wb") as out:
        process = subprocess.Popen(  # noqa: S603 a program of this installation
            [command("devstack")], stdout=out, stderr=subprocess.STDOUT, env=environ, start_new_session=True
        )
    try:
        said = _wait_until_ready(process, output, patience_s)
        found = re.search(r"^DSN (\S+)$", said, re.MULTILINE)
        assert found is not None
        yield RunningStack(f"http://{HOST}:{port}", found[1], run_dir, said)
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(_STOPPING_S)
        except subprocess.TimeoutExpired:
            process.kill()  # its watchdog stops what it started
            process.wait()
        subprocess.run([command("devstack"), "--forget"], env=environ, check=False, capture_output=True)  # noqa: S603


def _wait_until_ready(process: "subprocess.Popen[bytes]", output: Path, patience_s: float) -> str:
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        said = output.read_text(errors="replace")
        if re.search(r"^READY ", said, re.MULTILINE):
            return said
        if process.poll() is not None:
            break
        time.sleep(0.1)
    raise RuntimeError(f"The stack did not come up. It printed:\n{output.read_text(errors='replace')}")
