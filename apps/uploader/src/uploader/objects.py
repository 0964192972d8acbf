"""Reading a batch back out of its two objects, and blotting single measurements out of them.

The postcan holds everything: the bodies, and in the names of its entries the uids. So the jsonl object and the rows can
be made from it again, byte for byte.

A measurement that was taken down leaves a blank: a gzip member of the same length, `{}` in the jsonl object and nothing
in the postcan. Every other member keeps its place, so no other row changes and readers meet whole objects all the time.
"""

import hashlib
import os
import zlib
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from core.archive import MAX_MEMBER_BYTES, ArchiveError, JsonlWriter, Member
from core.ids import IdentifierError, parse_measurement_uid
from core.objectstore import ObjectStore, StoreUnavailable
from uploader.pack import EMPTY_LINE, Archive, Line, Row, line_of, row_of

_PIECE = 256 * 1024
_TAR_BLOCK = 512
_SUFFIX = b".post"

_GZIP = b"\x1f\x8b\x08"
_GZIP_REST = b"\x00\x00\x00\x00\x00\xff"  # time 0, no extra flags, operating system "unknown"
_FEXTRA, _FCOMMENT = b"\x04", b"\x10"
_EMPTY_BLOCK = b"\x00\x00\x00\xff\xff"  # of deflate: stored, not the last one, no bytes
_MAX_EXTRA = 0xFFFF

_BLANK_LINES = (EMPTY_LINE + b"\n", b"0\n")
"""What is left of a line; the second fits where the first does not: the document was a single character."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One place in a postcan; a blank has neither uid nor body."""

    number: int
    member: Member
    uid: str | None
    body: bytes


@dataclass(frozen=True, slots=True)
class Slot:
    """One measurement in both objects of a batch, and the row that it should have."""

    row: Row
    body: bytes
    line: Line


def fetch(store: ObjectStore, key: str, path: Path) -> Archive:
    """Copy an object into a file and return its size and checksum.

    Raises:
        ObjectNotFound, StoreUnavailable, OSError.
    """
    digest, size = hashlib.sha256(), 0
    with open(path, "wb") as file:
        for piece in store.chunks(key):
            file.write(piece)
            digest.update(piece)
            size += len(piece)
    return Archive(size, digest.hexdigest())


def put_checked(store: ObjectStore, key: str, path: Path, archive: Archive, *, read_back: bool = True) -> None:
    """Put a file and make sure that the store has these very bytes, with `read_back` by reading all of them.

    Raises:
        StoreUnavailable: it does not take them, or has something else; the same call may succeed later.
    """
    store.put(key, path)
    if read_back:
        found = store.content(key)
        same = (found.size, found.sha256) == (archive.size, archive.sha256)
    else:
        info = store.head(key)
        same = info is not None and info.size == archive.size
    if not same:
        raise StoreUnavailable(
            f"The object {key} in the store is not what was put there. Check the store; the upload is repeated."
        )


def archive_of(path: Path) -> Archive:
    """Return size and checksum of a file."""
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256")
    return Archive(path.stat().st_size, digest.hexdigest())


def members(path: Path) -> Iterator[tuple[Member, bytes]]:
    """Yield each gzip member of a file with what it holds.

    Raises:
        ArchiveError: the file is damaged, cut short, or a member is too large.
    """
    offset = 0
    with open(path, "rb") as file:
        pending = file.read(_PIECE)
        while pending:
            decompressor, content, length = zlib.decompressobj(wbits=16 + zlib.MAX_WBITS), bytearray(), 0
            while not decompressor.eof:
                if not pending and not (pending := file.read(_PIECE)):
                    raise ArchiveError(f"The gzip member at {offset} is cut short.")
                try:
                    content += decompressor.decompress(pending, MAX_MEMBER_BYTES + 1 - len(content))
                except zlib.error as error:
                    raise ArchiveError(f"The gzip member at {offset} is damaged: {error}.") from None
                if len(content) > MAX_MEMBER_BYTES:
                    raise ArchiveError(f"The gzip member at {offset} expands to more than {MAX_MEMBER_BYTES} bytes.")
                rest = decompressor.unused_data or decompressor.unconsumed_tail
                length += len(pending) - len(rest)
                pending = rest
            yield Member(offset, length), bytes(content)
            offset += length
            pending = pending or file.read(_PIECE)


def entries(postcan: Path) -> Iterator[Entry]:
    """Yield the places of a postcan, blanks included.

    Raises:
        ArchiveError: the file is not a whole postcan, or a body does not have the hash that its uid says.
    """
    ended = False
    for number, (member, content) in enumerate(members(postcan)):
        if ended:
            raise ArchiveError("The postcan goes on after its end.")
        if not content:
            yield Entry(number, member, None, b"")
        elif content.count(0) == len(content):
            ended = True
        else:
            yield Entry(number, member, *_body_in(content))
    if not ended:
        raise ArchiveError("The postcan has no end.")


