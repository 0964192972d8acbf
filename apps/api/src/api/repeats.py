"""Did another host of this service take the same measurement already? The database knows, once it is scored there.

Best effort: a probe that sends again may be led to another host, for instance because the first one failed. The
database is asked with a short patience, and not at all for a while after it did not answer; then the measurement is
simply taken once more.
"""

import threading
import time

import psycopg
import structlog

from core.db import DatabaseUnavailable, Pool
from core.ids import parse_measurement_uid

PATIENCE_S = 0.1
"""Longest wait for a connection; a query may take STATEMENT_TIMEOUT_MS."""

STATEMENT_TIMEOUT_MS = 200
_REST_AFTER_FAILURE_S = 10.0

log = structlog.get_logger(__name__)


class RepeatsElsewhere:
    """Looks for measurements that another host took. Safe to share between threads."""

    def __init__(self, pool: Pool | None) -> None:
        """Ask by `pool`, whose patience should be short; None never asks, for a host that is alone."""
        self._pool = pool
        self._rest_until = float("-inf")
        self._lock = threading.Lock()

    def uid(self, report_id: str, uid: str) -> str | None:
        """Return the uid under which the body of `uid` was taken for the same report, None when not known."""
        if self._pool is None or time.monotonic() < self._rest_until:
            return None
        digest = parse_measurement_uid(uid).digest
        try:
            with self._pool.connection() as connection:
                row = connection.execute(
                    "SELECT measurement_uid FROM fastpath_by_report_id(%s) WHERE right(measurement_uid, 16) = %s"
                    " ORDER BY measurement_uid LIMIT 1",
                    [report_id, digest],
                ).fetchone()
        except (DatabaseUnavailable, psycopg.Error) as error:
            with self._lock:
                self._rest_until = time.monotonic() + _REST_AFTER_FAILURE_S
            log.warning("database not asked for repeated measurements for a while", reason=type(error).__name__)
            return None
        return None if row is None else str(row[0])

    def close(self) -> None:
        """Close the connections."""
        if self._pool is not None:
            self._pool.close()
