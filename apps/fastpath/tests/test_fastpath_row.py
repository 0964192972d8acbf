"""Metadata, text and numbers at the boundary to the database."""

# ruff: noqa: DTZ001, DTZ007 rows keep UTC without a zone

import json
from datetime import datetime, timedelta
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.fingerprints import FingerprintSet
from fastpath.matcher import Matcher
from fastpath.process import process
from fastpath.row import RowError, encode_scores, parse_asn, storable
from fastpath.score.flags import check_start_time, derive_flags
from fastpath.shape import ShapeError
from fastpath.times import parse_time, receive_time
from fastpath.urls import network_location

UID = "20240305101112.123456_IT_ndt_00000000000000aa"
NO_FINGERPRINTS = Matcher(FingerprintSet((), ()))


def measurement(**changes) -> dict:
    document = {
        "report_id": "20240305T100900Z_ndt_IT_64500_n1_AbCdEfGhIjKlMnOp",
        "probe_cc": "IT",
        "probe_asn": "AS64500",
        "test_name": "ndt",
        "test_start_time": "2024-03-05 10:09:00",
        "measurement_start_time": "2024-03-05 10:10:00",
        "test_keys": {},
    }
    return document | changes


def row_of(**changes):
    return process(UID, json.dumps(measurement(**changes)).encode(), NO_FINGERPRINTS).row


def reason_of(**changes) -> str | None:
    outcome = process(UID, json.dumps(measurement(**changes)).encode(), NO_FINGERPRINTS)
    assert outcome.kind == "row"
    return outcome.reason


def test_defaults_of_absent_values() -> None:
    row = row_of()
    assert row.as_dict() == {
        "measurement_uid": UID,
        "report_id": "20240305T100900Z_ndt_IT_64500_n1_AbCdEfGhIjKlMnOp",
        "input": "",
        "domain": "",
        "probe_cc": "IT",
        "probe_asn": 64500,
        "test_name": "ndt",
        "test_start_time": datetime(2024, 3, 5, 10, 9),
        "measurement_start_time": datetime(2024, 3, 5, 10, 10),
        "scores": "{}",
        "anomaly": False,
        "confirmed": False,
        "msm_failure": False,
        "blocking_type": "",
        "platform": "unset",
        "architecture": "",
        "engine_name": "",
        "engine_version": "",
        "software_name": "",
        "software_version": "",
        "test_version": "",
        "test_runtime": 0.0,
        "test_helper_address": "",
        "test_helper_type": "",
        "ooni_run_link_id": None,
        "is_verified": "u",
        "reason": None,
    }


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("AS64500", 64500),
        ("64500", 500),
        ("as1", 1),
        ("AS 7 ", 7),
        ("AS1_0", 10),
        ("AS٣", 3),
        ("AS4294967295", 2**32 - 1),
        ("AS4294967296", None),
        ("AS-1", None),
        ("AS", None),
        ("AS6x", None),
        ("", None),
        (5, None),
        (None, None),
        ("AS" + "9" * 5000, None),
    ],
)
def test_network_numbers(text, number) -> None:
    assert parse_asn(text) == number


@pytest.mark.parametrize(
    ("value", "stored", "reason"),
    [
        (12, 12, None),
        ("12", 12, None),
        (" 1_2 ", 12, None),
        (True, 1, None),
        (3.9, 3, None),
        (2**64 - 1, 2**64 - 1, None),
        ("", None, None),
        ("12.0", None, None),
        ("0x10", None, None),
        (None, None, None),
        (-3, None, "out_of_range:ooni_run_link_id"),
        (2**64, None, "out_of_range:ooni_run_link_id"),
        ([], None, "bad_type:ooni_run_link_id"),
    ],
)
def test_run_link_identifiers(value, stored, reason) -> None:
    row = row_of(annotations={"ooni_run_link_id": value})
    assert (row.ooni_run_link_id, row.reason) == (stored, reason)


