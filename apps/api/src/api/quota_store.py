"""The table of balances that all workers of a host share. It exists in memory only, and ends with the service.

The master process makes it before it forks, in an anonymous file in memory (memfd), left out of core dumps. It is a
hash table with sets of a few slots: a subject can only lie in the set that a keyed hash of it names, so nobody can
choose addresses that share one. When a set is full, the subject that has used least of its quota is forgotten.

Nothing here waits for long, whatever becomes of other workers: the lock of a set is a record lock, which the kernel
frees when its holder is killed, and who does not get it soon goes on without; what may be lost is a charge. A slot torn
by a kill is read as a balance within its bounds, or as somebody else's.
"""

import fcntl
import hashlib
import mmap
import os
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from api.quotas import Balance, Bucket, Factors, Subject, buckets_of, charged, full, fullness, is_full, refilled

DEFAULT_ENTRIES = 65_536
"""Subjects that a table can hold; 64 bytes each."""

_MEMFD = "ooni-api-quotas "
_SLOT = struct.Struct("<16sBB6xqqqq8x")  # address or account, kind, version, day, week, month, moment
_WAYS = 16  # slots of a set
_SET_BYTES = _WAYS * _SLOT.size
_KEY = struct.Struct("<16sBB")
_KINDS = {"address": 1, "prefix": 2, "account": 3}
_NAMES = {number: name for name, number in _KINDS.items()}
_ATTEMPTS = 40
_PAUSE_S = 0.0005


