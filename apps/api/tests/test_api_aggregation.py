"""The wire contract of aggregation: shapes, every message and status, both forms, limits."""

import csv
import io
import json
from datetime import datetime
from typing import Any

import psycopg
import pytest
from api_sample import ANOMALY, Sample
from flask import Flask
from flask.testing import FlaskClient

from api import aggregation
from fastpath.store import Store

PATH = "/api/v1/aggregation"
COUNTS = ["anomaly_count", "confirmed_count", "failure_count", "measurement_count", "ok_count"]
MONTH = "since=2024-01-01&until=2024-02-01"
WEEK = "since=2024-01-01&until=2024-01-08"
YEARS = "since=2023-01-01&until=2025-01-01"
DAY_AXIS = "axis_x=measurement_start_day"


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


SAMPLES = [
    Sample(at("2024-01-03 04:05"), 1),
    Sample(at("2024-01-03 04:59"), 2, scores=ANOMALY, anomaly=True),
    Sample(at("2024-01-03 04:05"), 3, cc="FR", asn=3215, anomaly=True, confirmed=True),
    Sample(at("2024-01-14 23:00"), 4, anomaly=True, confirmed=True, failure=True),
    Sample(at("2024-01-03 04:05"), 5, cc="ZZ", asn=0, test="ndt", input=""),
    Sample(at("2023-06-01 00:00"), 6, cc="IR", asn=44244, test="psiphon", input=""),
    Sample(at("2024-01-20 10:00"), 7, input="https://other.example:8443/", run_link=10001),
]


@pytest.fixture(scope="module")
def client(module_app: Flask, module_dsn: str) -> FlaskClient:
    store = Store(module_dsn)
    store.insert([sample.row() for sample in SAMPLES])
    store.close()
    return module_app.test_client()


def ask(client: FlaskClient, query: str) -> Any:
    response = client.get(f"{PATH}?{query}")
    assert response.status_code == 200, response.text
    reply = json.loads(response.text)
    assert response.text == json.dumps(reply, sort_keys=True, separators=(",", ":")) + "\n"
    return reply


def counts(ok: int = 0, anomaly: int = 0, confirmed: int = 0, failure: int = 0) -> dict[str, int]:
    values = (anomaly, confirmed, failure, ok + anomaly + confirmed + failure, ok)
    return dict(zip(COUNTS, values, strict=True))


def test_without_an_axis_the_result_is_an_object(client: FlaskClient) -> None:
    response = client.get(PATH)
    reply = ask(client, "")
    stats = reply.pop("db_stats")
    assert set(stats) == {"bytes", "elapsed_seconds", "row_count", "total_row_count"}
    assert stats["row_count"] > 0
    assert stats["elapsed_seconds"] > 0
    assert reply == {"dimension_count": 0, "result": counts(ok=4, anomaly=1, confirmed=1, failure=1), "v": 0}
    assert response.headers["Content-Type"] == "application/json"
    assert "Cache-Control" not in response.headers


@pytest.mark.parametrize(
    "query", ["probe_cc=XA", "since=2024-01-01&until=2023-01-01", "since=2024-01-01&until=2024-01-01"]
)
def test_nothing_is_zeros_or_an_empty_list(client: FlaskClient, query: str) -> None:
    assert ask(client, query)["result"] == counts()
    assert ask(client, f"{query}&axis_x=probe_cc")["result"] == []
    assert ask(client, f"{query}&axis_x=probe_cc&axis_y=domain")["dimension_count"] == 2


def test_one_axis_and_two(client: FlaskClient) -> None:
    reply = ask(client, f"{DAY_AXIS}&{MONTH}&probe_cc=IT")
    assert reply["dimension_count"] == 1
    assert reply["result"] == [
        {"measurement_start_day": "2024-01-03", **counts(ok=1, anomaly=1)},
        {"measurement_start_day": "2024-01-14", **counts(failure=1)},
        {"measurement_start_day": "2024-01-20", **counts(ok=1)},
    ]
    reply = ask(client, f"axis_x=probe_asn&axis_y=test_name&{WEEK}")
    assert reply["dimension_count"] == 2
    assert reply["result"] == [
        {"probe_asn": 0, "test_name": "ndt", **counts(ok=1)},
        {"probe_asn": 3215, "test_name": "web_connectivity", **counts(confirmed=1)},
        {"probe_asn": 30722, "test_name": "web_connectivity", **counts(ok=1, anomaly=1)},
    ]


