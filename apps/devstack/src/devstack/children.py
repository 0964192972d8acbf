"""Child processes: started in groups of their own, logged to bounded files, known to the watchdog."""

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

from devstack.watchdog import start_time

LOG_LIMIT = 16 * 1024 * 1024
"""Size in bytes beyond which a log file is emptied (its content is kept once, as `<name>.log.1`)."""


class Watchdog:
    """The writing end of the pipe to the watchdog process."""

    def __init__(self, lock_descriptor: int) -> None:
        """Start the watchdog; it holds the lock of the stack's directory for as long as it lives."""
        self._process = subprocess.Popen(
            [sys.executable, "-m", "devstack.watchdog"],
            stdin=subprocess.PIPE,
            start_new_session=True,
            pass_fds=(lock_descriptor,),
            cwd="/",
        )

    def add(self, pid: int, stop_signal: int = signal.SIGTERM) -> None:
        """Watch over a process that leads a process group."""
        started = start_time(pid)
        if started is not None:
            self._write(f"+{pid} {started} {int(stop_signal)}\n")

    def remove(self, pid: int) -> None:
        """Forget a process that is gone."""
        self._write(f"-{pid}\n")

    def close(self) -> None:
        """End the watchdog; it stops whatever is still on its list."""
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.close()
        self._process.wait()

    def _write(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # the watchdog was killed: the stack still stops its own children
            self._process.stdin.write(line.encode())
            self._process.stdin.flush()


class Child:
    """One program of the stack, with the log file that takes what it prints."""

    def __init__(
        self, name: str, command: Sequence[str | Path], environ: Mapping[str, str], logs: Path, watchdog: Watchdog
    ) -> None:
        """Describe the child; `start` starts it. Its log of an earlier run is set aside now."""
        self.name = name
        self.log_file = logs / f"{name}.log"
        self._command = command
        self._environ = environ
        self._watchdog = watchdog
        self._process: subprocess.Popen[bytes] | None = None
        if self.log_file.exists():
            self.log_file.replace(self.log_file.with_suffix(".log.1"))

    @property
    def pid(self) -> int | None:
        """Process id, or None when it is not running."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    @property
    def exit_status(self) -> int | None:
        """How the last process ended (negative: by that signal), or None when it runs or was never started."""
        return None if self._process is None else self._process.poll()

    def start(self, *, stdout: int | None = None) -> subprocess.Popen[bytes]:
        """Start a new process. Its standard output goes to the log too, unless `stdout` is subprocess.PIPE."""
        self._forget()
        with self.log_file.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: S603 programs of this installation
                self._command,
                stdin=subprocess.DEVNULL,
                stdout=log if stdout is None else stdout,
                stderr=log,
                env=dict(self._environ),
                start_new_session=True,  # Ctrl-C in the terminal reaches the stack alone, which stops all in order
            )
        self._watchdog.add(self._process.pid)
        return self._process

    def stop(self, patience_s: float = 10.0, while_waiting: Callable[[], None] = lambda: None) -> None:
        """Ask the process to stop, wait at most `patience_s`, then kill what is left of its group."""
        process = self._process
        if process is None:
            return
        if process.poll() is None:
            process.terminate()
            deadline = time.monotonic() + patience_s
            while process.poll() is None and time.monotonic() < deadline:
                while_waiting()
                time.sleep(0.02)
        self._forget()

    def last_lines(self, count: int = 12) -> str:
        """Return the end of the log."""
        with contextlib.suppress(OSError), self.log_file.open("rb") as log:
            _seek_near_end(log, 16 * 1024)
            return "\n".join(log.read().decode("utf-8", "replace").splitlines()[-count:])
        return ""

    def bound_log(self) -> None:
        """Empty a log that grew beyond the limit; the child goes on writing to the same file."""
        with contextlib.suppress(FileNotFoundError):
            if self.log_file.stat().st_size > LOG_LIMIT:
                shutil.copyfile(self.log_file, self.log_file.with_suffix(".log.1"))
                os.truncate(self.log_file, 0)

    def _forget(self) -> None:
        """Kill what is left of the process and its group, and take it off the watchdog's list."""
        process = self._process
        if process is None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        if process.stdout is not None:
            process.stdout.close()
        self._watchdog.remove(process.pid)


def _seek_near_end(file: IO[bytes], size: int) -> None:
    file.seek(0, os.SEEK_END)
    file.seek(max(0, file.tell() - size))
