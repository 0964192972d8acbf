"""Reading a measurement out of the spools of the other hosts of the same service, over the private network.

Each host serves its spool read-only: `GET <base>/measurement_spool/<YYYYMMDDHH>_<cc>_<testname>/<uid>.post` gives the
body as received, or 404. A body is believed when its hash is the one in the uid. A peer that does not answer is left
out for some seconds, and no failure of a peer is anybody's but its own.
"""

import hashlib
import http.client
import threading
import time
from collections.abc import Callable, Sequence
from urllib.parse import urlsplit

import structlog

from core.archive import MAX_DOCUMENT_BYTES
from core.ids import parse_measurement_uid, spool_directory

CONNECT_TIMEOUT_S = 0.5
READ_TIMEOUT_S = 2.0
"""Longest silence of a peer; a whole body may take DEADLINE_S."""

DEADLINE_S = 10.0
REST_AFTER_FAILURE_S = 5.0
PREFIX = "/measurement_spool/"

_PIECE = 256 * 1024

log = structlog.get_logger(__name__)


class PeerFailure(Exception):
    """A peer did not give a proper answer; the text says why."""


class PeerSpools:
    """The spools of other hosts. Safe to share between threads."""

    def __init__(self, urls: Sequence[str], note: Callable[[str], None] = lambda _result: None) -> None:
        """Take base addresses such as `http://10.0.0.2:8475`; `note` is told found, absent or failed each time."""
        self._urls = tuple(urls)
        self._note = note
        self._rests_until: dict[str, float] = {}
        self._lock = threading.Lock()

    def read(self, uid: str) -> bytes | None:
        """Return the body of a measurement as received from the first peer that has it, None when none does.

        Raises:
            IdentifierError: `uid` is no measurement uid.
        """
        digest = parse_measurement_uid(uid).digest
        path = f"{PREFIX}{spool_directory(uid)}/{uid}.post"
        for url in self._urls:
            if time.monotonic() < self._rests_until.get(url, 0.0):
                continue
            try:
                body = _get(url, path)
                if body is not None and hashlib.sha512(body).hexdigest()[:16] != digest:
                    raise PeerFailure("the body does not have the hash of its uid")
            except (OSError, http.client.HTTPException, PeerFailure) as error:
                with self._lock:
                    self._rests_until[url] = time.monotonic() + REST_AFTER_FAILURE_S
                self._note("failed")
                log.warning("peer left out for a while", peer=url, reason=f"{type(error).__name__}: {error}")
                continue
            self._note("absent" if body is None else "found")
            if body is not None:
                return body
        return None


def _get(base: str, path: str) -> bytes | None:
    """Return what a peer gives, None for 404.

    Raises:
        PeerFailure: another status, a body that is too long or too slow.
        OSError, HTTPException: no proper answer at all.
    """
    parts = urlsplit(base)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_TIMEOUT_S)
    deadline = time.monotonic() + DEADLINE_S
    try:
        connection.connect()
        connection.sock.settimeout(READ_TIMEOUT_S)
        connection.request("GET", parts.path.rstrip("/") + path, headers={"Connection": "close"})
        response = connection.getresponse()
        if response.status == http.client.NOT_FOUND:
            return None
        if response.status != http.client.OK:
            raise PeerFailure(f"status {response.status}")
        body = bytearray()
        while piece := response.read(_PIECE):
            body += piece
            if len(body) > MAX_DOCUMENT_BYTES:
                raise PeerFailure(f"more than {MAX_DOCUMENT_BYTES} bytes")
            if time.monotonic() > deadline:
                raise PeerFailure(f"not done after {DEADLINE_S} seconds")
        if response.length:
            raise PeerFailure("the answer was cut short")
        return bytes(body)
    finally:
        connection.close()
