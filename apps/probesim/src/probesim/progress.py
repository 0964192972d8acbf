"""Shows how a replay goes: one line that changes on a terminal, a plain line now and then elsewhere."""

import sys
from collections import Counter
from time import monotonic

from probesim.client import OUTCOMES
from probesim.submissions import Submitted

_REDRAW_S, _PLAIN_S = 0.1, 5.0
_BAR = 24


class Progress:
    """Counts results and shows them on standard error. `total` is the number of documents, or None when unknown."""

    def __init__(self, total: int | None) -> None:
        """Show nothing until the first result."""
        self._total = total
        self._counts: Counter[str] = Counter()
        self._terminal = sys.stderr.isatty()
        self._started = self._shown = monotonic()

    def __call__(self, result: Submitted) -> None:
        """Take one more result in."""
        self._counts[result.outcome] += 1
        if monotonic() - self._shown > (_REDRAW_S if self._terminal else _PLAIN_S):
            self._show()

    def finish(self) -> None:
        """Show the last state and leave the line."""
        self._show()
        if self._terminal:
            sys.stderr.write("\n")

    def _show(self) -> None:
        self._shown = monotonic()
        done = self._counts.total()
        rate = done / max(self._shown - self._started, 1e-3)
        counts = "  ".join(f"{name} {self._counts[name]}" for name in OUTCOMES)
        of_total = f"{done}/{self._total}" if self._total is not None else str(done)
        if not self._terminal:
            sys.stderr.write(f"submitted {of_total}  {counts}  ({rate:.0f}/s)\n")
        else:
            filled = _BAR * done // self._total if self._total else 0
            bar = f"[{'#' * filled}{'.' * (_BAR - filled)}] " if self._total else ""
            sys.stderr.write(f"\r\x1b[K{bar}{of_total}  {counts}  ({rate:.0f}/s)")
        sys.stderr.flush()
