"""What the daemon and its scoring processes say to each other, and the cell that tells which measurement is in hand.

Messages are framed msgpack over a socket pair, one answer for each. The cell is a small file that both have mapped: a
scoring process writes the uid there before it touches a measurement. So when the process dies, of whatever, the daemon
knows over which measurement; and when both die, the next daemon reads it from the file.
"""

import fcntl
import mmap
import os
import socket
import struct
from pathlib import Path
from typing import Any, Literal, TypeAlias

import msgspec

from fastpath.fingerprints import Refusal
from fastpath.scorer import Scored

BATCH_BYTES = 32 * 1024 * 1024
"""An answer holds the results of bodies of about so many bytes at most; the rest of the batch is asked for again."""

LONGEST_FRAME = 512 * 1024 * 1024
"""No frame is longer; a length beyond it means that the stream is broken."""

_LENGTH = struct.Struct("!Q")
_CELL = struct.Struct("=QH256s")


class Setup(msgspec.Struct, tag=True, frozen=True):
    """The first message: how to work. Answered by Ready."""

    spool_directory: str
    document_limit_s: float
    memory_limit_bytes: int


class Load(msgspec.Struct, tag=True, frozen=True):
    """Put these fingerprints to use, all at once. Answered by Loaded."""

    mode: Literal["declared", "reference"]
    dns: list[dict[str, Any]]
    http: list[dict[str, Any]]


class Score(msgspec.Struct, tag=True, frozen=True):
    """Score these measurements. Answered by Scores for the first of them, at least one."""

    uids: list[str]


class Ping(msgspec.Struct, tag=True, frozen=True):
    """Show that you live. Answered by Ready."""


class Ready(msgspec.Struct, tag=True, frozen=True):
    """A sign of life; `problem` is a sentence when a limit could not be set."""

    problem: str = ""


class Loaded(msgspec.Struct, tag=True, frozen=True):
    """The fingerprints are in use. With a `problem` (a sentence) they are not, and the former ones stay."""

    dns: int = 0
    http: int = 0
    refused: list[Refusal] = []
    seconds: float = 0.0
    problem: str = ""


class Scores(msgspec.Struct, tag=True, frozen=True):
    """Results in the order of the request, and the memory that the process occupies."""

    results: list[Scored]
    resident_bytes: int


Request: TypeAlias = Setup | Load | Score | Ping
Answer: TypeAlias = Ready | Loaded | Scores
requests = msgspec.msgpack.Decoder(Request)
answers = msgspec.msgpack.Decoder(Answer)
encode = msgspec.msgpack.encode


class Disconnected(Exception):
    """The other side closed the connection, or died."""


def send_frame(connection: socket.socket, payload: bytes) -> None:
    """Send one message. Raises OSError (TimeoutError among them)."""
    connection.sendall(_LENGTH.pack(len(payload)) + payload)


class FrameReader:
    """Reads messages from a connection; after a TimeoutError call `read` again, nothing is lost."""

    def __init__(self, connection: socket.socket) -> None:
        """Read from `connection` with the timeout it has."""
        self._connection = connection
        self._buffer = bytearray()
        self._missing = _LENGTH.size
        self._length: int | None = None

    def read(self) -> bytes:
        """Return the next message.

        Raises:
            Disconnected: the other side is gone, or sends what is no message.
            TimeoutError: it did not come, or not all of it.
        """
        while True:
            while self._missing:
                try:
                    data = self._connection.recv(min(self._missing, 1 << 20))
                except TimeoutError:
                    raise
                except OSError as error:
                    raise Disconnected(str(error)) from error
                if not data:
                    raise Disconnected("The connection was closed.")
                self._buffer += data
                self._missing -= len(data)
            content, self._buffer = bytes(self._buffer), bytearray()
            if self._length is not None:
                self._length, self._missing = None, _LENGTH.size
                return content
            (self._length,) = _LENGTH.unpack(content)
            if self._length > LONGEST_FRAME:
                raise Disconnected("The length of a message is impossible.")
            self._missing = self._length


class Cell:
    """The measurement in hand of one scoring process, in a file that outlives both processes."""

    def __init__(self, descriptor: int) -> None:
        """Map the cell in the open file `descriptor`, which stays the caller's."""
        self._map = mmap.mmap(descriptor, _CELL.size)
        self._steps = 0

    def begin(self, uid: str) -> None:
        """Note that work on `uid` begins."""
        self._steps += 1
        name = uid.encode()
        _CELL.pack_into(self._map, 0, self._steps, len(name), name)

    def end(self) -> None:
        """Note that no measurement is in hand."""
        self._steps += 1
        _CELL.pack_into(self._map, 0, self._steps, 0, b"")

    def look(self) -> tuple[int, str]:
        """Return a number that changes with each step, and the uid in hand, empty when none is.

        A process that dies while it writes leaves a mixture, which is the uid of nothing.
        """
        steps, length, name = _CELL.unpack_from(self._map, 0)
        return steps, name[: min(length, len(name))].decode("ascii", "replace")

    def close(self) -> None:
        """Unmap the cell."""
        self._map.close()


def create_cell_file(path: Path) -> int:
    """Return the descriptor of a new, empty and locked cell file; the lock shows that its daemon lives."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.ftruncate(descriptor, _CELL.size)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def abandoned_uid(path: Path) -> str | None:
    """Return the uid in a cell file whose daemon is gone, empty for none; None when its daemon lives."""
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if os.fstat(descriptor).st_size < _CELL.size:
            return ""
        cell = Cell(descriptor)
        try:
            return cell.look()[1]
        finally:
            cell.close()
    except BlockingIOError:
        return None
    finally:
        os.close(descriptor)
