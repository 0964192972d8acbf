"""A tar archive read forwards, entry by entry, in constant memory.

The standard library's reader takes as long per entry as scoring a measurement does. This one knows what archives of
measurements use: ustar and old headers, long names of GNU and of POSIX (pax). Sizes and lengths are bounded.
"""

import io
from collections.abc import Iterator
from typing import BinaryIO

from core.archive import ArchiveError

BLOCK = 512
MAX_NAME_BYTES = 64 * 1024
_REGULAR = b"0\0"


class Entry(io.RawIOBase):
    """One regular file of an archive: a stream of its content, to be read before the next entry is asked for."""

    def __init__(self, name: str, size: int, file: BinaryIO) -> None:
        self.name = name
        self.size = size
        self._left = size
        self._file = file

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # any writable buffer
        data = self._file.read(min(len(buffer), self._left))
        if not data and self._left and len(buffer):
            raise ArchiveError(f"The archive ends within {self.name}.")
        buffer[: len(data)] = data
        self._left -= len(data)
        return len(data)

    def read_whole(self) -> bytes:
        """Return all that is left."""
        data = _exactly(self._file, self._left)
        self._left = 0
        return data

    def skip(self) -> None:
        """Go to the end."""
        while self._left:
            self._left -= len(_exactly(self._file, min(self._left, 1 << 20)))


def entries(file: BinaryIO) -> Iterator[Entry]:
    """Yield the regular files of a tar archive.

    Raises:
        ArchiveError: the archive is damaged or cut short.
    """
    long_name: str | None = None
    ended = 0
    while ended < 2:
        header = file.read(BLOCK)
        if not header and not ended:
            raise ArchiveError("The archive has no end.")
        if not header:
            return
        if len(header) < BLOCK:
            raise ArchiveError("The archive ends within a header.")
        if not header.strip(b"\0"):
            ended += 1
            continue
        _check(header)
        size, kind = _number(header[124:136]), header[156:157]
        if kind in b"Lx" and kind:
            if size > MAX_NAME_BYTES:
                raise ArchiveError("The archive holds a name that is too long.")
            long_name = _long_name(kind, _exactly(file, size)) or long_name
        elif kind in _REGULAR:
            entry = Entry(long_name or _name(header), size, file)
            long_name = None
            yield entry
            entry.skip()
        else:  # directories, links, global headers
            long_name = None
            Entry("", size, file).skip()
        if padding := -size % BLOCK:
            _exactly(file, padding)


def _check(header: bytes) -> None:
    """Compare the checksum: the sum of all bytes with the field itself taken as blanks."""
    actual = sum(header) - sum(header[148:156]) + 8 * 32
    if actual != _number(header[148:156]):
        raise ArchiveError("The archive is damaged: a header does not agree with its checksum.")


def _name(header: bytes) -> str:
    name = header[:100].partition(b"\0")[0]
    prefix = header[345:500].partition(b"\0")[0] if header[257:263] == b"ustar\0" else b""
    return (prefix + b"/" + name if prefix else name).decode("utf-8", "replace")


def _long_name(kind: bytes, data: bytes) -> str | None:
    if kind == b"L":
        return data.partition(b"\0")[0].decode("utf-8", "replace")
    for record in data.split(b"\n"):
        key, equals, value = record.partition(b" ")[2].partition(b"=")
        if equals and key == b"path":
            return value.decode("utf-8", "replace")
    return None


def _number(field: bytes) -> int:
    if field[:1] == b"\x80":
        return int.from_bytes(field[1:], "big")
    text = field.strip(b"\0 ") or b"0"
    try:
        return int(text, 8)
    except ValueError:
        raise ArchiveError("The archive is damaged: a header holds no number where one should be.") from None


def _exactly(file: BinaryIO, size: int) -> bytes:
    data = file.read(size)
    if len(data) != size:
        raise ArchiveError("The archive is cut short.")
    return data
