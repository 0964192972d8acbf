"""The gunicorn worker of the API: gthread that logs no client address and limits how long requests take."""

import socket
import threading
import time
from typing import Any

from gunicorn import glogging, util  # type: ignore[import-untyped]  # gunicorn has no annotations
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # gunicorn has no annotations
from gunicorn.workers.gthread import TConn, ThreadWorker  # type: ignore[import-untyped]  # gunicorn has no annotations

from api.metrics import CONNECTIONS_CUT
from api.responses import to_json

_CHECK_EVERY_S = 1.0
_STATUS = {
    "LimitRequestLine": (414, "URI Too Long", "The address of the request is too long. Send fewer parameters."),
    "LimitRequestHeaders": (431, "Request Header Fields Too Large", "The headers are too long. Send fewer."),
    "ExpectationFailed": (417, "Expectation Failed", "Only the expectation 100-continue is met. Leave others out."),
    "UnsupportedTransferCoding": (501, "Not Implemented", "Only the transfer coding chunked is understood."),
    "ForbiddenProxyRequest": (403, "Forbidden", "This address may not speak the proxy protocol here."),
}
_BAD_REQUEST = (400, "Bad Request", "The request is not valid HTTP. Check its first line and its headers.")
_OWN_FAULT = (500, "Internal Server Error", "Internal server error. Try again later.")


class Deadlines:
    """Cuts off connections whose request is older than a limit.

    A request that waits on its client holds a thread, and a client can wait forever. One background thread shuts such
    connections down, for reading first, so that an answer can still be sent, and some time later altogether.
    """

    def __init__(self, limit_s: float) -> None:
        """Take the limit in seconds; connections are closed altogether after twice that time."""
        self._limit_s = limit_s
        self._running: dict[int, tuple[float, socket.socket]] = {}
        self._half_closed: set[int] = set()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None

    def enter(self, sock: socket.socket) -> int:
        """Note that a request on `sock` began; returns the key for `leave`."""
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._watch, name="deadlines", daemon=True)
                self._thread.start()
            key = id(sock)
            self._running[key] = (time.monotonic() + self._limit_s, sock)
        return key

    def leave(self, key: int) -> None:
        """Note that the request ended."""
        with self._lock:
            self._running.pop(key, None)
            self._half_closed.discard(key)

    def _watch(self) -> None:
        while True:
            time.sleep(_CHECK_EVERY_S)
            now = time.monotonic()
            with self._lock:
                late = [(key, limit, sock) for key, (limit, sock) in self._running.items() if limit <= now]
                # Under the lock, so that the socket cannot be closed and its number reused meanwhile.
                for key, limit, sock in late:
                    self._cut(key, sock, altogether=limit + self._limit_s <= now)

    def _cut(self, key: int, sock: socket.socket, *, altogether: bool) -> None:
        if not altogether and key in self._half_closed:
            return
        try:
            sock.shutdown(socket.SHUT_RDWR if altogether else socket.SHUT_RD)
        except OSError:
            return  # the client is gone already
        finally:
            self._half_closed.add(key)
        CONNECTIONS_CUT.inc()


class QuietLogger(glogging.Logger):  # type: ignore[misc]  # gunicorn has no annotations
    """Sends gunicorn's messages to the log of the API and never writes an access log."""

    def setup(self, cfg: Any) -> None:
        """Set the level and let the root logger format and write."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def access(self, resp: Any, req: Any, environ: Any, request_time: Any) -> None:
        """Write nothing: requests are counted in metrics, and addresses of clients are not kept."""


class Worker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no annotations
    """A gthread worker that logs no client address and cuts off requests that take too long."""

    slot = 0
    """Number among the live workers of this host, given by the master before the fork."""

    request_timeout_s = 120.0
    """Set from the settings by the gunicorn configuration."""

    any_origin = True
    """Whether pages of any origin may read replies; set like the limit. Of what is no HTTP the origin is not known."""

    def init_process(self) -> None:
        """Prepare the deadlines; the rest, the main loop included, is gunicorn's."""
        self.deadlines = Deadlines(self.request_timeout_s)
        super().init_process()

    def handle(self, conn: TConn) -> Any:
        """Handle one request of a connection within the limit."""
        key = self.deadlines.enter(conn.sock)
        try:
            return super().handle(conn)
        finally:
            self.deadlines.leave(key)

    def handle_error(self, req: Any, client: socket.socket, addr: Any, exc: BaseException) -> None:  # noqa: ARG002 gunicorn's signature; the address is left alone on purpose
        """Answer what is not valid HTTP, in JSON; log neither the address nor text of the request."""
        kind = type(exc).__name__
        if isinstance(exc, ParseException):
            status, reason, message = _STATUS.get(kind, _BAD_REQUEST)
            self.log.info("request refused: %s", kind)
        else:
            status, reason, message = _OWN_FAULT
            self.log.error("request failed: %s", kind, exc_info=exc)
        body = to_json({"error": message}).encode("ascii")
        origin = "Access-Control-Allow-Origin: *\r\n" if self.any_origin else ""
        head = (
            f"HTTP/1.1 {status} {reason}\r\nConnection: close\r\nContent-Type: application/json\r\n"
            f"Cache-Control: no-cache\r\n{origin}Content-Length: {len(body)}\r\n\r\n"
        )
        try:
            util.write_nonblock(client, head.encode("ascii") + body)
        except OSError:
            self.log.debug("the client was gone before the error could be sent")
