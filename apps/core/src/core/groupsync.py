"""Group commit: callers that want the same directory on disk share one fsync."""

import errno
import os
import threading
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class _Waiter:
    """A caller that came while an fsync was running: it is released when its own is done, or to do it."""

    wake: threading.Lock
    done: bool = False
    error: OSError | None = None
    followers: list["_Waiter"] = field(default_factory=list)


class GroupSync:
    """Synchronises directories to disk, once for all who ask while the previous fsync runs.

    The first caller runs fsync at once. Those who come meanwhile wait; when it is done, the first of them runs the next
    one for all of them. A caller alone pays exactly one fsync and no waiting. Each waiter is woken once.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[str, list[_Waiter]] = {}

    def directory(self, path: Path) -> None:
        """Return when every entry that `path` had at the time of the call is on disk.

        Raises:
            OSError: the fsync failed; the entries may be lost in a power cut.
        """
        key = str(path)
        followers: list[_Waiter] = []
        with self._lock:
            queue = self._waiting.get(key)
            if queue is None:
                self._waiting[key] = []
            else:
                waiter = _Waiter(threading.Lock())
                waiter.wake.acquire()  # released by whoever runs fsync
                queue.append(waiter)
        if queue is not None:
            waiter.wake.acquire()
            if waiter.done:
                if waiter.error is not None:
                    raise waiter.error
                return
            followers = waiter.followers
        error: OSError | None = OSError(errno.EINTR, "The fsync was interrupted", key)
        try:
            error = _fsync(key)
        finally:  # whatever happens here, nobody may wait for ever
            self._release(key, followers, error)
        if error is not None:
            raise error

    def _release(self, key: str, followers: list[_Waiter], error: OSError | None) -> None:
        """Tell the followers the result, and let those who came meanwhile have an fsync of their own."""
        with self._lock:
            later = self._waiting[key]
            if later:
                self._waiting[key] = []
            else:
                del self._waiting[key]
        if later:
            later[0].followers = later[1:]
            later[0].wake.release()
        for waiter in followers:
            waiter.error, waiter.done = error, True
            waiter.wake.release()


def _fsync(path: str) -> OSError | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        return error
    return None
