"""From an object to the measurements in it, whatever the object's format (the wire contract, 10.4), in constant memory.

What cannot be used is left out with a note and never ends the reading of what follows it, unless the object itself is
damaged: then whoever reads learns it after the measurements before the damage.
"""

import io
import zlib
from collections import defaultdict
from collections.abc import Callable, Iterator
from typing import Any, BinaryIO, NamedTuple, cast

import lz4.frame  # type: ignore[import-untyped]  # the library has no annotations
import msgspec
from isal import igzip, isal_zlib

from core.archive import MAX_DOCUMENT_BYTES, MAX_MEMBER_BYTES, ArchiveError, read_body
from core.envelope import DocumentError, decode_json
from core.ids import legacy_measurement_uid
from fastpath.fetch import Fetcher
from fastpath.legacy import read_report
from fastpath.sources import Filters, Kind, WorkObject
from fastpath.store import ArchivedLine
from fastpath.tarstream import entries

PIECE = 1 << 20
EMPTY_LINE = b"{}"
"""Stands in a jsonl object for a body without a document."""


class Submission(NamedTuple):
    """One measurement to be scored. `verified` is false when its source does not say whether it was verified."""

    uid: str
    body: bytes
    verified: bool = True


class Unreadable(Exception):
    """An object cannot be read, or not to its end; the text says why and what to do."""


_GZIP_ERROR = cast("type[Exception]", isal_zlib.IsalError)  # the library's annotations take it for an instance
_DAMAGES = (ArchiveError, EOFError, zlib.error, _GZIP_ERROR, OSError, RuntimeError)
"""What reading damaged data raises: ours, the ends of files, and the libraries of gzip and LZ4."""


class Reader:
    """Reads objects. `left_out` counts by reason what was not used."""

    def __init__(self, fetcher: Fetcher, filters: Filters, archived_lines: Callable[[str], list[ArchivedLine]]) -> None:
        """Read by `fetcher`; `archived_lines` gives the uids of a jsonl object's lines."""
        self._fetcher = fetcher
        self._filters = filters
        self._archived_lines = archived_lines
        self.left_out: dict[str, int] = defaultdict(int)

    def read(self, work: WorkObject, stream: io.BufferedReader) -> Iterator[Submission]:
        """Yield the measurements of an object.

        Raises:
            Unreadable: the object is damaged, or of a format that is not known.
            StoreError: the store does not give it.
        """
        readers = {
            Kind.POSTCAN: self._postcan,
            Kind.JSONL: self._jsonl,
            Kind.JSON_CAN: self._json_can,
            Kind.YAML_CAN: self._yaml_can,
            Kind.TAR_CAN: self._tar_can,
        }
        if work.kind is Kind.UNKNOWN:
            raise Unreadable(f"The object {work.key} has none of the known formats. Remove it from the range.")
        try:
            yield from readers[work.kind](work, stream)
        except _DAMAGES as error:
            said = str(error).rstrip(".") or type(error).__name__
            raise Unreadable(
                f"The object {work.key} is damaged: {said}. Restore it, or leave it out: what stands before the damage "
                "is scored."
            ) from error

    def _postcan(self, _work: WorkObject, stream: io.BufferedReader) -> Iterator[Submission]:
        for entry in entries(_ungzipped(stream)):
            if not entry.name.endswith(".post"):
                self.left_out["entry_without_post"] += 1
            elif entry.size > MAX_DOCUMENT_BYTES:
                self.left_out["too_long"] += 1
            else:
                yield Submission(_uid_of(entry.name), entry.read_whole())

    def _jsonl(self, work: WorkObject, stream: io.BufferedReader) -> Iterator[Submission]:
        archived = self._archived_lines(work.key)
        if archived and all(line.member_offset is not None for line in archived):
            yield from self._members(archived, stream)
            return
        known: dict[int, ArchivedLine] = {line.linenum: line for line in archived}
        names = None if known else self._names(work)
        for number, line in enumerate(self._lines(_ungzipped(stream))):
            document = line.removesuffix(b"\n")
            if names is not None:
                uid = next(names, None)
                if uid is None:
                    raise Unreadable(f"The postcan {work.postcan} has fewer entries than {work.key} lines. Restore it.")
                if document == EMPTY_LINE:
                    self.left_out["line_without_document"] += 1
                else:
                    yield Submission(uid, document, verified=False)
                continue
            place = known.get(number)
            if place is None:  # the measurement is the line of another object, too
                self.left_out["line_without_row"] += 1
            else:
                yield self._as_sent(place) or Submission(place.measurement_uid, document, verified=False)

    def _members(self, archived: list[ArchivedLine], stream: io.BufferedReader) -> Iterator[Submission]:
        """Read the lines that have a row by the positions in the rows: half the work of looking for their ends."""
        position = 0
        for place in archived:
            offset, length = place.member_offset or 0, place.member_length or 0
            if offset < position or length > MAX_MEMBER_BYTES:
                raise ArchiveError("the table gives positions that cannot be")
            _exactly(stream, offset - position)
            packed = _exactly(stream, length)
            position = offset + length
            yield self._as_sent(place) or Submission(place.measurement_uid, _line(packed), verified=False)

    def _as_sent(self, place: ArchivedLine) -> Submission | None:
        """Return the body as it was sent when the line does not give it exactly; None when it does."""
        if place.raw_s3path is None or place.raw_offset is None or place.raw_length is None:
            return None
        packed = self._fetcher.store.get_range(place.raw_s3path, place.raw_offset, place.raw_length)
        return Submission(place.measurement_uid, read_body(packed, place.measurement_uid))

    def _names(self, work: WorkObject) -> Iterator[str]:
        """Return the uids of a jsonl object's lines from the entries of the postcan beside it, in the same order."""
        info = self._fetcher.store.head(work.postcan)
        if info is None:
            raise Unreadable(
                f"Nothing tells the uids of the lines of {work.key}: the table jsonl does not have it, and there is no "
                "postcan beside it. Restore one of the two."
            )
        stream = self._fetcher.stream(info.key, info.size)
        return (_uid_of(entry.name) for entry in entries(_ungzipped(stream)) if entry.name.endswith(".post"))

    def _json_can(self, _work: WorkObject, stream: io.BufferedReader) -> Iterator[Submission]:
        yield from self._legacy_lines(_unlz4(stream))

    def _yaml_can(self, work: WorkObject, stream: io.BufferedReader) -> Iterator[Submission]:
        yield from self._report(_unlz4(stream), work, work.key.rpartition("/")[2].removesuffix(".lz4"))

    def _tar_can(self, work: WorkObject, stream: io.BufferedReader) -> Iterator[Submission]:
        for entry in entries(_unlz4(stream)):
            content = cast("BinaryIO", io.BufferedReader(entry, 1 << 16))
            if entry.name.endswith(".json"):
                yield from self._legacy_lines(content)
            elif entry.name.endswith(".yaml"):
                yield from self._report(content, work, entry.name.rpartition("/")[2])
            else:
                self.left_out["entry_ignored"] += 1

    def _legacy_lines(self, file: BinaryIO) -> Iterator[Submission]:
        for line in self._lines(file):
            facts = _facts(line)
            if facts is None:
                self.left_out["line_not_json"] += bool(line.strip())
            elif self._wanted(facts.probe_cc, facts.test_name):
                started = facts.measurement_start_time
                uid = legacy_measurement_uid(line, started if type(started) is str else "")
                yield Submission(uid, line)

    def _report(self, file: BinaryIO, work: WorkObject, name: str) -> Iterator[Submission]:
        def leave_out(reason: str) -> None:
            self.left_out[reason] += 1

        for measurement, body in read_report(file, f"{work.day:%Y-%m-%d}/{name}", leave_out):
            if self._wanted(measurement["probe_cc"], measurement["test_name"]):
                yield Submission(measurement["measurement_uid"], body)

    def _wanted(self, cc: Any, test_name: Any) -> bool:
        return not self._filters or self._filters.want(
            cc if type(cc) is str else "", test_name if type(test_name) is str else ""
        )

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        """Yield lines with their ends."""
        rest = b""
        while piece := file.read(PIECE):
            lines = (rest + piece).split(b"\n")
            rest = lines.pop()
            for line in lines:
                yield line + b"\n"
            if len(rest) > MAX_DOCUMENT_BYTES:
                raise ArchiveError(f"a line is longer than {MAX_DOCUMENT_BYTES} bytes")
        if rest:
            yield rest


