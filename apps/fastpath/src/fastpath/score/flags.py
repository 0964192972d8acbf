"""What follows from the scores: the three flags, and the check of the start time against the time of receipt."""

from datetime import datetime, timedelta

import msgspec

from fastpath.shape import JsonObject, Measurement, ShapeError
from fastpath.times import parse_time, receive_time

MAX_AHEAD = timedelta(hours=1)
"""How far a measurement may claim to have started after it was received (wrong clocks)."""

_LEAST_AGE = -MAX_AHEAD

MAX_AGE = timedelta(days=365)
"""How long before its receipt a measurement may have started (probes submit late)."""

FROM_THE_FUTURE = "Measurement start time from the future"
TOO_OLD = "Measurement start time too old"


class Flags(msgspec.Struct, frozen=True):
    """The verdicts of one measurement; they are independent of each other (the wire contract, 2.2)."""

    anomaly: bool
    confirmed: bool
    msm_failure: bool


def derive_flags(scores: JsonObject) -> Flags:
    """Return the flags of `scores`; absent keys count as no blocking, full accuracy, not confirmed."""
    get = scores.get
    return Flags(get("blocking_general", 0.0) > 0.5, get("confirmed", False), get("accuracy", 1.0) < 0.5)


def check_start_time(scores: JsonObject, measurement: Measurement, uid: str) -> datetime | None:
    """Set `accuracy` 0 and `msg` in `scores` where the start time is implausible (2.3); return the start time.

    Nothing is done where one of the two times does not parse, which returns None; blocking scores stay as they are.

    Raises:
        ShapeError: the start time is neither text nor falsy.
    """
    received = receive_time(uid)
    if received is None:
        return None
    text = measurement.get("measurement_start_time") or ""
    if type(text) is not str:
        raise ShapeError("measurement_start_time")
    try:
        started = parse_time(text)
    except ValueError:
        return None
    age = received - started
    if age < _LEAST_AGE:
        scores["accuracy"] = 0.0
        scores["msg"] = FROM_THE_FUTURE
    elif age > MAX_AGE:
        scores["accuracy"] = 0.0
        scores["msg"] = TOO_OLD
    return started
