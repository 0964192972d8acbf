"""Telling the fastpath about a stored measurement, in the background.

One thread per worker process keeps one connection. No client waits for it and no failure reaches a client: a hand-over
that cannot be made is dropped and counted, and the fastpath finds the measurement in the spool by its own sweep.
"""

import http.client
import queue
import threading
import time
from collections.abc import Callable
from urllib.parse import urlsplit

import structlog

from api.metrics import HANDOVER, HANDOVER_QUEUE

log = structlog.get_logger(__name__)

_PAUSE_AFTER_FAILURE_S = 1.0
_LOG_EVERY_S = 60.0


class Handover:
    """A bounded queue of uids and the thread that posts them to `<url>/<uid>`."""

    def __init__(self, url: str, *, timeout_s: float, size: int, body_of: Callable[[str], bytes | None] | None) -> None:
        """`body_of` gives the bytes to send along, or is None when the fastpath reads the spool itself."""
        parts = urlsplit(url)
        self._tls = parts.scheme == "https"
        self._host = parts.hostname or "127.0.0.1"
        self._port = parts.port
        self._prefix = parts.path.rstrip("/")
        self._timeout_s = timeout_s
        self._body_of = body_of
        self._queue: queue.Queue[str | None] = queue.Queue(size)
        self._connection: http.client.HTTPConnection | None = None
        self._thread: threading.Thread | None = None
        self._lock = threading.Lock()
        self._paused_until = 0.0
        self._logged_at = -_LOG_EVERY_S

    def put(self, uid: str) -> None:
        """Queue a hand-over; never blocks, drops it when the queue is full."""
        self._ensure_thread()
        try:
            self._queue.put_nowait(uid)
        except queue.Full:
            HANDOVER.labels("dropped").inc()
            return
        HANDOVER_QUEUE.inc()

    def stop(self, timeout_s: float = 3.0) -> None:
        """Let the thread finish what is queued, for at most `timeout_s` seconds."""
        with self._lock:
            thread, self._thread = self._thread, None
        if thread is None:
            return
        try:
            self._queue.put(None, timeout=timeout_s)
        except queue.Full:
            return
        thread.join(timeout_s)

    def _ensure_thread(self) -> None:
        # Started on first use, hence after the worker was forked: threads do not survive a fork.
        if self._thread is not None:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
                self._thread.start()

    def _run(self) -> None:
        while (uid := self._queue.get()) is not None:
            HANDOVER_QUEUE.dec()
            if time.monotonic() < self._paused_until:
                HANDOVER.labels("dropped").inc()
                continue
            self._hand_over(uid)
        self._disconnect()

    def _hand_over(self, uid: str) -> None:
        try:
            status = self._post(uid)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self._disconnect()
            self._failed(type(error).__name__, pause=True)
            return
        if status == 200:
            HANDOVER.labels("ok").inc()
        else:  # below 500 it is about this one measurement
            self._failed(f"status {status}", pause=status >= 500)

    def _failed(self, reason: str, *, pause: bool) -> None:
        HANDOVER.labels("failed").inc()
        now = time.monotonic()
        if pause:
            self._paused_until = now + _PAUSE_AFTER_FAILURE_S
        if now - self._logged_at >= _LOG_EVERY_S:
            self._logged_at = now
            log.warning("hand-over to the fastpath failed; its sweep will find the measurements", reason=reason)

    def _post(self, uid: str) -> int:
        body = self._body_of(uid) if self._body_of is not None else b""
        if body is None:  # it moved on already, which only a scorer can have done
            return 200
        reused = self._connection is not None
        try:
            return self._send(uid, body)
        except (http.client.RemoteDisconnected, BrokenPipeError, ConnectionResetError):
            # A kept-alive connection that the other side closed meanwhile; the hand-over is idempotent.
            if not reused:
                raise
            self._disconnect()
            return self._send(uid, body)

    def _send(self, uid: str, body: bytes) -> int:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._tls else http.client.HTTPConnection
            self._connection = kind(self._host, self._port, timeout=self._timeout_s)
        self._connection.request("POST", f"{self._prefix}/{uid}", body=body)
        response = self._connection.getresponse()
        response.read(65536)
        if response.will_close or not response.isclosed():
            self._disconnect()
        return response.status

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None
