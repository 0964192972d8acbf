"""One list as a CSV file: its entries, and the same file with some of them changed, all other bytes as they were.

The first line names the columns. Lines that are no entry (broken quotes, too few columns, blank ones) are kept.
"""

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from api.testlist_entries import CATEGORY_DESCRIPTIONS, ListEntry

_COLUMNS = (*ListEntry._fields, "category_description")
_SPECIAL = re.compile(r'[",\r\n]')
_LINES = re.compile(r"[^\n]*\n|[^\n]+")


class ListDamaged(Exception):
    """The file cannot be changed without damage; the text says why."""


@dataclass(frozen=True, slots=True)
class _Record:
    """Some lines of the file that belong together; `values` are None for what is no entry."""

    raw: str
    values: list[str] | None


class ListFile:
    """A list. Immutable."""

    def __init__(self, data: bytes) -> None:
        """Take the file apart.

        Raises:
            ListDamaged: its first line does not name the columns.
        """
        # Bytes that are no UTF-8 become lone surrogates, and the same bytes again when the file is written.
        text = data.decode("utf-8", "surrogateescape")
        records = _records(text)
        if not records or records[0].values is None:
            raise ListDamaged("it has no line that names the columns")
        self._header = records[0]
        self._columns = [name.strip().lstrip("\ufeff") for name in records[0].values]
        missing = set(_COLUMNS) - set(self._columns)
        if missing:
            raise ListDamaged(f"it lacks the columns {', '.join(sorted(missing))}")
        self._rest = [self._entry_record(record) for record in records[1:]]
        self._numbers = [number for number, record in enumerate(self._rest) if record.values is not None]
        self.entries: tuple[ListEntry, ...] = tuple(
            self._entry(values) for record in self._rest if (values := record.values) is not None
        )
        """The entries in their order, as they are shown: what JSON or the database cannot hold is replaced."""

    def changed(self, replaced: Mapping[int, ListEntry | None], added: Sequence[ListEntry]) -> bytes:
        """Return the file with changes.

        Args:
            replaced: what is put in place of entries, by their position in `entries`; None deletes one.
            added: what comes at the end.

        Raises:
            ListDamaged: something in the file, such as a quote that is not closed, would swallow the changes.
        """
        by_record = {self._numbers[position]: (position, entry) for position, entry in replaced.items()}
        end = "\r\n" if self._header.raw.endswith("\r\n") else "\n"
        parts = [self._header.raw]
        for number, record in enumerate(self._rest):
            if number not in by_record:
                parts.append(record.raw)
                continue
            position, entry = by_record[number]
            if entry is not None:
                assert record.values is not None
                parts.append(self._line(record.values, self.entries[position], entry, _ending(record.raw)))
        if added and not parts[-1].endswith("\n"):
            parts.append(end)
        parts += [self._line([""] * len(self._columns), None, entry, end) for entry in added]
        data = "".join(parts).encode("utf-8", "surrogateescape")
        expected = [replaced.get(position, entry) for position, entry in enumerate(self.entries)]
        if ListFile(data).entries != (*(entry for entry in expected if entry is not None), *added):
            raise ListDamaged("a quote in it is not closed")
        return data

    def _entry_record(self, record: _Record) -> _Record:
        values = record.values
        whole = values is not None and len(values) == len(self._columns) and any(values)
        return record if whole else _Record(record.raw, None)

    def _entry(self, values: Sequence[str]) -> ListEntry:
        named = dict(zip(self._columns, values, strict=True))
        return ListEntry(*(_shown(named[field]) for field in ListEntry._fields))

    def _line(self, values: Sequence[str], before: ListEntry | None, entry: ListEntry, end: str) -> str:
        """Return the line of `entry`; fields that are as in `before` keep the text that they have in `values`."""
        named = dict(zip(self._columns, values, strict=True))
        for field in ListEntry._fields:
            if before is None or getattr(before, field) != getattr(entry, field):
                named[field] = getattr(entry, field)
        if before is None or before.category_code != entry.category_code:
            named["category_description"] = CATEGORY_DESCRIPTIONS[entry.category_code]
        return ",".join(_cell(named[column]) for column in self._columns) + end


def _records(text: str) -> list[_Record]:
    lines: list[str] = _LINES.findall(text)
    reader = csv.reader(iter(lines), strict=True)
    found: list[_Record] = []
    begin = 0
    while True:
        values: list[str] | None
        try:
            values = next(reader)
        except StopIteration:
            return found
        except csv.Error:
            values = None
        end = reader.line_num
        found.append(_Record("".join(lines[begin:end]), values))
        begin = end


def _cell(text: str) -> str:
    # The csv module leaves a lone carriage return without quotes, and does not read that.
    return '"' + text.replace('"', '""') + '"' if _SPECIAL.search(text) else text


def _ending(raw: str) -> str:
    return "\r\n" if raw.endswith("\r\n") else "\n" if raw.endswith("\n") else ""


def _shown(text: str) -> str:
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace").replace("\x00", "\ufffd")
