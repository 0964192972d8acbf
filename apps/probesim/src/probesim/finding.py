"""What a test found: the parts of a measurement that depend on the test and not on the probe that ran it."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(slots=True)
class Finding:
    """The result of one measurement. `input` is None for tests without one; `runtime` is in seconds."""

    test_name: str
    test_version: str
    input: str | list[str] | None
    test_keys: dict[str, Any]
    runtime: float
    test_helpers: dict[str, Any] = field(default_factory=dict)
    without_resolver: bool = False
    """Leave the resolver's keys out, as a probe does that could not find its resolver."""
