"""The statements of `verify` and `takedown`: what the database knows of objects, and taking measurements out of it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from types import TracebackType
from typing import LiteralString, Self

from psycopg import Connection, sql
from psycopg.rows import TupleRow, class_row, tuple_row

from core import db
from core.counters import TABLES
from core.counters_sql import ROW_COLUMNS, facts, names, uncount
from core.ids import IdentifierError, parse_measurement_uid
from core.row_locks import lock_to_take_out
from uploader.pack import Archive, Row
from uploader.plan import AnotherRun, BatchName
from uploader.queries import PLACE, Place, copy_rows, places, try_lock

FETCHED_AT_ONCE = 2000


@dataclass(frozen=True, slots=True)
class Line:
    """A line of the manifest."""

    jsonl_s3path: str
    postcan_s3path: str
    measurements: int
    jsonl_bytes: int
    jsonl_sha256: str
    postcan_bytes: int
    postcan_sha256: str

    @property
    def jsonl(self) -> Archive:
        """What the jsonl object should be."""
        return Archive(self.jsonl_bytes, self.jsonl_sha256)

    @property
    def postcan(self) -> Archive:
        """What the postcan should be."""
        return Archive(self.postcan_bytes, self.postcan_sha256)


@dataclass(frozen=True, slots=True)
class ObjectRows:
    """The rows of one hour that point into one object: how many, and how far they reach."""

    s3path: str
    rows: int
    end: int
    raw_s3path: str
    raw_end: int


@dataclass(frozen=True, slots=True)
class Takedown:
    """A line of the audit."""

    takedown_id: int
    report_id: str
    measurement_uids: list[str]
    reason: str


_LINE: LiteralString = (
    "SELECT jsonl_s3path, postcan_s3path, measurements, jsonl_bytes, jsonl_sha256, postcan_bytes, postcan_sha256"
    " FROM upload_manifest "
)


class Catalog:
    """What the database knows. Its transactions take locks only where a method says so."""

    def __init__(self, dsn: str, *, statement_timeout_s: float = 60.0) -> None:
        """Prepare; the connection is made at first use."""
        self._dsn = dsn
        self._statement_timeout_ms = int(statement_timeout_s * 1000)
        self._open: Connection[TupleRow] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._open is not None:
            self._open.close()
            self._open = None

    @property
    def _connection(self) -> Connection[TupleRow]:
        if self._open is None:
            self._open = db.connect(
                self._dsn,
                autocommit=True,
                statement_timeout_ms=self._statement_timeout_ms,
                application_name="uploader",
            )
        return self._open

    def lock(self, collector_ids: Iterable[str]) -> None:
        """Keep the runs of these collectors out until the connection closes. Raises AnotherRun."""
        for collector_id in sorted(set(collector_ids)):
            if not try_lock(self._connection, collector_id):
                raise AnotherRun(f"An uploader with the collector id {collector_id} is at work. Wait until it is done.")

    # What there is. An hour is the ten digits that the names of its directories and its uids begin with; comparing
    # with them alone gives the same in every collation.

    def lines(self, hour: str) -> list[Line]:
        """Return the manifest's lines of an hour, by key."""
        with self._connection.cursor(row_factory=class_row(Line)) as cursor:
            cursor.execute(
                _LINE + 'WHERE directory >= %s AND directory < %s ORDER BY jsonl_s3path COLLATE "C"',
                [hour, next_digits(hour)],
            )
            return cursor.fetchall()

    def hours_committed(self, since: date, until: date) -> set[str]:
        """Return the hours, in ten digits, of the batches that were committed from one day to another, in UTC.

        Reads the whole manifest: a line per batch.
        """
        found = self._connection.execute(
            "SELECT DISTINCT left(directory, 10) FROM upload_manifest WHERE committed_at >= (%s::date)::timestamp"
            " AT TIME ZONE 'UTC' AND committed_at < (%s::date + 1)::timestamp AT TIME ZONE 'UTC'",
            [since, until],
        )
        return {hour for (hour,) in found}

    def line(self, jsonl_key: str) -> Line | None:
        """Return the manifest's line of an object."""
        with self._connection.cursor(row_factory=class_row(Line)) as cursor:
            return cursor.execute(_LINE + "WHERE jsonl_s3path = %s", [jsonl_key]).fetchone()

    def object_rows(self, hour: str) -> dict[str, ObjectRows]:
        """Return how the rows of an hour's measurements spread over objects."""
        with self._connection.cursor(row_factory=class_row(ObjectRows)) as cursor:
            cursor.execute(
                "SELECT s3path, count(*) AS rows, coalesce(max(member_offset + member_length), 0) AS end,"
                " coalesce(max(raw_s3path), '') AS raw_s3path, coalesce(max(raw_offset + raw_length), 0) AS raw_end"
                " FROM jsonl WHERE measurement_uid >= %s AND measurement_uid < %s GROUP BY s3path",
                [hour, next_digits(hour)],
            )
            return {found.s3path: found for found in cursor}

    def places_in(self, s3path: str) -> Iterator[Place]:
        """Yield the rows that point into a jsonl object, in memory that does not grow with their number."""
        with (
            self._connection.transaction(),
            self._connection.cursor("places", row_factory=class_row(Place)) as cursor,
        ):
            cursor.itersize = FETCHED_AT_ONCE
            yield from cursor.execute(PLACE + "WHERE s3path = %s ORDER BY linenum, measurement_uid", [s3path])

    def places(self, uids: Sequence[str]) -> list[Place]:
        """Return the rows of measurements."""
        return places(self._connection, uids)

    def without_place(self, hour: str) -> Iterator[list[str]]:
        """Yield, in portions, the measurements of an hour that were scored and have no row in jsonl."""
        query: LiteralString = (
            "SELECT f.measurement_uid FROM fastpath f WHERE f.measurement_uid >= %s AND f.measurement_uid < %s"
            " AND NOT EXISTS (SELECT FROM jsonl j WHERE j.measurement_uid = f.measurement_uid)"
        )
        with self._connection.transaction(), self._connection.cursor("rows", row_factory=tuple_row) as cursor:
            cursor.execute(query, [hour, next_digits(hour)])
            while found := cursor.fetchmany(FETCHED_AT_ONCE):
                yield [uid for (uid,) in found]

    def report(self, report_id: str) -> list[str]:
        """Return the measurements of a report, those that were scored and those that were archived."""
        found = self._connection.execute(
            "SELECT measurement_uid FROM fastpath_by_report_id(%s)"
            " UNION SELECT measurement_uid FROM jsonl WHERE left(report_id, 200) = left(%s, 200) AND report_id = %s",
            [report_id, report_id, report_id],
        )
        return sorted(uid for (uid,) in found)

    def scored(self, uids: Sequence[str]) -> set[str]:
        """Return those of the measurements that have a row in fastpath."""
        found = self._connection.execute(
            "SELECT f.measurement_uid FROM unnest(%s::text[]) u, LATERAL fastpath_by_uid(u) f", [list(uids)]
        )
        return {uid for (uid,) in found}

    # Repairs. Safe to repeat, and to run beside anything but another uploader of the same collector.

    def add_rows(self, jsonl_key: str, postcan_key: str, rows: Iterable[Row], *, replace: bool = False) -> int:
        """Write the rows of an object that are missing, with `replace` also those that differ; return how many."""
        with self._connection.transaction(), self._connection.cursor() as cursor:
            copy_rows(cursor, jsonl_key, postcan_key, rows)
            _fill_report_ids(self._connection)
            cursor.execute(_REPLACE_ROWS if replace else _ADD_ROWS)
            return cursor.rowcount

    def adopt(self, name: BatchName, jsonl: Archive, postcan: Archive, rows: Sequence[Row]) -> None:
        """Record a batch that is in the store and not in the manifest, with the rows that are missing."""
        keys = name.key(".jsonl.gz"), name.key(".tar.gz")
        with self._connection.transaction(), self._connection.cursor() as cursor:
            copy_rows(cursor, *keys, rows)
            _fill_report_ids(self._connection)
            cursor.execute(_ADD_ROWS)
            cursor.execute(
                "INSERT INTO upload_manifest (jsonl_s3path, postcan_s3path, directory, counter, measurements,"
                " jsonl_bytes, jsonl_sha256, postcan_bytes, postcan_sha256) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)"
                " ON CONFLICT DO NOTHING",
                [
                    *keys,
                    name.series,
                    name.counter,
                    len(rows),
                    jsonl.size,
                    jsonl.sha256,
                    postcan.size,
                    postcan.sha256,
                ],
            )

    def drop_rows(self, uids: Sequence[str], s3path: str) -> int:
        """Delete the rows of measurements that point into one object; return how many."""
        return self._connection.execute(
            "DELETE FROM jsonl WHERE measurement_uid = ANY(%s) AND s3path = %s", [list(uids), s3path]
        ).rowcount

    def forget(self, line: Line) -> bool:
        """Delete the manifest's line of a batch that no row points into; return whether that is so."""
        return bool(
            self._connection.execute(
                "DELETE FROM upload_manifest m WHERE m.jsonl_s3path = %s"
                " AND NOT EXISTS (SELECT FROM jsonl j WHERE j.s3path = m.jsonl_s3path)",
                [line.jsonl_s3path],
            ).rowcount
        )

    # Takedowns.

    def begin_takedown(self, report_id: str, uids: Sequence[str], reason: str, host: str) -> Takedown:
        """Write a line of the audit, or take up the unfinished one of the same report or measurement."""
        with self._connection.transaction(), self._connection.cursor(row_factory=class_row(Takedown)) as cursor:
            found = self.unfinished_takedown(report_id, uids)
            if found is not None:
                known = sorted({*found.measurement_uids, *uids})
                cursor.execute(
                    "UPDATE takedown_audit SET measurement_uids = %s WHERE takedown_id = %s"
                    " RETURNING takedown_id, report_id, measurement_uids, reason",
                    [known, found.takedown_id],
                )
            else:
                cursor.execute(
                    "INSERT INTO takedown_audit (report_id, measurement_uids, reason, host) VALUES (%s, %s, %s, %s)"
                    " RETURNING takedown_id, report_id, measurement_uids, reason",
                    [report_id, sorted(uids), reason, host],
                )
            begun = cursor.fetchone()
        assert begun is not None
        return begun

    def unfinished_takedown(self, report_id: str, uids: Sequence[str]) -> Takedown | None:
        """Return the takedown of this report, or of the single measurement, that was begun and not finished."""
        with self._connection.cursor(row_factory=class_row(Takedown)) as cursor:
            return cursor.execute(
                "SELECT takedown_id, report_id, measurement_uids, reason FROM takedown_audit"
                " WHERE finished_at IS NULL AND report_id = %s AND (%s <> '' OR measurement_uids && %s)"
                " ORDER BY takedown_id LIMIT 1 FOR UPDATE",
                [report_id, report_id, list(uids)],
            ).fetchone()

    def unfinished_takedowns(self) -> list[Takedown]:
        """Return all that were begun and not finished."""
        with self._connection.cursor(row_factory=class_row(Takedown)) as cursor:
            return cursor.execute(
                "SELECT takedown_id, report_id, measurement_uids, reason FROM takedown_audit"
                " WHERE finished_at IS NULL ORDER BY takedown_id"
            ).fetchall()

    def finished_takedowns(self, since: date) -> list[Takedown]:
        """Return those that were finished on that day, in UTC, or later."""
        with self._connection.cursor(row_factory=class_row(Takedown)) as cursor:
            return cursor.execute(
                "SELECT takedown_id, report_id, measurement_uids, reason FROM takedown_audit"
                " WHERE finished_at >= (%s::date)::timestamp AT TIME ZONE 'UTC' ORDER BY takedown_id",
                [since],
            ).fetchall()

    def finish_takedown(self, takedown_id: int) -> None:
        """Write into the audit that nothing is left to do."""
        self._connection.execute(
            "UPDATE takedown_audit SET finished_at = now() WHERE takedown_id = %s AND finished_at IS NULL",
            [takedown_id],
        )

    def take_out(self, uids: Sequence[str]) -> int:
        """Delete the rows of measurements in fastpath with their observations, uncount them, and return how many.

        Counters that reach zero are deleted, since they hold what the probe sent: its input. Waits while the counters
        of a day or month are being repaired.
        """
        with self._connection.transaction():
            connection = self._connection
            lock_to_take_out(connection, uids)
            connection.execute(_GONE)
            taken = connection.execute(_TAKE_OUT, [list(uids)]).rowcount
            connection.execute("DELETE FROM fastpath_misdated WHERE measurement_uid = ANY(%s)", [list(uids)])
            if connection.execute("SELECT to_regclass('obs_openvpn') IS NOT NULL").fetchone() == (True,):
                connection.execute("DELETE FROM obs_openvpn WHERE measurement_uid = ANY(%s)", [list(uids)])
            for statement in _UNCOUNT:
                connection.execute(statement)
        return taken

    def rewrite(self, line: Line, uids: Sequence[str], jsonl: Archive, postcan: Archive, measurements: int) -> None:
        """Record what the objects of a batch are going to be without these measurements, and delete their rows."""
        with self._connection.transaction():
            self._connection.execute(
                "UPDATE upload_manifest SET measurements = %s, jsonl_bytes = %s, jsonl_sha256 = %s, postcan_bytes = %s,"
                " postcan_sha256 = %s WHERE jsonl_s3path = %s",
                [measurements, jsonl.size, jsonl.sha256, postcan.size, postcan.sha256, line.jsonl_s3path],
            )
            self.drop_rows(uids, line.jsonl_s3path)


