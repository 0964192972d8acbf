"""The way of a measurement into the spool: read, check, store durably, acknowledge, hand over.

A measurement that comes again, byte for byte, is answered with the uid it has. Probes send again when they did not hear
the answer, so the answer must not depend on how far the first attempt came.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import NamedTuple

import structlog
from flask import Request

from api import metrics
from api.clock import ClockWrong, ReceiptClock
from api.errors import ApiError
from api.handover import Handover
from api.repeats import RepeatsElsewhere
from api.request_body import BodyLimits, Hash, Place, read_body
from core.crashpoints import crash_point
from core.received import Entry, Received
from core.spool import Spool, SpoolFull

log = structlog.get_logger(__name__)

_RETRY_AFTER_S = "300"


class Arrival(NamedTuple):
    """A measurement as it is stored: its uid, the report it belongs to, and the bytes."""

    uid: str
    report_id: str
    body: bytes


class Intake:
    """What all submission routes of one worker share."""

    def __init__(
        self,
        spool: Spool,
        received: Received,
        elsewhere: RepeatsElsewhere,
        handover: Handover,
        limits: BodyLimits,
        clock: ReceiptClock,
    ) -> None:
        """Join the spool, the memory of what was received, the hand-over, the limits and the clock of one worker."""
        self.spool = spool
        self.clock = clock
        self._received = received
        self._elsewhere = elsewhere
        self._handover = handover
        self._limits = limits

    @contextmanager
    def body(self, request: Request, route: str, *hashes: Hash) -> Iterator[bytes]:
        """Give the decompressed body of a request; what is refused in here is counted under `route`.

        The `hashes` are updated with it while it is decompressed. It is not kept here: it goes when the caller lets go.

        Raises:
            ApiError: 400, 408, 413, 415 or 503, see `read_body`.
        """
        with self._limits.place() as place:
            try:
                yield self._read(request, place, hashes)
            except ApiError as error:
                metrics.MEASUREMENTS_DISCARDED.labels(route, f"status_{error.status}").inc()
                raise

    def _read(self, request: Request, place: Place, hashes: tuple[Hash, ...]) -> bytes:
        body = read_body(request.environ, self._limits, place, metrics.RECEIVED_BYTES.inc, hashes)
        metrics.INFLATED_BYTES.inc(len(body))
        return body

    def store(
        self, key: bytes, arrival_at: Callable[[datetime], Arrival], *, route: str, own_report: bool = False
    ) -> Arrival:
        """Put a measurement into the spool; when this returns it survives a power cut.

        Args:
            key: from `received_key`; equal for what is the same measurement sent again.
            arrival_at: makes the measurement for a time of receipt, always the same for the same time.
            route: for the metrics.
            own_report: the report id is made here, so that no other host can have the measurement.

        Raises:
            ApiError: 503 when the disk is full or fails, or the clock is wrong; it is not acknowledged then.
        """
        with self._received.hold(key) as entry:
            known = entry.received_at
            received_at = known or self._time_of_receipt()
            arrival = arrival_at(received_at)
            place: str | None = None
            if known is not None and (entry.acknowledged or self._confirm(arrival.uid)):
                place = "this_host"
            elif not own_report and (uid := self._elsewhere.uid(arrival.report_id, arrival.uid)) is not None:
                arrival, place = arrival._replace(uid=uid), "another_host"
            else:
                self._put(arrival, entry, received_at)
            if place != "another_host":
                entry.acknowledge()
        if place is None:
            self._handover.put(arrival.uid)
        else:
            metrics.MEASUREMENTS_REPEATED.labels(route, place).inc()
        metrics.MEASUREMENTS_ACKNOWLEDGED.labels(route).inc()
        return arrival

    def _time_of_receipt(self) -> datetime:
        try:
            return self.clock.next()
        except ClockWrong as error:
            log.error("the clock is wrong, no measurement is taken until it is set", error=str(error))
            raise _refused("clock", "The clock of the server is wrong") from None

    def _confirm(self, uid: str) -> bool:
        try:
            return self.spool.confirm(uid)
        except OSError as error:
            raise _failed(error, uid) from None

    def _put(self, arrival: Arrival, entry: Entry, received_at: datetime) -> None:
        started = time.perf_counter()
        crash_point("api.before_put")
        try:
            self.spool.check_room(len(arrival.body))
            if entry.received_at is None:
                # Before it is stored: should this process die in between, the next attempt still gets this uid.
                entry.claim(received_at)
            crash_point("api.after_claim")
            self.spool.put(arrival.uid, arrival.body, arrival.report_id)
        except SpoolFull:
            raise _refused("full", "The disk of the server is full") from None
        except OSError as error:
            raise _failed(error, arrival.uid) from None
        crash_point("api.after_put")
        metrics.SPOOL_PUT_SECONDS.observe(time.perf_counter() - started)


def _failed(error: OSError, uid: str) -> ApiError:
    log.error("spool write failed", errno=error.errno, uid=uid)
    return _refused("disk_error", "The server could not store the measurement")


def _refused(reason: str, sentence: str) -> ApiError:
    metrics.SPOOL_PUT_FAILURES.labels(reason).inc()
    return ApiError(503, f"{sentence}. Send the measurement again later.", headers={"Retry-After": _RETRY_AFTER_S})
