"""What a rerun has done so far, so that an interrupted one goes on and several hosts share one range.

`DatabaseLedger` keeps it in the tables `rerun…` (all SQL about them is here), `LocalLedger` in a file or in memory, for
reruns that do not write to the database.

An object is pending, claimed by a process, done or failed. A process that claims objects holds an advisory lock for as
long as it lives; whoever can take that lock knows that the process is gone and that its objects are free again. Hence a
killed rerun, or a host that vanished, leaves nothing behind that has to be cleaned up or waited for.
"""

import fcntl
import hashlib
import json
import os
from collections import deque
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import IO, LiteralString, Protocol

import msgspec
import psycopg

from fastpath.sources import Kind, Lister, WorkObject
from fastpath.store import Session

CHUNK_BYTES = 64 * 1024 * 1024
"""What one process claims at a time, roughly, in bytes."""

SIZE_UNKNOWN = -1
"""Size of an object that failed before: whoever repaired it may have changed it."""

CHUNK_OBJECTS = 500
"""Most objects that one process claims at a time."""

LOCK_CLASS = 0x7265_7275
"""First half of the advisory locks of processes."""


class Finished(msgspec.Struct, frozen=True):
    """One object that was worked on; `error` says why it could not be read to its end."""

    work: WorkObject
    measurements: int
    error: str | None = None


class Ledger(Protocol):
    """What a rerun asks of its ledger. Every method may raise Unavailable or Conflict; all can be repeated."""

    @property
    def resumed(self) -> bool:
        """Whether an earlier process began this rerun."""

    def open_day(self, day: date, lister: Lister) -> int:
        """List the objects of a day unless that was done; return how many there are."""

    def claim(self, day: date | None) -> list[WorkObject]:
        """Take some pending objects of a day (None: of any, also those of processes that died); empty when none."""

    def finish(self, finished: Sequence[Finished]) -> None:
        """Note objects as done or failed, for good."""

    def release(self) -> None:
        """Give back what was claimed and not finished."""

    def elsewhere(self) -> int:
        """Return how many objects other processes are working on."""

    def days_done(self) -> float:
        """Return how many days are done, with the fractions of those that are not done yet."""

    def failures(self) -> list[tuple[str, str]]:
        """Return keys and errors of the objects that failed."""

    def complete(self) -> bool:
        """Note the rerun as finished when nothing of it is pending, claimed or failed; return whether it was."""

    def close(self) -> None:
        """Let go of everything; what was claimed is free again."""


Parameters = Mapping[str, str | list[str] | bool | None]


def digest_of(parameters: Parameters) -> str:
    """Return what tells this rerun from others."""
    return hashlib.sha256(json.dumps(parameters, sort_keys=True).encode()).hexdigest()


