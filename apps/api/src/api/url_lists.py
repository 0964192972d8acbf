"""The lists and rules that one worker works with, and the last good ones on disk.

Where they come from, in this order: the database; the file that this host wrote when the database last answered; the
sample list of the package. A database without any list counts as one that does not answer, and rules by which nobody
wants any URL count as missing: a probe that is told no URL stops its test.
"""

import contextlib
import fcntl
import os
import threading
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

import msgspec
import structlog

from api.priorities import Candidates, Rule, Rules
from api.url_counts import UrlNumbers
from api.url_queries import Contents
from core.testlists import GLOBAL, SAMPLE, Entry, read_lists

FILE_NAME = "test-lists.json"

DEFAULT_PRIORITIES = (
    (100, "NEWS POLR HUMR LGBT ANON COMT GRP"),
    (80, "MMED SRCH PUBH"),
    (60, "REL XED HOST ENV"),
    (40, "FILE CULTR IGO GOVT"),
    (30, "DATE HATE MILX PROV PORN GMB ALDR"),
    (20, "GAME MISC HACK ECON COMM CTRL"),
)
"""The rules that a new database begins with, used with the sample list."""

log = structlog.get_logger(__name__)


class TestLists:
    """Lists and rules at one moment. Immutable, apart from what is worked out when it is first needed."""

    __test__ = False  # the name is no business of the test runner's

    def __init__(self, contents: Contents, source: str, numbers: UrlNumbers | None = None) -> None:
        """Arrange `contents`.

        Args:
            contents: the entries and rules.
            source: where they are from: database, disk or sample.
            numbers: those of the lists before; counts that are known by number then hold for both.
        """
        self.contents = contents
        self.numbers = numbers or UrlNumbers()
        self.source = source
        self.rules = Rules(contents.rules)
        self.rules_are_default = not _anything_wanted(contents.entries, self.rules)
        """No entry has a positive priority by the rules of `contents`: the rules of a new database replace them."""
        if self.rules_are_default:
            self.rules = Rules(default_rules())
        self._by_country = defaultdict[str, list[Entry]](list)
        for entry in contents.entries:
            self._by_country[entry.cc.upper()].append(entry)
        self._everywhere = Candidates(self._by_country.get(GLOBAL, ()), self.rules, GLOBAL, self.numbers)
        self._candidates: dict[str, Candidates] = {GLOBAL: self._everywhere}
        self._lock = threading.Lock()

    def __len__(self) -> int:
        """Return the number of entries of all lists."""
        return len(self.contents.entries)

    def candidates(self, cc: str) -> Candidates:
        """Return what probes in country `cc` (upper case) can be given, worked out once per country."""
        if cc not in self._by_country and cc not in self.rules.countries:
            return self._everywhere
        with self._lock:
            found = self._candidates.get(cc)
            if found is None:
                own = self._by_country.get(cc, ())
                found = self._candidates[cc] = Candidates(own, self.rules, cc, self.numbers, self._everywhere)
        return found


class _Saved(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The file on disk."""

    digest: str
    entries: tuple[tuple[str, str, str, str], ...]
    rules: tuple[tuple[str, str, str, str, int], ...]


def load(directory: Path, numbers: UrlNumbers | None = None) -> TestLists | None:
    """Return the last good lists of this host; None when there are none, or they are damaged (which is logged)."""
    path = directory / FILE_NAME
    try:
        saved = msgspec.json.decode(path.read_bytes(), type=_Saved)
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        log.error("last good test lists unreadable; they are written again with the next list", error=str(error))
        return None
    contents = Contents(saved.digest, tuple(map(Entry._make, saved.entries)), tuple(map(Rule._make, saved.rules)))
    return TestLists(contents, "disk", numbers) if contents.entries else None


def save(directory: Path, contents: Contents) -> bool:
    """Write the lists for the next time that the database is away; return False when another worker is writing.

    Nothing is written when they are there already. The file is complete at every moment.

    Raises:
        OSError: the directory cannot be written.
    """
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    with open(directory / f".{FILE_NAME}.lock", "a") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        path = directory / FILE_NAME
        with contextlib.suppress(OSError, msgspec.DecodeError):
            if msgspec.json.decode(path.read_bytes(), type=_Saved).digest == contents.digest:
                return True
        temporary = path.with_suffix(".tmp")
        with temporary.open("wb") as file:
            file.write(msgspec.json.encode(_Saved(contents.digest, contents.entries, contents.rules)))
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return True


def sample(numbers: UrlNumbers | None = None) -> TestLists:
    """Return the list that ships with the package, with the rules that a new database begins with."""
    entries = tuple(sorted(read_lists(SAMPLE).entries))
    return TestLists(Contents("sample", entries, default_rules()), "sample", numbers)


def default_rules() -> tuple[Rule, ...]:
    """Return the rules that a new database begins with."""
    return tuple(
        Rule(category, "*", "*", "*", priority)
        for priority, categories in DEFAULT_PRIORITIES
        for category in categories.split()
    )


def _anything_wanted(entries: Iterable[Entry], rules: Rules) -> bool:
    """Whether any entry has a positive priority anywhere."""
    return any(
        rules.priority(entry, cc) > 0
        for entry in entries
        for cc in ((GLOBAL, *rules.countries) if entry.cc == GLOBAL else (entry.cc.upper(),))
    )
