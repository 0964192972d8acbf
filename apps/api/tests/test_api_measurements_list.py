"""The list of measurements: shape, filters, orders, refusals."""

import json
import re
from typing import Any

import psycopg
import pytest
from measurement_rows import DAY, NOW, RESULT_KEYS, ROWS, insert

PATH = "/api/v1/measurements"


@pytest.fixture(scope="module")
def filled(api: Any) -> Any:
    insert(api.dsn, ROWS)
    with psycopg.connect(api.dsn) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)", LISTS)
    return api


LISTS = [
    ("www.example.org", "https://www.example.org/a", "ZZ", "NEWS"),
    ("www.example.org", "https://www.example.org/a", "it", "NEWS"),
    ("www.example.org", "https://www.example.org/a", "de", "HUMR"),
    ("www.example.org", "https://www.example.org/A", "ZZ", "POLR"),
    ("quiet.example", "https://quiet.example/", "ZZ", "MILX"),
]


def numbers(api: Any, **params: object) -> list[int]:
    """The numbers of the rows that a listing gives, in its order."""
    response = api.http.get(PATH, params=params)
    assert response.status_code == 200, response.text
    return [int(item["measurement_uid"].rpartition("_")[2], 16) for item in response.json()["results"]]


def test_shape(filled: Any) -> None:
    response = filled.http.get(PATH, params={"probe_cc": "IT", "limit": 1})
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=60"
    assert response.headers["content-type"] == "application/json"
    reply = response.json()
    assert response.text == json.dumps(reply, sort_keys=True, separators=(",", ":")) + "\n"
    query_time = reply["metadata"].pop("query_time")
    assert 0 < query_time < 10
    assert reply["metadata"] == {
        "count": -1,
        "current_page": 1,
        "limit": 1,
        "next_url": reply["metadata"]["next_url"],
        "offset": 0,
        "pages": -1,
    }
    next_url, _, cursor = reply["metadata"]["next_url"].rpartition("&cursor=")
    assert next_url == "https://api.example.org/api/v1/measurements?probe_cc=IT&offset=1&limit=1"
    assert re.fullmatch("[A-Za-z0-9_-]{20,400}", cursor)
    (item,) = reply["results"]
    assert set(item) == RESULT_KEYS
    row = ROWS[0]
    assert item == {
        "measurement_uid": row["measurement_uid"],
        "measurement_url": f"https://api.example.org/api/v1/raw_measurement?measurement_uid={row['measurement_uid']}",
        "report_id": row["report_id"],
        "probe_cc": "IT",
        "probe_asn": "AS1234",
        "test_name": "web_connectivity",
        "measurement_start_time": row["measurement_start_time"].isoformat() + "Z",
        "input": "https://www.example.org/a",
        "anomaly": False,
        "confirmed": False,
        "failure": False,
        "scores": {"blocking_general": 0.0},
        "verification_status": None,
    }


def test_default_window_and_order(filled: Any) -> None:
    # 7 is 40 days old, 8 is in the far future, 9 and 10 have no place.
    assert numbers(filled) == [0, 1, 2, 3, 4, 5, 6, 11]


