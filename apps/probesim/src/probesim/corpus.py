"""Reads a corpus directory: `measurements.jsonl.gz` (or `.jsonl`), one document per line.

Each line has `id`, `uid`, `origin`, `test_name` and either `post` (a JSON value that is posted as its JSON text) or
`raw_b64` (exact bytes, for what is no JSON).
"""

import base64
import binascii
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from core.envelope import DocumentError, decode_json, inner_document
from core.ids import IdentifierError, parse_measurement_uid
from probesim.client import encode_json

MEASUREMENTS = ("measurements.jsonl.gz", "measurements.jsonl")
REAL_ORIGIN = "real"
"""Origins of documents that a probe wrote begin with this; the others are variants made by a program."""

_NO_NETWORK = "AS64496"  # a documentation number: the document does not say, and AS0 would be dropped


class CorpusError(ValueError):
    """The directory holds no usable corpus; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class CorpusDocument:
    """A document to replay. Exactly one of `post` and `raw` is meant: `raw` unless it is None."""

    id: str
    uid: str
    origin: str
    test_name: str
    post: Any
    raw: bytes | None

    def body(self) -> bytes:
        """Return the bytes of the request body."""
        return encode_json(self.post) if self.raw is None else self.raw

    def measurement(self) -> dict[str, Any]:
        """Return the measurement inside the body, or {} when there is none to be found."""
        try:
            found = decode_json(inner_document(self.body()))
        except DocumentError:
            return {}
        return found if isinstance(found, dict) else {}

    def report_request(self) -> dict[str, Any]:
        """Return what to say when opening a report: the document's own words where it has usable ones.

        What it lacks comes from the uid it was known under, which holds country and test name.
        """
        measurement = self.measurement()
        try:
            known = parse_measurement_uid(self.uid)
            fallback = {"probe_cc": known.cc, "test_name": known.test_name}
        except IdentifierError:
            fallback = {"probe_cc": "ZZ", "test_name": self.test_name}
        request: dict[str, Any] = {"probe_asn": _NO_NETWORK, **fallback}
        for key in ("probe_asn", "probe_cc", "test_name", "software_name", "software_version", "test_start_time"):
            if isinstance(measurement.get(key), str) and measurement[key]:
                request[key] = measurement[key]
        return request


def read_corpus(directory: Path, *, everything: bool = False) -> Iterator[CorpusDocument]:
    """Yield the documents of a corpus in its order: those of real probes, or with `everything` all of them.

    Raises:
        CorpusError: no file of the expected name, or a line that is no document.
    """
    path = next((directory / name for name in MEASUREMENTS if (directory / name).is_file()), None)
    if path is None:
        raise CorpusError(f"There is no {MEASUREMENTS[0]} in {directory}. Name the directory of a corpus.")
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            document = _document(line, f"{path}, line {number}")
            if everything or document.origin.startswith(REAL_ORIGIN):
                yield document


def _document(line: bytes, where: str) -> CorpusDocument:
    try:
        found = json.loads(line)
        raw = base64.b64decode(found["raw_b64"], validate=True) if "raw_b64" in found else None
        return CorpusDocument(
            id=str(found["id"]),
            uid=str(found["uid"]),
            origin=str(found["origin"]),
            test_name=str(found["test_name"]),
            post=found["post"] if raw is None else None,
            raw=raw,
        )
    except (json.JSONDecodeError, binascii.Error, KeyError, TypeError) as error:
        raise CorpusError(f"{where}: not a document of a corpus ({error!r}). See the README for its fields.") from None
