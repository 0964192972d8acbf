"""Bytes of objects, in pieces, read ahead of whoever needs them; with a local cache when it is asked for.

Nothing touches the local disk unless there is a cache. Memory is bounded by AHEAD pieces of PIECE_BYTES.
"""

import contextlib
import io
import os
import stat
import threading
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO

from core.objectstore import ObjectStore, StoreUnavailable
from fastpath.sources import WorkObject

PIECE_BYTES = 4 * 1024 * 1024
AHEAD = 6
"""Objects whose first piece is read ahead; small objects cost the way to the store and back, not their size."""

_TEMPORARY = ".s3tmp"


class Cache:
    """Downloaded objects in a local directory, at most `limit` bytes of them."""

    def __init__(self, root: Path, limit: int) -> None:
        """Use the directory `root`, made when it is needed."""
        self._root = root
        self._limit = limit
        self._lock = threading.Lock()

    def open(self, store: ObjectStore, work: WorkObject) -> BinaryIO:
        """Return the local copy of an object, opened, after downloading it unless it is there with the right size.

        An open file stays readable when another process makes room by deleting it. Raises StoreError, also when the
        local disk does not take the object.
        """
        path = self._root / work.key
        try:
            return self._find(path, work.size) or self._download(store, work, path)
        except OSError as error:
            raise StoreUnavailable(
                f"The cache {self._root} cannot be used: {error.strerror}. Make room, or leave out --keep-s3-cache."
            ) from error

    def _find(self, path: Path, size: int) -> BinaryIO | None:
        try:
            file = open(path, "rb")  # noqa: SIM115 closed by whoever reads it
        except FileNotFoundError:
            return None
        if os.fstat(file.fileno()).st_size == size:
            with contextlib.suppress(FileNotFoundError):
                os.utime(path)
            return file
        file.close()
        return None

    def _download(self, store: ObjectStore, work: WorkObject, path: Path) -> BinaryIO:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = path.with_name(f"{path.name}.{os.getpid()}{_TEMPORARY}")
        try:
            with open(temporary, "wb") as file:
                file.writelines(_ranges(store, work.key, work.size))
                file.flush()
                os.fsync(file.fileno())
            copy = open(temporary, "rb")  # noqa: SIM115 closed by whoever reads it
            temporary.rename(path)
        except BaseException:
            temporary.unlink(missing_ok=True)
            raise
        self._stay_within_limit()
        return copy

    def _stay_within_limit(self) -> None:
        """Delete what was unused for longest until the limit is kept."""
        with self._lock:
            files = []
            for path in self._root.rglob("*"):
                with contextlib.suppress(FileNotFoundError):  # another process deleted it
                    status = path.stat()
                    if stat.S_ISREG(status.st_mode) and path.suffix != _TEMPORARY:
                        files.append((status.st_mtime, status.st_size, path))
            total = sum(size for _, size, _ in files)
            for _, size, path in sorted(files):
                if total <= self._limit:
                    return
                path.unlink(missing_ok=True)
                total -= size


class Fetcher:
    """Reads objects of one store, a few ahead."""

    def __init__(self, store: ObjectStore, cache: Cache | None) -> None:
        """Read from `store`, through `cache` if there is one."""
        self.store = store
        self._cache = cache
        self._threads = ThreadPoolExecutor(AHEAD, thread_name_prefix="fetch")

    def objects(self, works: Iterable[WorkObject]) -> "Iterator[tuple[WorkObject, io.BufferedReader]]":
        """Yield each object with a stream of its bytes, which raises StoreError when it cannot be read."""
        waiting: deque[tuple[WorkObject, Future[bytes | BinaryIO]]] = deque()
        coming = iter(works)
        while True:
            while len(waiting) < AHEAD and (work := next(coming, None)) is not None:
                waiting.append((work, self._threads.submit(self._first, work)))
            if not waiting:
                return
            work, first = waiting.popleft()
            yield work, io.BufferedReader(_Stream(self._rest(work, first)), 1 << 16)

    def stream(self, key: str, size: int) -> io.BufferedReader:
        """Return a stream of one object without reading ahead and without the cache."""
        return io.BufferedReader(_Stream(_ranges(self.store, key, size)), 1 << 16)

    def close(self) -> None:
        """Stop reading ahead."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    def _first(self, work: WorkObject) -> bytes | BinaryIO:
        if self._cache is not None:
            return self._cache.open(self.store, work)
        return self.store.get_range(work.key, 0, min(PIECE_BYTES, work.size))

    def _rest(self, work: WorkObject, first: "Future[bytes | BinaryIO]") -> Iterator[bytes]:
        piece = first.result()
        if not isinstance(piece, bytes):
            with piece as file:
                while data := file.read(PIECE_BYTES):
                    yield data
            return
        offset = len(piece)
        while offset < work.size:
            length = min(PIECE_BYTES, work.size - offset)
            following = self._threads.submit(self.store.get_range, work.key, offset, length)
            yield piece
            piece = following.result()
            offset += length
        yield piece


def _ranges(store: ObjectStore, key: str, size: int) -> Iterator[bytes]:
    offset = 0
    while offset < size:
        length = min(PIECE_BYTES, size - offset)
        yield store.get_range(key, offset, length)
        offset += length


class _Stream(io.RawIOBase):
    """A readable stream of what an iterator gives."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._piece = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview | bytearray") -> int:  # type: ignore[override]  # any writable buffer
        while not self._piece:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._piece = memoryview(piece)
        count = min(len(buffer), len(self._piece))
        buffer[:count] = self._piece[:count]
        self._piece = self._piece[count:]
        return count
