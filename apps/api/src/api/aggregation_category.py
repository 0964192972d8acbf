"""Categories of what was measured: those of the test lists, by URL. What is on no list has none.

Each measurement has one category, however many lists have its URL: that of the list of the probe's country, else that
of the global list, else that of the first country that has it. A filter on a category is a question of its own: whether
the URL has this category in the global list or in the list of a country asked for.
"""

from collections.abc import Sequence

from api.aggregation_question import Question
from api.conditions import Condition, added
from core.counters import COUNTS

# In this collation ZZ, in capitals, comes before all countries.
_IS_FIRST = """NOT EXISTS (SELECT FROM citizenlab AS before
    WHERE before.url = listed.url AND before.cc COLLATE "C" < listed.cc COLLATE "C")"""
"""Whether a line of a list, `listed`, is that of its URL for probes whose country has no list with it."""

MOVED = f"""moved AS MATERIALIZED (
    SELECT listed.url, listed.category_code AS usual, array_agg(upper(own.cc)) AS countries,
        array_agg(own.category_code) AS categories
    FROM citizenlab AS own JOIN citizenlab AS listed ON listed.url = own.url
        AND listed.cc COLLATE "C" < own.cc COLLATE "C" AND listed.category_code <> own.category_code
    WHERE {_IS_FIRST} GROUP BY listed.url, listed.category_code)"""  # noqa: S608 constants
"""URLs to which lists of some countries give another category than the usual one; for `of_exceptions`."""


def of_all(counted: str, columns: Sequence[str]) -> str:
    """Return SQL that gives `counted`, which has `input`, the categories of all countries, and sums it up."""
    keys = [*(f"counted.{name}" for name in columns), "listed.category_code"]
    members = ", ".join([*keys, *(f"{added(count)}::bigint AS {count}" for count in COUNTS)])
    return f"""SELECT {members} FROM ({counted}) AS counted JOIN citizenlab AS listed ON listed.url = counted.input
        WHERE {_IS_FIRST} GROUP BY {", ".join(keys)}"""  # noqa: S608 constants


OF_MOVED = Condition(
    "left(input, 200) = left(moved.url, 200) AND input = moved.url AND left(probe_cc, 200) = ANY(moved.countries)", {}
)
"""Restricts what `of_exceptions` is given."""


def of_exceptions(counted: str, columns: Sequence[str]) -> str:
    """Return SQL that moves what is counted differently.

    It looks up each URL once, by index, however many countries have it otherwise. So no counter is read twice, and
    however long the lists are, this reads no more counters than a scan would.

    Args:
        counted: SQL with the condition OF_MOVED that gives `probe_cc`, too.
        columns: what to give besides the category and the counts.
    """
    signed = (f"target.sign * counted.{count} AS {count}" for count in COUNTS)
    members = ", ".join([*(f"counted.{name}" for name in columns), "target.category_code", *signed])
    return f"""SELECT {members} FROM moved
        CROSS JOIN LATERAL (SELECT * FROM ({counted}) AS all_of_it OFFSET 0) AS counted
        CROSS JOIN LATERAL (VALUES (moved.categories[array_position(moved.countries, counted.probe_cc)], 1),
            (moved.usual, -1)) AS target (category_code, sign)"""  # noqa: S608 constants


def of_each(counted: str, columns: Sequence[str]) -> str:
    """Return SQL that gives `counted`, which has `input` and `probe_cc`, the categories for the probe's country."""
    members = ", ".join(f"counted.{name}" for name in (*columns, *COUNTS))
    return f"""SELECT coalesce(own.category_code, listed.category_code) AS category_code, {members}
        FROM ({counted}) AS counted JOIN citizenlab AS listed ON listed.url = counted.input
        LEFT JOIN citizenlab AS own ON own.url = counted.input AND upper(own.cc) = counted.probe_cc
        WHERE {_IS_FIRST}"""  # noqa: S608 constants


def filtered(counted: str, question: Question) -> tuple[str, dict[str, object]]:
    """Return SQL that leaves of `counted`, which has `input`, what has the category asked for; and its values."""
    lists = ["ZZ", *(country.lower() for country in question.countries)]
    sql = f"""SELECT counted.* FROM ({counted}) AS counted JOIN
        (SELECT url, left(url, 200) AS start FROM citizenlab
            WHERE category_code = %(category)s AND cc = ANY(%(lists)s) GROUP BY url) AS wanted
        ON left(counted.input, 200) = wanted.start AND counted.input = wanted.url"""  # noqa: S608 constants
    return sql, {"category": question.category, "lists": lists}
