"""Hosts, operator, packages and checks of the stack test."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
"""The repository."""

LOGS = ROOT / "run" / "test-stack"
"""Where each command's output is kept, one file per command."""

DOMAIN = "staging.example.org"
"""The staging inventory is what is deployed, so the hosts have its names."""
