"""Makes the helpers of the stack test importable; they live beside it, not among the apps. Prints its summary."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

SUMMARY = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the summary."""
    config.stash[SUMMARY] = []


@pytest.fixture(scope="session")
def summary(pytestconfig: pytest.Config) -> list[str]:
    """Lines that are shown at the end of the run."""
    return pytestconfig.stash[SUMMARY]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show them."""
    lines = config.stash.get(SUMMARY, [])
    if lines:
        terminalreporter.section("stack")
        for line in lines:
            terminalreporter.write_line(line)