def test_unknown_countries_and_networks_are_counted(client: FlaskClient) -> None:
    assert ask(client, "probe_cc=ZZ")["result"] == counts(ok=1)
    assert ask(client, "probe_asn=AS0")["result"] == counts(ok=1)


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("probe_cc=IT,FR", 5),
        ("probe_cc=IT&probe_cc=FR", 4),  # the first one counts
        ("probe_cc=,IT,,IT", 4),
        ("probe_asn=AS30722,3215", 5),
        ("test_name=ndt,psiphon,unheard_of", 2),
        ("test_name=unheard_of", 0),
        ("domain=www.example.org", 4),
        ("domain=other.example:8443,www.example.org", 5),
        ("input=https://other.example:8443/", 1),
        ("ooni_run_link_id=10001", 1),
        ("ooni_run_link_id=10001,10002", 1),
        ("ooni_run_link_id=99999999999999999999", 0),
        ("axis_x=&axis_y=&probe_cc=&probe_asn=&domain=&input=&category_code=&test_name=&ooni_run_link_id=", 7),
        ("data=analysis&loadTime=5&limit=1&time_grain=century", 7),
        ("since=2024-1-3&until=2024-1-4", 4),
        ("since=2024-01-03T04:05:00Z", 6),
        ("since=2024-01-03T04:05:01Z", 3),
        ("until=2024-01-03T05:05:00%2B01:00", 1),
        ("until=2024-01-03T04:05:00.000001", 4),
    ],
)
def test_filters(client: FlaskClient, query: str, number: int) -> None:
    assert ask(client, query)["result"]["measurement_count"] == number


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("axis_x=Probe_CC", "Invalid characters"),
        ("axis_x=probe_cc&axis_y=probe_cc", "Axis X and Y cannot be the same"),
        ("axis_x=measurement_start_day&axis_y=measurement_start_day", "Axis X and Y cannot be the same"),
        ("probe_cc=it", "Invalid characters"),
        ("probe_cc=I1", "Invalid characters"),
        ("probe_cc=ITA", "Invalid CC value in parameter probe_cc"),
        ("probe_cc=IT,F", "Invalid CC value in parameter probe_cc"),
        ("probe_asn=as1", "Invalid ASN value in parameter probe_asn"),
        ("probe_asn=AS1,x", "Invalid ASN value in parameter probe_asn"),
        ("probe_asn=AS4294967296", "Invalid ASN value in parameter probe_asn"),
        ("test_name=http2", "Invalid characters"),
        ("category_code=news", "Invalid characters"),
        ("input=<script>", "Invalid characters in input field"),
        ("domain=no_dot", "Invalid characters in domain field"),
        ("domain=www.example.org,a'b.org", "Invalid characters in domain field"),
        ("format=XML", "Invalid format; give JSON or CSV."),
        ("ooni_run_link_id=x", "Invalid ooni_run_link_id; give numbers with commas in between."),
        *((f"since={text}", None) for text in ("undefined", "", "yesterday", "2024-13-01")),
        *((f"until={text}&{DAY_AXIS}", None) for text in ("undefined", "", "10000-01-01")),
    ],
)
def test_what_cannot_be_read_is_told_with_status_200(client: FlaskClient, query: str, message: str | None) -> None:
    response = client.get(f"{PATH}?{query}&download=true&format=CSV" if "format" not in query else f"{PATH}?{query}")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "application/json"
    assert "Content-Disposition" not in response.headers
    if message is None:
        assert set(response.json) == {"error", "v"}
        assert response.json["error"].startswith(f"Invalid date in parameter {query[:5]}")
    else:
        assert response.json == {"error": message, "v": 0}


WINDOW = "Invalid since and until values"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("axis_x=scores", "Invalid axis name"),
        ("axis_y=_", "Invalid axis name"),
        (DAY_AXIS, WINDOW),
        (f"{DAY_AXIS}&since=2024-01-01", WINDOW),
        (f"{DAY_AXIS}&until=2024-01-01", WINDOW),
        ("axis_y=measurement_start_day&since=2024-01-02&until=2024-01-02", WINDOW),
        (f"{DAY_AXIS}&since=2024-01-02&until=2024-01-01", WINDOW),
        *(
            (
                f"{DAY_AXIS}&since=2024-01-01T00:00:00&until={until}&time_grain={grain}",
                f"Choose time_grain between {allowed} for the given time range",
            )
            for until, grains, allowed in (
                ("2024-01-08", ("week", "month", "year", "x"), "hour, day, auto"),
                ("2024-01-08T00:00:01", ("hour", "month", "year"), "day, week, auto"),
                ("2024-01-31", ("hour", "month", "year"), "day, week, auto"),
                ("2024-01-31T00:00:01", ("hour", "year"), "day, week, month, auto"),
                ("2024-12-31", ("hour", "year"), "day, week, month, auto"),
                ("2024-12-31T00:00:01", ("hour", "decade"), "day, week, month, year, auto"),
            )
            for grain in grains
        ),
    ],
)
def test_what_has_no_answer_is_a_400(client: FlaskClient, query: str, message: str) -> None:
    response = client.get(f"{PATH}?{query}")
    assert response.status_code == 400
    assert response.json == {"error": message, "v": 0}
    assert response.headers["Cache-Control"] == "no-cache"


