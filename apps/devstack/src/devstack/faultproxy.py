"""An HTTP proxy in front of one server that fails on demand, for tests of what stands before and behind it.

    with FaultProxy(("127.0.0.1", 7070)) as proxy:
        proxy.inject("break-after", method="PUT", times=2)   # the server gets it, the client never hears
        ...
        assert proxy.injected == 2

Faults, each for the next `times` matching requests (None: until `heal`):

- `error`: answer 500 without asking the server
- `refuse`: close the connection without an answer, and without asking the server
- `slow`: wait `seconds`, then pass the request on
- `break-before`: send the server half of the request, then close both connections
- `break-after`: let the server do it, then close the connection instead of passing its answer on
- `truncate`: pass on half of the answer
- `corrupt`: change one byte of the body on its way to the server
- `corrupt-answer`: change one byte of the answer's body

Requests are read whole (S3 parts are 16 MB at most), each gets a connection of its own to the server.
"""

import re
import socket
import threading
import time
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

Kind = Literal["error", "refuse", "slow", "break-before", "break-after", "truncate", "corrupt", "corrupt-answer"]

_HEAD_END = b"\r\n\r\n"
_MAX_HEAD = 64 * 1024
_TIMEOUT_S = 120.0
_CONTENT_LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
_CONNECTION = re.compile(rb"\r\nconnection:[^\r\n]*(?=\r\n)", re.IGNORECASE)
_ERROR = (
    b"HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/xml\r\nContent-Length: 91\r\n"
    b"Connection: close\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>InternalError</Code><Message>injected</Message></Error>  "
)


@dataclass(slots=True)
class _Fault:
    kind: Kind
    method: str
    path: re.Pattern[str]
    left: int | None
    seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """A request that came by: method, path with query, length of the body, and the fault that it met."""

    method: str
    path: str
    length: int
    fault: Kind | None


class FaultProxy:
    """Listens on a port of loopback while it is entered."""

    def __init__(self, server: tuple[str, int], *, port: int = 0) -> None:
        """Stand in front of `server`; `port` 0 takes a free one."""
        self._server = server
        self._listener = socket.create_server(("127.0.0.1", port), backlog=128)
        self.port = int(self._listener.getsockname()[1])
        self._lock = threading.Lock()
        self._faults: list[_Fault] = []
        self._requests: list[Request] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._serve, name="faultproxy", daemon=True)

    @property
    def endpoint(self) -> str:
        """The address to give to a client."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[Request]:
        """What came by so far."""
        with self._lock:
            return list(self._requests)

    @property
    def injected(self) -> int:
        """How many requests met a fault so far."""
        return sum(request.fault is not None for request in self.requests)

    def inject(
        self, kind: Kind, *, method: str = "", path: str = "", times: int | None = 1, seconds: float = 0.0
    ) -> None:
        """Fail matching requests: `method` (all when empty) and a regular expression somewhere in path and query."""
        with self._lock:
            self._faults.append(_Fault(kind, method, re.compile(path), times, seconds))

    def heal(self) -> None:
        """Pass everything on again."""
        with self._lock:
            self._faults.clear()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        socket.create_connection(("127.0.0.1", self.port)).close()  # wakes the listener up
        self._thread.join(10)
        self._listener.close()

    def _serve(self) -> None:
        while True:
            client, _ = self._listener.accept()
            if self._closing.is_set():
                client.close()
                return
            threading.Thread(target=self._one, args=(client,), daemon=True).start()

    def _one(self, client: socket.socket) -> None:
        with client:
            client.settimeout(_TIMEOUT_S)
            try:
                received = _read_request(client)
                if received is not None:
                    self._answer(client, *received)
            except OSError:
                return  # either side went away, as sides do in these tests

    def _answer(self, client: socket.socket, head: bytes, body: bytes) -> None:
        method, path, _ = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ", 2)
        fault = self._take(method, path, len(body))
        kind = fault.kind if fault else None
        if kind == "error":
            client.sendall(_ERROR)
            return
        if kind == "refuse":
            return
        if fault is not None and fault.kind == "slow":
            time.sleep(fault.seconds)
        if kind == "corrupt":
            body = _changed(body)
        with socket.create_connection(self._server, timeout=_TIMEOUT_S) as server:
            whole = head + body
            if kind == "break-before":
                server.sendall(whole[: len(whole) // 2])
                return
            server.sendall(whole)
            answer = _read_all(server)
        if kind == "break-after":
            return
        if kind == "truncate":
            answer = answer[: len(answer) - max(1, _body_length(answer) // 2)]
        if kind == "corrupt-answer":
            split = answer.find(_HEAD_END) + len(_HEAD_END)
            answer = answer[:split] + _changed(answer[split:])
        client.sendall(answer)

    def _take(self, method: str, path: str, length: int) -> _Fault | None:
        with self._lock:
            found = None
            for fault in self._faults:
                if fault.left != 0 and fault.method in ("", method) and fault.path.search(path):
                    if fault.left is not None:
                        fault.left -= 1
                    found = fault
                    break
            self._requests.append(Request(method, path, length, found.kind if found else None))
            return found


def _read_request(client: socket.socket) -> tuple[bytes, bytes] | None:
    """Return head and body of the next request; the head asks for a connection that ends with the answer."""
    data = b""
    while _HEAD_END not in data:
        piece = client.recv(64 * 1024)
        if not piece or len(data) > _MAX_HEAD:
            return None
        data += piece
    head, _, rest = data.partition(_HEAD_END)
    head += b"\r\n"
    match = _CONTENT_LENGTH.search(head)
    body = bytearray(rest)
    while match and len(body) < int(match[1]):
        piece = client.recv(256 * 1024)
        if not piece:
            return None
        body += piece
    return _CONNECTION.sub(b"", head) + b"Connection: close\r\n\r\n", bytes(body)


def _read_all(server: socket.socket) -> bytes:
    pieces = []
    while piece := server.recv(256 * 1024):
        pieces.append(piece)
    return b"".join(pieces)


def _body_length(answer: bytes) -> int:
    return len(answer.partition(_HEAD_END)[2])


def _changed(body: bytes) -> bytes:
    middle = len(body) // 2
    return body[:middle] + bytes([body[middle] ^ 1]) + body[middle + 1 :] if body else body
