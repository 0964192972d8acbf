"""The shared corpus: what the original system did with real and generated documents, and what this one does.

Rows and discards must be equal, whole rows included. Documents on which the original crashed, or whose row its database
refused, must never raise here, and end as a failed row or as rejected.
"""

import base64
import gzip
import json
import math
import os
import subprocess
import sys
from collections import Counter
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from core.envelope import DocumentError
from fastpath.document import open_document
from fastpath.fingerprints import Fingerprint, load_files, parse_countries
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.row import input_and_domain, storable
from fastpath.score import score_measurement
from fastpath.score.flags import check_start_time
from fastpath.shape import ShapeError

REPOSITORY = Path(__file__).parents[3]
CORPUS = Path(os.environ.get("SHARED_DIR", REPOSITORY.parent / "shared")) / "corpus"

pytestmark = [
    pytest.mark.corpus,
    pytest.mark.skipif(not CORPUS.is_dir(), reason=f"there is no corpus at {CORPUS}; set SHARED_DIR to where it is"),
]


def read_lines(name: str) -> list[dict[str, Any]]:
    with gzip.open(CORPUS / name, "rb") as lines:
        return [json.loads(line) for line in lines]


def unwrap(value: Any) -> Any:
    """Undo the wrapping of values that strict JSON cannot carry."""
    if isinstance(value, list):
        return [unwrap(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$float" in value:
        return float(value["$float"])
    if "$int" in value:
        return int(value["$int"])
    if "$utf8_surrogatepass_b64" in value:
        return base64.b64decode(value["$utf8_surrogatepass_b64"]).decode("utf-8", "surrogatepass")
    return {key: unwrap(item) for key, item in value.items()}


def body_of(document: dict[str, Any]) -> bytes:
    if "raw_b64" in document:
        return base64.b64decode(document["raw_b64"])
    return json.dumps(document["post"], ensure_ascii=False).encode("utf-8", "surrogatepass")


def comparable(scores: Any) -> Any:
    """Return scores with the matches in a fixed order and in storable form; numbers keep their JSON types."""
    if isinstance(scores, str):
        scores = json.loads(scores)
    scores = json.loads(json.dumps(scores), parse_constant=lambda _: None)
    if "fingerprints" in scores:
        scores["fingerprints"] = sorted(scores["fingerprints"], key=lambda match: json.dumps(match, sort_keys=True))
    return json.dumps(scores, sort_keys=True)


def expected_row(row: dict[str, Any]) -> dict[str, Any]:
    row = {key: storable(value) if isinstance(value, str) else value for key, value in unwrap(row).items()}
    for flag in ("anomaly", "confirmed", "msm_failure"):
        row[flag] = {"t": True, "f": False}[row[flag]]
    for time in ("test_start_time", "measurement_start_time"):
        row[time] = datetime.fromisoformat(row[time])
    row["scores"] = comparable(row["scores"])
    row["test_runtime"] = float(row["test_runtime"])
    if math.isnan(row["test_runtime"]):
        row["test_runtime"] = "nan"
    return row


def actual_row(row: dict[str, Any]) -> dict[str, Any]:
    row = dict(row)
    assert row.pop("reason") is None
    row["scores"] = comparable(row["scores"])
    if math.isnan(row["test_runtime"]):
        row["test_runtime"] = "nan"
    return row


@pytest.fixture(scope="module")
def documents() -> list[tuple[dict[str, Any], dict[str, Any]]]:
    expected = {line["id"]: line for line in read_lines("expected.jsonl.gz")}
    return [(document, expected[document["id"]]) for document in read_lines("measurements.jsonl.gz")]


@pytest.fixture(scope="module")
def reference() -> Matcher:
    return Matcher(load_files(CORPUS), mode="reference")


def test_rows_and_discards_equal_the_corpus(documents, reference) -> None:
    counts: Counter[str] = Counter()
    differences = []
    for document, expected in documents:
        if expected["outcome"] not in ("row", "discarded"):
            continue
        counts[expected["outcome"]] += 1
        outcome = process(document["uid"], body_of(document), reference)
        if expected["outcome"] == "discarded":
            if outcome.kind != "discarded":
                differences.append((document["id"], document["note"], outcome.kind, outcome.reason))
            continue
        if outcome.kind != "row" or outcome.reason is not None:
            differences.append((document["id"], document["note"], outcome.kind, outcome.reason))
            continue
        want, have = expected_row(expected["row"]), actual_row(outcome.row.as_dict())
        if want != have:
            changed = {
                key: (want.get(key), have.get(key)) for key in want.keys() | have if want.get(key) != have.get(key)
            }
            differences.append((document["id"], document["note"], changed))
        flags = (outcome.flags.anomaly, outcome.flags.confirmed, outcome.flags.msm_failure)
        if flags != (expected["anomaly"], expected["confirmed"], expected["msm_failure"]):
            differences.append((document["id"], document["note"], "flags", flags))
    print(f"compared with the corpus: {dict(counts)}, different: {len(differences)}")
    assert counts["row"] > 3000
    assert counts["discarded"] > 50
    assert not differences, differences[:20]


def test_what_crashed_the_original_becomes_a_failed_row_or_is_rejected(documents, reference) -> None:
    counts: Counter[tuple[str, str]] = Counter()
    reasons: Counter[str] = Counter()
    for document, expected in documents:
        if expected["outcome"] not in ("error", "row_rejected"):
            continue
        outcome = process(document["uid"], body_of(document), reference)
        counts[expected["outcome"], outcome.kind] += 1
        reasons[str(outcome.reason)] += 1
        assert not (outcome.reason or "").startswith("internal_error"), (document["id"], outcome.reason)
        if outcome.kind == "row" and outcome.reason is not None:
            row = outcome.row
            assert (row.anomaly, row.confirmed, row.msm_failure) == (False, False, True)
            assert json.loads(row.scores)["accuracy"] == 0.0
            assert row.reason == outcome.reason
    print(f"crashed or refused there, here: {dict(counts)}")
    print(f"reasons: {dict(reasons)}")
    assert sum(counts.values()) > 500


@pytest.mark.parametrize("form", ["body", "body_b64"])
def test_the_command_answers_as_the_corpus_says(documents, form) -> None:
    lines, expectations = [], []
    for document, expected in documents:
        if expected["outcome"] in ("row", "discarded"):
            body = body_of(document)
            value = base64.b64encode(body) if form == "body_b64" or "raw_b64" in document else None
            text = b'"body_b64":"' + value + b'"' if value is not None else b'"body":' + body
            lines.append(b'{"measurement_uid":' + json.dumps(document["uid"]).encode() + b"," + text + b"}\n")
            expectations.append(expected)
    chosen = ("--fingerprints", str(CORPUS), "--fingerprint-mode", "reference")
    done = subprocess.run(
        [sys.executable, "-m", "fastpath", "--stdin", "--stdout", "--no-write-to-db", *chosen],
        input=b"".join(lines),
        capture_output=True,
        check=True,
    )
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(answers) == len(expectations)
    for answer, expected in zip(answers, expectations, strict=True):
        assert answer["outcome"] == expected["outcome"], expected["id"]
        if expected["outcome"] == "row":
            flags = ("anomaly", "confirmed", "msm_failure")
            assert [answer[flag] for flag in flags] == [expected[flag] for flag in flags], expected["id"]
            assert comparable(answer["scores"]) == expected_row(expected["row"])["scores"], expected["id"]
            for column, value in expected_row(expected["row"]).items():
                if column not in ("scores", "test_runtime"):
                    have = answer["row"][column]
                    assert have == (str(value) if isinstance(value, datetime) else value), (expected["id"], column)


@pytest.fixture(scope="module")
def vectors() -> dict[str, Any]:
    return json.loads((CORPUS / "test_vectors.json").read_text())


def test_vectors_of_the_original_countries_inputs_and_confirmation(vectors) -> None:
    for text, expected in vectors["expected_countries"]:
        assert list(parse_countries(text)) == expected
    for case in vectors["input_domain"]:
        assert list(input_and_domain({"input": case["input"]}, case["test_name"])) == case["out"]
    for case in vectors["confirmed"]:
        fingerprint = Fingerprint("x", case["scope"], "dns", "full", "x", 5, tuple(set(case["expected"]) - {"ZZ"}))
        assert fingerprint.confirms(case["cc"]) is case["out"]


def test_vectors_of_the_original_dates_and_scores(vectors, reference) -> None:
    for case in vectors["wrong_date"]:
        scores: dict[str, Any] = {}
        check_start_time(scores, case, case["uid"])
        assert scores == {"accuracy": 0.0, "msg": case["msg"]}
    for case in vectors["score_only"]:
        scores = score_measurement(case["doc"], reference)
        if "scores" in case:
            assert comparable(scores) == comparable(case["scores"])
        else:
            assert [match["name"] for match in scores["fingerprints"]] == case["match_names"]


def test_the_declared_mode_differs_only_where_pattern_types_were_ignored(documents, reference) -> None:
    declared = Matcher(load_files(CORPUS))
    assert declared.refused == ()
    affected = {
        fingerprint["name"]
        for fingerprint in json.loads((CORPUS / "fingerprints_http.json").read_text())
        if (fingerprint["location_found"] == "body" and fingerprint["pattern_type"] != "contains")
        or (fingerprint["location_found"] != "body" and fingerprint["pattern_type"] == "contains")
    }
    assert len(affected) == 133

    def unaffected(outcome: Any) -> Counter[str]:
        found = (outcome.scores or {}).get("fingerprints", [])
        return Counter(match["name"] for match in found if match["name"] not in affected)

    changed = 0
    for document, _ in documents:
        body = body_of(document)
        new, old = process(document["uid"], body, declared), process(document["uid"], body, reference)
        assert unaffected(new) == unaffected(old), document["id"]
        changed += new.scores != old.scores
    print(f"documents with other scores in the declared mode: {changed}")
    assert changed > 0


def test_decoding_only_what_is_needed_changes_no_score(documents, reference) -> None:
    skimmed = 0
    for document, _ in documents:
        body = body_of(document)
        try:
            partial, full = open_document(body, document["uid"]), open_document(body)
        except DocumentError:
            continue
        if partial.measurement == full.measurement:
            continue
        skimmed += 1
        assert partial.is_verified == full.is_verified
        outcomes = []
        for opened in (partial, full):
            try:
                scores = score_measurement(opened.measurement, reference)
            except ShapeError as error:
                outcomes.append(error.place)
            else:
                outcomes.append(comparable(scores))
        assert outcomes[0] == outcomes[1], document["id"]
    print(f"documents decoded in part: {skimmed}")
    assert skimmed > 2000
