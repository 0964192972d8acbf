"""A bounded directory of what was read from the object store lately, shared by the processes of a host.

Each entry is a file `<hash of its key>` with a checksum in front, written under another name and renamed, never
synchronised: an entry that a power cut damaged is a miss. The directory holds at most about `max_bytes`, entries are
forgotten after a day, and nothing is written while the disk is nearly full. No failure of the cache reaches a caller.
"""

import contextlib
import hashlib
import itertools
import os
import threading
import time
import zlib
from pathlib import Path

from core.spool_files import TEMPORARY_SUFFIX

MAX_AGE_S = 24 * 3600
LARGEST_SHARE = 8
"""An entry may have this part of the whole at most: one eighth."""

_STALE_AFTER_S = 600
_CHECKSUM_BYTES = 4


class BodyCache:
    """Bytes by text keys. Safe to share between threads and processes; every method is quiet about failures."""

    def __init__(self, directory: Path, max_bytes: int, *, min_free_bytes: int = 0) -> None:
        """Keep about `max_bytes` in `directory` at most (0: nothing) and leave `min_free_bytes` of its disk alone."""
        self._directory = directory
        self._max_bytes = max_bytes
        self._min_free_bytes = min_free_bytes
        self._serial = itertools.count()
        self._lock = threading.Lock()
        # The first entry of a process looks at what is there, every later one only now and then.
        self._unmeasured = max_bytes

    def get(self, key: str) -> bytes | None:
        """Return an entry, None when there is none (any more)."""
        if self._max_bytes <= 0:
            return None
        path = self._path(key)
        try:
            with open(path, "rb") as file:
                # An entry of the future is from before the clock was set back; it would stay too long.
                if abs(time.time() - os.fstat(file.fileno()).st_mtime) > MAX_AGE_S:
                    return None
                raw = file.read(self._max_bytes)
        except OSError:
            return None
        content = raw[_CHECKSUM_BYTES:]
        if zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big") != raw[:_CHECKSUM_BYTES]:
            return None
        return content

    def put(self, key: str, content: bytes) -> None:
        """Keep an entry, unless it is too large or the disk is nearly full."""
        size = len(content) + _CHECKSUM_BYTES
        if size > self._max_bytes // LARGEST_SHARE:
            return
        with contextlib.suppress(OSError):
            self._directory.mkdir(0o750, parents=True, exist_ok=True)
            status = os.statvfs(self._directory)
            if status.f_bavail * status.f_frsize < self._min_free_bytes + size:
                return
            final = self._path(key)
            temporary = final.with_name(f"{final.name}.{os.getpid()}-{next(self._serial)}{TEMPORARY_SUFFIX}")
            try:
                with open(temporary, "xb") as file:
                    file.write(zlib.crc32(content).to_bytes(_CHECKSUM_BYTES, "big") + content)
                os.rename(temporary, final)
            except OSError:
                temporary.unlink(missing_ok=True)
                return
            self._make_room(size)

    def forget(self, key: str) -> None:
        """Drop an entry that turned out to be of no use."""
        with contextlib.suppress(OSError):
            self._path(key).unlink()

    def clear(self) -> None:
        """Drop everything."""
        with contextlib.suppress(OSError), os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(OSError):
                    os.unlink(entry.path)

    def _path(self, key: str) -> Path:
        return self._directory / hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()

    def _make_room(self, written: int) -> None:
        """Delete the oldest entries down to the limit, after each eighth of it that this process wrote."""
        with self._lock:
            self._unmeasured += written
            if self._unmeasured < self._max_bytes // LARGEST_SHARE:
                return
            self._unmeasured = 0
        now = time.time()
        kept: list[tuple[float, int, str]] = []
        with os.scandir(self._directory) as entries:
            for entry in entries:
                with contextlib.suppress(FileNotFoundError):
                    status = entry.stat(follow_symlinks=False)
                    age = abs(now - status.st_mtime)
                    if age > (_STALE_AFTER_S if entry.name.endswith(TEMPORARY_SUFFIX) else MAX_AGE_S):
                        os.unlink(entry.path)
                    else:
                        kept.append((status.st_mtime, status.st_size, entry.path))
        total = sum(size for _, size, _ in kept)
        for _, size, path in sorted(kept):
            if total <= self._max_bytes * (LARGEST_SHARE - 1) // LARGEST_SHARE:
                break
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
            total -= size
