"""Each named crash point of the pipeline, in every run: the process dies there, and nothing is lost."""

import re
import zlib
from pathlib import Path

import pytest
from crashlab.account import settle_and_check
from crashlab.probes import Probes, Sent, pace
from crashlab.stack import Program, Stack

ROOT = Path(__file__).parents[2]
pytestmark = [pytest.mark.crash, pytest.mark.timeout(300)]

ELSEWHERE = {
    "takedown": "apps/uploader/tests/test_uploader_takedown.py kills `uploader takedown` at each of them",
    "fastpath.rerun": "reruns read archives, not the spool: see the fastpath's own tests",
}
"""Points that no acknowledged measurement passes on its way, with the tests that pass them."""

OVERFLOW_AFTER = 3
"""Files in a directory of the spool; what dies has to do with files there and in overflow folders."""

PROGRAMS = {"api": "api", "fastpath": "fastpath", "uploader": "uploader"}


def points() -> list[str]:
    """Every point that the programs name, but for those of ELSEWHERE."""
    found = set()
    for path in (ROOT / "apps").glob("*/src/**/*.py"):
        found |= set(re.findall(r'crash_point\("([a-z_.]+)"\)', path.read_text()))
    return sorted(name for name in found if not name.startswith(tuple(ELSEWHERE)))


@pytest.fixture(scope="module")
def stack():
    with Stack(overflow_after=OVERFLOW_AFTER) as stack:
        yield stack


def test_there_are_points_in_every_program() -> None:
    assert {name.partition(".")[0] for name in points()} == set(PROGRAMS)


ACKNOWLEDGED: list[Sent] = []
"""By the one stack of this module, so far: what was archived before has to stay."""


@pytest.mark.parametrize("point", points())
def test_killed_at(stack: Stack, point: str, seed: int, figures: list[str]) -> None:
    stack.wait(stack.is_up, 60, "the stack is up")
    stack.archiver.clear()
    program = stack.programs[PROGRAMS[point.partition(".")[0]]]
    with Probes(stack.api_port, zlib.crc32(f"{seed} {point}".encode()), probes=2) as probes:
        stack.wait(stack.is_mixed, 30, "files lie in both places")
        stack.archiver.set()
        program.extra = {"OONI_CRASH_AT": f"{point}:2"}
        if program.name == "uploader":
            killed = program.killed
            stack.wait(lambda: program.killed > killed, 60, f"the uploader dies at {point}")
        else:
            starts = program.starts
            program.stop(patience_s=10)  # the supervisor starts it again, now with the point
            stack.wait(lambda: program.starts > starts and stack.is_up(), 60, f"{program.name} runs again")
            dies(stack, program, point)
            program.stop(patience_s=10)  # and once more, without it
        pace(probes, 10, 30)
    ACKNOWLEDGED.extend(probes.sent)
    figures.append(f"{point}: {settle_and_check(stack, ACKNOWLEDGED, read=30)}")


def dies(stack: Stack, program: Program, point: str) -> None:
    """Wait until a process of a daemon is gone. Nobody else kills here, and without a reason none of them ends."""
    starts, known = program.starts, set(program.family())

    def gone() -> bool:
        nonlocal known
        family = set(program.family())
        missing = known - family
        known |= family
        return bool(missing) or program.starts > starts

    stack.wait(gone, 60, f"something of {program.name} dies at {point}")
