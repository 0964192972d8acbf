"""Reading request bodies: bounded while they arrive and while they are decompressed.

Whatever a client declares, at most `max_received` bytes are read and at most `max_inflated` bytes are produced, so that
neither an endless chunked body nor a decompression bomb can fill the memory.
"""

import threading
import zlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import zstandard
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # gunicorn has no annotations

from api.errors import ApiError, bad_request

ACCEPTED_ENCODINGS = "zstd, gzip, identity"
LARGE_BODY_BYTES = 4 * 1024 * 1024
"""Bodies above this size, in bytes, wait for one of a few places, so that memory stays bounded."""

_READ_STEP = 256 * 1024
_INFLATE_STEP = 1024 * 1024
_ZSTD_WINDOW = 8 * 1024 * 1024  # what the format asks every decoder to support
_ZSTD_BLOCK = 128 * 1024  # the most that one block of the zstd format can expand to; its header takes 3 bytes
_WAIT_FOR_PLACE_S = 15.0


class Stream(Protocol):
    """What a WSGI server gives to read a body from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, empty at the end."""


class BodyLimits:
    """The limits of one worker and its places for large bodies."""

    def __init__(self, max_received: int, max_inflated: int, large_at_once: int) -> None:
        """Take the limits in bytes and the number of large bodies handled at the same time."""
        self.max_received = max_received
        self.max_inflated = max_inflated
        self._places = threading.BoundedSemaphore(large_at_once)

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """Give a `Place` for the duration of one request."""
        place = Place(self._places)
        try:
            yield place
        finally:
            place.leave()


class Place:
    """Lets one request grow beyond `LARGE_BODY_BYTES` once it holds one of the worker's few places."""

    def __init__(self, places: threading.BoundedSemaphore) -> None:
        self._places = places
        self._held = False

    def grow_to(self, size: int) -> None:
        """Wait for a place when `size` bytes are large. Raises ApiError 503 when none becomes free in time."""
        if self._held or size <= LARGE_BODY_BYTES:
            return
        if not self._places.acquire(timeout=_WAIT_FOR_PLACE_S):
            raise ApiError(
                503, "Too many large uploads at the moment. Try again in a minute.", headers={"Retry-After": "60"}
            )
        self._held = True

    def leave(self) -> None:
        """Give the place back."""
        if self._held:
            self._held = False
            self._places.release()


PlaceContext = AbstractContextManager[Place]


def read_body(environ: dict[str, Any], limits: BodyLimits, place: Place, count: Callable[[int], None]) -> bytes:
    """Read the body of a request and undo its content encoding.

    `count` is told the number of bytes received.

    Raises:
        ApiError: 400 for a body that ends early or does not decompress, 408 when it stalls, 413 when it is too large
            either way, 415 for an encoding other than zstd, gzip and identity.
    """
    inflate = _inflater(environ.get("HTTP_CONTENT_ENCODING", ""))
    raw = _receive(environ, limits.max_received, place)
    count(len(raw))
    return inflate(raw, limits.max_inflated, place)


def discard_rest(environ: dict[str, Any], limit: int) -> None:
    """Read what is left of a body, at most `limit` bytes, so that the connection can serve its next request.

    Without this the server would close the connection under clients whose body was refused or not needed, some of which
    would then never see the reply.
    """
    declared = _declared_length(environ)
    if declared is not None and declared > limit:
        return
    stream: Stream = environ["wsgi.input"]
    left = limit
    try:
        while left > 0 and (chunk := stream.read(min(_READ_STEP, left))):
            left -= len(chunk)
    except (OSError, ParseException):
        return  # the server sees that reading failed and closes the connection


