"""Reports of 2012 to 2018 in YAML, turned into the measurements of today's form (the wire contract, 12).

A report is a sequence of YAML documents: a header, and an entry per measurement. A record that cannot be used is left
out with a reason; the others are read all the same.
"""

import hashlib
import re
import string
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO

import yaml

from core.archive import MAX_DOCUMENT_BYTES, ArchiveError
from core.envelope import encode_json
from core.ids import legacy_measurement_uid
from fastpath.legacy_keys import DNS_FAMILY, HTTP_FAMILY, NotUsable, normalise_dns, normalise_http
from fastpath.legacy_names import canonical_name
from fastpath.shape import JsonObject

COMMON_KEYS = (
    "id",
    "input",
    "input_hashes",
    "report_id",
    "report_filename",
    "options",
    "probe_cc",
    "probe_asn",
    "probe_ip",
    "probe_city",
    "backend_version",
    "data_format_version",
    "test_name",
    "test_version",
    "test_start_time",
    "measurement_start_time",
    "test_runtime",
    "test_helpers",
    "software_name",
    "software_version",
    "bucket_date",
    "test_keys",
)
"""The keys beside `test_keys`; everything else belongs into it."""

UNSUPPORTED = frozenset(
    {
        "lantern",
        "psiphon",
        "chinatrigger",
        "keyword_filtering",
        "parasitic_traceroute",
        "multi_protocol_traceroute",
        "dns_spoof",
        "captive_portal",
        "tls_handshake",
        "tcp_connect",
        "bridge_reachability",
    }
)
"""Tests whose old form nothing can score."""

MAX_NODES = 5_000_000
"""Most values in one record; a few bytes of nested aliases can stand for more than any memory holds."""

LeaveOut = Callable[[str], None]
"""Notes that a record was not used, with a machine-readable reason."""

_LOADER: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_LETTERS = string.ascii_lowercase + string.ascii_uppercase
_DAY = re.compile(r"20[0-9]{2}-[0-9]{2}-[0-9]{2}")


def read_report(file: BinaryIO, report_filename: str, leave_out: LeaveOut) -> Iterator[tuple[JsonObject, bytes]]:
    """Yield the measurements of a report, each also as JSON text.

    `report_filename`: `<day>/<name>`, where the day is the one the report was archived on.

    Raises:
        ArchiveError: a record is too long, or `report_filename` has no day.
    """
    if not _DAY.fullmatch(report_filename.partition("/")[0]):
        raise ArchiveError(f"the report {report_filename} does not tell its day")
    records = _records(file, leave_out)
    raw_header = next(records, None)
    if raw_header is None:
        return
    header = _load(raw_header)
    if type(header) is not dict:
        leave_out("report_without_header")
        return
    complete_header(header)
    for raw in records:
        entry = _load(raw)
        if type(entry) is not dict:
            leave_out("entry_not_yaml" if entry is None else "entry_not_an_object")
            continue
        try:
            measurement = normalise(header, entry, raw_header, raw, report_filename)
            body = encode_json(measurement)
        except NotUsable as error:
            leave_out(error.reason)
        except (TypeError, ValueError, LookupError, AttributeError, OverflowError, RecursionError):
            leave_out("entry_malformed")  # the record does not have the shape of its time
        else:
            yield measurement, body


def complete_header(header: JsonObject) -> None:
    """Make the header's city text, and give it a report id when it has none (12.2)."""
    if isinstance(header.get("probe_city"), bytes):
        header["probe_city"] = header["probe_city"].decode("utf-8", "ignore")
    if not header.get("report_id"):
        header["report_id"] = generated_report_id(header)


def generated_report_id(header: JsonObject) -> str:
    """Return the report id of a report that was never given one; the same for every run and every host."""
    defaults = {
        "probe_cc": "ZZ",
        "probe_asn": "AS0",
        "test_name": "invalid",
        "software_version": "0.0.0",
        "probe_city": "None",
    }
    facts = (header.get(key, default) for key, default in defaults.items())
    digest = hashlib.sha512("".join("" if fact is None else str(fact) for fact in facts).encode()).digest()
    stamp = datetime.fromtimestamp(header.get("start_time", 0), UTC)
    return f"{stamp:%Y%m%dT%H%M%SZ}_" + "".join(_LETTERS[byte % 52] for byte in digest[:50])