@pytest.mark.parametrize(
    ("window", "grain", "buckets"),
    [
        (WEEK, "", ["2024-01-03T04:00:00Z"]),
        (WEEK, "auto", ["2024-01-03T04:00:00Z"]),
        (WEEK, "HOUR", ["2024-01-03T04:00:00Z"]),
        (WEEK, "Day", ["2024-01-03"]),
        (MONTH, "auto", ["2024-01-03", "2024-01-14", "2024-01-20"]),
        ("since=2024-01-03&until=2024-02-01", "week", ["2023-12-31", "2024-01-14"]),
        (MONTH, "month", ["2024-01-01"]),
        (YEARS, "", ["2023-06-01", "2024-01-03", "2024-01-14", "2024-01-20"]),
        (YEARS, "month", ["2023-06-01", "2024-01-01"]),
        (YEARS, "year", ["2023-01-01", "2024-01-01"]),
    ],
)
def test_grains(client: FlaskClient, window: str, grain: str, buckets: list[str]) -> None:
    result = ask(client, f"{DAY_AXIS}&{window}&time_grain={grain}")["result"]
    assert [each["measurement_start_day"] for each in result] == buckets


def test_rows_from_before_a_test_was_known(client: FlaskClient, module_dsn: str) -> None:
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            """INSERT INTO fastpath (measurement_uid, probe_cc, test_name_other, measurement_start_time, scores,
                   anomaly, confirmed, msm_failure)
               VALUES ('20190505000000.000001_IT_tor_0000000000000001', 'IT', 'tor', '2019-05-05 07:00', '{}', false,
                   false, false)"""
        )
    (found,) = ask(client, f"{DAY_AXIS}&since=2019-05-05&until=2019-05-06&time_grain=hour&test_name=tor,ndt")["result"]
    assert found == {"measurement_start_day": "2019-05-05T07:00:00Z", **counts(ok=1)}


def test_rows_of_a_test_that_the_schema_alone_knows(client: FlaskClient, module_dsn: str) -> None:
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        connection.execute("ALTER TYPE ootest ADD VALUE 'newer_test'")
        connection.execute(
            """INSERT INTO fastpath (measurement_uid, probe_cc, test_name, test_name_other, measurement_start_time,
                   scores, anomaly, confirmed, msm_failure)
               VALUES ('1', 'IT', 'newer_test', NULL, '2019-06-05 07:00', '{}', false, false, false),
                   ('2', 'IT', NULL, 'newer_test', '2019-06-05 07:00', '{}', false, false, false),
                   ('3', 'IT', NULL, 'other_test', '2019-06-05 07:00', '{}', false, false, false)"""
        )
    asked = f"{DAY_AXIS}&since=2019-06-05&until=2019-06-06&time_grain=hour"
    for names, count in (("newer_test", 2), ("newer_test,ndt", 2), ("newer_test,other_test", 3), ("none_such", 0)):
        result = ask(client, f"{asked}&test_name={names}")["result"]
        assert result == ([{"measurement_start_day": "2019-06-05T07:00:00Z", **counts(ok=count)}] if count else [])


def test_csv(client: FlaskClient) -> None:
    response = client.get(f"{PATH}?axis_x=test_name&axis_y=probe_cc&{WEEK}&format=csv")
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/csv"
    assert response.text == (
        "anomaly_count,confirmed_count,failure_count,measurement_count,ok_count,probe_cc,test_name\r\n"
        "0,0,0,1,1,ZZ,ndt\r\n"
        "0,1,0,1,0,FR,web_connectivity\r\n"
        "1,0,0,2,1,IT,web_connectivity\r\n"
    )
    header = "anomaly_count,confirmed_count,failure_count,measurement_count,ok_count"
    assert client.get(f"{PATH}?format=CSV").text == f"{header}\r\n1,1,1,7,4\r\n"
    assert client.get(f"{PATH}?format=CSV&probe_cc=XA").text == f"{header}\r\n0,0,0,0,0\r\n"
    assert client.get(f"{PATH}?format=CSV&probe_cc=XA&axis_x=domain").text == (
        "anomaly_count,confirmed_count,domain,failure_count,measurement_count,ok_count\r\n"
    )
    hourly = client.get(f"{PATH}?format=CSV&{DAY_AXIS}&{WEEK}&probe_cc=FR").text
    (line,) = csv.DictReader(io.StringIO(hourly, newline=""))
    assert line["measurement_start_day"] == "2024-01-03T04:00:00Z"