@pytest.mark.parametrize(
    ("params", "expected"),
    [
        ({"probe_cc": "DE"}, [1]),
        ({"probe_cc": "DE,FR"}, [1]),
        ({"probe_cc": "FR"}, []),
        ({"probe_asn": "AS3320"}, [1]),
        ({"probe_asn": "3320"}, [1]),
        ({"probe_asn": "AS3320,1234"}, [0, 1, 2, 3, 4, 5, 6, 11]),
        ({"probe_asn": "4294967295"}, []),
        ({"test_name": "ndt"}, [2]),
        ({"test_name": "never_heard_of"}, [3]),
        ({"test_name": "ndt,never_heard_of,nope"}, [2, 3]),
        ({"test_name": "x" * 500}, []),
        ({"test_name": ""}, []),
        ({"domain": "other.example"}, [4]),
        ({"domain": "exämple.org:8080"}, [6]),
        ({"domain": "other.example,exämple.org:8080"}, [4, 6]),
        ({"input": "https://other.example/" + "x" * 3000}, [4]),
        ({"input": "https://other.example/" + "x" * 2999}, []),
        ({"input": "https://www.example.org/a", "domain": "other.example", "category_code": "NEWS"}, [0, 1, 5, 6, 11]),
        # In two lists with this category, but listed once.
        ({"category_code": "NEWS"}, [0, 1, 5, 6, 11]),
        ({"category_code": "NEWS", "domain": "exämple.org:8080"}, [6]),
        ({"category_code": "HUMR", "probe_cc": "IT"}, [0, 5, 6, 11]),
        ({"category_code": "POLR"}, []),
        ({"category_code": "MILX"}, []),
        ({"category_code": "GAME"}, []),
        ({"category_code": ""}, [0, 1, 2, 3, 4, 5, 6, 11]),
        ({"category_code": "NEWS", "report_id": ROWS[7]["report_id"]}, [7]),
        ({"confirmed": "true"}, [4]),
        ({"confirmed": "TRUE", "anomaly": "true"}, [4]),
        ({"anomaly": "true", "confirmed": "false"}, [1]),
        ({"failure": "1"}, [5]),
        ({"failure": "false", "probe_cc": "DE"}, [1]),
        ({"failure": ""}, [0, 1, 2, 3, 4, 5, 6, 11]),
        ({"software_version": "3.1.0"}, [5]),
        ({"software_version": "3.1.0,9"}, [5]),
        ({"test_version": "0.5"}, [5]),
        ({"engine_version": "3.1.0"}, [5]),
        ({"ooni_run_link_id": "18446744073709551615"}, [6]),
        ({"ooni_run_link_id": "99999999999999999999"}, []),
        ({"since": f"{NOW - 45 * DAY:%Y-%m-%d}", "until": f"{NOW - 35 * DAY:%Y-%m-%d}"}, [7]),
        ({"since": "2034-12-31", "until": "2035-01-01"}, [8]),
        ({"since": "2035-01-01", "until": "2035-01-02"}, []),
        ({"until": "2035-01-01T00:00:00Z"}, [8]),
        ({"since": "2300-01-01"}, []),
        ({"report_id": ROWS[7]["report_id"]}, [7]),
        ({"report_id": ROWS[8]["report_id"]}, [8]),
        ({"report_id": ROWS[8]["report_id"], "since": "2036-01-01"}, []),
        ({"report_id": "x" * 60}, []),
        ({"report_id": ROWS[9]["report_id"]}, []),
        ({"probe_cc": "IT", "order": "ASC"}, [11, 6, 5, 4, 3, 2, 0]),
        ({"order_by": "probe_asn", "order": "desc", "limit": 1}, [1]),
        ({"order_by": "PROBE_CC", "order": "asc", "limit": 1}, [1]),
        ({"order_by": "test_name", "order": "asc", "limit": 2}, [2, 3]),
        ({"order_by": "input", "order": "desc", "probe_cc": "IT", "limit": 2}, [0, 5]),
        ({"order_by": "input", "order": "asc", "probe_cc": "IT", "limit": 3}, [3, 2, 4]),
        ({"limit": 3, "offset": 6}, [6, 11]),
        ({"limit": 3, "offset": 8}, []),
        ({"offset": 10_000}, []),
        ({"loadTime": "x", "data": "y"}, [0, 1, 2, 3, 4, 5, 6, 11]),
    ],
)
def test_filters(filled: Any, params: dict[str, object], expected: list[int]) -> None:
    assert numbers(filled, **params) == expected


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ("probe_cc=ZZ", 403, "403 Forbidden"),
        ("probe_cc=IT,ZZ", 403, "403 Forbidden"),
        ("probe_asn=AS0", 403, "403 Forbidden"),
        ("probe_asn=0", 403, "403 Forbidden"),
        ("probe_asn=x", 400, "Invalid ASN value in parameter probe_asn"),
        ("order=up", 400, "Invalid order"),
        ("order_by=scores", 400, "Invalid field for ordering: "),
        ("order_by=measurement_uid;DROP", 400, "measurement_start_time"),
        ("limit=101", 400, "`limit` is only allowed up to 100"),
        ("limit=0", 400, "limit"),
        ("limit=-1", 400, "limit"),
        ("limit=", 400, "limit"),
        ("limit=1e1", 400, "limit"),
        ("offset=-1", 400, "offset"),
        ("offset=99999999999999999999", 400, "offset"),
        ("since=", 400, "Invalid date"),
        ("since=undefined&until=undefined", 400, "Invalid date"),
        ("until=yesterday", 400, "Invalid date"),
        ("until=0001-01-02", 400, "Invalid date"),
        ("report_id=short", 400, "Invalid report_id field"),
        ("report_id=" + "x" * 200, 400, "Invalid report_id field"),
        ("category_code=News", 400, "category_code"),
        ("category_code=NEWS,HUMR", 400, "category_code"),
        ("offset=10001", 400, "next_url"),
        ("offset=999999999999999999", 400, "next_url"),
        ("ooni_run_link_id=x", 400, "ooni_run_link_id"),
        ("anomaly=maybe", 400, "anomaly"),
        ("probe_cc=%C3%96sterreich", 400, "Invalid CC value in parameter probe_cc"),
        ("probe_cc=%27%3B--", 400, "Invalid CC value in parameter probe_cc"),
        ("probe_asn=9999999999", 400, "Invalid ASN value in parameter probe_asn"),
        ("domain=%00", 400, "Invalid characters in parameter domain"),
        ("input=a%00b", 400, "Invalid characters in parameter input"),
        ("domain=%ff%fe", 400, "Invalid characters in parameter domain"),
        ("input=%ed%a0%80", 400, "Invalid characters in parameter input"),
        ("unknown=%c3", 400, "Invalid characters in parameter unknown"),
        ("domain=" + "x" * 600, 400, "parameter domain"),
        ("%00=1", 400, "Invalid characters"),
        ("domain=" + "%2C".join(f"d{n}" for n in range(300)), 400, "domain"),
    ],
)
def test_rejections(filled: Any, query: str, status: int, message: str) -> None:
    response = filled.http.get(f"{PATH}?{query}")
    assert response.status_code == status
    assert message in response.json()["error"]
    assert response.headers["access-control-allow-origin"] == "*"
    assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize(
    "query",
    [
        *("domain=%F0%9F%92%A9", "test_name=%25s"),
        *("input=" + "%C3%A4" * 1000, "software_version=%5C", "since=2021-7-9&until=2021-7-10"),
    ],
)
def test_hostile_values_give_an_empty_list(filled: Any, query: str) -> None:
    response = filled.http.get(f"{PATH}?{query}")
    assert response.status_code == 200, response.text
    assert response.json()["results"] == []


def test_times_input_and_numbers(filled: Any) -> None:
    items = {
        int(item["measurement_uid"].rpartition("_")[2], 16): item for item in filled.http.get(PATH).json()["results"]
    }
    assert items[2]["input"] is None
    assert items[11]["measurement_start_time"].endswith(".123000Z")
    assert items[11]["scores"] == {"n": None}
    assert items[1]["scores"] == {"blocking_general": 1.0, "x": [1]}


def test_old_android_apps_get_their_dummy(filled: Any) -> None:
    response = filled.http.get(f"{PATH}?limit=x&since=%00", headers={"user-agent": "okhttp/3.12.1"})
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert response.json() == {
        "metadata": {
            "count": 1,
            "current_page": 1,
            "limit": 100,
            "next_url": None,
            "offset": 0,
            "pages": 1,
            "query_time": 0.001,
        },
        "results": [{"measurement_url": ""}],
    }