def normalise(header: JsonObject, entry: JsonObject, raw_header: bytes, raw: bytes, report_filename: str) -> JsonObject:
    """Return the measurement of an entry (12.3).

    The header loses its `test_start_time` for good when an entry has one.

    Raises:
        NotUsable: the entry is of a kind that is left out.
        TypeError, ValueError, LookupError, AttributeError, OverflowError: it does not have the shape of its time.
    """
    if "test_start_time" in entry:
        header.pop("test_start_time", None)
    entry |= header
    report = entry.get("report")
    if isinstance(report, dict):
        del entry["report"]
        entry |= report
    entry["test_name"] = test_name = canonical_name(entry.get("test_name", "invalid"))
    entry["bucket_date"] = report_filename.partition("/")[0]
    entry.setdefault("id", str(uuid.UUID(bytes=hashlib.sha1(raw_header + raw, usedforsecurity=False).digest()[:16])))
    entry["report_filename"] = report_filename
    for key in COMMON_KEYS:
        entry.setdefault(key, None)
    if entry["data_format_version"] == "0.2.0":
        if entry["test_keys"] is None:
            _move_test_keys(entry)
    else:
        _modernise(entry, test_name)
    started = entry["measurement_start_time"]
    entry["measurement_uid"] = legacy_measurement_uid(raw, started if isinstance(started, str) else "")
    return entry


def _modernise(entry: JsonObject, test_name: str) -> None:
    if test_name in UNSUPPORTED:
        raise NotUsable("test_without_scoring")
    _set_times(entry)
    entry["data_format_version"] = "0.2.0"
    if isinstance(entry["options"], dict):
        entry["options"] = entry["options"].get("subargs", [])
    _move_test_keys(entry)
    keys: JsonObject = entry["test_keys"]
    if test_name in HTTP_FAMILY:
        normalise_http(entry, keys)
    if test_name in DNS_FAMILY:
        normalise_dns(keys, test_name)
    if test_name == "website_probe" and "headers_diff" in keys:
        keys["headers_diff"] = list(keys["headers_diff"])
    if test_name == "http_invalid_request_line":
        keys["received"] = [
            text.decode("utf-8", "ignore") if isinstance(text, bytes) else text for text in keys.get("received") or []
        ]
    _decode_bodies(keys)


def _set_times(entry: JsonObject) -> None:
    started: Any = _stamp(entry.pop("start_time", 0))
    former = entry["test_start_time"]
    if isinstance(former, float):
        measured: Any = _stamp(former)
    elif former is None:
        measured = started
    elif isinstance(former, str):
        started, measured = former, entry["measurement_start_time"]
        if not isinstance(measured, str):
            raise NotUsable("entry_without_start_time")
    else:
        raise NotUsable("entry_without_start_time")
    entry["test_start_time"], entry["measurement_start_time"] = started, measured


def _stamp(seconds: float) -> str:
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}"


def _move_test_keys(entry: JsonObject) -> None:
    keys: JsonObject = dict(entry["test_keys"] or {})
    keys |= {key: entry.pop(key) for key in [key for key in entry if key not in COMMON_KEYS]}
    entry["test_keys"] = keys


def _decode_bodies(keys: JsonObject) -> None:
    requests = keys.get("requests")
    for request in requests if isinstance(requests, list) else ():
        response = request.get("response") if isinstance(request, dict) else None
        if isinstance(response, dict) and isinstance(response.get("body"), bytes):
            response["body"] = response["body"].decode("utf-8")


def _records(file: BinaryIO, leave_out: LeaveOut) -> Iterator[bytes]:
    """Yield the documents of a report from the line `---` to the line `...`, both included (12.1)."""
    record: bytearray | None = None
    while line := file.readline(MAX_DOCUMENT_BYTES):
        if record is not None:
            record += line
            if line == b"...\n":
                yield bytes(record)
                record = None
            elif len(record) > MAX_DOCUMENT_BYTES:
                raise ArchiveError(f"a record is longer than {MAX_DOCUMENT_BYTES} bytes")
        elif line == b"---\n":
            record = bytearray(line)
        elif line != b"...\n" and not line.startswith(b"#"):
            leave_out("rest_of_report_broken")
            return
    if record is not None:
        leave_out("record_without_end")


def _load(raw: bytes) -> Any:
    """Return the value of a document; None when it is empty or no YAML that is safe to load."""
    try:
        value = yaml.load(raw, Loader=_LOADER)  # noqa: S506 a safe loader, written in C where there is one
    except (yaml.YAMLError, ValueError, TypeError, LookupError, RecursionError, OverflowError):
        return None
    return None if b"*" in raw and _count(value, MAX_NODES) >= MAX_NODES else value


def _count(value: Any, limit: int) -> int:
    """Return how many values JSON text of `value` would hold; stops counting at `limit`."""
    count, waiting = 0, [value]
    while waiting and count < limit:
        value = waiting.pop()
        count += 1
        if isinstance(value, dict):
            waiting.extend(value.values())
        elif isinstance(value, list | set | tuple):
            waiting.extend(value)
    return count
