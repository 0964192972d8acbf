"""One file of the spool: a checksummed header line, then the body as received.

    SPOOL1 <crc32> length=<bytes> report_id=<id>\\n<body>

The checksum covers the rest of the header and the body, so that a file which a failing disk cut or changed is told from
a whole one. `tail -n +2` shows the body.
"""

import contextlib
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

FILE_MODE = 0o640
"""The apps run as users of their own and share the spool through one group."""

SUFFIX = ".post"
TEMPORARY_SUFFIX = ".tmp"

_HEADER = re.compile(rb"SPOOL1 ([0-9a-f]{8}) length=(\d{1,12}) report_id=([!-~]{0,256})\n")
_LONGEST_HEADER = 400


class TornFile(ValueError):
    """A spool file does not agree with its checksum; the message names it and what disagrees."""


@dataclass(frozen=True, slots=True)
class SpoolRecord:
    """One measurement in the spool: `body` is what the probe sent, decompressed; `report_id` is from the path."""

    uid: str
    report_id: str
    body: bytes


def make_header(body: bytes, report_id: str) -> bytes:
    """Return the header line of a file with this body."""
    rest = f"length={len(body)} report_id={report_id}\n".encode("ascii")
    return f"SPOOL1 {zlib.crc32(body, zlib.crc32(rest)):08x} ".encode("ascii") + rest


def parse(uid: str, raw: bytes) -> SpoolRecord:
    """Take the content of a file apart.

    Raises:
        TornFile: it does not agree with itself.
    """
    match = _HEADER.match(raw, 0, _LONGEST_HEADER)
    if match is None:
        raise TornFile(f"The spool file of {uid} has no valid header line.")
    body = raw[match.end() :]
    if len(body) != int(match[2]):
        raise TornFile(f"The spool file of {uid} holds {len(body)} bytes of body; its header says {int(match[2])}.")
    if zlib.crc32(memoryview(raw)[16:]) != int(match[1], 16):
        raise TornFile(f"The spool file of {uid} does not agree with its checksum.")
    return SpoolRecord(uid, match[3].decode("ascii"), body)


def write_durably(path: Path, header: bytes, body: bytes) -> None:
    """Make a new file and bring its content to disk; its name is on disk only once its directory is synchronised.

    Raises:
        OSError: the disk failed or is full; the file is gone again.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE)
    try:
        os.fchmod(descriptor, FILE_MODE)
        _write_all(descriptor, header + body)
        os.fsync(descriptor)
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink()
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]
