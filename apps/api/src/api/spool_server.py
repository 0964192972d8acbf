"""The spool of this host for the other API hosts, read-only, on the private network.

    python -m api.spool_server HOST PORT SPOOL

`GET /measurement_spool/<YYYYMMDDHH>_<cc>_<testname>/<uid>.post` gives the body as received, in whatever state the
measurement is, or 404. Nothing else is served and nothing is listed. It is a process of its own, started by the master
process of gunicorn, so that it needs no thread of those that take measurements, and ends with it.
"""

import os
import re
import socket
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import structlog

from api import APP, JOURNAL_IDENTIFIER
from api.companions import master
from api.metrics import SPOOL_SERVED
from core import log as core_log
from core.ids import IdentifierError, spool_directory
from core.spool import Spool, TornFile

AT_ONCE = 16
"""Requests answered at the same time; more are refused at once, and their hosts look elsewhere."""

SILENCE_S = 5.0
RETRY_S = 5.0
"""Time between two attempts to open an address that is taken or not there yet, in seconds."""

_CHECK_S = 1.0
_PATH = re.compile(r"/measurement_spool/(?:incoming/)?([0-9A-Za-z_]{15,60})/([0-9A-Za-z_.]{30,90})\.post", re.ASCII)

log = structlog.get_logger(__name__)


class SpoolServer(ThreadingHTTPServer):
    """Serves the bodies of one spool."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, host: str, port: int, spool: Spool) -> None:
        """Listen on `host` alone. Raises OSError when the address is taken or none of this host."""
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.spool = spool
        self._places = threading.BoundedSemaphore(AT_ONCE)
        super().__init__((host, port), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        """Answer in a thread, if there is a place for one more."""
        if not self._places.acquire(blocking=False):
            SPOOL_SERVED.labels("refused").inc()
            self.shutdown_request(request)
            return
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Give the place back when the answer is done."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002 the library's signature; the address is left alone on purpose
        """Count a connection that broke; a peer that went away is no event."""
        SPOOL_SERVED.labels("failed").inc()


class _Handler(BaseHTTPRequestHandler):
    server: SpoolServer
    timeout = SILENCE_S
    server_version = "spool"
    sys_version = ""

    def do_GET(self) -> None:
        """Answer with a body or 404."""
        body = self._body()
        SPOOL_SERVED.labels("absent" if body is None else "found").inc()
        self.send_response(404 if body is None else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Length", str(len(body or b"")))
        self.send_header("Cache-Control", "no-store")
        self.end_headers()
        self.wfile.write(body or b"")

    def log_message(self, *_arguments: object) -> None:
        """Write nothing: addresses are not kept, requests are counted."""

    def _body(self) -> bytes | None:
        match = _PATH.fullmatch(self.path)
        if match is None:
            return None
        directory, uid = match.groups()
        try:
            if spool_directory(uid) != directory:
                return None
            record = self.server.spool.read(uid)
        except IdentifierError:
            return None
        except TornFile as error:
            log.error("spool file damaged", uid=uid, error=str(error))
            return None
        return None if record is None else record.body


def main() -> None:
    """Serve until the parent process is gone."""
    core_log.setup(APP, identifier=JOURNAL_IDENTIFIER)
    host, port, root = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    parent = master()
    opened = False
    while os.getppid() == parent:
        if not opened:
            opened = _open(host, port, Spool(root))
        time.sleep(_CHECK_S if opened else RETRY_S)


def _open(host: str, port: int, spool: Spool) -> bool:
    """Start serving. An address that cannot be had is tried again: taking measurements matters more."""
    try:
        server = SpoolServer(host, port, spool)
    except OSError as error:
        log.error("spool not served to other hosts", host=host, port=port, error=str(error))
        return False
    threading.Thread(target=server.serve_forever, name="spool-server", daemon=True).start()
    return True


if __name__ == "__main__":
    main()
