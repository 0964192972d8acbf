"""Reading bodies: whatever arrives, memory and results stay bounded."""

import gzip
import io
import zlib
from collections.abc import Callable

import pytest
import zstandard

from api.errors import ApiError
from api.request_body import LARGE_BODY_BYTES, BodyLimits, read_body

LIMITS = BodyLimits(100_000, 1_000_000, 1)


def read(body: bytes, encoding: str = "", *, limits: BodyLimits = LIMITS, chunked: bool = False) -> bytes:
    environ: dict[str, object] = {"wsgi.input": io.BytesIO(body), "wsgi.input_terminated": True}
    if encoding:
        environ["HTTP_CONTENT_ENCODING"] = encoding
    if chunked:
        environ["HTTP_TRANSFER_ENCODING"] = "chunked"
    else:
        environ["CONTENT_LENGTH"] = str(len(body))
    with limits.place() as place:
        return read_body(environ, limits, place, lambda _size: None)


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
