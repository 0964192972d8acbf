"""Bodies of aggregations from the lines that the database wrote: with few copies, and few large ones at a time.

By the time that there are lines, a reader has given its place among the queries to the next one. Without a bound of
their own, as many large bodies could be put together as a worker has threads, each several times in memory.
"""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from api.read_slots import TURN_WAIT_S, taken

LARGE = 2**20
"""Lines of more characters need a turn."""

AT_ONCE = 2
"""How many large bodies a worker puts together at the same time."""

_STEP = 2**16
_TO_ESCAPE = re.compile(r"[^ -~]")

_turns = threading.BoundedSemaphore(AT_ONCE)


@contextmanager
def turn(characters: int) -> Iterator[None]:
    """Hold a turn while a body is made of so many characters. Raises ApiError 503 when there is none."""
    if characters <= LARGE:
        yield
        return
    with taken(_turns, TURN_WAIT_S, "Other large results are being sent. Narrow the question, or try again soon."):
        yield


def in_ascii(lines: str) -> bytes:
    """Return JSON with all that is not printable ASCII escaped, as the wire contract has it."""
    if lines.isascii() and "\x7f" not in lines:
        return lines.encode("ascii")
    # In steps, so that only a small part is in memory in a third form.
    steps = (lines[start : start + _STEP] for start in range(0, len(lines), _STEP))
    return b"".join(_TO_ESCAPE.sub(_escaped, step).encode("ascii") for step in steps)


def _escaped(match: re.Match[str]) -> str:
    """Return a character as in JSON of ASCII alone: two escapes for those beyond the first plane."""
    units = match[0].encode("utf-16-be").hex()
    return "".join(f"\\u{units[start : start + 4]}" for start in range(0, len(units), 4))
