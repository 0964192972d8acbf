"""Hostile documents: whatever is done to a valid one, scoring answers, soon, and never with an exception."""

import copy
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import core
from fastpath.fingerprints import load_files
from fastpath.matcher import MODES, Matcher
from fastpath.process import Outcome, process
from fastpath.score.matching import MAX_MATCHES
from fastpath.skim import SKIMMED_TEST_NAMES

GOLDEN = Path(__file__).parent / "golden"
UID = "20240305101112.123456_IT_webconnectivity_00000000000000aa"
REPORT_ID = "20240305T100900Z_webconnectivity_IT_64500_n1_AbCdEfGhIjKlMnOp"
BODIES = [
    body for path in sorted(GOLDEN.glob("*/*.json")) if isinstance(body := json.loads(path.read_text())["body"], dict)
]
FINGERPRINTS = load_files(Path(core.__file__).parent / "data")
MATCHERS = [Matcher(FINGERPRINTS, mode) for mode in MODES]

MAX_SECONDS = 60.0
"""Processor time that tells a hang from a busy machine: what is quadratic in 4 MB takes far longer. How long documents
take is measured by `python -m tests.load.hostile` and the benchmarks."""


class Verbatim:
    """JSON text to be put in place of a value."""

    def __init__(self, text: str) -> None:
        self.text = text


scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.sampled_from([0, 1, -1, 0.0, 1.5, 200, 2**63, 2**64, -(2**70), 10**400]),
    st.sampled_from(
        ["", "x", "ok", "blocked", "\0", "\ud800", "\udfff\ud800", "é", "AS0", "AS", "ZZ", "unknown_failure"]
    ),
    st.sampled_from(
        ["9999-12-31 23:59:59", "2024-03-05T10:00:00Z", "http://[", "http://℀/", "QUJDR", "3.8.3", "1" * 5000]
    ),
    st.text(max_size=8),
)
verbatim = st.sampled_from(
    ["NaN", "Infinity", "-Infinity", "1e999", "9" * 5000, "[" * 900 + "]" * 900, '"\\ud83d"', '"\x07"', "00", "{", ""]
).map(Verbatim)
wrapped = st.sampled_from(
    [
        {"format": "base64", "data": "QUJDR"},
        {"format": "base64", "data": None},
        {"format": "base64", "data": "é"},
        {"format": "base64"},
        {"data": "QUJD"},
        [["Server", ["x"]]],
        [[]],
        [None],
        {"a": {"b": {}}},
        {"ipv4": []},
        {"request": None, "response": None, "failure": []},
    ]
)
replacements = st.one_of(scalars, verbatim, wrapped, st.lists(scalars, max_size=3))


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        for key, item in value.items():
            found += places(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            found += places(item, (*path, index))
    return found


def encode(value: Any) -> bytes:
    """Encode as JSON with the verbatim texts in their places."""
    texts: list[str] = []

    def mark(item: Any) -> str:
        texts.append(item.text)
        return f"@@{len(texts) - 1}@@"

    encoded = json.dumps(value, default=mark)
    for number, text in enumerate(texts):
        encoded = encoded.replace(f'"@@{number}@@"', text)
    return encoded.encode("utf-8", "surrogatepass")


@st.composite
def mutated_bodies(draw: st.DrawFn, spliced: bool = True, bases: list[Any] = BODIES) -> bytes:
    body = copy.deepcopy(draw(st.sampled_from(bases)))
    for _ in range(draw(st.integers(1, 4))):
        paths = places(body)
        if not paths:
            break
        *parents, last = draw(st.sampled_from(paths))
        target = body
        for key in parents:
            target = target[key]
        action = draw(st.sampled_from(["replace", "replace", "drop", "nest"]))
        if action == "drop":
            del target[last]
        elif action == "nest":
            target[last] = [target[last]]
        else:
            target[last] = copy.deepcopy(draw(replacements))
    encoded = encode(body)
    if spliced and draw(st.integers(0, 9)) == 0:
        position = draw(st.integers(0, len(encoded)))
        encoded = encoded[:position] + draw(st.binary(max_size=4)) + encoded[position + draw(st.integers(0, 3)) :]
    return encoded


def check(outcome: Outcome) -> None:
    assert outcome.kind in ("row", "discarded", "rejected")
    assert not (outcome.reason or "").startswith("internal_error"), outcome.reason
    assert (outcome.row is not None) == (outcome.kind == "row")
    if outcome.row is None:
        assert outcome.reason
        return
    row = outcome.row
    assert row.reason == outcome.reason
    if row.reason is not None:
        assert (row.anomaly, row.confirmed, row.msm_failure) == (False, False, True)
        assert len(row.reason) < 100
    json.loads(row.scores)
    for value in row.as_dict().values():
        if isinstance(value, str):
            value.encode()
            assert "\0" not in value
    assert 0 <= row.probe_asn < 2**32
    assert row.ooni_run_link_id is None or 0 <= row.ooni_run_link_id < 2**64


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(mutated_bodies(), st.sampled_from(MATCHERS), st.sampled_from([None, REPORT_ID]))
def test_mutated_documents_never_raise(body, matcher, report_id) -> None:
    started = time.thread_time()
    outcome = process(UID, body, matcher, report_id=report_id)
    assert time.thread_time() - started < MAX_SECONDS
    check(outcome)
    if report_id:
        assert outcome.kind != "rejected", outcome.reason
    assert process(UID, body, matcher, report_id=report_id) == outcome or b"NaN" in body


SKIMMED = [
    body
    for body in BODIES
    if isinstance(body.get("content"), dict) and body["content"].get("test_name") in SKIMMED_TEST_NAMES
]
UNKNOWN = "dash"
"""A test that is never decoded in part, and what its name is in uids."""


@settings(max_examples=1500, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.data(), st.sampled_from(MATCHERS))
def test_decoding_only_what_is_needed_changes_nothing(data, matcher) -> None:
    base = data.draw(st.sampled_from(SKIMMED))
    name = base["content"]["test_name"]
    body = data.draw(mutated_bodies(spliced=False, bases=[base]))
    outcomes = []
    for told in (name, UNKNOWN):
        uid = UID.replace("webconnectivity", told.replace("_", ""))
        outcome = process(uid, body, matcher, report_id=REPORT_ID)
        if outcome.row is not None:
            row = msgspec.structs.replace(outcome.row, measurement_uid="")
            if row.test_name in (name, UNKNOWN):  # taken from the uid, where the document tells none
                row = msgspec.structs.replace(row, test_name="")
            outcome = msgspec.structs.replace(outcome, row=row)
        outcomes.append(outcome)
    skimmed, in_full = outcomes
    # A number with more digits than the interpreter converts makes a document unreadable only where it is looked at.
    unread = in_full.reason == "invalid_json" and b"9" * 5000 in body
    assert skimmed == in_full or b"NaN" in body or unread


def test_what_is_decoded_in_part_is_among_the_golden_files() -> None:
    assert {body["content"]["test_name"] for body in SKIMMED} == SKIMMED_TEST_NAMES


@given(st.binary(max_size=200), st.text(max_size=60))
def test_arbitrary_bytes_and_uids_never_raise(body, uid) -> None:
    check(process(uid, body, MATCHERS[0]))


def web_connectivity(**test_keys: Any) -> bytes:
    body = json.loads((GOLDEN / "web_connectivity" / "site_reachable_and_same_as_control.json").read_text())["body"]
    body["content"]["test_keys"].update(test_keys)
    return encode(body)


SIZE = 4_000_000
LARGE = {
    "empty_lists": (lambda: web_connectivity(x=Verbatim("[" + "[]," * (SIZE // 3) + "[]]")), None),
    "nesting": (lambda: web_connectivity(x=Verbatim("[" * (SIZE // 2) + "]" * (SIZE // 2))), "too_deep"),
    "nested_failure": (
        lambda: web_connectivity(queries=Verbatim('{"a":' * 500 + "1" + "}" * 500)),
        "scorer_type_error:test_keys.queries",
    ),
    "text_body": (lambda: web_connectivity(requests=[{"response": {"body": "<p>blocked" * (SIZE // 10)}}]), None),
    "surrogates": (lambda: web_connectivity(requests=[{"response": {"body": "\ud800" * (SIZE // 6)}}]), None),
    "base64_body": (
        lambda: web_connectivity(requests=[{"response": {"body": {"format": "base64", "data": "/+8A" * (SIZE // 4)}}}]),
        None,
    ),
    "header_names": (
        lambda: web_connectivity(requests=[{"response": {"headers": {f"h{i}": "x" for i in range(SIZE // 14)}}}]),
        None,
    ),
    "many_answers": (lambda: web_connectivity(queries=[{"answers": [{"ipv4": "192.0.2.1"}] * (SIZE // 22)}]), None),
    "many_matches": (
        lambda: web_connectivity(queries=[{"answers": [{"ipv4": "203.0.113.10"}] * (SIZE // 25)}]),
        "scorer_type_error:fingerprint_matches",
    ),
    "digits": (lambda: web_connectivity(x=Verbatim("9" * SIZE)), None),
    "not_utf8": (lambda: web_connectivity().replace(b"hello", b"\xff" * SIZE), "invalid_json"),
    "failures": (lambda: web_connectivity(**{f"{i}_failure": "x" for i in range(SIZE // 24)}), None),
}


@pytest.mark.parametrize("shape", LARGE)
@pytest.mark.parametrize("matcher", MATCHERS, ids=MODES)
def test_large_documents_take_bounded_time(shape, matcher) -> None:
    make, reason = LARGE[shape]
    body = make()
    started = time.thread_time()
    outcome = process(UID, body, matcher, report_id=REPORT_ID)
    elapsed = time.thread_time() - started
    print(f"{shape}: {len(body)} bytes, {elapsed * 1000:.0f} ms, {outcome.kind} {outcome.reason}")
    check(outcome)
    assert outcome.reason == reason
    assert elapsed < MAX_SECONDS
    # Decoded in full, because of the test name in the uid.
    started = time.thread_time()
    check(process(UID.replace("webconnectivity", "ndt"), body, matcher, report_id=REPORT_ID))
    assert time.thread_time() - started < MAX_SECONDS


def test_matches_are_listed_up_to_the_limit() -> None:
    outcome = process(
        UID, web_connectivity(queries=[{"answers": [{"ipv4": "203.0.113.10"}] * MAX_MATCHES}]), MATCHERS[0]
    )
    assert len(outcome.scores["fingerprints"]) == MAX_MATCHES
    assert outcome.row.confirmed
