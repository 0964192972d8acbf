"""Golden files: one small document per reason to score it as it is scored. The reason is the file's name."""

import json
from pathlib import Path

import pytest

import core
from core.testnames import SCORED_TEST_NAMES
from fastpath.fingerprints import FingerprintSet, load_files
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.score import SCORERS, score_measurement
from fastpath.shape import ShapeError

GOLDEN = Path(__file__).parent / "golden"
DEMO_FINGERPRINTS = Path(core.__file__).parent / "data"
FILES = sorted(GOLDEN.glob("*/*.json"))


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    return Matcher(load_files(DEMO_FINGERPRINTS))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_golden_file(path: Path, matcher: Matcher) -> None:
    golden = json.loads(path.read_text())
    body = golden["body"]
    raw = body.encode() if isinstance(body, str) else json.dumps(body).encode()
    outcome = process(golden["uid"], raw, matcher, report_id=golden.get("report_id"))
    expected = golden["expected"]
    assert (outcome.kind, outcome.reason) == (expected["kind"], expected["reason"])
    if expected["kind"] != "row":
        assert outcome.row is None
        return
    row = outcome.row
    flags = (expected["anomaly"], expected["confirmed"], expected["msm_failure"])
    assert json.loads(row.scores) == expected["scores"]
    assert (outcome.flags.anomaly, outcome.flags.confirmed, outcome.flags.msm_failure) == flags
    assert (row.anomaly, row.confirmed, row.msm_failure) == flags
    assert row.reason == expected["reason"]
    for column, value in expected.get("row", {}).items():
        actual = getattr(row, column)
        assert (actual.isoformat(" ") if hasattr(actual, "isoformat") else actual) == value, column


def test_every_scored_experiment_has_a_scorer_and_three_golden_files() -> None:
    assert sorted(SCORERS) == sorted(SCORED_TEST_NAMES)
    for name in SCORERS:
        assert len(list((GOLDEN / name).glob("*.json"))) >= 3, name


def test_scoring_changes_neither_document_nor_fingerprints(matcher: Matcher) -> None:
    for path in FILES:
        body = json.loads(path.read_text())["body"]
        if not isinstance(body, dict) or not isinstance(body.get("content"), dict):
            continue
        measurement = body["content"]
        before = json.dumps(measurement)
        try:
            first = score_measurement(measurement, matcher)
            first.get("fingerprints", []).clear()
            second = score_measurement(measurement, matcher)
        except ShapeError:
            continue
        assert json.dumps(measurement) == before, path.name
        assert bool(second.get("fingerprints")) == ("fingerprints" in first), path.name


def test_no_fingerprints_at_all_is_a_valid_set() -> None:
    golden = json.loads((GOLDEN / "web_connectivity" / "dns_answer_of_national_block_page.json").read_text())
    outcome = process(golden["uid"], json.dumps(golden["body"]).encode(), Matcher(FingerprintSet((), ())))
    assert (outcome.flags.anomaly, outcome.flags.confirmed) == (True, False)
