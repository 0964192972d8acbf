"""The /metrics endpoint of an app.

Metrics themselves are plain `prometheus_client` objects in the app's `metrics.py`. When PROMETHEUS_MULTIPROC_DIR is
set (gunicorn with several workers), the endpoint adds up the values of all processes that write there; otherwise it
shows this process. In the multiprocess case every gauge needs a `multiprocess_mode`, and a worker's death is reported
with `forget`.
"""

import errno
import os
from pathlib import Path
from threading import Thread
from wsgiref.simple_server import WSGIServer

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    REGISTRY,
    CollectorRegistry,
    generate_latest,
    multiprocess,
    start_http_server,
)

MULTIPROC_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"


class MetricsUnavailable(Exception):
    """The metrics endpoint cannot be opened; the text says why and what to do."""


class MetricsServer:
    """A running endpoint. `close()` stops it."""

    def __init__(self, server: WSGIServer, thread: Thread) -> None:
        self._server = server
        self._thread = thread

    @property
    def port(self) -> int:
        """The TCP port; of use when it was asked for as 0."""
        return self._server.server_port

    def close(self) -> None:
        """Stop answering and free the port."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def serve(port: int, host: str = "127.0.0.1") -> MetricsServer:
    """Answer http://host:port/metrics from a daemon thread; port 0 takes any free one. Call it after a fork.

    Raises MetricsUnavailable when the port is taken or may not be used.
    """
    try:
        server, thread = start_http_server(port, addr=host, registry=registry())
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            text = (
                f"The metrics port {host}:{port} is taken by another process. Set another metrics_port, "
                f"or stop that process (find it with: ss -ltnp 'sport = :{port}')."
            )
        else:
            text = f"The metrics endpoint cannot be opened on {host}:{port}: {error.strerror}. Set another one."
        raise MetricsUnavailable(text) from error
    return MetricsServer(server, thread)


def render() -> tuple[bytes, str]:
    """The metrics as (text, content type), for apps that answer /metrics themselves."""
    return generate_latest(registry()), CONTENT_TYPE_LATEST


def registry() -> CollectorRegistry:
    """What is shown: all processes in multiprocess mode, else this one."""
    directory = os.environ.get(MULTIPROC_VARIABLE)
    if not directory:
        return REGISTRY
    if not Path(directory).is_dir():
        raise MetricsUnavailable(f"{MULTIPROC_VARIABLE}={directory} is not a directory. Create it before the start.")
    # The collector reads the files of all processes at every scrape.
    shared = CollectorRegistry()
    multiprocess.MultiProcessCollector(shared)  # type: ignore[no-untyped-call]  # the library has no annotations here
    return shared


def forget(pid: int) -> None:
    """Drop the gauges of a dead process (gunicorn's child_exit hook); its counters stay in the sums."""
    if os.environ.get(MULTIPROC_VARIABLE):
        multiprocess.mark_process_dead(pid)  # type: ignore[no-untyped-call]  # the library has no annotations here
