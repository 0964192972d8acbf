"""What lies in a spool, as the memory of repeated measurements wants it back after a power cut."""

import itertools
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from core.ids import parse_measurement_uid
from core.received import received_key
from core.spool import INCOMING, SCORED, Spool, TornFile
from core.spool_scan import directories, uids

UNWRITTEN = timedelta(minutes=5)
"""Longest time, with a margin, that the system keeps written data in memory only."""


def received_in(spool: Spool, *, everything: bool) -> Iterator[tuple[bytes, datetime]]:
    """Yield key and time of receipt of what came today and yesterday, or else just before the newest of it."""
    since = f"{datetime.now(UTC) - timedelta(days=1):%Y%m%d}"
    if not everything:
        now = f"{datetime.now(UTC):%Y%m%d%H%M%S.%f}"
        # What is from the future, since the clock was ahead, says nothing about when the machine stopped.
        newest = max((uid for uid in _names(spool, since) if uid <= now), default="")
        stopped = parse_measurement_uid(newest).received_at if newest else datetime.now(UTC)
        since = f"{stopped - UNWRITTEN:%Y%m%d%H%M%S}"
    for uid in _names(spool, since):
        if uid < since:
            continue
        try:
            record = spool.read(uid)
        except (TornFile, OSError):
            continue
        if record is not None and record.report_id:
            yield received_key(record.report_id, record.body), parse_measurement_uid(uid).received_at


def _names(spool: Spool, since: str) -> Iterator[str]:
    for state in (INCOMING, SCORED):
        where = spool.root / state
        names = (name for name in directories(where) if name >= since[:10])
        yield from itertools.chain.from_iterable(uids(where / name) for name in names)