@pytest.mark.parametrize(
    ("query", "header"),
    [
        ("download=true", "attachment; filename=ooni-aggregate-data.json"),
        ("download=TRUE&format=CSV", "attachment; filename=ooni-aggregate-data.csv"),
        ("download=1", None),
        ("download=&format=CSV", None),
    ],
)
def test_download(client: FlaskClient, query: str, header: str | None) -> None:
    assert client.get(f"{PATH}?{query}").headers.get("Content-Disposition") == header


def test_the_same_answer_is_not_sent_again(client: FlaskClient) -> None:
    tag = client.get(f"{PATH}?axis_x=probe_cc").headers["ETag"]
    again = client.get(f"{PATH}?axis_x=probe_cc", headers={"If-None-Match": tag})
    assert (again.status_code, again.data) == (304, b"")
    assert client.get(f"{PATH}?axis_x=test_name", headers={"If-None-Match": tag}).status_code == 200


@pytest.mark.parametrize(
    ("domain", "good"),
    [
        *(
            (text, True)
            for text in ("a.example", "x_y.example.org:8080", "192.0.2.1", "192.0.2.1:80", "xn--e1a.xn--p1ai")
        ),
        *((text, True) for text in ("ä.example", "[2001:db8::1]:443", "[2001:db8::1]", "2001:db8::1")),
        *(
            (text, False)
            for text in ("example", "a.b", "a.1x3", "a..example", ".example.org", "-a.example.org", "192.0.2.256")
        ),
        *(
            (text, False)
            for text in ("a.example:port", "[192.0.2.1", "2001:db8::g", "a b.example", "https://a.example")
        ),
    ],
)
def test_domains(client: FlaskClient, domain: str, good: bool) -> None:
    response = client.get(PATH, query_string={"domain": domain})
    assert response.status_code == 200
    assert ("result" in response.json) == good
    if not good:
        assert response.json["error"] == "Invalid characters in domain field"


@pytest.mark.parametrize("route", ["observations", "analysis"])
def test_what_is_not_kept_says_where_counts_are(client: FlaskClient, route: str) -> None:
    response = client.get(f"{PATH}/{route}?group_by=timestamp&group_by=failure&{MONTH}")
    assert response.status_code == 404
    assert PATH in response.json["error"]


def test_too_many_combinations_are_refused_with_what_to_do(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregation, "MAX_COMBINATIONS", 3)
    assert len(ask(client, f"axis_x=probe_cc&{WEEK}")["result"]) == 3
    for form in ("JSON", "CSV"):
        response = client.get(
            f"{PATH}?{DAY_AXIS}&axis_y=probe_cc&{YEARS}&test_name=ndt,web_connectivity,psiphon&format={form}"
        )
        assert response.status_code == 400
        assert response.json["v"] == 0
        assert response.json["error"] == (
            "The result has more than 3 combinations of measurement_start_day and probe_cc. Narrow it: bring since and "
            "until closer together, or take a coarser time_grain, or filter by probe_cc or domain or probe_asn, or "
            "leave out an axis."
        )


def test_a_slow_question_is_told_how_to_ask_less(
    client: FlaskClient, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aggregation, "TIMEOUT_S", 0.05)
    with psycopg.connect(module_dsn) as blocker:
        blocker.execute("LOCK TABLE counters_month_country")
        response = client.get(f"{PATH}?axis_x=probe_cc")
    assert response.status_code == 504
    assert "took too long" in response.json["error"]
    assert "give since and until" in response.json["error"]


def test_one_question_about_rows_of_years_at_a_time(client: FlaskClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aggregation, "TURN_WAIT_S", 0.05)
    with aggregation._one_of_many_partitions:
        response = client.get(f"{PATH}?ooni_run_link_id=10001")
        assert response.status_code == 503
        assert response.headers["Retry-After"]
        assert ask(client, f"ooni_run_link_id=10001&{MONTH}")["result"]["measurement_count"] == 1
    assert ask(client, "ooni_run_link_id=10001")["result"]["measurement_count"] == 1


def test_a_query_that_fails_is_a_400(client: FlaskClient, module_dsn: str) -> None:
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        connection.execute("ALTER TABLE counters_month_country RENAME TO away")
        try:
            response = client.get(PATH)
        finally:
            connection.execute("ALTER TABLE away RENAME TO counters_month_country")
    assert response.status_code == 400
    assert response.json == {"error": "Database query error", "v": 0}
