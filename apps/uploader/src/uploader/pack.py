"""Turns measurements of the spool into a postcan, a jsonl object and the rows that find a measurement in them.

One measurement is in memory at a time, whatever the size of the batch: archives and rows go to files.
"""

import os
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import msgspec
import structlog

from core import archive
from core.archive import MAX_DOCUMENT_BYTES, JsonlWriter, Member, PostcanWriter
from core.envelope import DocumentError, decode_json, inner_document, single_line
from core.spool import Spool, SpoolRecord, TornFile

log = structlog.get_logger(__name__)

EMPTY_LINE = b"{}"
"""Stands for a body without a document, so that lines and entries stay aligned."""


class Row(msgspec.Struct, frozen=True, array_like=True):
    """Where one measurement lies: a row of the jsonl table without the names of the objects."""

    measurement_uid: str
    report_id: str
    input: str
    linenum: int
    member_offset: int
    member_length: int
    raw_offset: int | None = None
    raw_length: int | None = None
    """Set when the line is not byte for byte what was sent: range of the postcan's member with the body."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Where a batch ends."""

    postcan_bytes: int
    unpacked_bytes: int


@dataclass(frozen=True, slots=True)
class Archive:
    """Size and checksum of a finished archive."""

    size: int
    sha256: str


@dataclass(frozen=True, slots=True)
class Batch:
    """What packing made."""

    uids: list[str]
    undecodable: int
    jsonl: Archive
    postcan: Archive


@dataclass(frozen=True, slots=True)
class Targets:
    """The files to write."""

    jsonl: Path
    postcan: Path
    rows: Path


class _LineFields(msgspec.Struct):
    report_id: Any = None
    input: Any = None
    test_name: Any = None


_UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_fields_decoder = msgspec.json.Decoder(_LineFields)


def pack(
    spool: Spool,
    uids: Sequence[str],
    targets: Targets,
    limits: Limits | None,
    set_aside: Callable[[str, str], None],
) -> Batch:
    """Pack measurements in the given order until a limit is passed, and synchronise the files to disk.

    Measurements that cannot be read are handed to `set_aside` with a reason; those no longer in the spool are left out.
    The batch has no uids when nothing remains; the files are to be deleted then.

    Raises:
        OSError: the disk failed or is full.
    """
    packed: list[str] = []
    unpacked = undecodable = 0
    with open(targets.jsonl, "wb") as lines, open(targets.postcan, "wb") as cans, open(targets.rows, "wb") as rows:
        jsonl, postcan = JsonlWriter(lines), PostcanWriter(cans)
        for uid in uids:
            record = _read(spool, uid, set_aside)
            if record is None:
                continue
            row, decoded = _add(record, len(packed), jsonl, postcan)
            undecodable += not decoded
            rows.write(msgspec.json.encode(row) + b"\n")
            packed.append(uid)
            unpacked += len(record.body)
            if limits and (postcan.size > limits.postcan_bytes or unpacked > limits.unpacked_bytes):
                break
        postcan.finish()
        for file in (lines, cans, rows):
            _sync(file)
    return Batch(packed, undecodable, Archive(jsonl.size, jsonl.sha256), Archive(postcan.size, postcan.sha256))


def read_rows(path: Path) -> Iterator[Row]:
    """Yield the rows that `pack` wrote."""
    decoder = msgspec.json.Decoder(Row)
    with open(path, "rb") as file:
        for line in file:
            yield decoder.decode(line)


def _read(spool: Spool, uid: str, set_aside: Callable[[str, str], None]) -> SpoolRecord | None:
    try:
        record = spool.read(uid)
    except TornFile as error:
        set_aside(uid, str(error))
        return None
    if record is None:
        log.warning("measurement is no longer in the spool, left out", uid=uid)
        return None
    if len(record.body) > MAX_DOCUMENT_BYTES:
        set_aside(uid, f"The body has {len(record.body)} bytes; at most {MAX_DOCUMENT_BYTES} can be archived.")
        return None
    return record


@dataclass(frozen=True, slots=True)
class Line:
    """What the jsonl object and the rows say of one body."""

    text: bytes
    report_id: str
    input: str
    faithful: bool
    """Whether the line is byte for byte the document that was sent."""

    decoded: bool
    """Whether there is a document at all; the line is `{}` otherwise, and the report id is what the caller knew."""


def line_of(uid: str, body: bytes, report_id: str = "") -> Line:
    """Return the line of a body; `report_id` stands where the body does not say one because it holds no document."""
    try:
        document = inner_document(body)
        line = single_line(document)
        fields = lookup_fields(line)
        if len(line) > archive.MAX_DOCUMENT_BYTES:
            raise DocumentError("long", f"On one line the document has {len(line)} bytes.")
    except DocumentError as error:
        log.warning("body without a line of its own, kept in the postcan", uid=uid, reason=str(error))
        return Line(EMPTY_LINE, report_id, "", faithful=False, decoded=False)
    return Line(line, *fields, faithful=line == document, decoded=True)


def _add(record: SpoolRecord, number: int, jsonl: JsonlWriter, postcan: PostcanWriter) -> tuple[Row, bool]:
    entry = postcan.add(record.uid, record.body)
    line = line_of(record.uid, record.body, record.report_id)
    return row_of(record.uid, number, line, jsonl.add(line.text), entry), line.decoded


def row_of(uid: str, number: int, line: Line, member: Member, entry: Member) -> Row:
    """Return the row of a measurement whose line is in `member` of the jsonl object, its body in `entry`."""
    raw = (None, None) if line.faithful else (entry.offset, entry.length)
    return Row(uid, line.report_id, line.input, number, member.offset, member.length, *raw)


def lookup_fields(document: bytes) -> tuple[str, str]:
    """Return the report id and the input of a measurement as its rows store them; "" for what is missing.

    The input of one old test is a list of fronts, stored as `{a,b}`.

    Raises:
        DocumentError: the document cannot be decoded.
    """
    try:
        fields = _fields_decoder.decode(document)
    except (msgspec.DecodeError, RecursionError):
        value = decode_json(document)
        if not isinstance(value, dict):
            return "", ""
        fields = _LineFields(value.get("report_id"), value.get("input"), value.get("test_name"))
    input_ = fields.input
    if fields.test_name == "meek_fronted_requests_test" and isinstance(input_, list):
        fronts = [front for front in input_ if isinstance(front, str)]
        input_ = "{" + ",".join(fronts) + "}" if fronts and len(fronts) == len(input_) else ""
    return _text(fields.report_id), _text(input_)


def _text(value: object) -> str:
    """Make text that PostgreSQL can store, as the scorer does for its rows: NUL and lone surrogates become U+FFFD."""
    return _UNSTORABLE.sub("\ufffd", value) if isinstance(value, str) else ""


def _sync(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())
