"""How far a rerun is, shown where one looks: a live bar on a terminal, log lines elsewhere, metrics always."""

import sys
import time
from collections import Counter
from datetime import timedelta
from types import TracebackType
from typing import Self, TextIO

import structlog
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from fastpath import metrics
from fastpath.rerun_work import Tally

log = structlog.get_logger(__name__)

LINE_S = 10.0
"""Seconds between two lines."""

OUTCOMES = ("row", "discarded", "rejected", "new", "existing", "replaced", "fallback", "refused", "internal_error")
"""What is counted per measurement; the last six are about rows that were written and defects."""


class Meter:
    """Counts, and estimates when the rerun will be through.

    The estimate is the elapsed time times what is left over what is done; days weigh the same, and the objects of a day
    by their size. What other hosts do on the same range counts.
    """

    def __init__(self, total_days: int) -> None:
        """Begin now with `total_days` to do."""
        self.total_days = max(1, total_days)
        self._started = time.monotonic()
        self._begun_at: float | None = None
        self._busy_since: float | None = None
        self._busy_until = 0.0
        self.days_done = 0.0
        self.counts: Counter[str] = Counter()
        self.bytes = 0

    def add(self, tally: Tally) -> None:
        """Count what a process did; the first tally is empty and says that it is ready."""
        self._busy_until = time.monotonic()
        if self._busy_since is None:
            self._busy_since = self._busy_until
        self.counts.update(tally.counts)
        self.bytes += tally.bytes
        for outcome in OUTCOMES:
            if tally.counts[outcome]:
                metrics.RERUN_MEASUREMENTS.labels(outcome).inc(tally.counts[outcome])
        metrics.RERUN_BYTES.inc(tally.bytes)

    def reached(self, days_done: float) -> None:
        """Take note of how many days are done."""
        if self._begun_at is None:
            self._begun_at = days_done  # what an earlier process did took none of our time
        self.days_done = days_done
        metrics.RERUN_PROGRESS.set(self.fraction)
        metrics.RERUN_RATE.set(self.rate)
        left = self.left_s
        metrics.RERUN_ETA.set(0 if left is None else time.time() + left)

    @property
    def fraction(self) -> float:
        """How much is done, from 0 to 1."""
        return min(1.0, self.days_done / self.total_days)

    @property
    def elapsed_s(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._started

    @property
    def busy_s(self) -> float:
        """Seconds from the time that the first process was ready to the last thing that one did."""
        return 0.0 if self._busy_since is None else self._busy_until - self._busy_since

    @property
    def left_s(self) -> float | None:
        """Seconds that are left, or None when nothing can be said yet."""
        done = self.days_done - (self._begun_at or 0.0)
        if done <= 0:
            return None
        return self.elapsed_s / done * max(0.0, self.total_days - self.days_done)

    @property
    def rate(self) -> float:
        """Measurements per second while processes were ready."""
        return self.counts["measurements"] / max(self.busy_s, 1e-3)

    def left_text(self) -> str:
        """The time that is left, for people."""
        left = self.left_s
        return "?" if left is None else str(timedelta(seconds=round(left)))


class Display:
    """Shows a meter: a live bar when `stream` is a terminal, else a log line every LINE_S seconds."""

    def __init__(self, meter: Meter, stream: TextIO) -> None:
        """Show `meter` on `stream`."""
        self._meter = meter
        self._line_at = time.monotonic() + LINE_S
        self._bar: Progress | None = None
        if stream.isatty():
            self._bar = Progress(
                SpinnerColumn(),
                TextColumn("rerun"),
                BarColumn(),
                TextColumn("{task.percentage:>5.1f} %"),
                MofNCompleteColumn(),
                TextColumn("days"),
                TextColumn("{task.fields[rate]}"),
                TimeElapsedColumn(),
                TextColumn("ETA {task.fields[left]}"),
                console=Console(file=stream),
                redirect_stdout=True,
                redirect_stderr=True,
            )
            self._task = self._bar.add_task("rerun", total=meter.total_days, rate="", left="?")

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.show()
        if self._bar is not None:
            self._bar.stop()

    def show(self) -> None:
        """Show how far it is; call it often."""
        meter = self._meter
        if self._bar is not None:
            rate = f"{meter.counts['measurements']} measurements, {meter.rate:.0f}/s"
            self._bar.update(self._task, completed=meter.days_done, rate=rate, left=meter.left_text())
        elif time.monotonic() >= self._line_at:
            self._line_at = time.monotonic() + LINE_S
            log.info(
                "rerun goes on",
                percent=f"{100 * meter.fraction:.1f}",
                measurements=meter.counts["measurements"],
                per_second=f"{meter.rate:.0f}",
                eta=meter.left_text(),
            )


class CurrentStream:
    """Writes to what `sys.stdout` or `sys.stderr` is at the moment: a live bar puts itself in their place."""

    def __init__(self, name: str) -> None:
        """Follow `sys.<name>`."""
        self._name = name

    def write(self, text: str) -> int:
        """Write text."""
        return int(getattr(sys, self._name).write(text))

    def flush(self) -> None:
        """Flush."""
        getattr(sys, self._name).flush()
