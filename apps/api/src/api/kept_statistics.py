"""What the statistics without parameters read lately, in one worker process: they add up the counters of years."""

from typing import Any

from api.kept import Kept
from api.read_slots import ReadSlots
from api.reading import Reader, Row

Values = tuple[tuple[str, Any], ...]
"""Names and values of placeholders."""

_NARROW = "Try again later."


class KeptStatistics:
    """The rows of a few statements, as they are or were not long ago."""

    def __init__(self, reader: Reader, slots: ReadSlots, kept_s: float) -> None:
        """Read through `reader` what is older than `kept_s` seconds; who waits for that holds a place of `slots`.

        With 0 they are read each time."""
        self._reader = reader
        self._slots = slots
        self._kept_s = kept_s
        self._kept: dict[str, tuple[Values, Kept[list[Row]]]] = {}

    def rows(self, statement: str, values: Values) -> list[Row]:
        """Return the rows of a statement, which belong to everybody: do not change them. Raises as `Kept.value`.

        One answer is kept per statement: its values change with the day alone.
        """
        if not self._kept_s:
            return self._reader.rows(statement, dict(values), narrow=_NARROW)
        of, kept = self._kept.get(statement, ((), None))
        if kept is None or of != values:

            def make() -> list[Row]:
                return self._reader.rows(statement, dict(values), narrow=_NARROW)

            kept = Kept("statistic", make, kept_s=self._kept_s, waiting=self._slots.place)
            self._kept[statement] = (values, kept)
        return kept.value()
