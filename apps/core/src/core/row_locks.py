"""Who may write rows of the same measurements at the same time, so that nobody waits for another in a circle.

Who only inserts does so in the order of uids, and any number of them can: each waits for rows that come later only. Who
replaces or deletes holds rows that exist before it gets to those that do not, in which no order helps. So it has the
hours, in which its measurements were received, for itself. Take the lock before the first row of the transaction.

Who takes measurements out for good also keeps repairs of counters away. A repair adds what its snapshot says is
missing; the counter of a row that goes meanwhile would come back, with what the probe sent.

The locks are advisory ones and end with the transaction. A release that does not take them may meet a deadlock, which
PostgreSQL ends after a second, and its transaction is repeated.
"""

import zlib
from collections.abc import Iterable
from typing import Any

import psycopg

LOCK_CLASS = 0x726F7773
"""First half of the keys of these locks; the second stands for the hour."""

REPAIR_LOCK = 0x72657061
"""Key of the lock that takedowns and repairs of counters exclude each other by."""


def lock_to_insert(connection: psycopg.Connection[Any], uids: Iterable[str]) -> None:
    """Keep out who replaces or deletes rows of the hours of these measurements. Raises psycopg.Error."""
    connection.execute(
        "SELECT pg_advisory_xact_lock_shared(%s, hour) FROM unnest(%s::integer[]) AS hour", [LOCK_CLASS, _hours(uids)]
    )


def lock_to_change(connection: psycopg.Connection[Any], uids: Iterable[str]) -> None:
    """Keep out who writes rows of the hours of these measurements in any way. Raises psycopg.Error."""
    connection.execute(
        "SELECT pg_advisory_xact_lock(%s, hour) FROM unnest(%s::integer[]) AS hour", [LOCK_CLASS, _hours(uids)]
    )


def lock_to_take_out(connection: psycopg.Connection[Any], uids: Iterable[str]) -> None:
    """As `lock_to_change`, and wait until no counter is being repaired. Raises psycopg.Error."""
    connection.execute("SELECT pg_advisory_xact_lock_shared(%s::bigint)", [REPAIR_LOCK])
    lock_to_change(connection, uids)


def lock_to_repair(connection: psycopg.Connection[Any]) -> None:
    """Wait until no measurement is being taken out, and keep out who wants to. Raises psycopg.Error.

    What the next statement of a transaction (of level READ COMMITTED) sees is then true until the transaction ends.
    """
    connection.execute("SELECT pg_advisory_xact_lock(%s::bigint)", [REPAIR_LOCK])


def _hours(uids: Iterable[str]) -> list[int]:
    """Numbers of the hours (of the days, for uids of old), in one order for all. Two hours may share a number."""
    starts = {uid[:10] for uid in uids}  # 2021020822, or 0120210208
    return sorted({zlib.crc32(start.encode("utf-8", "replace")) - 2**31 for start in starts})
