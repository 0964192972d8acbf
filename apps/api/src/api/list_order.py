"""The total orders of the list, and positions in them.

Rows are sorted by a column, then by start time, then by uid, all in the same direction. No two rows share the last two.
Text is sorted by its first 200 characters, which is what the indexes hold, by the collation of the database.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.conditions import INDEXED_CHARACTERS, TEST_NAME
from api.list_filter import START, Conditions

ORDER_COLUMNS = (START, "input", "probe_cc", "probe_asn", "test_name")

VALUE = "order_value"
"""The column that rows of the list have for what they are sorted by."""


@dataclass(frozen=True, slots=True)
class Position:
    """A row of an order; `value` is what the row is sorted by before its time, None in the order of time."""

    value: str | int | None
    start: datetime
    uid: str

    @classmethod
    def of(cls, row: dict[str, Any]) -> "Position":
        """Return the position of a row of the list."""
        return cls(row[VALUE], row[START], row["measurement_uid"])


@dataclass(frozen=True, slots=True)
class Order:
    """One of the orders: `column` is one of ORDER_COLUMNS."""

    column: str
    descending: bool

    @property
    def by_time(self) -> bool:
        """Whether time is all that rows are sorted by."""
        return self.column == START

    @property
    def direction(self) -> str:
        """The direction in SQL."""
        return "DESC" if self.descending else "ASC"

    @property
    def beyond(self) -> str:
        """The operator of what comes after a position."""
        return "<" if self.descending else ">"

    @property
    def on_rows(self) -> str:
        """SQL of the value that rows of fastpath are sorted by."""
        if self.by_time:
            return "NULL"
        if self.column == "probe_asn":
            return "probe_asn"
        column = TEST_NAME if self.column == "test_name" else self.column
        return f"left({column}, {INDEXED_CHARACTERS})"

    @property
    def on_counters(self) -> str:
        """SQL of that value in a table of counters."""
        return "probe_asn" if self.column == "probe_asn" else f"left({self.column}, {INDEXED_CHARACTERS})"

    def after(self, found: Conditions, position: Position, *, same_value: bool) -> None:
        """Add the condition that a row comes after a position; `same_value`: among those with the same value."""
        # What follows from the last condition is there for the choice of partitions and of indexes.
        if self.by_time or same_value:
            found.add(f"{START} {self.beyond}= %s", position.start)
            found.add(f"({START}, measurement_uid) {self.beyond} (%s, %s)", position.start, position.uid)
        else:
            found.add(f"{self.on_rows} {self.beyond}= %s", position.value)
            found.add(
                f"({self.on_rows}, {START}, measurement_uid) {self.beyond} (%s, %s, %s)",
                position.value,
                position.start,
                position.uid,
            )
