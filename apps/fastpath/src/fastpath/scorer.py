"""Reads one measurement from the spool and scores it: what a scoring process does for each uid it is given."""

import time
from enum import StrEnum

import msgspec

from core.crashpoints import crash_point
from core.spool import Spool, TornFile
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.row import Row


class Kind(StrEnum):
    """What became of one measurement when it was read and scored."""

    ROW = "row"
    DISCARDED = "discarded"
    REJECTED = "rejected"
    TORN = "torn"
    MISSING = "missing"
    UNREADABLE = "unreadable"
    POISON = "poison"


QUARANTINED = (Kind.REJECTED, Kind.TORN, Kind.POISON)
"""The kinds that are set aside; their values are the reason classes of the metric."""


class Scored(msgspec.Struct, frozen=True):
    """One measurement after scoring: `row` for kind ROW, `reason` (a sentence or a code) for the others."""

    uid: str
    kind: Kind
    reason: str = ""
    row: Row | None = None
    size: int = 0
    """Bytes of the body."""
    seconds: float = 0.0
    """Time to read and score it."""
    match_seconds: float = 0.0
    """Part of `seconds` that the search for fingerprints took; 0 when there was none."""


def score_measurement(spool: Spool, matcher: Matcher, uid: str) -> Scored:
    """Return what becomes of the measurement `uid`. Never raises for what it contains."""
    started = time.perf_counter()
    try:
        record = spool.read(uid)
    except TornFile as error:
        return Scored(uid, Kind.TORN, str(error), seconds=time.perf_counter() - started)
    except OSError as error:
        return Scored(uid, Kind.UNREADABLE, str(error))
    if record is None:
        return Scored(uid, Kind.MISSING)
    crash_point("fastpath.score")
    crash_point(f"fastpath.score/{uid}")
    outcome = process(uid, record.body, matcher, report_id=record.report_id or None)
    seconds = time.perf_counter() - started
    return Scored(uid, Kind(outcome.kind), outcome.reason or "", outcome.row, len(record.body), seconds)
