"""Statistics of Tor through Snowflake: rows, bounds, caching, errors."""

from datetime import UTC, datetime, timedelta

import psycopg
import pytest
from api_sample import Sample
from flask import Flask
from flask.testing import FlaskClient

from api import aggregation
from fastpath.store import Store

PATH = "/api/v1/torsf_stats"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


SAMPLES = [
    Sample(at("2024-01-01 00:00:00"), 1, test="torsf", input=""),
    Sample(at("2024-01-01 00:00:01"), 2, test="torsf", input="", anomaly=True),
    Sample(at("2024-01-01 23:00:00"), 3, test="torsf", input="", anomaly=True),
    Sample(at("2024-01-01 23:00:00"), 4, test="torsf", input="", cc="ZZ", asn=0, failure=True),
    Sample(at("2024-01-02 00:00:00"), 5, test="torsf", input="", cc="FR", confirmed=True),
    Sample(at("2024-01-02 00:00:00"), 6, test="tor", input=""),
]


@pytest.fixture(scope="module")
def client(module_app: Flask, module_dsn: str) -> FlaskClient:
    store = Store(module_dsn)
    store.insert([sample.row() for sample in SAMPLES])
    store.close()
    return module_app.test_client()


def entry(day: str, cc: str, rate: float, *counts: int) -> dict[str, object]:
    names = ("anomaly_count", "confirmed_count", "failure_count", "measurement_count")
    return {**dict(zip(names, counts, strict=True)), "anomaly_rate": rate, "measurement_start_day": day, "probe_cc": cc}


def test_days_and_countries(client: FlaskClient) -> None:
    response = client.get(PATH)
    assert response.status_code == 200
    assert response.json == {
        "result": [
            entry("2024-01-01", "IT", 2 / 3, 2, 0, 0, 3),
            entry("2024-01-01", "ZZ", 0.0, 0, 0, 1, 1),
            entry("2024-01-02", "FR", 0.0, 0, 1, 0, 1),
        ],
        "v": 0,
    }
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize(
    ("query", "numbers"),
    [
        ("probe_cc=IT", [3]),
        ("probe_cc=FR,ZZ", [1, 1]),
        ("probe_cc=DE", []),
        ("probe_cc=", [3, 1, 1]),
        ("since=2024-01-01", [2, 1, 1]),  # later than midnight
        ("since=2024-01-01T00:00:01", [1, 1, 1]),
        ("until=2024-01-02", [3, 1, 1]),  # midnight is part of it
        ("until=2024-01-01T23:59:59", [3, 1]),
        ("until=2024-01-01", [1]),
        ("since=2024-01-01&until=2024-01-01", []),
        ("since=2024-01-02&until=2024-01-01", []),
        ("since=9999-12-31T23:59:59.999999", []),
        ("until=9999-12-31T23:59:59.999999", [3, 1, 1]),
    ],
)
def test_since_is_exclusive_and_until_inclusive(client: FlaskClient, query: str, numbers: list[int]) -> None:
    response = client.get(f"{PATH}?{query}")
    assert response.status_code == 200
    assert [each["measurement_count"] for each in response.json["result"]] == numbers


@pytest.mark.parametrize(("hours_ago", "cached"), [(71, False), (73, True)])
def test_only_what_is_settled_may_be_kept(client: FlaskClient, hours_ago: int, *, cached: bool) -> None:
    until = (datetime.now(UTC) - timedelta(hours=hours_ago)).strftime("%Y-%m-%dT%H:%M:%S")
    response = client.get(f"{PATH}?until={until}")
    assert response.headers.get("Cache-Control") == ("max-age=86400" if cached else None)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("probe_cc=it", "Invalid characters in parameter probe_cc"),
        ("probe_cc=ITA", "Invalid CC value in parameter probe_cc"),
        ("since=undefined", "Invalid date in parameter since"),
        ("until=", "Invalid date in parameter until"),
    ],
)
def test_errors(client: FlaskClient, query: str, message: str) -> None:
    response = client.get(f"{PATH}?{query}")
    assert response.status_code == 400
    assert response.json["error"].startswith(message)
    assert response.json["v"] == 0


def test_errors_of_the_database_have_the_version_too(
    client: FlaskClient, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregation, "TIMEOUT_S", 0.05)
    with psycopg.connect(module_dsn) as blocker:
        blocker.execute("LOCK TABLE counters_country")
        response = client.get(PATH)
    assert response.status_code == 504
    assert "took too long" in response.json["error"]
    assert response.json["v"] == 0
