"""Makes the helpers of the crash tests importable, hands out seed and rounds, and prints the figures at the end."""

import os
import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

FIGURES = pytest.StashKey[list[str]]()


def pytest_configure(config: pytest.Config) -> None:
    """Make room for the figures."""
    config.stash[FIGURES] = []


@pytest.fixture(scope="session")
def figures(pytestconfig: pytest.Config) -> list[str]:
    """Lines that are shown at the end of the run."""
    return pytestconfig.stash[FIGURES]


@pytest.fixture(scope="session")
def seed(figures: list[str]) -> int:
    """SEED of the environment, else a fresh one; printed, so that a failure can be repeated."""
    chosen = int(os.environ.get("SEED") or random.SystemRandom().randrange(1_000_000))
    figures.append(f"seed {chosen} (repeat with: make test-crash SEED={chosen})")
    return chosen


@pytest.fixture(scope="session")
def rounds() -> int:
    """ROUNDS of the environment: how many random kills."""
    return int(os.environ.get("ROUNDS") or 50)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Show the figures."""
    lines = config.stash.get(FIGURES, [])
    if lines:
        terminalreporter.section("crash tests")
        for line in lines:
            terminalreporter.write_line(line)
