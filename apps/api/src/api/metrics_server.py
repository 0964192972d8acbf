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
from core import log as core_log
from core.metrics import MetricsUnavailable, serve

RETRY_S = 5.0
"""Time between two attempts to open a port that is taken, in seconds."""

_CHECK_S = 1.0

log = structlog.get_logger(__name__)


def main() -> None:
    """Serve until the parent process is gone."""
    core_log.setup(APP, identifier=JOURNAL_IDENTIFIER)
    host, port = sys.argv[1], int(sys.argv[2])
    parent = os.getppid()
    opened = False
    while os.getppid() == parent:
        if not opened:
            opened = _open(host, port)
        time.sleep(_CHECK_S if opened else RETRY_S)


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
