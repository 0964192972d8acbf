"""What the user sees: sentences, a progress bar, a table; and the two lines that other programs wait for."""

import contextlib
import os
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

_PLAIN_WIDTH = 120
_PLAIN_PROGRESS_S = 5.0


class Screen:
    """Standard output. A reader that goes away does not end the stack."""

    def __init__(self) -> None:
        """Use the terminal's width, or a fixed one where there is no terminal."""
        self._console = Console(file=sys.stdout, highlight=False, width=None if sys.stdout.isatty() else _PLAIN_WIDTH)

    def say(self, text: str) -> None:
        """Print a sentence, whole, without breaking it."""
        with self._reader_may_leave():
            self._console.print(text, markup=False, soft_wrap=True)
            sys.stdout.flush()

    def machine_line(self, text: str) -> None:
        """Print a line that programs read: alone on its line, without decoration, at once."""
        with self._reader_may_leave():
            sys.stdout.write(f"{text}\n")
            sys.stdout.flush()

    def table(self, title: str, rows: list[tuple[str, str]]) -> None:
        """Print a table with two columns."""
        table = Table(title=title, title_justify="left", show_header=False)
        table.add_column(style="bold")
        table.add_column(justify="right")
        for name, value in rows:
            table.add_row(name, value)
        with self._reader_may_leave():
            self._console.print(table)
            sys.stdout.flush()

    @contextlib.contextmanager
    def progress(self, total: int | None) -> Iterator[Callable[[str], None]]:
        """Show how many outcomes came in; gives the function that takes them."""
        counts: Counter[str] = Counter()
        if not self._console.is_terminal:
            shown = time.monotonic()

            def count(outcome: str) -> None:
                nonlocal shown
                counts[outcome] += 1
                if time.monotonic() - shown > _PLAIN_PROGRESS_S:
                    shown = time.monotonic()
                    self.say(_so_far(counts, total))

            yield count
            return
        columns = (
            TextColumn("submitting"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=self._console, transient=True) as bar:
            task = bar.add_task("", total=total)

            def advance(outcome: str) -> None:
                counts[outcome] += 1
                bar.update(task, advance=1, description=_outcomes(counts))

            yield advance

    @contextlib.contextmanager
    def _reader_may_leave(self) -> Iterator[None]:
        try:
            yield
        except OSError:  # the pipe or the terminal is gone
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _outcomes(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in counts.items())


def _so_far(counts: Counter[str], total: int | None) -> str:
    return f"submitted {counts.total()}{f' of {total}' if total is not None else ''}: {_outcomes(counts)}"
