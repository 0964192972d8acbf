"""Input lines of `--stdin`: read in constant memory, until the end of input or a signal, and taken apart."""

import base64
import binascii
import os
import select
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

import msgspec

from core.envelope import DocumentError, decode_json, encode_json

READ_BYTES = 1 << 18


class Interrupted(Exception):
    """A signal asked to stop while the other end of standard output was not reading."""


class TooLong(ValueError):
    """A line is longer than what is read; it was skipped."""


class Stop:
    """Which signal asked to stop, if any; `wakeup` becomes readable then, which ends a wait for input."""

    def __init__(self) -> None:
        self.signal = 0
        self.wakeup, self.write_end = os.pipe()
        os.set_blocking(self.write_end, False)
        self._raise = False

    def handle(self, number: int, _frame: FrameType | None) -> None:
        """Take note of a signal; let go of a write that nobody reads."""
        self.signal = number
        if self._raise:
            raise Interrupted

    @contextmanager
    def raising(self) -> Iterator[None]:
        """Within the block a signal raises Interrupted."""
        self._raise = True
        try:
            yield
        finally:
            self._raise = False

    def close(self) -> None:
        """Close the pipe."""
        os.close(self.wakeup)
        os.close(self.write_end)


class LineReader:
    """Lines of a file descriptor, with room for one line of at most `limit` bytes and what follows it."""

    def __init__(self, descriptor: int, limit: int, stop: Stop) -> None:
        self._descriptor, self._limit, self._stop = descriptor, limit, stop
        self._buffer = bytearray()
        self._start = 0
        """Where the next line starts in the buffer."""
        self._searched = 0
        """Up to where the buffer is known to hold no line end."""
        self._skipping = False
        self._ended = False

    def next(self, before_wait: Callable[[], None]) -> bytes | TooLong | None:
        """Return the next line without its end, TooLong for one that is too long, None at the end or on a signal.

        `before_wait` is called when nothing is waiting to be read.
        """
        buffer = self._buffer
        while True:
            end = buffer.find(b"\n", self._searched)
            if end >= 0:
                line = bytes(memoryview(buffer)[self._start : end])
                self._start = self._searched = end + 1
                if self._skipping:
                    self._skipping = False
                    return TooLong()
                return line
            self._searched = len(buffer)
            if self._stop.signal:
                return None
            if self._ended:
                return self._last()
            del buffer[: self._start]
            self._start, self._searched = 0, len(buffer)
            if self._skipping or len(buffer) > self._limit:
                self._skipping = True
                buffer.clear()
                self._searched = 0
            self._fill(before_wait)

    def _last(self) -> bytes | TooLong | None:
        """Return what stands after the last line end, once."""
        if self._skipping:
            self._skipping = False
            return TooLong()
        line = bytes(self._buffer[self._start :])
        self._start = len(self._buffer)
        return line or None

    def _fill(self, before_wait: Callable[[], None]) -> None:
        descriptors = [self._descriptor, self._stop.wakeup]
        ready, _, _ = select.select(descriptors, [], [], 0)
        if not ready:
            before_wait()
            ready, _, _ = select.select(descriptors, [], [])
        if self._descriptor in ready and not self._stop.signal:
            data = os.read(self._descriptor, READ_BYTES)
            self._buffer += data
            self._ended = not data


@contextmanager
def stop_on_signals() -> Iterator[Stop]:
    """Within the block SIGTERM and SIGINT do no more than end the wait for input. For the main thread."""
    stop = Stop()
    # The number of the signal is written at once, so that none is lost between a look at `signal` and the wait.
    former_descriptor = signal.set_wakeup_fd(stop.write_end, warn_on_full_buffer=False)
    former = {number: signal.signal(number, stop.handle) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield stop
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(former_descriptor)
        stop.close()


class _Line(msgspec.Struct):
    measurement_uid: str
    body: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    body_b64: str | msgspec.UnsetType = msgspec.UNSET
    report_id: str | None = None


class BadLine(ValueError):
    """An input line that cannot be used; `reason` is machine readable, `uid` what the line says, if anything."""

    def __init__(self, reason: str, uid: str | None = None) -> None:
        super().__init__(f"The input line cannot be used: {reason}. Send an object with measurement_uid and body.")
        self.reason = reason
        self.uid = uid


class Submission(msgspec.Struct, frozen=True):
    """What one input line asks to be scored."""

    uid: str
    body: bytes
    report_id: str | None


_decoder = msgspec.json.Decoder(_Line)


def parse_line(line: bytes) -> Submission:
    """Return what an input line asks for; the body is kept byte for byte where the line is strict JSON.

    Raises:
        BadLine: `line_not_json`, `line_too_deep`, `line_not_an_object`, `no_measurement_uid`, `no_body`, `two_bodies`,
            `bad_body_b64` or `bad_report_id`.
    """
    try:
        parsed = _decoder.decode(line)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return _parse_leniently(line)
    body = bytes(parsed.body) if parsed.body is not msgspec.UNSET else None
    return _submission(
        parsed.measurement_uid,
        body,
        None if parsed.body_b64 is msgspec.UNSET else parsed.body_b64,
        parsed.report_id,
    )


def _parse_leniently(line: bytes) -> Submission:
    """Parse a line that strict JSON or the expected types do not cover, to use it or to say what is wrong."""
    try:
        value = decode_json(line)
    except DocumentError as error:
        raise BadLine("line_too_deep" if error.reason == "too_deep" else "line_not_json") from None
    if type(value) is not dict:
        raise BadLine("line_not_an_object")
    uid = value.get("measurement_uid")
    if type(uid) is not str:
        raise BadLine("no_measurement_uid")
    try:
        body = encode_json(value["body"]) if "body" in value else None
    except (ValueError, RecursionError):
        raise BadLine("line_too_deep", uid) from None
    return _submission(uid, body, value.get("body_b64"), value.get("report_id"))


def _submission(uid: str, body: bytes | None, encoded: Any, report_id: Any) -> Submission:
    if not uid:
        raise BadLine("no_measurement_uid")
    if report_id is not None and type(report_id) is not str:
        raise BadLine("bad_report_id", uid)
    if encoded is not None:
        if body is not None:
            raise BadLine("two_bodies", uid)
        try:
            body = base64.b64decode(encoded, validate=True)
        except (binascii.Error, ValueError, TypeError):
            raise BadLine("bad_body_b64", uid) from None
    if body is None:
        raise BadLine("no_body", uid)
    return Submission(uid, body, report_id)
