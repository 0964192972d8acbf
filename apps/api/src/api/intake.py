"""The way of a measurement into the spool: read, check, store durably, acknowledge, hand over."""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
from flask import Request

from api import metrics
from api.clock import ReceiptClock
from api.errors import ApiError
from api.handover import Handover
from api.request_body import BodyLimits, read_body
from core.crashpoints import crash_point
from core.ids import new_measurement_uid
from core.spool import Spool, SpoolFull

log = structlog.get_logger(__name__)

_RETRY_AFTER_S = "300"


class Intake:
    """What all submission routes of one worker share."""

    def __init__(self, spool: Spool, handover: Handover, limits: BodyLimits, clock: ReceiptClock) -> None:
        """Join the spool, the hand-over, the limits and the clock of one worker process."""
        self.spool = spool
        self.clock = clock
        self._handover = handover
        self._limits = limits

    @contextmanager
    def body(self, request: Request, route: str) -> Iterator[bytes]:
        """Give the decompressed body of a request; what is refused in here is counted under `route`.

        Raises:
            ApiError: 400, 408, 413, 415 or 503, see `read_body`.
        """
        with self._limits.place() as place:
            try:
                body = read_body(request.environ, self._limits, place, metrics.RECEIVED_BYTES.inc)
                metrics.INFLATED_BYTES.inc(len(body))
                yield body
            except ApiError as error:
                metrics.MEASUREMENTS_DISCARDED.labels(route, f"status_{error.status}").inc()
                raise

    def store(self, body: bytes, *, cc: str, test_name: str, report_id: str, route: str) -> str:
        """Put a measurement into the spool and return its uid; when this returns it survives a power cut.

        Raises:
            ApiError: 503 when the disk is full or fails; the measurement is not acknowledged then.
        """
        uid = new_measurement_uid(self.clock.next(), cc, test_name, body)
        started = time.perf_counter()
        crash_point("api.before_put")
        try:
            self.spool.put(uid, body, report_id)
        except SpoolFull:
            raise _refused("full", "The disk of the server is full") from None
        except OSError as error:
            log.error("spool write failed", errno=error.errno, uid=uid)
            raise _refused("disk_error", "The server could not store the measurement") from None
        crash_point("api.after_put")
        metrics.SPOOL_PUT_SECONDS.observe(time.perf_counter() - started)
        self._handover.put(uid)
        metrics.MEASUREMENTS_ACKNOWLEDGED.labels(route).inc()
        return uid


def _refused(reason: str, sentence: str) -> ApiError:
    metrics.SPOOL_PUT_FAILURES.labels(reason).inc()
    return ApiError(503, f"{sentence}. Send the measurement again later.", headers={"Retry-After": _RETRY_AFTER_S})