def test_annotations_and_helpers_of_other_shapes_count_as_absent() -> None:
    row = row_of(annotations=["x"], test_helpers={"backend": "192.0.2.1"})
    assert (row.platform, row.test_helper_address, row.test_helper_type, row.reason) == ("unset", "", "", None)
    row = row_of(annotations={"platform": "ios"}, test_helpers={"backend": {"address": "a", "type": None}})
    assert (row.platform, row.test_helper_address, row.test_helper_type) == ("ios", "a", "")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"test_start_time": None}, "bad_test_start_time"),
        ({"test_start_time": "2024-03-05 24:00:00"}, "bad_test_start_time"),
        ({"measurement_start_time": "2024-02-30 10:00:00"}, "bad_measurement_start_time"),
        ({"measurement_start_time": 5}, "scorer_type_error:measurement_start_time"),
        ({"measurement_start_time": "9999-12-31 23:59:59"}, "out_of_range:measurement_start_time"),
        ({"measurement_start_time": "0001-01-01 00:00:00"}, "out_of_range:measurement_start_time"),
        ({"probe_asn": "x"}, "bad_probe_asn"),
        ({"probe_asn": 64500}, "scorer_type_error:probe_asn"),
        ({"probe_cc": ["IT"]}, "scorer_type_error:probe_cc"),
        ({"input": ["a"]}, "bad_input"),
        ({"input": "http://[::1"}, "bad_input"),
        ({"test_runtime": "1"}, "bad_type:test_runtime"),
        ({"test_runtime": 10**400}, "bad_type:test_runtime"),
        ({"software_name": 5}, "bad_type:software_name"),
        ({"report_id": 5}, "bad_type:report_id"),
        ({"test_name": 5, "report_id": "20240305T100900Z_AS64500_abc"}, "bad_type:test_name"),
    ],
)
def test_values_that_cannot_be_stored_make_a_failed_row(changes, reason) -> None:
    row = row_of(**changes)
    assert row.reason == reason
    assert (row.anomaly, row.confirmed, row.msm_failure) == (False, False, True)
    assert json.loads(row.scores)["accuracy"] == 0.0
    assert (row.probe_cc, row.probe_asn, row.test_name) == ("IT", 64500, "ndt")
    assert isinstance(row.measurement_start_time, datetime)


def test_a_failed_row_has_a_plausible_start_where_one_is_to_be_had() -> None:
    assert row_of(measurement_start_time="9999-12-31 23:59:59").measurement_start_time == datetime(2024, 3, 5, 10, 9)
    row = row_of(measurement_start_time="0001-01-01 00:00:00", test_start_time="x")
    assert (row.test_start_time, row.measurement_start_time) == (datetime(2024, 3, 5, 10, 11, 12),) * 2


def test_the_report_id_of_the_submission_helps_where_the_document_tells_nothing() -> None:
    body = json.dumps(measurement(probe_asn="", report_id="x")).encode()
    assert process(UID, body, NO_FINGERPRINTS).reason == "unidentifiable:probe_asn:bad_probe_asn"
    outcome = process(UID, body, NO_FINGERPRINTS, report_id="20240305T100900Z_ndt_IT_64501_n1_AbCdEfGhIjKlMnOp")
    assert (outcome.row.probe_asn, outcome.reason) == (64501, "bad_probe_asn")


REPORT_ID = "20240305T100900Z_ndt_IT_64500_n1_AbCdEfGhIjKlMnOp"


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (json.dumps({"format": "xml", "content": measurement()}), "unknown_format"),
        (json.dumps({"format": "json", "content": json.dumps(measurement())}), "not_an_object"),
        (json.dumps(measurement()) + ",", "invalid_json"),
        (str(measurement()), "invalid_json"),
        (f"report_id={REPORT_ID}&probe_cc=ZZ", "invalid_json"),
    ],
)
def test_what_identifies_a_measurement_is_looked_for_in_bodies_that_cannot_be_read(body, reason) -> None:
    outcome = process(UID, body.encode(), NO_FINGERPRINTS)
    row = outcome.row
    assert (outcome.kind, outcome.reason) == ("row", reason)
    assert (row.report_id, row.probe_cc, row.probe_asn, row.test_name) == (REPORT_ID, "IT", 64500, "ndt")
    assert (row.anomaly, row.confirmed, row.msm_failure) == (False, False, True)


def test_the_time_of_an_early_measurement_comes_from_its_report_id_or_the_day_in_its_uid() -> None:
    early = "0120200304" + "4cadd4e9b30806be0e72a6e05e161a"
    unknown = {"measurement_start_time": None, "test_start_time": None, "probe_cc": "IT"}
    body = json.dumps(measurement(**unknown, report_id="20200303T191012Z_AS64500_abc")).encode()
    assert process(early, body, NO_FINGERPRINTS).row.measurement_start_time == datetime(2020, 3, 3, 19, 10, 12)
    undated = json.dumps(measurement(**unknown, report_id="abc")).encode()
    assert process(early, undated, NO_FINGERPRINTS).row.measurement_start_time == datetime(2020, 3, 4)


def test_documents_without_country_or_network_are_discarded_even_when_unreadable() -> None:
    zz = "20240305101112.123456_ZZ_ndt_00000000000000aa"
    outcome = process(zz, b"{", NO_FINGERPRINTS, report_id="20240305T100900Z_ndt_ZZ_64501_n1_AbCdEfGhIjKlMnOp")
    assert (outcome.kind, outcome.reason) == ("discarded", "country_unknown")
    outcome = process(UID, b"{", NO_FINGERPRINTS, report_id="20240305T100900Z_ndt_IT_0_n1_AbCdEfGhIjKlMnOp")
    assert (outcome.kind, outcome.reason) == ("discarded", "network_unknown")


