"""A named point kills, exactly there; without a name nothing ever does."""

import os
import signal
import subprocess
import sys

import pytest

from core.crashpoints import VARIABLE, CrashPlan

PROGRAM = """
import atexit
from core.crashpoints import crash_point
atexit.register(print, "handler ran", flush=True)
for number in range(3):
    crash_point("here")
    print(number, flush=True)
crash_point("there")
print("end", flush=True)
"""


def run(point: str | None) -> "subprocess.CompletedProcess[str]":
    environment = {name: value for name, value in os.environ.items() if name != VARIABLE}
    if point is not None:
        environment[VARIABLE] = point
    return subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(
    ("point", "printed"),
    [("here", ""), ("here:1", ""), ("here:3", "0\n1\n"), ("there", "0\n1\n2\n")],
)
def test_dies_at_the_point_without_handlers(point: str, printed: str) -> None:
    died = run(point)
    assert died.returncode == -signal.SIGKILL
    assert died.stdout == printed


@pytest.mark.parametrize("point", [None, "", "elsewhere", "here:4"])
def test_lives_otherwise(point: str | None) -> None:
    lived = run(point)
    assert (lived.returncode, lived.stdout) == (0, "0\n1\n2\nend\nhandler ran\n")


@pytest.mark.parametrize("text", ["here:0", "here:-1", "here:x"])
def test_a_pass_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"pass|invalid literal"):
        CrashPlan(text)