def next_digits(digits: str) -> str:
    """Return the first text of digits after all that begin with these."""
    return f"{int(digits) + 1:0{len(digits)}}"


def hour_of(uid: str) -> str | None:
    """Return the ten digits of the hour in which a measurement was received; None for uids of old."""
    try:
        parse_measurement_uid(uid)
    except IdentifierError:
        return None
    return uid[:10]


def _fill_report_ids(connection: Connection[TupleRow]) -> None:
    """Take the report id of a body without a document from its row in fastpath; the body does not say it."""
    connection.execute(
        "UPDATE incoming_rows i SET report_id = f.report_id"
        " FROM (SELECT measurement_uid AS uid FROM incoming_rows WHERE report_id = '') n,"
        " LATERAL fastpath_by_uid(n.uid) f WHERE i.measurement_uid = n.uid"
    )


_ADD_ROWS: LiteralString = "INSERT INTO jsonl SELECT * FROM incoming_rows ON CONFLICT (measurement_uid) DO NOTHING"
_REPLACE_ROWS: LiteralString = (
    "INSERT INTO jsonl AS j SELECT * FROM incoming_rows ON CONFLICT (measurement_uid) DO UPDATE SET"
    " linenum = excluded.linenum, member_offset = excluded.member_offset, member_length = excluded.member_length,"
    " raw_s3path = excluded.raw_s3path, raw_offset = excluded.raw_offset, raw_length = excluded.raw_length,"
    " update_time = now() WHERE j.s3path = excluded.s3path"
)

_GONE = sql.SQL("CREATE TEMPORARY TABLE gone ON COMMIT DROP AS SELECT {} FROM fastpath WITH NO DATA").format(
    names(ROW_COLUMNS)
)
# By uid through the window of dates that a uid implies; asking all partitions would be slow.
_TAKE_OUT = sql.SQL(
    "WITH former AS MATERIALIZED ("
    " SELECT f.measurement_uid, f.measurement_start_time FROM unnest(%s::text[]) u, LATERAL fastpath_by_uid(u) f"
    "), taken AS ("
    " DELETE FROM fastpath f USING former"
    " WHERE f.measurement_uid = former.measurement_uid AND f.measurement_start_time = former.measurement_start_time"
    " RETURNING f.*"
    ") INSERT INTO gone SELECT {} FROM taken"
).format(names(ROW_COLUMNS))
_UNCOUNT = [statement for table in TABLES for statement in uncount(table, facts("gone", -1))]