class _Facts(msgspec.Struct):
    probe_cc: Any = None
    test_name: Any = None
    measurement_start_time: Any = None


_facts_decoder = msgspec.json.Decoder(_Facts)


def _facts(line: bytes) -> _Facts | None:
    try:
        return _facts_decoder.decode(line)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        pass
    try:
        value = decode_json(line)
    except DocumentError:
        return None
    if type(value) is not dict:
        return None
    return _Facts(*(value.get(name) for name in _Facts.__struct_fields__))


def _exactly(stream: io.BufferedReader, length: int) -> bytes:
    data = stream.read(length)
    if len(data) != length:
        raise ArchiveError("it is cut short")
    return data


def _line(packed: bytes) -> bytes:
    """Decompress the member of a line, line end included: to JSON that is a blank."""
    decompressor = isal_zlib.decompressobj(wbits=31)
    content = decompressor.decompress(packed, MAX_MEMBER_BYTES)
    if not decompressor.eof or decompressor.unused_data:
        raise ArchiveError("the table gives positions that are not those of its lines")
    return content


def _uid_of(name: str) -> str:
    return name.rpartition("/")[2].removesuffix(".post")


def _ungzipped(stream: io.BufferedReader) -> BinaryIO:
    """The content of a gzip file, or of a file that only has the name of one."""
    if stream.peek(2)[:2] != b"\x1f\x8b":
        return cast("BinaryIO", stream)
    file = igzip.IGzipFile(fileobj=stream, mode="rb")  # type: ignore[no-untyped-call]  # the library is not annotated here
    return cast("BinaryIO", file)  # it has a buffer of its own


def _unlz4(stream: io.BufferedReader) -> BinaryIO:
    return cast("BinaryIO", io.BufferedReader(lz4.frame.LZ4FrameFile(stream, mode="rb"), 1 << 17))
