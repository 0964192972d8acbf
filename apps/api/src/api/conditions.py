"""Conditions of SQL with named placeholders, in the form that the schema's indexes serve.

Text columns are indexed by their first 200 characters (see the first migration), hence the conditions on
`left(column, 200)`. Names of columns and placeholders come from the callers' constants, never from a request.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from core.testnames import KNOWN_TEST_NAMES

INDEXED_CHARACTERS = 200
"""How much of a text is in an index, in characters."""

TEST_NAME = "coalesce(test_name::text, test_name_other, '')"
"""The name of the test of a row of table fastpath, as text."""


class Condition(NamedTuple):
    """A condition, and what its placeholders stand for."""

    sql: str
    values: dict[str, Any]


def equal(column: str, name: str, options: Sequence[Any], cast: str = "") -> Condition:
    """Return the condition that `column` has one of the values; `cast` is a type such as `::bigint`."""
    # A single value is compared with =, so that an index on it also gives the order.
    if len(options) == 1:
        return Condition(f"{column} = %({name})s{cast}", {name: options[0]})
    return Condition(f"{column} = ANY(%({name})s{cast and cast + '[]'})", {name: list(options)})


def equal_text(column: str, name: str, options: Sequence[str]) -> Condition:
    """Return the condition that a text column with an index has one of the values."""
    starts = sorted({text[:INDEXED_CHARACTERS] for text in options})
    start = equal(f"left({column}, {INDEXED_CHARACTERS})", f"{name}_start", starts)
    if all(len(text) < INDEXED_CHARACTERS for text in options):
        # What begins with so few characters and goes no further is the value. A second condition would say the same,
        # but the planner would take it for another one, and expect far too few rows.
        return start
    whole = equal(column, name, options)
    return Condition(f"{start.sql} AND {whole.sql}", start.values | whole.values)


def equal_test_name(name: str, options: Sequence[str]) -> Condition:
    """Return the condition that a row of table fastpath is of one of these tests, known to the database or not.

    Rows that came before a name was known have it as any other text.
    """
    other = equal_text("test_name_other", f"{name}_other", options)
    known = [option for option in options if option in KNOWN_TEST_NAMES]
    parts = [Condition(f"test_name IS NULL AND {other.sql}", other.values)]
    if known:
        parts.insert(0, equal("test_name", f"{name}_known", known, cast="::ootest"))
    if len(known) < len(options):
        # The schema may be newer than this release, and know more names.
        newer = equal("enumlabel", f"{name}_newer", [option for option in options if option not in known])
        labels = f"""SELECT enumlabel::text::ootest FROM pg_enum
            WHERE enumtypid = 'ootest'::regtype AND {newer.sql}"""  # noqa: S608 constants
        parts.append(Condition(f"test_name = ANY(ARRAY({labels}))", newer.values))
    values = {placeholder: value for part in parts for placeholder, value in part.values.items()}
    return Condition(f"({' OR '.join(f'({part.sql})' for part in parts)})", values)


def added(count: str) -> str:
    """Return SQL that adds up a column of counts, as double precision: exact for whole numbers up to 2 to the 53rd.

    PostgreSQL adds up bigint as numeric, which takes much of the time of a query over many counters.
    """
    return f"sum({count}::float8)"
