"""Watches the backlog as Prometheus would: by the fastpath's metric, all the time, whatever is out of order."""

import re
import threading
import time
import urllib.request
from types import TracebackType
from typing import Self

from crashlab.stack import Stack

STATES = ("incoming", "scored")
"""What waits to be scored, and what waits to be archived."""

POLL_S = 1.0
_VALUE = re.compile(r'^fastpath_spool_files\{state="(\w+)"\} (\S+)$', re.MULTILINE)


class Backlog:
    """Reads the metric every second while it is entered."""

    def __init__(self, stack: Stack) -> None:
        """Watch the host's fastpath."""
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.polls = 0
        self.unreadable: list[str] = []
        """What went wrong with the polls that gave no value."""

        self.now = dict.fromkeys(STATES, 0.0)
        """As the last poll found it."""

        self.peak = dict.fromkeys(STATES, 0.0)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(30)

    def _run(self) -> None:
        while not self._stop.wait(POLL_S):
            self.polls += 1
            try:
                with urllib.request.urlopen(self._stack.metrics_url, timeout=5) as response:
                    found = {state: float(value) for state, value in _VALUE.findall(response.read().decode())}
                self.now = {state: found[state] for state in STATES}
            except (OSError, KeyError) as error:
                self.unreadable.append(f"{time.strftime('%H:%M:%S')} {error!r}")
                continue
            for state in STATES:
                self.peak[state] = max(self.peak[state], self.now[state])

    def assert_seen(self, state: str, at_least: float, within_s: float) -> None:
        """Check that the metric grew so far, fell to 0, and could be read at each poll.

        Raises:
            AssertionError: it did not.
        """
        self._stack.wait(lambda: not any(self.now.values()), within_s, "the backlog falls to 0")
        assert self.peak[state] >= at_least, f"the backlog was never visible: {self.peak}"
        assert self.polls > 0
        assert not self.unreadable, f"the metric was away: {self.unreadable[:5]}"
