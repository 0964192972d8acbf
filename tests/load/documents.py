"""Documents for the benchmarks of scoring: the shared corpus where it is, else the repository's own sample."""

import base64
import gzip
import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import core
from core.ids import new_measurement_uid
from fastpath.fingerprints import FingerprintSet, load_files
from probesim.sample import generate

REPOSITORY = Path(__file__).resolve().parents[2]
CORPUS = Path(os.environ.get("SHARED_DIR", REPOSITORY.parent / "shared")) / "corpus"
SAMPLE_SIZE = 1000

Document = tuple[str, bytes]
"""A uid and the body submitted under it."""


@dataclass(frozen=True)
class Documents:
    """What is measured: `everything`, and the `real` ones among it; `fingerprints` is the directory they came from."""

    name: str
    everything: list[Document]
    real: list[Document]
    fingerprints: Path

    def load_fingerprints(self) -> FingerprintSet:
        """Read the fingerprints that belong to the documents."""
        return load_files(self.fingerprints)


def load() -> Documents:
    """Return the corpus (the documents that the original system turned into rows) or the sample."""
    return _corpus() if CORPUS.is_dir() else _sample()


def _corpus() -> Documents:
    rows = {line["id"] for line in _lines("expected.jsonl.gz") if line["outcome"] == "row"}
    everything, real = [], []
    for line in _lines("measurements.jsonl.gz"):
        if line["id"] not in rows:
            continue
        document = (line["uid"], _body(line))
        everything.append(document)
        if line["origin"].startswith("real"):
            real.append(document)
    return Documents("the shared corpus", everything, real, CORPUS)


def _body(line: dict[str, Any]) -> bytes:
    if "raw_b64" in line:
        return base64.b64decode(line["raw_b64"])
    return json.dumps(line["post"], ensure_ascii=False, separators=(",", ":")).encode("utf-8", "surrogatepass")


def _lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(CORPUS / name, "rb") as lines:
        return [json.loads(line) for line in lines]


def _sample() -> Documents:
    now = datetime.now(UTC)
    documents = []
    for document in generate(SAMPLE_SIZE, seed=1, now=now):
        content = {**document.measurement, "report_id": f"{now:%Y%m%dT%H%M%SZ}_sample_IT_64500_n1_AbCdEfGhIjKlMnOp"}
        body = json.dumps({"format": "json", "content": content}, separators=(",", ":")).encode()
        name = str(content["test_name"]).replace("_", "")
        documents.append((new_measurement_uid(now, str(content["probe_cc"]), name, body), body))
    return Documents(
        "the repository's own sample (there is no shared corpus here, so figures compare with nothing)",
        documents,
        documents,
        Path(core.__file__).parent / "data",
    )
