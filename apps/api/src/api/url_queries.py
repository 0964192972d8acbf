"""The SQL of URL selection: lists, rules, and how often URLs were measured lately."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date
from typing import Any, NamedTuple

from psycopg import Connection
from psycopg.rows import TupleRow

from api.priorities import Rule
from core.db import Pool
from core.testlists import Entry

CHECKOUT_S = 2.0
"""Longest wait for a connection; a probe may be waiting for the answer."""

STATEMENT_TIMEOUT_MS = 10_000
RULES_TIMEOUT_MS = 2_000
"""For the rules alone: a small table, and whoever asks can have those in memory."""

# Every way of changing lists or rules is noticed, by hand included. The tables are small: some 30,000 rows, 20 ms.
_DIGEST = """SELECT
    (SELECT concat(count(*), ':', sum(hashtextextended(concat_ws(' ', domain, url, cc, category_code), 0)))
     FROM citizenlab),
    (SELECT concat(count(*), ':', sum(hashtextextended(concat_ws(' ', category_code, cc, domain, url, priority), 0)))
     FROM url_priorities)"""
_ENTRIES = """SELECT domain, url, cc, category_code FROM citizenlab
    ORDER BY domain COLLATE "C", url COLLATE "C", cc COLLATE "C\""""
_RULES = "SELECT category_code, cc, domain, url, priority FROM url_priorities"

# Only what is on a list is counted: probes choose inputs, and there is no end to those.
_COUNTS = """SELECT input, sum(measurement_count)::bigint FROM counters_input c
    WHERE left(probe_cc, 200) = %(cc)s AND probe_cc = %(cc)s AND test_name = 'web_connectivity'
    AND measurement_start_day >= %(since)s AND measurement_start_day < %(until)s {network}
    AND EXISTS (SELECT FROM citizenlab l WHERE l.url = c.input)
    GROUP BY input HAVING sum(measurement_count) > 0"""
_COUNTS_OF_COUNTRY = _COUNTS.format(network="")
_COUNTS_OF_NETWORK = _COUNTS.format(network="AND probe_asn = %(asn)s")

# The flags of a row exclude each other in the counters; a confirmed one is an anomaly as well.
_LAST_DAYS = """SELECT l.domain, l.url, l.cc, l.category_code,
        coalesce(sum(c.measurement_count), 0)::bigint,
        coalesce(sum(c.anomaly_count + c.confirmed_count), 0)::bigint
    FROM citizenlab l LEFT JOIN counters_input c
        ON c.input = l.url AND c.probe_cc = upper(l.cc) AND c.measurement_start_day >= %(since)s
        AND c.measurement_start_day < %(until)s
    GROUP BY l.url, l.cc ORDER BY l.domain COLLATE "C", l.url COLLATE "C\""""


@dataclass(frozen=True, slots=True)
class Contents:
    """Lists and rules as they were at one moment; equal digests mean equal contents."""

    digest: str
    entries: tuple[Entry, ...]
    rules: tuple[Rule, ...]


class LastDays(NamedTuple):
    """A URL of a list, and how it fared in the country of that list."""

    entry: Entry
    measurements: int
    anomalies: int


class UrlQueries:
    """Reads for URL selection. Every method raises DatabaseUnavailable, or psycopg errors when a query fails."""

    def __init__(self, pool: Pool) -> None:
        """Take the pool of this worker process."""
        self._pool = pool

    def contents(self, known: str | None) -> Contents | None:
        """Return lists and rules, None when they are still those with the digest `known`."""
        with self._pool.connection(CHECKOUT_S) as connection:
            _limit(connection, STATEMENT_TIMEOUT_MS)
            connection.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            row = connection.execute(_DIGEST).fetchone()
            assert row is not None
            digest = " ".join(row)
            if digest == known:
                return None
            entries = tuple(map(Entry._make, connection.execute(_ENTRIES).fetchall()))
            return Contents(digest, entries, _rules(connection.execute(_RULES).fetchall()))

    def rules(self) -> tuple[Rule, ...]:
        """Return the rules as they are now."""
        with self._pool.connection(CHECKOUT_S) as connection:
            _limit(connection, RULES_TIMEOUT_MS)
            return _rules(connection.execute(_RULES).fetchall())

    def counts(self, cc: str, asn: int, since: date, until: date) -> dict[str, int]:
        """Return how often web_connectivity measured each URL of the lists from `cc` and network `asn` (0: any).

        The days are those of measurement start, from `since` to the day before `until`, in UTC.
        """
        with self._pool.connection(CHECKOUT_S) as connection:
            _limit(connection, STATEMENT_TIMEOUT_MS)
            statement = _COUNTS_OF_NETWORK if asn else _COUNTS_OF_COUNTRY
            rows = connection.execute(
                statement.encode(), {"cc": cc, "asn": asn, "since": since, "until": until}
            ).fetchall()
        return dict(rows)

    def last_days(self, since: date, until: date) -> list[LastDays]:
        """Return for each entry of each list how it fared in its own country; reads the counters of all those days."""
        with self._pool.connection(CHECKOUT_S) as connection:
            _limit(connection, STATEMENT_TIMEOUT_MS)
            rows = connection.execute(_LAST_DAYS, {"since": since, "until": until}).fetchall()
        return [LastDays(Entry(*row[:4]), *row[4:]) for row in rows]


def _rules(rows: Sequence[tuple[Any, ...]]) -> tuple[Rule, ...]:
    return tuple(sorted(map(Rule._make, rows)))


def _limit(connection: Connection[TupleRow], milliseconds: int) -> None:
    connection.execute(f"SET LOCAL statement_timeout = {milliseconds}")
