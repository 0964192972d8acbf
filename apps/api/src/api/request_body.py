"""Reading request bodies: bounded while they arrive and while they are decompressed.

Whatever a client declares, at most `max_received` bytes are read and at most `max_inflated` bytes are produced, so that
neither an endless chunked body nor a decompression bomb can fill the memory. Bodies are hashed while they are produced.

What is larger than a few hundred kilobytes waits for a place. A worker has one place for large bodies and four for
medium ones (times `large_at_once`). The routes take up to 3.5 times the size of a body (measured: 190 MB for one of
57 MB on `submit_measurement`, 117 MB on `/report`), so that a worker with 16 threads stays below 512 MB.
"""

import io
import threading
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, Protocol

import zstandard
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]  # gunicorn has no annotations

from api.errors import ApiError, bad_request

ACCEPTED_ENCODINGS = "zstd, gzip, identity"
MEDIUM_BODY_BYTES = 1024 * 1024
"""Bodies above this size, in bytes, wait for one of a few places, so that memory stays bounded."""

LARGE_BODY_BYTES = 8 * 1024 * 1024
"""Bodies above this size, in bytes, also wait for one of the places for the largest ones."""

MEDIUM_PER_LARGE = 4
"""Places for medium bodies for each one for a large body."""

_READ_STEP = 256 * 1024
_INFLATE_STEP = 1024 * 1024
_ZSTD_STEP = 8 * 1024 * 1024  # the most that one slice of zstd data can expand to
_ZSTD_WINDOW = 8 * 1024 * 1024  # what the format asks every decoder to support
_ZSTD_BLOCK = 128 * 1024  # the most that one block of the zstd format can expand to; its header takes 3 bytes
_WAIT_FOR_PLACE_S = 15.0


class Stream(Protocol):
    """What a WSGI server gives to read a body from."""

    def read(self, size: int, /) -> bytes:
        """Return up to `size` bytes, empty at the end."""


class Hash(Protocol):
    """A hash of `hashlib` that is updated with a body while it comes."""

    def update(self, data: bytes, /) -> None:
        """Take the next piece."""


class BodyLimits:
    """The limits of one worker and its places for medium and large bodies."""

    def __init__(self, max_received: int, max_inflated: int, large_at_once: int) -> None:
        """Take the limits in bytes and the number of large bodies handled at the same time."""
        self.max_received = max_received
        self.max_inflated = max_inflated
        self._places = (
            (MEDIUM_BODY_BYTES, threading.BoundedSemaphore(MEDIUM_PER_LARGE * large_at_once)),
            (LARGE_BODY_BYTES, threading.BoundedSemaphore(large_at_once)),
        )

    @contextmanager
    def place(self) -> Iterator["Place"]:
        """Give a `Place` for the duration of one request."""
        place = Place(self._places)
        try:
            yield place
        finally:
            place.leave()


class Place:
    """Lets one request grow beyond a size once it holds one of the worker's few places for such bodies."""

    def __init__(self, places: tuple[tuple[int, threading.BoundedSemaphore], ...]) -> None:
        """Take pairs of a size in bytes and the places for what is larger, the smallest size first."""
        self._wanted = places
        self._held: list[threading.BoundedSemaphore] = []

    def grow_to(self, size: int) -> None:
        """Wait for the places that `size` bytes need. Raises ApiError 503 when none becomes free in time."""
        # Everybody takes them in the same order, so nobody waits for who waits for him.
        for limit, places in self._wanted[len(self._held) :]:
            if size <= limit:
                return
            if not places.acquire(timeout=_WAIT_FOR_PLACE_S):
                raise ApiError(
                    503, "Too many large uploads at the moment. Try again in a minute.", headers={"Retry-After": "60"}
                )
            self._held.append(places)

    def leave(self) -> None:
        """Give the places back."""
        while self._held:
            self._held.pop().release()


class _Collected:
    """Pieces of a body, put together without a second copy of it, within a limit."""

    def __init__(self, limit: int, what: str, place: Place, hashes: Sequence[Hash]) -> None:
        self._limit = limit
        self._what = what
        self._place = place
        self._hashes = hashes
        self._data = io.BytesIO()
        self.size = 0

    @property
    def left(self) -> int:
        """Bytes that may still come."""
        return self._limit - self.size

    def add(self, piece: bytes) -> None:
        """Take the next piece. Raises ApiError 413 beyond the limit, 503 without a place."""
        self.size += len(piece)
        if self.size > self._limit:
            raise too_large(self._limit, self._what)
        self._place.grow_to(self.size)
        for each in self._hashes:
            each.update(piece)
        self._data.write(piece)

    def whole(self) -> bytes:
        """Return everything; BytesIO hands out its own memory."""
        return self._data.getvalue()


PlaceContext = AbstractContextManager[Place]