def test_uids_of_early_measurements_hold_no_time() -> None:
    uid = "01000000007f9c2ba4e88f827d61604550760585"
    assert receive_time(uid) is None
    outcome = process(
        uid, json.dumps(measurement(measurement_start_time="2010-01-01 00:00:00")).encode(), NO_FINGERPRINTS
    )
    assert (outcome.reason, outcome.row.msm_failure) == (None, False)
    outcome = process(
        uid,
        json.dumps(measurement(measurement_start_time="", test_start_time="", report_id="x")).encode(),
        NO_FINGERPRINTS,
    )
    assert outcome.reason == "unidentifiable:measurement_start_time:bad_test_start_time"
    assert process("", b"{}", NO_FINGERPRINTS).kind == "rejected"


@pytest.mark.parametrize(
    "uid", ["20241305101112.123456_IT", "20240305241112.123456_IT", "2024030510111x.123456_IT", "20"]
)
def test_impossible_receive_times(uid) -> None:
    assert receive_time(uid) is None


@given(
    st.one_of(
        st.datetimes(min_value=datetime(1000, 1, 1)).map(lambda time: time.strftime("%Y-%m-%d %H:%M:%S")),
        st.text("0123456789- :TZ\n٣", max_size=24),
        st.from_regex(r"\A[0-9]{4}-[0-9]{1,2}-[0-9]{1,2} {1,3}[0-9]{1,2}:[0-9]{1,2}:[0-9]{1,2}\Z"),
    )
)
def test_times_parse_exactly_as_the_strict_format_says(text) -> None:
    try:
        expected = datetime.strptime(text, "%Y-%m-%d %H:%M:%S")
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            parse_time(text)
    else:
        assert parse_time(text) == expected


@given(st.text("ab:/?#[]@.v1\t \0é℀%-+", max_size=16).map(lambda text: text))
def test_network_location_equals_the_standard_parser(text) -> None:
    for url in (text, "http://" + text, "//" + text):
        try:
            expected = urlsplit(url).netloc
        except ValueError:
            with pytest.raises(ValueError, match=r"."):
                network_location(url)
        else:
            assert network_location(url) == expected


@given(st.text())
def test_storable_text_is_utf8_without_nul_and_keeps_its_length(text) -> None:
    stored = storable(text)
    stored.encode()
    assert "\0" not in stored
    assert len(stored) == len(text)
    assert all(new in (old, "\ufffd") for old, new in zip(text, stored, strict=True))


def test_scores_are_json_that_a_database_can_read() -> None:
    scores = {"a": float("nan"), "b": [float("inf"), -(2**70), 10**400], "c": "x\0\ud800é", "\ud800": {"d": "/"}}
    text = encode_scores(scores)
    assert json.loads(text) == {
        "a": None,
        "b": [None, float(-(2**70)), None],
        "c": "x\ufffd\ufffdé",
        "\ufffd": {"d": "/"},
    }
    assert "\\u0000" not in text
    with pytest.raises(RowError, match="scores_too_large"):
        encode_scores({"a": "x" * 1_000_001})
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RowError, match="scores_too_deep"):
        encode_scores({"a": deep})
    while deep:  # taken apart step by step, or the interpreter would do it recursively
        deep = deep.pop()


@pytest.mark.parametrize(
    ("delta", "message"),
    [
        (timedelta(seconds=3600), None),
        (timedelta(seconds=3601), "Measurement start time from the future"),
        (timedelta(days=-365), None),
        (timedelta(days=-365, seconds=-1), "Measurement start time too old"),
    ],
)
def test_plausible_start_times(delta, message) -> None:
    uid = "20240305101112.000000_IT_ndt_00000000000000aa"
    start = datetime(2024, 3, 5, 10, 11, 12) + delta
    scores = {"msg": "earlier", "accuracy": 1.0, "blocking_general": 1.0}
    check_start_time(scores, {"measurement_start_time": str(start)}, uid)
    assert scores["msg"] == (message or "earlier")
    flags = derive_flags(scores)
    assert (flags.anomaly, flags.msm_failure) == (True, message is not None)


def test_a_start_time_that_is_no_text_is_refused() -> None:
    check_start_time({}, {"measurement_start_time": 0}, UID)
    with pytest.raises(ShapeError, match="measurement_start_time"):
        check_start_time({}, {"measurement_start_time": True}, UID)


def test_flags_have_strict_limits() -> None:
    flags = derive_flags({"blocking_general": 0.5, "accuracy": 0.5})
    assert (flags.anomaly, flags.confirmed, flags.msm_failure) == (False, False, False)
    flags = derive_flags({})
    assert (flags.anomaly, flags.confirmed, flags.msm_failure) == (False, False, False)