class DatabaseLedger(Session):
    """The ledger in the database."""

    def __init__(self, dsn: str, parameters: Parameters, *, restart: bool, statement_timeout_s: float = 30.0) -> None:
        """Continue the unfinished rerun with these parameters, or begin one; with `restart` always begin anew."""
        super().__init__(dsn, statement_timeout_s=statement_timeout_s)
        self._parameters = parameters
        self._owner = 0
        self._run = 0
        self._chunk: dict[date, int] = {}
        self.resumed = False
        with self._transaction() as connection:
            self._owner = _integer(connection, "SELECT nextval('rerun_owner')")
            connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, self._owner])
            self._begin(connection, restart=restart)

    def _prepare(self, connection: psycopg.Connection) -> None:
        if self._owner:  # the connection broke, and the lock with it
            connection.execute("SELECT pg_advisory_lock(%s, %s)", [LOCK_CLASS, self._owner])

    def _begin(self, connection: psycopg.Connection, *, restart: bool) -> None:
        digest = digest_of(self._parameters)
        if restart:
            connection.execute("DELETE FROM rerun WHERE parameters_digest = %s AND finished_at IS NULL", [digest])
        made = connection.execute(
            "INSERT INTO rerun (parameters, parameters_digest) VALUES (%s, %s)"
            " ON CONFLICT (parameters_digest) WHERE finished_at IS NULL DO NOTHING RETURNING run_id",
            [json.dumps(self._parameters), digest],
        ).fetchone()
        self.resumed = made is None
        self._run = _integer(
            connection, "SELECT run_id FROM rerun WHERE parameters_digest = %s AND finished_at IS NULL", digest
        )
        self._free_those_of_the_dead(connection)
        connection.execute(  # another attempt may fare better, with an object that may have another size
            "UPDATE rerun_progress SET state = 'pending', owner = NULL, error = NULL, bytes = -1"
            " WHERE run_id = %s AND state = 'failed'",
            [self._run],
        )

    def open_day(self, day: date, lister: Lister) -> int:
        """As Ledger."""
        with self._transaction() as connection:
            found = connection.execute(_DAY, [self._run, day]).fetchone()
        if found is None:
            self._list(day, lister(day))
            with self._transaction() as connection:
                found = connection.execute(_DAY, [self._run, day]).fetchone()
        objects, size = found or (0, 0)
        # A quarter of a day at most, so that another host finds something to do as well.
        self._chunk[day] = max(1, min(CHUNK_OBJECTS, CHUNK_BYTES * objects // max(1, size), -(-objects // 4)))
        return int(objects)

    def _list(self, day: date, works: Sequence[WorkObject]) -> None:
        with self._transaction() as connection:
            connection.execute(_INCOMING)
            with (
                connection.cursor() as cursor,
                cursor.copy("COPY rerun_incoming (object_key, kind, bytes) FROM STDIN") as copy,
            ):
                for work in works:
                    copy.write_row((work.key, work.kind.value, work.size))
            connection.execute(
                "INSERT INTO rerun_progress (run_id, day, object_key, kind, bytes)"
                " SELECT %s, %s, object_key, kind, bytes FROM rerun_incoming ORDER BY object_key"
                " ON CONFLICT DO NOTHING",
                [self._run, day],
            )
            connection.execute(
                "INSERT INTO rerun_day (run_id, day, objects, bytes) VALUES (%s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [self._run, day, len(works), sum(work.size for work in works)],
            )

    def claim(self, day: date | None) -> list[WorkObject]:
        """As Ledger."""
        limit = self._chunk.get(day, CHUNK_OBJECTS) if day else min(self._chunk.values(), default=CHUNK_OBJECTS)
        with self._transaction() as connection:
            if day is None:
                self._free_those_of_the_dead(connection)
            claimed = connection.execute(
                _CLAIM, {"run": self._run, "day": day, "limit": limit, "owner": self._owner}
            ).fetchall()
        return sorted(
            (WorkObject(key, size, at, Kind(kind)) for key, size, at, kind in claimed),
            key=lambda work: (work.day, work.key),
        )

    def _free_those_of_the_dead(self, connection: psycopg.Connection) -> None:
        owners = connection.execute(
            "SELECT DISTINCT owner FROM rerun_progress WHERE run_id = %s AND state = 'claimed' AND owner <> %s",
            [self._run, self._owner],
        ).fetchall()
        for (owner,) in owners:
            locked = connection.execute("SELECT pg_try_advisory_xact_lock(%s, %s)", [LOCK_CLASS, owner]).fetchone()
            if locked and locked[0]:
                connection.execute(_RELEASE, [self._run, owner])

    def finish(self, finished: Sequence[Finished]) -> None:
        """As Ledger."""
        with self._transaction() as connection:
            for one in finished:
                # A process whose connection broke for a while may have lost the object to another one.
                done = connection.execute(
                    "UPDATE rerun_progress SET state = %s, owner = NULL, measurements = %s, error = %s,"
                    " update_time = now() WHERE run_id = %s AND object_key = %s AND owner = %s AND state = 'claimed'",
                    [
                        "failed" if one.error else "done",
                        one.measurements,
                        one.error,
                        self._run,
                        one.work.key,
                        self._owner,
                    ],
                )
                if done.rowcount:
                    connection.execute(
                        "UPDATE rerun_day SET bytes_done = bytes_done + %s WHERE run_id = %s AND day = %s",
                        [one.work.size, self._run, one.work.day],
                    )

    def release(self) -> None:
        """As Ledger."""
        with self._transaction() as connection:
            connection.execute(_RELEASE, [self._run, self._owner])

    def elsewhere(self) -> int:
        """As Ledger."""
        with self._transaction() as connection:
            return _integer(
                connection,
                "SELECT count(*) FROM rerun_progress WHERE run_id = %s AND state = 'claimed' AND owner <> %s",
                self._run,
                self._owner,
            )

    def days_done(self) -> float:
        """As Ledger."""
        with self._transaction() as connection:
            row = connection.execute(
                "SELECT sum(CASE WHEN bytes = 0 THEN 1 ELSE least(1, bytes_done::float8 / bytes) END)"
                " FROM rerun_day WHERE run_id = %s",
                [self._run],
            ).fetchone()
        return float(row[0] or 0) if row else 0.0

    def failures(self) -> list[tuple[str, str]]:
        """As Ledger."""
        with self._transaction() as connection:
            return connection.execute(
                "SELECT object_key, error FROM rerun_progress WHERE run_id = %s AND state = 'failed'"
                " ORDER BY object_key",
                [self._run],
            ).fetchall()

    def complete(self) -> bool:
        """As Ledger."""
        with self._transaction() as connection:
            done = connection.execute(
                "UPDATE rerun SET finished_at = now(),"
                " objects = (SELECT count(*) FROM rerun_progress p WHERE p.run_id = rerun.run_id),"
                " measurements = (SELECT coalesce(sum(measurements), 0) FROM rerun_progress p"
                "                 WHERE p.run_id = rerun.run_id)"
                " WHERE run_id = %s AND finished_at IS NULL AND NOT EXISTS"
                " (SELECT FROM rerun_progress p WHERE p.run_id = rerun.run_id AND p.state <> 'done')",
                [self._run],
            )
            if done.rowcount:
                connection.execute("DELETE FROM rerun_progress WHERE run_id = %s", [self._run])
                connection.execute("DELETE FROM rerun_day WHERE run_id = %s", [self._run])
            return bool(
                _integer(
                    connection, "SELECT count(*) FROM rerun WHERE run_id = %s AND finished_at IS NOT NULL", self._run
                )
            )


_DAY: LiteralString = "SELECT objects, bytes FROM rerun_day WHERE run_id = %s AND day = %s"
_INCOMING: LiteralString = (
    "CREATE TEMPORARY TABLE rerun_incoming (object_key text, kind text, bytes bigint) ON COMMIT DROP"
)
_CLAIM: LiteralString = """
    WITH next AS (
        SELECT object_key FROM rerun_progress
        WHERE run_id = %(run)s AND state = 'pending' AND day = coalesce(%(day)s, day)
        ORDER BY day, object_key LIMIT %(limit)s FOR UPDATE SKIP LOCKED)
    UPDATE rerun_progress p SET state = 'claimed', owner = %(owner)s, update_time = now()
    FROM next WHERE p.run_id = %(run)s AND p.object_key = next.object_key
    RETURNING p.object_key, p.bytes, p.day, p.kind"""
_RELEASE: LiteralString = (
    "UPDATE rerun_progress SET state = 'pending', owner = NULL WHERE run_id = %s AND owner = %s AND state = 'claimed'"
)


def _integer(connection: psycopg.Connection, statement: LiteralString, *parameters: object) -> int:
    row = connection.execute(statement, parameters).fetchone()
    if row is None:
        raise RuntimeError(f"no row from: {statement}")
    return int(row[0])


class AnotherRerun(Exception):
    """A process works on the same rerun, and its ledger cannot be shared."""


class LocalLedger:
    """The ledger of one process: in `path`, so that the next process can go on, or only in memory."""

    def __init__(self, path: Path | None, parameters: Parameters, *, restart: bool) -> None:
        """Continue what the file says, unless `restart`. Raises AnotherRerun; OSError when the file cannot be used."""
        self._path = path
        self._file: IO[str] | None = None
        self._done: dict[str, int] = {}
        self._failed: dict[str, str] = {}
        self._pending: dict[date, deque[WorkObject]] = {}
        self._claimed: dict[str, WorkObject] = {}
        self._bytes: dict[date, tuple[int, int]] = {}
        self.resumed = False
        if path is not None:
            self._open(path, parameters, restart=restart)

    def _open(self, path: Path, parameters: Parameters, *, restart: bool) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = open(path, "a+", encoding="utf-8")  # noqa: SIM115 closed by close()
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._file.close()
            raise AnotherRerun(
                f"Another process does the same rerun on this host. Wait for it, or find it with: fuser {path}"
            ) from None
        if restart:
            self._file.truncate(0)
        self._file.seek(0)
        for line in self._file:
            try:
                entry = json.loads(line)
            except ValueError:  # the process was killed while it wrote this line
                continue
            if "key" in entry:
                self._done[entry["key"]] = entry["measurements"]
        self.resumed = bool(self._done)
        if not self.resumed:
            self._write({"parameters": dict(parameters)})

    def open_day(self, day: date, lister: Lister) -> int:
        """As Ledger."""
        works = lister(day)
        left = [work for work in works if work.key not in self._done]
        size = sum(work.size for work in works)
        self._bytes[day] = (size - sum(work.size for work in left), size)
        self._pending[day] = deque(left)
        return len(works)

    def claim(self, day: date | None) -> list[WorkObject]:
        """As Ledger."""
        queue = self._pending.get(day) if day else None
        taken: list[WorkObject] = []
        while queue and len(taken) < CHUNK_OBJECTS and sum(work.size for work in taken) < CHUNK_BYTES:
            taken.append(queue.popleft())
        self._claimed.update((work.key, work) for work in taken)
        return taken

    def finish(self, finished: Sequence[Finished]) -> None:
        """As Ledger."""
        for one in finished:
            self._claimed.pop(one.work.key, None)
            done, size = self._bytes[one.work.day]
            self._bytes[one.work.day] = (done + one.work.size, size)
            if one.error:
                self._failed[one.work.key] = one.error
            else:
                self._write({"key": one.work.key, "measurements": one.measurements})

    def _write(self, entry: Mapping[str, object]) -> None:
        if self._file is not None:
            self._file.write(json.dumps(entry) + "\n")
            self._file.flush()

    def release(self) -> None:
        """As Ledger."""
        self._claimed.clear()

    def elsewhere(self) -> int:
        """As Ledger."""
        return 0

    def days_done(self) -> float:
        """As Ledger."""
        return sum(1.0 if size == 0 else min(1.0, done / size) for done, size in self._bytes.values())

    def failures(self) -> list[tuple[str, str]]:
        """As Ledger."""
        return sorted(self._failed.items())

    def complete(self) -> bool:
        """As Ledger."""
        if self._failed or self._claimed or any(self._pending.values()):
            return False
        if self._path is not None:
            os.unlink(self._path)
        return True

    def close(self) -> None:
        """As Ledger."""
        if self._file is not None:
            self._file.close()
