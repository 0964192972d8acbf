"""The two archives a batch of measurements becomes, and reading one measurement back out of them.

- A **jsonl object** has one measurement per line and one gzip member per line, so that a byte range of the object is a
  whole gzip file holding one line; `zcat` of the object gives all lines.
- A **postcan** is a tar of the bodies as received, with one gzip member per tar entry and one for the end of the
  archive; `tar tzf` lists it, and a byte range of it holds one body.

Both are deterministic: fixed gzip header (no time, no name, no host), fixed compression level, plain ustar headers. The
same measurements in the same order give the same bytes on any host whose zlib compresses alike; another zlib (zlib-ng,
say) may choose other matches, which changes the bytes and never the content.

Every reader is bounded, since an object may be damaged or hostile.
"""

import hashlib
import struct
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import BinaryIO

from core.ids import parse_measurement_uid, spool_directory

MAX_DOCUMENT_BYTES = 64 * 1024 * 1024
"""Longest body or line that is archived, in bytes."""

MAX_MEMBER_BYTES = MAX_DOCUMENT_BYTES + 64 * 1024
"""Most that a gzip member may expand to: a document and the tar framing around it."""

MAX_SCAN_BYTES = 4 * 1024 * 1024 * 1024
"""Most that is decompressed in search of a line in an object without an index; such objects hold some 100 MB."""

COMPRESSION_LEVEL = 6

# Magic, deflate, no flags, time 0, no extra flags, operating system "unknown".
_GZIP_HEADER = b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff"
_BLOCK = 512
_RECORD = 20 * _BLOCK
_PIECE = 1024 * 1024


class ArchiveError(ValueError):
    """An archive does not hold what it should; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class Member:
    """The byte range of one gzip member within its object."""

    offset: int
    length: int


class _MemberWriter:
    """Appends gzip members to a file, keeping its length and checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digest = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> str:
        """SHA-256 of everything written so far, in hexadecimal."""
        return self._digest.hexdigest()

    def _append(self, *parts: bytes) -> Member:
        offset, checksum, length = self.size, 0, 0
        compressor = zlib.compressobj(COMPRESSION_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, 8, zlib.Z_DEFAULT_STRATEGY)
        self._write(_GZIP_HEADER)
        for part in parts:
            checksum, length = zlib.crc32(part, checksum), length + len(part)
            for start in range(0, len(part), _PIECE):
                self._write(compressor.compress(memoryview(part)[start : start + _PIECE]))
        self._write(compressor.flush())
        self._write(struct.pack("<II", checksum, length & 0xFFFFFFFF))
        return Member(offset, self.size - offset)

    def _write(self, data: bytes) -> None:
        self._file.write(data)
        self._digest.update(data)
        self.size += len(data)


class JsonlWriter(_MemberWriter):
    """Writes a seekable jsonl object."""

    def add(self, line: bytes) -> Member:
        """Append one line, given without its line end.

        Raises:
            ArchiveError: the line holds a line end or is longer than MAX_DOCUMENT_BYTES.
        """
        if b"\n" in line:
            raise ArchiveError("A jsonl line holds a line end. Put the document on one line first.")
        _check_length(line)
        return self._append(line, b"\n")


