"""Dates and other parameters: what is accepted and what is refused."""

from datetime import UTC, datetime

import pytest
from flask import Request
from werkzeug.test import EnvironBuilder

from api.errors import ApiError
from api.params import Params, parse_time


def params(query: str) -> Params:
    return Params(Request(EnvironBuilder(query_string=query).get_environ()))


def day(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC).replace(tzinfo=None)  # type: ignore[misc, arg-type]  # mypy cannot count them


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2021-07-09", day(2021, 7, 9)),
        ("2021-7-9", day(2021, 7, 9)),
        ("20210709", day(2021, 7, 9)),
        ("9 July 2021", day(2021, 7, 9)),
        ("2021-07", day(2021, 7, 1)),
        ("2021-07-09T10:11:12", day(2021, 7, 9, 10, 11, 12)),
        ("2021-07-09T10:11:12Z", day(2021, 7, 9, 10, 11, 12)),
        ("2021-07-09 10:11:12.5", day(2021, 7, 9, 10, 11, 12, 500000)),
        ("2021-07-09T10:11:12+02:00", day(2021, 7, 9, 8, 11, 12)),
    ],
)
def test_dates(text: str, expected: datetime) -> None:
    assert parse_time(text, "since") == expected


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", "undefined", "yesterday", "today", "now", "Tuesday", "10", "12:30", "July", "2021-02-30"),
        *("9" * 60, "99999-01-01", "x" * 5000, "2021-07-09T25:00", "2021-07-09 10:00 CEST", "٢٠٢١-٠٧-٠٩", "1e9"),
        *("0001-01-01T00:00:00+23:00", "NaN", "\x01", "2021-07-09 AM PM"),
    ],
)
def test_no_dates(text: str) -> None:
    with pytest.raises(ApiError) as refused:
        parse_time(text, "since")
    assert refused.value.status == 400
    assert "Invalid date" in str(refused.value)


def test_the_first_of_repeated_values_wins() -> None:
    assert params("a=1&a=2").integer("a", 0) == 1


@pytest.mark.parametrize("query", ["a=%00", "%00=a", "a=x&a=%00", "a=" + "x" * 9000])
def test_values_that_no_query_should_see(query: str) -> None:
    with pytest.raises(ApiError) as refused:
        params(query)
    assert refused.value.status == 400


def test_lists_are_split_sorted_and_unique() -> None:
    assert params("v=b,a,,b, ,c").texts("v") == ["a", "b", "c"]
    assert params("v=").texts("v") == []
    with pytest.raises(ApiError):
        params("v=" + ",".join(map(str, range(300)))).texts("v")


def test_networks() -> None:
    assert params("probe_asn=AS12,7,AS12").networks() == [7, 12]
    for bad in ("as12", "AS", "12a", "-1", "1.5", "%D9%A1"):
        with pytest.raises(ApiError):
            params(f"probe_asn={bad}").networks()


def test_booleans() -> None:
    assert [params(f"b={text}").boolean("b") for text in ("true", "TRUE", "1", "false", "no", "")] == [
        *(True, True, True, False, False),
        None,
    ]
    with pytest.raises(ApiError):
        params("b=maybe").boolean("b")


@pytest.mark.parametrize("text", ["1.0", "1e3", "", "ten", "0x10", "1_000", "9" * 30, "%D9%A1"])
def test_no_integers(text: str) -> None:
    with pytest.raises(ApiError):
        params(f"n={text}").integer("n", 0)


def test_report_id_rules() -> None:
    assert params("").report_id() is None
    for query, message in [
        ("report_id=short", "Invalid report_id field"),
        ("report_id=" + "x" * 101, "Invalid report_id field"),
        ("report_id=" + "-" * 20, "Invalid characters"),
        ("report_id=", "Invalid report_id"),
    ]:
        with pytest.raises(ApiError, match=message):
            params(query).report_id(required=True)


def test_input_rules() -> None:
    assert params("input=https%3A%2F%2Fexämple.org%2F").checked_input() == "https://exämple.org/"
    with pytest.raises(ApiError, match="Invalid characters in input field"):
        params("input=%3Cscript%3E").checked_input()