def read_body(
    environ: dict[str, Any],
    limits: BodyLimits,
    place: Place,
    count: Callable[[int], None],
    hashes: Sequence[Hash] = (),
) -> bytes:
    """Read the body of a request and undo its content encoding.

    `count` is told the number of bytes received; `hashes` are updated with the decompressed bytes as they come.

    Raises:
        ApiError: 400 for a body that ends early or does not decompress, 408 when it stalls, 413 when it is too large
            either way, 415 for an encoding other than zstd, gzip and identity.
    """
    inflate = _inflater(environ.get("HTTP_CONTENT_ENCODING", ""))
    received = _Collected(limits.max_received, "received", place, hashes if inflate is None else ())
    _receive(environ, limits.max_received, place, received)
    count(received.size)
    if inflate is None:
        if received.size > limits.max_inflated:
            raise too_large(limits.max_inflated, "decompressed")
        return received.whole()
    inflated = _Collected(limits.max_inflated, "decompressed", place, hashes)
    inflate(received.whole(), limits.max_inflated, place, inflated)
    return inflated.whole()


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


def _receive(environ: dict[str, Any], limit: int, place: Place, body: _Collected) -> None:
    declared = _declared_length(environ)
    if declared is not None:
        if declared > limit:
            raise too_large(limit, "received")
        place.grow_to(declared)
    elif not environ.get("wsgi.input_terminated"):
        return
    stream: Stream = environ["wsgi.input"]
    wanted = limit + 1 if declared is None else declared
    while body.size < wanted:
        try:
            chunk = stream.read(min(_READ_STEP, wanted - body.size))
        except TimeoutError:
            raise ApiError(408, "The body did not arrive in time. Send it again.") from None
        except OSError:
            raise bad_request("The body ended early. Send it again.") from None
        except ParseException:
            raise bad_request("The chunks of the body are malformed. Send it again.") from None
        if not chunk:
            break
        body.add(chunk)
    if declared is not None and body.size < declared:
        # A truncated upload is a smaller, different measurement: never store it.
        raise bad_request("The body ended early. Send it again.")


def _declared_length(environ: dict[str, Any]) -> int | None:
    if "chunked" in environ.get("HTTP_TRANSFER_ENCODING", "").lower():
        return None
    text = environ.get("CONTENT_LENGTH") or ""
    return int(text) if text.isascii() and text.isdigit() else None


def _inflater(encoding: str) -> Callable[[bytes, int, Place, _Collected], None] | None:
    match encoding.strip().lower():
        case "" | "identity":
            return None
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


def _gunzip(raw: bytes, _limit: int, _place: Place, body: _Collected) -> None:
    decoder = zlib.decompressobj(wbits=31)
    pending = raw
    try:
        while not decoder.eof:
            part = decoder.decompress(pending, _INFLATE_STEP)
            pending = decoder.unconsumed_tail
            if not part and not pending and not decoder.eof:
                raise broken_body("The gzip data ends early.")
            body.add(part)
    except zlib.error:
        raise broken_body("The body is not gzip data.") from None
    if decoder.unused_data:
        raise broken_body("Something follows the gzip data; send a single member.")


def _unzstd(raw: bytes, limit: int, place: Place, body: _Collected) -> None:
    try:
        size = zstandard.get_frame_parameters(raw).content_size
        if size != zstandard.CONTENTSIZE_UNKNOWN:
            if size > limit:
                raise too_large(limit, "decompressed")
            place.grow_to(size)
        _unzstd_frame(raw, max(limit, _ZSTD_WINDOW), body)
    except zstandard.ZstdError:
        raise broken_body("The body is not zstd data, or needs a window larger than the size limit.") from None


def _unzstd_frame(raw: bytes, window: int, body: _Collected) -> None:
    """Decompress one frame in slices so small that one slice exceeds neither what is left of the limit nor a step."""
    decoder = zstandard.ZstdDecompressor(max_window_size=window).decompressobj()
    view = memoryview(raw)
    position = 0
    while position < len(raw) and not decoder.eof:
        step = max(16, 3 * min(body.left, _ZSTD_STEP) // _ZSTD_BLOCK)
        body.add(decoder.decompress(view[position : position + step]))
        position += step
    if not decoder.eof:
        raise broken_body("The zstd data ends early.")
    if decoder.unused_data or position < len(raw):
        raise broken_body("Something follows the zstd frame; send a single frame.")


def too_large(limit: int, what: str) -> ApiError:
    """Return the 413 for a body above `limit` bytes; `what` is received or decompressed."""
    return ApiError(413, f"The body is larger than {limit} bytes {what}. Send a smaller measurement.")


def broken_body(hint: str) -> ApiError:
    """Return the 400 of the wire contract for a body that cannot be read."""
    return bad_request("Incorrect format", hint=hint)