def slots(jsonl: Path, postcan: Path) -> Iterator[Slot]:
    """Yield every measurement of a batch, after checking that both objects say the same.

    Raises:
        ArchiveError: one of the files is damaged, or they do not belong together.
    """
    lines = members(jsonl)
    for entry in entries(postcan):
        found = next(lines, None)
        if found is None:
            raise ArchiveError("The jsonl object has fewer lines than the postcan has bodies.")
        member, content = found
        if entry.uid is None:
            if content not in _BLANK_LINES:
                raise ArchiveError(f"Line {entry.number} belongs to a measurement that the postcan no longer has.")
            continue
        line = line_of(entry.uid, entry.body)
        if content != line.text + b"\n":
            raise ArchiveError(f"Line {entry.number} is not that of {entry.uid}.")
        yield Slot(row_of(entry.uid, entry.number, line, member, entry.member), entry.body, line)
    if next(lines, None) is not None:
        raise ArchiveError("The jsonl object has more lines than the postcan has bodies.")


def rebuild_jsonl(postcan: Path, target: Path) -> Archive:
    """Make the jsonl object that belongs to a postcan without blanks, the same bytes as the first time.

    Raises:
        ArchiveError: the postcan is damaged, or has blanks, whose length in the jsonl object is not known.
    """
    with open(target, "wb") as file:
        writer = JsonlWriter(file)
        for entry in entries(postcan):
            if entry.uid is None:
                raise ArchiveError("The postcan has blanks, so that its jsonl object cannot be made anew.")
            writer.add(line_of(entry.uid, entry.body).text)
        file.flush()
        os.fsync(file.fileno())
    return Archive(writer.size, writer.sha256)


def blot_lines(jsonl: Path, numbers: Collection[int]) -> None:
    """Put blanks in place of lines, in the file itself; doing it again changes nothing.

    Raises:
        ArchiveError: the file is damaged.
    """
    found = [member for number, (member, _) in enumerate(members(jsonl)) if number in numbers]
    _overwrite(jsonl, found, _BLANK_LINES)


def blot_entries(postcan: Path, targets: Collection[Member]) -> None:
    """Put blanks in place of the bodies in these members, in the file itself."""
    _overwrite(postcan, targets, (b"",))


def blank(length: int, content: bytes) -> bytes | None:
    """Return a gzip member of `length` bytes that holds `content`, None when it would be longer."""
    compressor = zlib.compressobj(9, zlib.DEFLATED, -zlib.MAX_WBITS)
    packed = compressor.compress(content) + compressor.flush()
    end = zlib.crc32(content).to_bytes(4, "little") + len(content).to_bytes(4, "little")
    spare = length - len(_GZIP) - 1 - len(_GZIP_REST) - len(packed) - len(end)
    if spare < 0:
        return None
    blocks = max(0, -(-(spare - 2 - _MAX_EXTRA) // len(_EMPTY_BLOCK)))
    spare -= blocks * len(_EMPTY_BLOCK)
    if spare == 0:
        flags, filling = b"\0", b""
    elif spare == 1:
        flags, filling = _FCOMMENT, b"\0"  # an empty comment
    else:
        flags, filling = _FEXTRA, (spare - 2).to_bytes(2, "little") + bytes(spare - 2)
    return _GZIP + flags + _GZIP_REST + filling + blocks * _EMPTY_BLOCK + packed + end


def _overwrite(path: Path, targets: Collection[Member], contents: tuple[bytes, ...]) -> None:
    with open(path, "r+b") as file:
        for member in targets:
            blanks = (blank(member.length, content) for content in contents)
            filling = next((found for found in blanks if found is not None), None)
            if filling is None:
                raise ArchiveError(f"The gzip member at {member.offset} is too short to be a document.")
            file.seek(member.offset)
            file.write(filling)
        file.flush()
        os.fsync(file.fileno())


def _body_in(content: bytes) -> tuple[str, bytes]:
    """Return uid and body of a tar entry; the hash in the uid proves the body."""
    name, size = content[:100].rstrip(b"\0"), content[124:135]
    try:
        uid = name.removesuffix(_SUFFIX).decode("ascii")
        digest = parse_measurement_uid(uid).digest
        body = content[_TAR_BLOCK : _TAR_BLOCK + int(size, 8)]
    except (IdentifierError, ValueError) as error:
        raise ArchiveError(f"An entry of the postcan is not a measurement: {error}") from None
    if hashlib.sha512(body).hexdigest()[:16] != digest:
        raise ArchiveError(f"The body of {uid} in the postcan is damaged.")
    return uid, body