def _receive(environ: dict[str, Any], limit: int, place: Place) -> bytes:
    declared = _declared_length(environ)
    if declared is not None:
        if declared > limit:
            raise too_large(limit, "received")
        place.grow_to(declared)
    elif not environ.get("wsgi.input_terminated"):
        return b""
    stream: Stream = environ["wsgi.input"]
    wanted = limit + 1 if declared is None else declared
    chunks: list[bytes] = []
    received = 0
    while received < wanted:
        try:
            chunk = stream.read(min(_READ_STEP, wanted - received))
        except TimeoutError:
            raise ApiError(408, "The body did not arrive in time. Send it again.") from None
        except OSError:
            raise bad_request("The body ended early. Send it again.") from None
        except ParseException:
            raise bad_request("The chunks of the body are malformed. Send it again.") from None
        if not chunk:
            break
        received += len(chunk)
        if received > limit:
            raise too_large(limit, "received")
        place.grow_to(received)
        chunks.append(chunk)
    if declared is not None and received < declared:
        # A truncated upload is a smaller, different measurement: never store it.
        raise bad_request("The body ended early. Send it again.")
    return chunks[0] if len(chunks) == 1 else b"".join(chunks)


def _declared_length(environ: dict[str, Any]) -> int | None:
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        return None
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _inflater(encoding: str) -> Callable[[bytes, int, Place], bytes]:
    match encoding.strip().lower():
        case "" | "identity":
            return _identity
        case "gzip" | "x-gzip":
            return _gunzip
        case "zstd":
            return _unzstd
        case _:
            raise ApiError(
                415,
                f"Unsupported content encoding. Send the body as one of: {ACCEPTED_ENCODINGS}.",
                headers={"Accept-Encoding": ACCEPTED_ENCODINGS},
            )


def _identity(raw: bytes, limit: int, _place: Place) -> bytes:
    if len(raw) > limit:
        raise too_large(limit, "decompressed")
    return raw


def _gunzip(raw: bytes, limit: int, place: Place) -> bytes:
    decoder = zlib.decompressobj(wbits=31)
    parts: list[bytes] = []
    produced = 0
    pending = raw
    try:
        while not decoder.eof:
            part = decoder.decompress(pending, _INFLATE_STEP)
            pending = decoder.unconsumed_tail
            if not part and not pending and not decoder.eof:
                raise broken_body("The gzip data ends early.")
            produced += len(part)
            if produced > limit:
                raise too_large(limit, "decompressed")
            place.grow_to(produced)
            parts.append(part)
    except zlib.error:
        raise broken_body("The body is not gzip data.") from None
    if decoder.unused_data:
        raise broken_body("Something follows the gzip data; send a single member.")
    return b"".join(parts)


def _unzstd(raw: bytes, limit: int, place: Place) -> bytes:
    try:
        size = zstandard.get_frame_parameters(raw).content_size
        if size != zstandard.CONTENTSIZE_UNKNOWN:
            if size > limit:
                raise too_large(limit, "decompressed")
            place.grow_to(size)
        return _unzstd_frame(raw, limit, place)
    except zstandard.ZstdError:
        raise broken_body("The body is not zstd data, or needs a window larger than the size limit.") from None


def _unzstd_frame(raw: bytes, limit: int, place: Place) -> bytes:
    """Decompress one frame in slices small enough that one slice cannot exceed what is left of the limit."""
    decoder = zstandard.ZstdDecompressor(max_window_size=max(limit, _ZSTD_WINDOW)).decompressobj()
    view = memoryview(raw)
    parts: list[bytes] = []
    produced = position = 0
    while position < len(raw) and not decoder.eof:
        step = max(16, 3 * (limit - produced) // _ZSTD_BLOCK)
        part = decoder.decompress(view[position : position + step])
        position += step
        produced += len(part)
        if produced > limit:
            raise too_large(limit, "decompressed")
        place.grow_to(produced)
        if part:
            parts.append(part)
    if not decoder.eof:
        raise broken_body("The zstd data ends early.")
    if decoder.unused_data or position < len(raw):
        raise broken_body("Something follows the zstd frame; send a single frame.")
    return parts[0] if len(parts) == 1 else b"".join(parts)


def too_large(limit: int, what: str) -> ApiError:
    """Return the 413 for a body above `limit` bytes; `what` is received or decompressed."""
    return ApiError(413, f"The body is larger than {limit} bytes {what}. Send a smaller measurement.")


def broken_body(hint: str) -> ApiError:
    """Return the 400 of the wire contract for a body that cannot be read."""
    return bad_request("Incorrect format", hint=hint)
