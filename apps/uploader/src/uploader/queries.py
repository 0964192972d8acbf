"""The statements of a run, over one connection. Those of `verify` and `takedown` are in the module `catalog`.

One connection, because the lock that keeps two hosts with the same collector id apart belongs to it: a transaction that
commits proves that the lock was held.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import LiteralString, Self

from psycopg import Connection, Cursor
from psycopg.copy import LibpqWriter
from psycopg.rows import TupleRow, class_row

from core import db
from core.db import DatabaseUnavailable
from uploader.pack import Batch, Row
from uploader.plan import AnotherRun, Plan, series_of


class ManifestConflict(Exception):
    """The manifest says that other measurements were uploaded under the name of this batch."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a measurement lies in the store."""

    measurement_uid: str
    s3path: str
    linenum: int
    member_offset: int | None
    member_length: int | None
    raw_s3path: str | None
    raw_offset: int | None
    raw_length: int | None


PLACE: LiteralString = (
    "SELECT measurement_uid, s3path, linenum, member_offset, member_length, raw_s3path, raw_offset, raw_length"
    " FROM jsonl "
)
"""The beginning of a statement that gives places."""


class Manifest:
    """The tables `jsonl` and `upload_manifest`, for one collector."""

    def __init__(self, dsn: str, collector_id: str, *, statement_timeout_s: float = 60.0) -> None:
        """Prepare; the connection is made at first use and anew after it broke."""
        self._dsn = dsn
        self._collector_id = collector_id
        self._statement_timeout_ms = int(statement_timeout_s * 1000)
        self._connection: Connection[TupleRow] | None = None
        self._was_locked = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.disconnect()

    def disconnect(self) -> None:
        """Close the connection, which releases the lock; the next statement makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> Connection[TupleRow]:
        if self._connection is None or self._connection.broken or self._connection.closed:
            connection = db.connect(
                self._dsn,
                autocommit=True,
                statement_timeout_ms=self._statement_timeout_ms,
                application_name="uploader",
            )
            try:
                self._lock(connection)
            except BaseException:
                connection.close()
                raise
            self._connection = connection
        return self._connection

    def _lock(self, connection: Connection[TupleRow]) -> None:
        if not try_lock(connection, self._collector_id):
            if self._was_locked:
                raise DatabaseUnavailable("The database has not noticed yet that this run's last connection broke.")
            raise AnotherRun(
                f"An uploader with the collector id {self._collector_id} works on this database already. Wait until it "
                "is done; if it runs on another host, give each host a collector_id of its own."
            )
        self._was_locked = True

    def next_counter(self, directory: str) -> int:
        """Return the number after the last one that the manifest has for a directory."""
        row = (
            self._connect()
            .execute(
                "SELECT coalesce(max(counter) + 1, 0) FROM upload_manifest WHERE directory = %s",
                [series_of(directory, self._collector_id)],
            )
            .fetchone()
        )
        return int(row[0]) if row else 0

    def is_committed(self, plan: Plan) -> bool:
        """Return whether the manifest has this batch."""
        found = self._connect().execute("SELECT 1 FROM upload_manifest WHERE jsonl_s3path = %s", [plan.jsonl_key])
        return found.fetchone() is not None

    def archived(self, uids: Sequence[str]) -> set[str]:
        """Return those of the measurements that have a row, hence a place in the object store."""
        found = self._connect().execute(
            "SELECT measurement_uid FROM jsonl WHERE measurement_uid = ANY(%s)", [list(uids)]
        )
        return {uid for (uid,) in found}

    def places(self, uids: Sequence[str]) -> list[Place]:
        """Return the rows of those of the measurements that have one."""
        return places(self._connect(), uids)

    def taken_down(self, uids: Sequence[str]) -> set[str]:
        """Return those of the measurements that a takedown, finished or not, lists."""
        found = self._connect().execute(
            "SELECT uid FROM takedown_audit, unnest(measurement_uids) uid"
            " WHERE measurement_uids && %(uids)s::text[] AND uid = ANY(%(uids)s)",
            {"uids": list(uids)},
        )
        return {uid for (uid,) in found}

    def commit(self, plan: Plan, batch: Batch, rows: Iterable[Row]) -> None:
        """Record an uploaded batch: its rows and its line in the manifest, in one transaction. Safe to repeat.

        A measurement that has a row already keeps it: the row points to an object that is complete as well.

        Raises:
            ManifestConflict: the manifest has a batch of this name with other content.
            psycopg.Error: nothing was recorded.
        """
        connection = self._connect()
        with connection.transaction(), connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO upload_manifest (jsonl_s3path, postcan_s3path, directory, counter, measurements,"
                " jsonl_bytes, jsonl_sha256, postcan_bytes, postcan_sha256)"
                " VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s) ON CONFLICT DO NOTHING",
                [
                    plan.jsonl_key,
                    plan.postcan_key,
                    plan.series,
                    plan.counter,
                    len(batch.uids),
                    batch.jsonl.size,
                    batch.jsonl.sha256,
                    batch.postcan.size,
                    batch.postcan.sha256,
                ],
            )
            if cursor.rowcount == 0:
                self._expect_same(cursor, plan, batch)
            copy_rows(cursor, plan.jsonl_key, plan.postcan_key, rows)
            cursor.execute("INSERT INTO jsonl SELECT * FROM incoming_rows ON CONFLICT (measurement_uid) DO NOTHING")

    @staticmethod
    def _expect_same(cursor: Cursor[TupleRow], plan: Plan, batch: Batch) -> None:
        cursor.execute(
            "SELECT jsonl_sha256, postcan_sha256 FROM upload_manifest WHERE jsonl_s3path = %s", [plan.jsonl_key]
        )
        if cursor.fetchone() != (batch.jsonl.sha256, batch.postcan.sha256):
            raise ManifestConflict(
                f"The manifest has other content under {plan.jsonl_key}. Give each host a collector_id of its own; "
                "the measurements of this batch stay in the spool and get another number."
            )


def places(connection: Connection[TupleRow], uids: Sequence[str]) -> list[Place]:
    """Return the rows of those of the measurements that have one."""
    with connection.cursor(row_factory=class_row(Place)) as cursor:
        return cursor.execute(PLACE + "WHERE measurement_uid = ANY(%s)", [list(uids)]).fetchall()


def try_lock(connection: Connection[TupleRow], collector_id: str) -> bool:
    """Take the lock of a collector for as long as the connection lives; return whether nobody else has it."""
    row = connection.execute(
        "SELECT pg_try_advisory_lock(hashtextextended(%s, 0))", [f"uploader {collector_id}"]
    ).fetchone()
    return row is not None and bool(row[0])


def copy_rows(cursor: Cursor[TupleRow], jsonl_key: str, postcan_key: str, rows: Iterable[Row]) -> None:
    """Bring rows of one batch into the temporary table `incoming_rows`, which goes with the transaction."""
    cursor.execute("CREATE TEMPORARY TABLE incoming_rows (LIKE jsonl INCLUDING DEFAULTS) ON COMMIT DROP")
    with cursor.copy(
        "COPY incoming_rows (measurement_uid, report_id, input, s3path, linenum, member_offset, member_length,"
        " raw_s3path, raw_offset, raw_length) FROM STDIN",
        writer=LibpqWriter(cursor),  # the default one queues up to 128 MB in memory
    ) as copy:
        for row in rows:
            copy.write_row(
                (
                    row.measurement_uid,
                    row.report_id,
                    row.input,
                    jsonl_key,
                    row.linenum,
                    row.member_offset,
                    row.member_length,
                    None if row.raw_offset is None else postcan_key,
                    row.raw_offset,
                    row.raw_length,
                )
            )