class PostcanWriter(_MemberWriter):
    """Writes a postcan."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__(file)
        self._unpacked = 0

    def add(self, uid: str, body: bytes) -> Member:
        """Append the body of a measurement.

        Raises:
            ArchiveError: the body is longer than MAX_DOCUMENT_BYTES.
            IdentifierError: `uid` is no measurement uid.
        """
        _check_length(body)
        header = _tar_header(uid, len(body))
        padding = bytes(-len(body) % _BLOCK)
        self._unpacked += len(header) + len(body) + len(padding)
        return self._append(header, body, padding)

    def finish(self) -> None:
        """Append the end of the archive: two empty blocks, filled up to a whole tar record."""
        end = 2 * _BLOCK
        self._append(bytes(end + -(self._unpacked + end) % _RECORD))


def entry_name(uid: str) -> str:
    """Return the name of a measurement inside its postcan: `incoming/<YYYYMMDDHH>_<cc>_<testname>/<uid>.post`."""
    return f"incoming/{spool_directory(uid)}/{uid}.post"


def read_member(data: bytes, max_bytes: int = MAX_MEMBER_BYTES) -> bytes:
    """Decompress exactly one gzip member.

    Raises:
        ArchiveError: `data` is cut short, damaged, followed by something else, or expands to more than `max_bytes`.
    """
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    try:
        content = decompressor.decompress(data, max_bytes + 1)
    except zlib.error as error:
        raise ArchiveError(f"The gzip member is damaged: {error}.") from None
    if len(content) > max_bytes:
        raise ArchiveError(f"The gzip member expands to more than {max_bytes} bytes.")
    if not decompressor.eof:
        raise ArchiveError("The gzip member is cut short.")
    if decompressor.unused_data:
        raise ArchiveError(f"The gzip member is followed by {len(decompressor.unused_data)} other bytes.")
    return content


def read_line(data: bytes) -> bytes:
    """Return the line in the bytes of one member of a jsonl object, without its line end.

    Raises:
        ArchiveError: as `read_member`, or the member does not hold exactly one line.
    """
    content = read_member(data)
    if not content.endswith(b"\n") or content.count(b"\n") != 1:
        raise ArchiveError("The gzip member does not hold exactly one line.")
    return content[:-1]


def read_body(data: bytes, uid: str) -> bytes:
    """Return the body in the bytes of one member of a postcan, after checking that it belongs to `uid`.

    Raises:
        ArchiveError: as `read_member`, or the member does not hold the tar entry of this measurement.
    """
    content = read_member(data)
    if len(content) < _BLOCK or content[:_BLOCK] != _tar_header(uid, _tar_size(content)):
        raise ArchiveError(f"The member of the postcan does not hold the body of {uid}.")
    size = _tar_size(content)
    if len(content) != _BLOCK + size + -size % _BLOCK:
        raise ArchiveError(f"The tar entry of {uid} is cut short.")
    return content[_BLOCK : _BLOCK + size]


def find_line(chunks: Iterable[bytes], number: int, *, max_scan: int = MAX_SCAN_BYTES) -> bytes:
    """Return line `number` (from zero) of a gzip file given in chunks, reading no more chunks than needed.

    For objects whose lines have no recorded position. Memory is bounded by MAX_MEMBER_BYTES.

    Raises:
        ArchiveError: the file is damaged, cut short, has fewer lines, or the line is too long or too far in.
    """
    line = bytearray()
    scanned = 0
    for piece in _decompressed(chunks):
        scanned += len(piece)
        start = 0
        while True:
            end = piece.find(b"\n", start)
            if number == 0:
                line += piece[start:] if end < 0 else piece[start:end]
                if len(line) > MAX_MEMBER_BYTES:
                    raise ArchiveError(f"The line is longer than {MAX_MEMBER_BYTES} bytes.")
                if end >= 0:
                    return bytes(line)
            if end < 0:
                break
            number -= 1
            start = end + 1
        if scanned > max_scan:
            raise ArchiveError(f"The line does not come within the first {max_scan} bytes.")
    if number == 0 and line:
        return bytes(line)
    raise ArchiveError("The file has fewer lines.")


def _decompressed(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Yield the content of all members, in pieces of at most _PIECE bytes."""
    decompressor = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS)
    fresh = True
    for pending in chunks:
        while pending:
            if decompressor.eof:
                decompressor, fresh = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), True
            try:
                piece = decompressor.decompress(pending, _PIECE)
            except zlib.error as error:
                raise ArchiveError(f"The gzip file is damaged: {error}.") from None
            fresh = False
            if piece:
                yield piece
            pending = decompressor.unused_data if decompressor.eof else decompressor.unconsumed_tail
    if not decompressor.eof and not fresh:
        raise ArchiveError("The gzip file is cut short.")


def _check_length(document: bytes) -> None:
    if len(document) > MAX_DOCUMENT_BYTES:
        raise ArchiveError(f"A document has {len(document)} bytes; at most {MAX_DOCUMENT_BYTES} can be archived.")


def _tar_header(uid: str, size: int) -> bytes:
    """Build the ustar header of a body.

    Written by hand because the standard library's differs between versions of Python in unused fields. The name of a
    measurement always fits: at most 52 bytes of directory into `prefix`, 76 of file name into `name`.
    """
    directory, _, name = entry_name(uid).rpartition("/")
    received = int(parse_measurement_uid(uid).received_at.timestamp())
    header = bytearray(_BLOCK)
    fields = (
        (0, name.encode("ascii")),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"%011o\0" % size),
        (136, b"%011o\0" % received),
        (148, b"        "),  # the checksum counts as blanks
        (156, b"0"),
        (257, b"ustar\x0000"),
        (345, directory.encode("ascii")),
    )
    for offset, value in fields:
        header[offset : offset + len(value)] = value
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header)


def _tar_size(content: bytes) -> int:
    """Return the size field of a tar header, 0 when it is no number (the header then compares unequal)."""
    field = content[124:135]
    return int(field, 8) if field.isdigit() and not set(field) & set(b"89") else 0
