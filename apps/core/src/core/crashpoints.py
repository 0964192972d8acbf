"""Places where a test kills the process, to prove that what follows a crash is right.

A program calls `crash_point("uploader.after_put")` between two steps of a protocol. Nothing happens, unless the
environment variable OONI_CRASH_AT names that point: then the process gets SIGKILL there, the first time or, with
`name:N`, the N-th time it comes by. SIGKILL runs no handler and flushes no buffer: to the program, a power cut.
"""

import os
import signal

VARIABLE = "OONI_CRASH_AT"


class CrashPlan:
    """Which point to die at, and how many more times it is passed unharmed."""

    def __init__(self, text: str) -> None:
        """Take `name` or `name:N`; an empty text never kills. Raises ValueError when N is no positive number."""
        self.name, _, times = text.partition(":")
        self.left = int(times or "1")
        if self.left < 1:
            raise ValueError(f"{VARIABLE} asks for pass {self.left} of {self.name}; use a number from 1.")

    def reached(self, name: str) -> bool:
        """Count one pass by `name` and tell whether it is the fatal one."""
        if name != self.name:
            return False
        self.left -= 1
        return self.left == 0


_plan = CrashPlan(os.environ.get(VARIABLE, ""))


def crash_point(name: str) -> None:
    """Die here when the environment asks for it; one comparison of strings otherwise."""
    if _plan.reached(name):
        os.kill(os.getpid(), signal.SIGKILL)
