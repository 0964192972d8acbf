"""Job `update-test-lists`: put the test lists of a directory or archive in place of those in the database.

The files are the truth: what they do not hold any more is removed, in the transaction that adds what is new; a second
run changes nothing. Lines that cannot be used are told with file and line, and cost no other line. A list that would
lose more than half of its entries, or is missing, is rather a failed download than a decision: then nothing is changed.
"""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import structlog

from analysis.metrics import Metrics
from analysis.store import Store
from core.testlists import GLOBAL, Entry, ListError, Lists, read_lists

SHOWN = 50
"""How many bad lines are shown."""

log = structlog.get_logger(__name__)


class Refused(Exception):
    """Nothing was changed; the text says why and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a run did, or would do."""

    entries: int
    lists: int
    bad_lines: int
    gone: frozenset[Entry]
    new: frozenset[Entry]

    def __str__(self) -> str:
        """One sentence for the operator."""
        bad = f"; lines that are not usable: {self.bad_lines}" if self.bad_lines else ""
        return f"{self.entries} entries in {self.lists} lists, {len(self.new)} new, {len(self.gone)} removed{bad}"


def update_test_lists(store: Store, metrics: Metrics, source: Path, *, force: bool, dry_run: bool) -> Change:
    """Make the lists in the database equal to those of `source`, a directory or an archive.

    `force` accepts that a list loses more than half of its entries. `dry_run` changes nothing.

    Raises:
        Refused: there is no list, or one would lose too much. Nothing was changed.
        AnotherRun, StoreError, DatabaseUnavailable: as the store.
    """
    try:
        read = read_lists(source)
    except (ListError, OSError) as error:
        raise Refused(str(error)) from error
    _tell(read)
    store.test_lists_lock()
    before, after = store.test_lists(), set(read.entries)
    metrics.test_list_entries.set(len(before))
    metrics.test_list_bad_lines.set(len(read.problems))
    shrunk = _shrunk(before, after)
    if shrunk and not force:
        raise Refused(
            f"These lists would lose more than half of their entries: {', '.join(shrunk)}. Nothing was changed. "
            "If that is meant, repeat with --force."
        )
    change = Change(
        len(after), len(read.countries), len(read.problems), frozenset(before - after), frozenset(after - before)
    )
    if not dry_run:
        store.change_test_lists(change.gone, change.new)
    metrics.test_list_entries.set(change.entries)
    metrics.test_list_added.set(len(change.new))
    metrics.test_list_removed.set(len(change.gone))
    return change


def _tell(read: Lists) -> None:
    for problem in read.problems[:SHOWN]:
        log.warning("line not used", at=f"{problem.file}:{problem.line}", reason=problem.reason)
    if len(read.problems) > SHOWN:
        log.warning("more lines not used", number=len(read.problems) - SHOWN)


def _shrunk(before: set[Entry], after: set[Entry]) -> list[str]:
    """The lists that lose more than half, each with its size before and after."""
    sizes, now = Counter(entry.cc for entry in before), Counter(entry.cc for entry in after)
    return [
        f"{'global' if cc == GLOBAL else cc} ({size} -> {now[cc]})"
        for cc, size in sorted(sizes.items())
        if now[cc] * 2 < size
    ]
