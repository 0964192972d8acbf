"""How statistics read the database: by small queries that nobody can narrow, so a slow one is a matter of time.

Those that take no parameters add up all counters of years, and their replies may be kept for hours. A worker asks for
them every few minutes at most (setting `statistics_kept_s`).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from api.reading import Row
from api.services import services
from api.statistics_asked import LATER


def read(statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
    """Return the rows of a statement. Raises as `Reader.rows`."""
    return services().reader.rows(statement, values, narrow=LATER)


def read_kept(statement: str, values: tuple[tuple[str, Any], ...] = ()) -> list[Row]:
    """Return the rows of one of the few statements that no parameter of a request is in. Raises as `Kept.value`.

    `values` are names and values of its placeholders; they change with the day.
    """
    return services().kept_statistics.rows(statement, values)
