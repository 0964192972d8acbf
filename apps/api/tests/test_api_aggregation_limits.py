"""Bounds of aggregation: bytes of a result, large results at a time, what the database cannot hold, odd counters."""

import csv
import io
from datetime import datetime

import psycopg
import pytest
from api_sample import Sample
from flask import Flask
from flask.testing import FlaskClient

from api import aggregation, aggregation_body
from api.aggregation_question import Question
from api.aggregation_sql import statement
from api.conditions import equal_text
from fastpath.store import Store

PATH = "/api/v1/aggregation"
MONTH = "since=2024-01-01&until=2024-02-01"
INPUTS = f"{PATH}?axis_x=input&{MONTH}"
START = datetime(2024, 1, 3)  # noqa: DTZ001 UTC without a zone, as the column

URL = "https://a.example/"
LONG = [f"{URL}{digit * 30_000}" for digit in "123"]
BORDER = [f"{URL}{'x' * (length - len(URL))}" for length in (199, 200, 201, 202)]
ODD = ['https://odd.example/,"\r\n', "https://odd.example/\n", f"https://odd.example/{'😀' * 2000}"]


@pytest.fixture(scope="module")
def client(module_app: Flask, module_dsn: str) -> FlaskClient:
    store = Store(module_dsn)
    samples = [
        *(Sample(START, number, input=text, cc="IT") for number, text in enumerate(LONG)),
        *(Sample(START, 10 + number, input=text, cc="FR") for number, text in enumerate(BORDER)),
        *(Sample(START, 20 + number, input=text, cc="DE") for number, text in enumerate(ODD)),
        Sample(START, 30, test="torsf", input="", cc="ES"),
    ]
    store.insert([sample.row() for sample in samples])
    store.close()
    return module_app.test_client()


@pytest.mark.parametrize("form", ["JSON", "CSV"])
def test_a_result_of_too_many_bytes_is_refused_with_what_to_do(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    query = f"{INPUTS}&probe_cc=IT&format={form}"
    monkeypatch.setattr(aggregation, "MAX_BYTES", 91_000)
    whole = client.get(query)
    assert whole.status_code == 200
    assert 90_000 < len(whole.data) < 91_000
    monkeypatch.setattr(aggregation, "MAX_BYTES", 90_000)
    refused = client.get(query)
    assert refused.status_code == 400
    assert refused.json == {
        "error": "The result has more than 90000 bytes. Narrow it: bring since and until closer together, or filter by "
        "test_name or domain or probe_asn.",
        "v": 0,
    }


def test_bytes_count_as_they_are_sent(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "MAX_BYTES", 12 * 2000)  # an escape of 12 bytes for each of 2000 characters
    assert client.get(f"{INPUTS}&probe_cc=DE").status_code == 400
    monkeypatch.setattr(aggregation, "MAX_BYTES", 2 * 12 * 2000)
    assert len(client.get(f"{INPUTS}&probe_cc=DE").data) > 12 * 2000


def test_the_database_keeps_and_sends_no_more_than_may_be_sent(client: FlaskClient, module_dsn: str) -> None:
    asked = statement(Question(axes=("input",), countries=("IT",)), most=10)
    with psycopg.connect(module_dsn) as connection:
        for most_bytes, length in ((40_000, None), (91_000, 3)):
            sql = asked.as_lines("CSV", most_bytes=most_bytes).encode()
            (found,) = connection.execute(sql, asked.values).fetchall()
            lines, *counts = found
            assert counts == [3, 3]
            assert (None if lines is None else len(lines.splitlines())) == length


def test_csv_is_quoted_as_everybody_does(client: FlaskClient) -> None:
    text = client.get(f"{INPUTS}&probe_cc=DE&format=CSV").text
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert [row[3] for row in rows[1:]] == sorted(ODD, key=str.encode)
    written = io.StringIO(newline="")
    csv.writer(written).writerows(rows)
    assert text == written.getvalue()


@pytest.mark.parametrize(
    "query", [INPUTS, f"{INPUTS}&format=CSV", "/api/v1/torsf_stats"], ids=["json", "csv", "torsf_stats"]
)
def test_few_large_results_at_a_time(client: FlaskClient, monkeypatch: pytest.MonkeyPatch, query: str) -> None:
    monkeypatch.setattr(aggregation_body, "LARGE", 100)
    monkeypatch.setattr(aggregation_body, "TURN_WAIT_S", 0.05)
    with aggregation_body.turn(101), aggregation_body.turn(101):
        response = client.get(query)
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert client.get(f"{PATH}?probe_cc=XX&axis_x=input").status_code == 200  # a small one
    assert client.get(query).status_code == 200


def test_what_the_database_cannot_hold_is_refused_with_what_to_do(client: FlaskClient, module_dsn: str) -> None:
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE counters_month_country RENAME TO away")
        try:
            connection.execute(
                """CREATE FUNCTION too_long() RETURNS SETOF away LANGUAGE plpgsql AS
                    $$BEGIN RAISE program_limit_exceeded USING MESSAGE = 'as for a text of 1 GB'; END$$"""
            )
            connection.execute("CREATE VIEW counters_month_country AS SELECT * FROM too_long()")
            response = client.get(f"{PATH}?axis_x=probe_cc")
        finally:
            connection.execute("DROP FUNCTION IF EXISTS too_long CASCADE")
            connection.execute("ALTER TABLE away RENAME TO counters_month_country")
    assert response.status_code == 400
    assert response.json["error"].startswith("The result has more than the database can hold. Narrow it: give since")
    assert response.json["v"] == 0


def test_a_combination_below_zero_is_not_shown(client: FlaskClient, module_dsn: str) -> None:
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            """INSERT INTO counters_country (measurement_start_day, test_name, probe_cc, ok_count, measurement_count)
               VALUES ('2024-01-03', 'ndt', 'BE', -1, -1)"""
        )
    found = client.get(f"{PATH}?axis_x=probe_cc&axis_y=test_name&since=2024-01-03&until=2024-01-04").json["result"]
    assert {each["probe_cc"] for each in found} == {"DE", "ES", "FR", "IT"}


def test_counters_may_be_larger_than_four_bytes(client: FlaskClient, module_dsn: str) -> None:
    number = 2**40
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            """INSERT INTO counters_month_country (measurement_start_month, test_name, probe_cc, ok_count,
                   measurement_count)
               VALUES ('2023-01-01', 'ndt', 'NL', %(number)s, %(number)s)""",
            {"number": number},
        )
    (found,) = client.get(f"{PATH}?axis_x=probe_cc&probe_cc=NL").json["result"]
    assert (found["ok_count"], found["measurement_count"]) == (number, number)


@pytest.mark.parametrize("url", BORDER, ids=len)
def test_a_text_is_told_from_those_that_begin_with_it(client: FlaskClient, url: str) -> None:
    for query in (f"{MONTH}&axis_x=input", "axis_x=input"):
        (found,) = client.get(f"{PATH}?{query}&input={url}").json["result"]
        assert (found["input"], found["measurement_count"]) == (url, 1)


def test_a_short_text_is_one_condition_for_the_planner() -> None:
    assert equal_text("domain", "d", ["a.example"]).sql == "left(domain, 200) = %(d_start)s"
    assert equal_text("domain", "d", ["a" * 199, "b"]).sql == "left(domain, 200) = ANY(%(d_start)s)"
    assert equal_text("domain", "d", ["a" * 200]).sql == "left(domain, 200) = %(d_start)s AND domain = %(d)s"
