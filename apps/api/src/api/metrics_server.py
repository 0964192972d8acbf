"""The Prometheus endpoint: a small process beside the workers that adds up what they count.

    python -m api.metrics_server HOST PORT

Started by the master process of gunicorn and ends with it. It is a process and not a thread of the master because the
master forks workers at any time: a worker forked while another thread held a lock, or was in the middle of an import,
inherits that state for good.
"""

import os
import sys
import time

import structlog

from api import APP, JOURNAL_IDENTIFIER
from api.companions import master
from api.metrics import QUOTA_TRACKED
from api.quota_store import entries, find
from api.quotas import Factors
from core import log as core_log
from core.metrics import MetricsUnavailable, serve

RETRY_S = 5.0
"""Time between two attempts to open a port that is taken, in seconds."""

COUNT_QUOTAS_S = 10.0
"""Time between two counts of the addresses in the table of quotas, in seconds."""

_CHECK_S = 1.0

log = structlog.get_logger(__name__)


def main() -> None:
    """Serve until the parent process is gone."""
    core_log.setup(APP, identifier=JOURNAL_IDENTIFIER)
    host, port = sys.argv[1], int(sys.argv[2])
    parent = master()
    opened = False
    counted_at = -COUNT_QUOTAS_S
    while os.getppid() == parent:
        if not opened:
            opened = _open(host, port)
        if time.monotonic() - counted_at >= COUNT_QUOTAS_S:
            counted_at = time.monotonic()
            _count_quotas(parent)
        time.sleep(_CHECK_S if opened else RETRY_S)


def _count_quotas(master: int) -> None:
    """Show how many addresses the table that the master made holds; without one nothing changes."""
    descriptor = find(str(master))
    if descriptor is None:
        return
    try:
        found = entries(descriptor, Factors(1, 1), time.monotonic_ns())
        QUOTA_TRACKED.set(sum(1 for subject, _ in found if subject.kind == "address"))
    except OSError as error:
        log.error("the table of quotas cannot be read", error=str(error))
    finally:
        os.close(descriptor)


def _open(host: str, port: int) -> bool:
    """Open the endpoint. A taken port is tried again later: serving probes matters more than being watched."""
    try:
        serve(port, host)
    except MetricsUnavailable as error:
        log.error("metrics endpoint not open", error=str(error))
        return False
    return True


if __name__ == "__main__":
    main()