class QuotaTable:
    """Balances of addresses, prefixes and accounts, shared by the processes that inherit it."""

    def __init__(self, factors: Factors, *, entries: int = DEFAULT_ENTRIES, name: str = "") -> None:
        """Make an empty table for at least `entries` subjects; `name` is how `find` finds it.

        Raises:
            OSError: there is no memory for it.
        """
        self.factors = factors
        self._sets = max(1, -(-entries // _WAYS))
        size = self._sets * _SET_BYTES
        self.descriptor = os.memfd_create(_MEMFD + name)
        os.ftruncate(self.descriptor, size)
        self._memory = mmap.mmap(self.descriptor, size)
        self._memory.madvise(mmap.MADV_DONTDUMP)
        self._secret = os.urandom(16)
        self._locks = [threading.Lock() for _ in range(64)]
        self._buckets = {kind: buckets_of(kind, factors) for kind in _KINDS}

    def close(self) -> None:
        """Let go of the memory; the last process that does frees it."""
        self._memory.close()
        os.close(self.descriptor)

    def buckets(self, subject: Subject) -> tuple[Bucket, ...]:
        """Return the buckets of a subject's kind."""
        return self._buckets[subject.kind]

    def balance(self, subject: Subject, now: int) -> Balance:
        """Return what `subject` has at `now`, in nanoseconds of the monotonic clock; full when it is not known."""
        buckets = self._buckets[subject.kind]
        offset = self._find(self._set_of(subject), _key(subject))
        return full(buckets, now) if offset is None else refilled(self._read(offset, buckets), buckets, now)

    def charge(self, subject: Subject, cost: int, now: int) -> tuple[Balance, bool]:
        """Take `cost` nanoseconds from what `subject` has at `now`.

        Returns:
            The balance after it, and whether another subject that was owed something had to be forgotten for it.
        """
        buckets = self._buckets[subject.kind]
        key, start = _key(subject), self._set_of(subject)
        with self._locked(start):
            offset = self._find(start, key)
            before = full(buckets, now) if offset is None else self._read(offset, buckets)
            after = charged(refilled(before, buckets, now), buckets, cost)
            evicted = False
            if offset is None:
                offset, evicted = self._place(start, now)
            self._memory[offset : offset + _SLOT.size] = _SLOT.pack(*_KEY.unpack(key), *after.left, after.at)
        return after, evicted

    def _set_of(self, subject: Subject) -> int:
        """Return where the set of a subject begins."""
        digest = hashlib.blake2b(_key(subject), digest_size=8, key=self._secret).digest()
        return int.from_bytes(digest, "little") % self._sets * _SET_BYTES

    def _find(self, start: int, key: bytes) -> int | None:
        block = self._memory[start : start + _SET_BYTES]
        for offset in range(0, _SET_BYTES, _SLOT.size):
            if block[offset : offset + _KEY.size] == key:
                return start + offset
        return None

    def _read(self, offset: int, buckets: tuple[Bucket, ...]) -> Balance:
        return _balance(_SLOT.unpack_from(self._memory, offset), buckets)

    def _place(self, start: int, now: int) -> tuple[int, bool]:
        """Return the slot of a set that can best be spared, and whether it held anything worth remembering."""
        best, most = start, -1.0
        for offset in range(start, start + _SET_BYTES, _SLOT.size):
            values = _SLOT.unpack_from(self._memory, offset)
            if values[1] not in _NAMES:
                return offset, False
            buckets = self._buckets[_NAMES[values[1]]]
            rest = fullness(refilled(_balance(values, buckets), buckets, now), buckets)
            if rest > most:
                best, most = offset, rest
        return best, most < 1.0

    @contextmanager
    def _locked(self, start: int) -> Iterator[None]:
        """Hold a set, against threads by an ordinary lock and against processes by a record lock.

        Without blocking: the kernel would take two threads of two processes that wait crosswise for a deadlock.
        """
        with self._locks[start // _SET_BYTES % len(self._locks)]:
            held = False
            for attempt in range(_ATTEMPTS):
                try:
                    fcntl.lockf(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, _SET_BYTES, start)
                except (BlockingIOError, PermissionError):
                    if attempt + 1 < _ATTEMPTS:
                        time.sleep(_PAUSE_S)
                else:
                    held = True
                    break
            try:
                yield
            finally:
                if held:
                    fcntl.lockf(self.descriptor, fcntl.LOCK_UN, _SET_BYTES, start)


def entries(descriptor: int, factors: Factors, now: int) -> Iterator[tuple[Subject, Balance]]:
    """Yield from the table behind `descriptor` every subject that is not full at `now`.

    What changes meanwhile is seen as it was before or after. Raises OSError when it cannot be read.
    """
    size = os.fstat(descriptor).st_size
    buckets_by_kind = {kind: buckets_of(kind, factors) for kind in _KINDS}
    for values in _SLOT.iter_unpack(os.pread(descriptor, size - size % _SLOT.size, 0)):
        if values[1] in _NAMES:
            kind, version = _NAMES[values[1]], values[2]
            buckets = buckets_by_kind[kind]
            balance = refilled(_balance(values, buckets), buckets, now)
            if not is_full(balance, buckets):
                yield Subject(kind, version, values[0][:4] if version == 4 else values[0]), balance


def find(process: str, name: str = "") -> int | None:
    """Open, for reading, the table of a process (its directory in /proc) whose name begins so, None when it has none.

    The kernel lets only the same user and root do so.
    """
    try:
        for link in (Path("/proc") / process / "fd").iterdir():
            if str(link.readlink()).startswith(f"/memfd:{_MEMFD}{name}"):
                return os.open(link, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # the process ended, or belongs to somebody else
        return None
    return None


def _key(subject: Subject) -> bytes:
    return _KEY.pack(subject.packed.ljust(16, b"\0"), _KINDS[subject.kind], subject.version)


def _balance(values: tuple[Any, ...], buckets: tuple[Bucket, ...]) -> Balance:
    """Return the balance in a slot, within its bounds whatever the slot holds."""
    left = tuple(
        min(bucket.capacity, max(-bucket.capacity, amount)) for amount, bucket in zip(values[3:6], buckets, strict=True)
    )
    return Balance(left, values[6])


_of_this_host: list[QuotaTable] = []


def share(table: QuotaTable) -> None:
    """Make `table` the one of all processes forked from now on; the master calls it once."""
    _of_this_host[:] = [table]


def shared_or_new(factors: Factors) -> QuotaTable:
    """Return the table inherited from the master, or one of this process alone when there is none."""
    return _of_this_host[0] if _of_this_host else QuotaTable(factors, entries=DEFAULT_ENTRIES)
