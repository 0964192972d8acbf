"""Stops what a killed stack leaves behind. Runs as `python -m devstack.watchdog`, beside the stack.

The stack writes the processes it starts to this program's standard input, `+<pid> <start time> <signal>`, and `-<pid>`
when one is gone. The pipe ends when the stack does, however it died: then everything still on the list is stopped, in
the order of its signals first asked for, and after a while killed.
"""

import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import BinaryIO, NamedTuple

_PATIENCE_S = 12.0
_POLL_S = 0.1


class Watched(NamedTuple):
    """A process that leads a process group. `started` (clock ticks) tells it from a later one with the same pid."""

    pid: int
    started: int
    stop_signal: int


def start_time(pid: int) -> int | None:
    """Return when process `pid` started, in clock ticks since boot; None when there is none or only its corpse."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None
    return None if fields[0] in ("Z", "X") else int(fields[19])


def read_list(lines: BinaryIO) -> list[Watched]:
    """Read the list until the pipe ends; return what is still on it, in the order in which it was written."""
    watched: dict[int, Watched] = {}
    for raw in lines:
        line = raw.decode("ascii", "replace").strip()
        if line.startswith("-"):
            watched.pop(int(line[1:]), None)
        elif line.startswith("+"):
            pid, started, stop_signal = (int(field) for field in line[1:].split())
            watched[pid] = Watched(pid, started, stop_signal)
    return list(watched.values())


def stop_all(watched: list[Watched], patience_s: float = _PATIENCE_S) -> None:
    """Stop the newest first, as the stack does: each is waited for before the one that it depends on is asked."""
    for item in reversed(watched):
        deadline = time.monotonic() + patience_s
        with contextlib.suppress(ProcessLookupError):
            if start_time(item.pid) == item.started:
                os.kill(item.pid, item.stop_signal)
        while start_time(item.pid) == item.started and time.monotonic() < deadline:
            time.sleep(_POLL_S)
        # Whatever is left of its process group: workers whose leader was killed have no one else to stop them.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(item.pid, signal.SIGKILL)


def main() -> int:
    """Wait for the end of standard input, then clean up."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    stop_all(read_list(sys.stdin.buffer))
    return 0


if __name__ == "__main__":
    sys.exit(main())
