"""How statistics read the database: by small queries that nobody can narrow, so a slow one is a matter of time."""

from collections.abc import Mapping, Sequence
from typing import Any

from api.reading import Row
from api.services import services
from api.statistics_asked import LATER


def read(statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[Row]:
    """Return the rows of a statement. Raises as `Reader.rows`."""
    return services().reader.rows(statement, values, narrow=LATER)
