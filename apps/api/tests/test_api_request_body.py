"""Reading bodies: whatever arrives, memory and results stay bounded."""

import gzip
import hashlib
import io
import tracemalloc
import zlib
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import pytest
import zstandard

from api.errors import ApiError
from api.request_body import LARGE_BODY_BYTES, MEDIUM_BODY_BYTES, MEDIUM_PER_LARGE, BodyLimits, read_body

LIMITS = BodyLimits(100_000, 1_000_000, 1)


def read(body: bytes, encoding: str = "", *hashes: Any, limits: BodyLimits = LIMITS, chunked: bool = False) -> bytes:
    environ: dict[str, object] = {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
    if encoding:
        environ["HTTP_CONTENT_ENCODING"] = encoding
    if chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(len(body))
    with limits.place() as place:
        return read_body(environ, limits, place, lambda _size: None, hashes)


def streamed_zstd(data: bytes) -> bytes:
    compressor = zstandard.ZstdCompressor().compressobj()
    return compressor.compress(data) + compressor.flush()


COMPRESS: dict[str, Callable[[bytes], bytes]] = {
    "": bytes,
    "identity": bytes,
    "gzip": gzip.compress,
    "GZIP": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "zstd ": streamed_zstd,
}


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", COMPRESS)
@pytest.mark.parametrize("data", [b"{}", b'{"a": "' + b"x" * 90_000 + b'"}'], ids=["small", "larger"])
def test_every_encoding_gives_the_same_bytes(encoding: str, data: bytes, chunked: bool) -> None:
    assert read(COMPRESS[encoding](data), encoding, chunked=chunked) == data


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("encoding", COMPRESS)
def test_what_comes_out_is_hashed_on_its_way(encoding: str, chunked: bool) -> None:
    data = b'{"a": "' + b"x" * 90_000 + b'"}'
    first, second = hashlib.sha512(), hashlib.blake2b(b"before")
    read(COMPRESS[encoding](data), encoding, first, second, chunked=chunked)
    assert first.digest() == hashlib.sha512(data).digest()
    assert second.digest() == hashlib.blake2b(b"before" + data).digest()


@pytest.mark.parametrize("encoding", ["identity", "gzip", "zstd", "zstd "])
def test_body_is_in_memory_once(encoding: str) -> None:
    size = 48 * 1024 * 1024
    raw = COMPRESS[encoding](b"0123456789abcdef" * (size // 16))
    tracemalloc.start()
    try:
        assert len(read(raw, encoding, limits=BodyLimits(size, size, 1), chunked=True)) == size
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.5 * size


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "zstd "])
def test_up_to_the_limit_and_not_a_byte_more(encoding: str) -> None:
    assert len(read(COMPRESS[encoding](b"0" * 1_000_000), encoding)) == 1_000_000
    with pytest.raises(ApiError) as refused:
        read(COMPRESS[encoding](b"0" * 1_000_001), encoding)
    assert refused.value.status == 413


@pytest.mark.parametrize("encoding", ["gzip", "zstd", "zstd "])
def test_bombs_are_refused_quickly(encoding: str) -> None:
    bomb = COMPRESS[encoding](b"\0" * 100_000_000)
    assert len(bomb) <= 100_000
    with pytest.raises(ApiError) as refused:
        read(bomb, encoding)
    assert refused.value.status == 413


def test_many_frames_do_not_add_up_to_a_bomb() -> None:
    frame = streamed_zstd(b"\0" * 900_000)
    with pytest.raises(ApiError) as refused:
        read(frame * 50, "zstd")
    assert refused.value.status == 400


@pytest.mark.parametrize("chunked", [False, True])
def test_received_limit(chunked: bool) -> None:
    assert len(read(b"x" * 100_000, chunked=chunked)) == 100_000
    with pytest.raises(ApiError) as refused:
        read(b"x" * 100_001, chunked=chunked)
    assert refused.value.status == 413


class EndlessStream:
    def __init__(self) -> None:
        self.given = 0

    def read(self, size: int, /) -> bytes:
        self.given += size
        return b"x" * size


def test_an_endless_body_is_left_after_the_limit() -> None:
    stream = EndlessStream()
    environ = {"wsgi.input": stream, "wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"}
    with LIMITS.place() as place, pytest.raises(ApiError) as refused:
        read_body(environ, LIMITS, place, lambda _size: None)
    assert refused.value.status == 413
    assert stream.given == 100_001


@pytest.mark.parametrize(
    ("encoding", "body"),
    [
        ("gzip", b"not gzip"),
        ("gzip", b""),
        ("gzip", gzip.compress(b"{}", mtime=0)[:-3]),
        ("gzip", gzip.compress(b"{}", mtime=0) + b"tail"),
        ("gzip", gzip.compress(b"{}", mtime=0) * 2),
        ("gzip", zlib.compress(b"{}")),
        ("zstd", b"not zstd"),
        ("zstd", b""),
        ("zstd", zstandard.ZstdCompressor().compress(b"{}" * 500)[:-3]),
        ("zstd", zstandard.ZstdCompressor().compress(b"{}") + b"tail"),
        ("zstd", zstandard.ZstdCompressor().compress(b"{}") * 2),
        ("zstd", b"\x50\x2a\x4d\x18\x04\0\0\0abcd" + zstandard.ZstdCompressor().compress(b"{}")),
        ("zstd", zstandard.ZstdCompressor(write_checksum=True).compress(b"{}")[:-1] + b"\xff"),
    ],
)
def test_broken_compression(encoding: str, body: bytes) -> None:
    with pytest.raises(ApiError) as refused:
        read(body, encoding)
    assert refused.value.status == 400
    assert refused.value.body["error"] == "Incorrect format"
    assert "hint" in refused.value.body


def test_a_huge_window_is_refused() -> None:
    parameters = zstandard.ZstdCompressionParameters.from_level(3, window_log=27)
    compressor = zstandard.ZstdCompressor(compression_params=parameters).compressobj()
    with pytest.raises(ApiError) as refused:
        read(compressor.compress(b"{}") + compressor.flush(), "zstd")
    assert refused.value.status == 400


@pytest.mark.parametrize("encoding", ["br", "deflate", "gzip, zstd", "\xff"])
def test_other_encodings(encoding: str) -> None:
    with pytest.raises(ApiError) as refused:
        read(b"{}", encoding)
    assert refused.value.status == 415
    assert refused.value.headers["Accept-Encoding"] == "zstd, gzip, identity"


def test_a_truncated_upload_is_refused() -> None:
    environ = {"wsgi.input": io.BytesIO(b'{"a": 1}'), "CONTENT_LENGTH": "20", "wsgi.input_terminated": True}
    with LIMITS.place() as place, pytest.raises(ApiError) as refused:
        read_body(environ, LIMITS, place, lambda _size: None)
    assert refused.value.status == 400


def test_large_bodies_wait_for_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.request_body._WAIT_FOR_PLACE_S", 0.05)
    limits = BodyLimits(10_000_000, 10_000_000, 1)
    large = b"x" * (LARGE_BODY_BYTES + 1)
    with limits.place() as first:
        first.grow_to(len(large))
        with pytest.raises(ApiError) as refused:
            read(large, limits=limits)
        assert refused.value.status == 503
        assert read(b"small", limits=limits) == b"small"
    assert read(large, limits=limits) == large


def test_medium_bodies_have_more_places_and_leave_them_to_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.request_body._WAIT_FOR_PLACE_S", 0.05)
    limits = BodyLimits(10_000_000, 10_000_000, 1)
    medium = b"x" * (MEDIUM_BODY_BYTES + 1)
    with ExitStack() as stack:
        for _ in range(MEDIUM_PER_LARGE - 1):
            stack.enter_context(limits.place()).grow_to(len(medium))
        assert read(medium, limits=limits) == medium
        stack.enter_context(limits.place()).grow_to(LARGE_BODY_BYTES + 1)
        with pytest.raises(ApiError) as refused:
            read(medium, limits=limits)
        assert refused.value.status == 503
        assert len(read(medium[1:], limits=limits)) == MEDIUM_BODY_BYTES
    with limits.place() as all_of_them:
        all_of_them.grow_to(LARGE_BODY_BYTES + 1)
