"""Group commit: callers that want the same directory on disk share one fsync."""

import os
import threading
from dataclasses import dataclass, field
from pathlib import Path


@dataclass(slots=True)
class _Queue:
    condition: threading.Condition = field(default_factory=threading.Condition)
    asked: int = 0
    finished: int = 0
    busy: bool = False
    failed: dict[int, OSError] = field(default_factory=dict)


class GroupSync:
    """Synchronises directories to disk, once for all who ask while the previous fsync runs.

    The first caller becomes the leader and runs fsync for everybody who asked before it started; those who come
    meanwhile wait for the next one. A caller alone pays exactly one fsync and no waiting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queues: dict[str, _Queue] = {}

    def directory(self, path: Path) -> None:
        """Return when every entry that `path` had at the time of the call is on disk.

        Raises:
            OSError: the fsync failed; the entries may be lost in a power cut.
        """
        key = str(path)
        with self._lock:
            queue = self._queues.setdefault(key, _Queue())
            with queue.condition:
                queue.asked += 1
                ticket = queue.asked
        try:
            self._wait(queue, ticket, key)
        finally:
            with self._lock, queue.condition:
                if queue.finished == queue.asked and not queue.busy:
                    self._queues.pop(key, None)

    def _wait(self, queue: _Queue, ticket: int, path: str) -> None:
        while True:
            with queue.condition:
                while queue.finished < ticket and queue.busy:
                    queue.condition.wait()
                if queue.finished >= ticket:
                    if ticket in queue.failed:
                        raise queue.failed.pop(ticket)
                    return
                queue.busy = True
                first, last = queue.finished + 1, queue.asked
            error = _fsync(path)
            with queue.condition:
                if error is not None:
                    queue.failed.update(dict.fromkeys(range(first, last + 1), error))
                queue.finished = last
                queue.busy = False
                queue.condition.notify_all()


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
