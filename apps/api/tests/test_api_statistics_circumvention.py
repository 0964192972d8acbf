"""Statistics of messengers and circumvention tools: against the rows, counted by hand."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from dateutil.relativedelta import relativedelta
from flask import Flask
from statistics_sample import IM_TESTS, TOR_TESTS, Asked, Measured, database_day, grouped, make, window, write

import api.statistics_asked
from api.statistics_success import is_not_ok

TODAYS = [date(2024, 8, 31), date(2024, 3, 1), date(2024, 5, 15), date(2024, 7, 2)]
"""Days whose windows of six months begin and end differently."""


@pytest.fixture(scope="module")
def asked(module_app: Flask, module_dsn: str) -> Iterator[Asked]:
    today = database_day(module_dsn)
    rows = make(today, seed=4, countries=("IT", "IT", "DE", "ZZ"))
    for number, day in enumerate(TODAYS):
        rows += make(day, seed=10 + number, count=2000, tests=(*TOR_TESTS, "vanilla_tor", "vanilla_tor"))
    write(module_dsn, rows)
    return Asked(module_app, module_dsn, today, rows)


@pytest.fixture(params=[None, *TODAYS], ids=str)
def today(asked: Asked, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> date:
    """Today, and days of the past on which the API believes to be."""
    if request.param is None:
        return asked.today

    class Clock:
        @staticmethod
        def now(zone: Any) -> datetime:
            assert zone is UTC
            return datetime(request.param.year, request.param.month, request.param.day, 23, 59, 59, tzinfo=UTC)

    monkeypatch.setattr(api.statistics_asked, "datetime", Clock)
    return request.param


def anomalies(rows: list[Measured]) -> int:
    return sum(row.kind in {"anomaly", "confirmed"} for row in rows)


def tor_networks(rows: list[Measured]) -> list[dict[str, Any]]:
    found = [
        {
            "probe_asn": asn,
            "failure_count": anomalies(of),
            "success_count": len(of) - anomalies(of),
            "total_count": len(of),
            "last_tested": str(max(row.day for row in of)),
            "test_runtime_avg": None,
            "test_runtime_max": None,
            "test_runtime_min": None,
        }
        for asn, of in grouped(rows, lambda row: row.asn).items()
    ]
    return sorted(found, key=lambda network: (-network["total_count"], network["probe_asn"]))


def test_vanilla_tor_stats(asked: Asked, today: date) -> None:
    """Of the test vanilla_tor alone."""
    rows = window(asked.rows, today + relativedelta(months=-6), today + timedelta(days=1))
    rows = [row for row in rows if row.cc == "IT" and row.test == "vanilla_tor"]
    networks = tor_networks(rows)
    found = asked.json("vanilla_tor_stats", probe_cc="it", cache=0)
    assert found["networks"] == networks
    assert found["notok_networks"] == sum(
        n["total_count"] > 5 and n["success_count"] / n["total_count"] < 0.6 for n in networks
    )
    assert found["last_tested"] == str(max(row.day for row in rows))
    assert len(found) == 3
    assert asked.csv("vanilla_tor_stats", probe_cc="IT").startswith(
        "failure_count,last_tested,probe_asn,success_count,"
    )


def test_vanilla_tor_was_not_tested(asked: Asked) -> None:
    found = asked.json("vanilla_tor_stats", probe_cc="FR")
    assert found == {"networks": [], "notok_networks": 0, "last_tested": None}


@pytest.mark.parametrize(
    ("anomaly_count", "total", "expected"),
    [(0, 0, False), (5, 5, False), (6, 6, True), (4, 10, False), (5, 10, True), (401, 1000, True), (400, 1000, False)],
)
def test_when_something_does_not_work(anomaly_count: int, total: int, expected: bool) -> None:
    assert is_not_ok(anomaly_count, total) == expected


def test_im_networks(asked: Asked) -> None:
    rows = [row for row in asked.last_31_days() if row.cc == "IT" and row.test in IM_TESTS]
    expected: dict[str, Any] = {}
    for test, of_test in grouped(rows, lambda row: row.test).items():
        networks: dict[str, list[dict[str, Any]]] = {"anomaly_networks": [], "ok_networks": []}
        for asn, of in grouped(of_test, lambda row: row.asn).items():
            bad = len(of) > 5 and 1 - anomalies(of) / len(of) < 0.6
            networks["anomaly_networks" if bad else "ok_networks"].append(
                {"asn": asn, "name": "", "total_count": len(of), "last_tested": str(max(row.day for row in of))}
            )
        for listed in networks.values():
            listed.sort(key=lambda network: (-network["total_count"], network["asn"]))
        expected[test] = {**networks, "last_tested": str(max(row.day for row in of_test))}
    found = asked.json("im_networks", probe_cc="IT", cache=3600)
    assert found == expected
    assert set(found) == set(IM_TESTS)
    assert any(test["anomaly_networks"] for test in found.values())
    assert any(test["ok_networks"] for test in found.values())
    assert asked.json("im_networks", probe_cc="FR") == {}


@pytest.mark.parametrize("test", IM_TESTS)
def test_im_stats(asked: Asked, test: str) -> None:
    """A day without measurements is there with 0, and today is there too."""
    days = [asked.today - timedelta(days=n) for n in range(31, -1, -1)]
    rows = [row for row in asked.rows if row.cc == "IT" and row.test == test and row.asn == 3269]
    expected = [
        {
            "test_day": f"{day}T00:00:00+00:00",
            "total_count": sum(row.day == day for row in rows),
            "anomaly_count": None,
        }
        for day in days
    ]
    found = asked.json("im_stats", probe_cc="IT", probe_asn="AS3269", test_name=test, cache=3600)
    assert found == {"results": expected}
    assert len(expected) == 32
    assert any(day["total_count"] for day in expected)
    csv = asked.csv("im_stats", probe_cc="IT", probe_asn="3269", test_name=test)
    assert csv.startswith(f"anomaly_count,test_day,total_count\r\n,{days[0]}T00:00:00+00:00,")


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ({}, "missing or incorrect probe_cc"),
        ({"probe_cc": "IT"}, "missing or incorrect probe_asn"),
        ({"probe_cc": "IT", "probe_asn": "1"}, "invalid test_name"),
        ({"probe_cc": "IT", "probe_asn": "1", "test_name": "ndt"}, "invalid test_name"),
        ({"probe_cc": "IT", "probe_asn": "1", "test_name": "Signal"}, "invalid test_name"),
    ],
)
def test_refusals_of_im_stats(asked: Asked, query: dict[str, str], message: str) -> None:
    assert asked.refused("im_stats", **query) == message


@pytest.mark.parametrize("route", ["im_networks", "vanilla_tor_stats"])
def test_refusals_without_a_country(asked: Asked, route: str) -> None:
    assert asked.refused(route) == "missing or incorrect probe_cc"


def circumvention(asked: Asked, today: date) -> list[Measured]:
    rows = window(asked.rows, today + relativedelta(months=-6), today - timedelta(days=1))
    return [row for row in rows if row.test in TOR_TESTS]


def test_circumvention_stats_by_country(asked: Asked, today: date) -> None:
    counts = grouped(circumvention(asked, today), lambda row: row.cc)
    expected = [{"probe_cc": cc, "cnt": len(rows)} for cc, rows in counts.items()]
    assert asked.json("circumvention_stats_by_country", cache=86400) == {"v": 0, "results": expected}
    lines = [f"{item['cnt']},{item['probe_cc']}" for item in expected]
    assert asked.csv("circumvention_stats_by_country") == "\r\n".join(["cnt,probe_cc", *lines, ""])


def percentile(values: list[float], part: float) -> float:
    """The value at this part of the way, between two values if need be."""
    values = sorted(values)
    place = (len(values) - 1) * part
    below = int(place)
    above = min(below + 1, len(values) - 1)
    return values[below] + (values[above] - values[below]) * (place - below)


def runtimes(rows: list[Measured]) -> list[dict[str, Any]]:
    rows = [row for row in rows if row.runtime is not None]
    groups = grouped(rows, lambda row: (row.day, row.test, row.cc))
    found = []
    for day in sorted({row.day for row in rows}):
        for test in sorted({row.test for row in rows}):
            for cc in sorted({row.cc for row in rows}):
                values = [row.runtime for row in groups.get((day, test, cc), []) if row.runtime is not None]
                v = [percentile(values, 0.5), percentile(values, 0.9), len(values)] if values else []
                found.append({"date": str(day), "test_name": test, "probe_cc": cc, "v": v})
    return found


def close(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "v": pytest.approx(item["v"], rel=1e-12, abs=1e-12)}


def test_circumvention_runtime_stats(asked: Asked, today: date) -> None:
    expected = runtimes(circumvention(asked, today))
    found = asked.json("circumvention_runtime_stats", cache=86400)
    assert found["v"] == 0
    assert found["results"] == [close(item) for item in expected]
    assert len(found) == 2
    assert any(item["v"] for item in expected)
    assert not all(item["v"] for item in expected)


def test_runtimes_as_csv(asked: Asked) -> None:
    header, *lines, end = asked.csv("circumvention_runtime_stats").split("\r\n")
    assert header == "count,date,p50,p90,probe_cc,test_name"
    assert end == ""
    expected = [item for item in runtimes(circumvention(asked, asked.today)) if item["v"]]
    assert len(lines) == len(expected)
    for line, item in zip(lines, expected, strict=True):
        count, day, p50, p90, cc, test = line.split(",")
        assert (day, test, cc) == (item["date"], item["test_name"], item["probe_cc"])
        assert [float(p50), float(p90), int(count)] == pytest.approx(item["v"], rel=1e-12, abs=1e-12)
