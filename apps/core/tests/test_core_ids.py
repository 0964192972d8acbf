"""Report ids and measurement uids agree with the published forms."""

import hashlib
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.ids import (
    IdentifierError,
    legacy_measurement_uid,
    new_measurement_uid,
    new_report_id,
    parse_measurement_uid,
    parse_report_id,
    spool_directory,
)

NOW = datetime(2024, 1, 1, 2, 3, 4, 5678, UTC)


def test_a_report_id_has_the_documented_length_and_parts() -> None:
    text = new_report_id(NOW, "web_connectivity", "IE", 34245, "1")
    assert len(text) == 61
    assert text.count("_") == 5
    assert text.startswith("20240101T020304Z_webconnectivity_IE_34245_n1_")
    assert str(parse_report_id(text)) == text


def test_a_report_id_is_made_in_utc() -> None:
    local = NOW.astimezone(timezone(timedelta(hours=5)))
    assert new_report_id(local, "ndt", "IT", 1, "1").startswith("20240101T020304Z_")


def test_random_parts_have_sixteen_letters_and_digits_and_differ() -> None:
    parts = {parse_report_id(new_report_id(NOW, "ndt", "IT", 1, "1")).rand for _ in range(200)}
    assert len(parts) == 200
    assert all(len(part) == 16 and part.isalnum() and part.isascii() for part in parts)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "parts"),
        ("20240101T000000Z_ndt_IT_1_n1", "5 parts"),
        ("20240101T000000Z_ndt_IT_1_n1_a_b", "7 parts"),
        ("20240101T000000Z_ndt_ITA_1_n1_aaaa", "country"),
        ("20240101T000000Z_ndt_.._1_n1_aaaa", "country"),
        ("20240101T000000Z_n_IT_1_n1_aaaa", "test name"),
        (f"20240101T000000Z_{'n' * 30}_IT_1_n1_aaaa", "test name"),
        ("20240101T000000Z_../x_IT_1_n1_aaaa", "test name"),
        ("20240101T000000Z_ndt_IT_AS1_n1_aaaa", "network"),
        ("20240101T000000Z_ndt_IT_-1_n1_aaaa", "network"),
        ("20240101T000000Z_ndt_IT_٣_n1_aaaa", "network"),
        ("20240101T000000Z_ndt_IT_1_n1_aa\naa", "characters"),
        ("2024 01_ndt_IT_1_n1_aaaa", "characters"),
        (f"20240101T000000Z_ndt_IT_1_n1_{'a' * 300}", "at most 256"),
    ],
)
def test_a_malformed_report_id_is_refused_with_the_wrong_part(text: str, says: str) -> None:
    with pytest.raises(IdentifierError, match=says):
        parse_report_id(text)


def test_a_measurement_uid_carries_time_place_test_and_hash() -> None:
    uid = new_measurement_uid(NOW, "MA", "web_connectivity", b"body")
    assert uid == f"20240101020304.005678_MA_webconnectivity_{hashlib.sha512(b'body').hexdigest()[:16]}"
    parsed = parse_measurement_uid(uid)
    assert (parsed.received_at, parsed.cc, parsed.test_name) == (NOW, "MA", "webconnectivity")
    assert str(parsed) == uid
    assert spool_directory(uid) == "2024010102_MA_webconnectivity"


@given(st.datetimes(datetime(2000, 1, 1), datetime(2999, 12, 31)), st.binary(max_size=20))  # noqa: DTZ001 bounds are naive by the library's rule
def test_uids_sort_by_time_and_survive_a_round_trip(moment: datetime, body: bytes) -> None:
    uid = new_measurement_uid(moment.replace(tzinfo=UTC), "IT", "ndt", body)
    later = new_measurement_uid(moment.replace(tzinfo=UTC) + timedelta(microseconds=1), "IT", "ndt", body)
    assert str(parse_measurement_uid(uid)) == uid
    assert uid < later


@pytest.mark.parametrize(
    "text",
    [
        "",
        "01202102037f9c2ba4e88f827d61604550760585",
        "20241301000000.000000_IT_ndt_0123456789abcdef",
        "20240101000000.000000_IT_ndt_0123456789abcdeg",
        "20240101000000.000000_IT_ndt_0123456789abcdef\n",
        "20240101000000.000000_.._ndt_0123456789abcdef",
        "20240101000000.000000_IT_../../etc_0123456789abcdef",
    ],
)
def test_other_texts_are_no_uid(text: str) -> None:
    with pytest.raises(IdentifierError):
        parse_measurement_uid(text)


def test_legacy_uids_hold_the_day_or_zeros() -> None:
    digits = hashlib.shake_128(b"record\n").hexdigest(15)
    assert legacy_measurement_uid(b"record\n", "2019-05-06 07:08:09") == f"0120190506{digits}"
    assert legacy_measurement_uid(b"record\n", "yesterday") == f"0100000000{digits}"
