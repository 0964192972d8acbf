"""A clock that can be set while programs run, for those that are started with its environment."""

import mmap
import os
import shutil
import struct
import subprocess
from pathlib import Path

SOURCE = Path(__file__).with_name("clock.c")
COMPILER = shutil.which("gcc")
_OFFSET = struct.Struct("=q")  # nanoseconds


class Clock:
    """The real-time clock of some processes, ahead of the right time by an offset that may change at any moment."""

    def __init__(self, directory: Path) -> None:
        """Compile what shifts the clock into `directory`; needs COMPILER. Raises CalledProcessError."""
        assert COMPILER is not None
        self._library = directory / "clock.so"
        self._path = directory / "clock"
        command = [COMPILER, "-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", "-o", self._library, SOURCE]
        subprocess.run(command, check=True)
        self._path.write_bytes(_OFFSET.pack(0))
        with self._path.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), _OFFSET.size)

    @property
    def environ(self) -> dict[str, str]:
        """What programs with this clock need in their environment."""
        others = os.environ.get("LD_PRELOAD", "")
        return {"LD_PRELOAD": f"{self._library} {others}".strip(), "CRASHLAB_CLOCK": str(self._path)}

    def set(self, ahead_s: float) -> None:
        """Let the clock jump to so many seconds ahead of the right time; behind it when negative."""
        self._shared[:] = _OFFSET.pack(round(ahead_s * 1e9))
