"""Reading measurements: the list with every filter, metadata, bodies."""

import gzip
import json
import shutil
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlsplit

import psycopg
import pytest

NOW = datetime.now(UTC).replace(tzinfo=None, microsecond=0)
DAY = timedelta(days=1)
PATH = "/api/v1/measurements"

RESULT_KEYS = {
    *("measurement_uid", "measurement_url", "report_id", "probe_cc", "probe_asn", "test_name"),
    *("measurement_start_time", "input", "anomaly", "confirmed", "failure", "scores"),
}
META_KEYS = {
    *("anomaly", "category_code", "confirmed", "failure", "input", "measurement_start_time", "measurement_uid"),
    *("probe_asn", "probe_cc", "report_id", "scores", "test_name", "test_start_time"),
}


def uid_at(when: datetime, number: int, cc: str = "IT", test: str = "webconnectivity") -> str:
    return f"{when:%Y%m%d%H%M%S}.{number:06d}_{cc}_{test}_{number:016x}"


def rid_at(when: datetime, number: int, cc: str = "IT", asn: int = 1234, test: str = "webconnectivity") -> str:
    return f"{when:%Y%m%dT%H%M%SZ}_{test}_{cc}_{asn}_n1_{number:016d}"


def make_rows() -> list[dict[str, Any]]:
    """Rows 0..11: newest first when sorted by start time; row 0 is the plain one, the others differ in one thing."""
    plain = {
        "input": "https://www.example.org/a",
        "domain": "www.example.org",
        "probe_cc": "IT",
        "probe_asn": 1234,
        "test_name": "web_connectivity",
        "test_name_other": None,
        "anomaly": False,
        "confirmed": False,
        "msm_failure": False,
        "software_version": "3.0.0",
        "test_version": "0.4.3",
        "engine_version": "3.0.0",
        "ooni_run_link_id": None,
        "scores": '{"blocking_general":0.0}',
    }
    differences: list[dict[str, Any]] = [
        {},
        {"probe_cc": "DE", "probe_asn": 3320, "anomaly": True, "scores": '{"blocking_general":1.0,"x":[1]}'},
        {"test_name": "ndt", "input": "", "domain": ""},
        {"test_name": None, "test_name_other": "never_heard_of", "input": "", "domain": ""},
        {"confirmed": True, "anomaly": True, "domain": "other.example", "input": "https://other.example/" + "x" * 3000},
        {"msm_failure": True, "software_version": "3.1.0", "test_version": "0.5", "engine_version": "3.1.0"},
        {"ooni_run_link_id": 18446744073709551615, "domain": "exämple.org:8080"},
        {"measurement_start_time": NOW - 40 * DAY},
        {"measurement_start_time": datetime(2035, 1, 1), "at": NOW - 3 * DAY},  # noqa: DTZ001 the column has no zone
        {"probe_cc": "ZZ"},
        {"probe_asn": 0},
        {"measurement_start_time": NOW.replace(microsecond=123000) - 20 * DAY, "scores": '{"n":1e400}'},
    ]
    rows = []
    for number, difference in enumerate(differences):
        row = {**plain, "measurement_start_time": NOW - timedelta(hours=number + 1), **difference}
        at = row.pop("at", row["measurement_start_time"])
        test = (row["test_name"] or row["test_name_other"]).replace("_", "")
        row["measurement_uid"] = uid_at(at, number, row["probe_cc"], test)
        row["report_id"] = rid_at(at, number, row["probe_cc"], row["probe_asn"], test)
        row["test_start_time"] = row["measurement_start_time"] - timedelta(seconds=60)
        rows.append(row)
    return rows


ROWS = make_rows()


def insert(dsn: str, rows: list[dict[str, Any]]) -> None:
    columns = list(rows[0])
    statement = f"INSERT INTO fastpath ({', '.join(columns)}) VALUES ({', '.join(['%s'] * len(columns))})"
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(statement, [[row[column] for column in columns] for row in rows])


@pytest.fixture(scope="module")
def filled(api: Any) -> Any:
    insert(api.dsn, ROWS)
    return api


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
        "next_url": "https://api.example.org/api/v1/measurements?probe_cc=IT&offset=1&limit=1",
        "offset": 0,
        "pages": -1,
    }
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
        ({"offset": 10**17}, []),
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
        ("category_code=NEWS", 400, "category_code"),
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


def test_paging_to_the_end(filled: Any) -> None:
    seen: list[str] = []
    url: str | None = f"{PATH}?limit=3&probe_asn=AS1234"
    pages = 0
    while url is not None:
        reply = filled.http.get(url).json()
        pages += 1
        assert reply["metadata"]["current_page"] == pages
        seen += [item["measurement_uid"] for item in reply["results"]]
        next_url = reply["metadata"]["next_url"]
        if next_url is None:
            assert reply["metadata"]["count"] == len(seen) == 7
            assert reply["metadata"]["pages"] == 3
            break
        assert (reply["metadata"]["count"], reply["metadata"]["pages"]) == (-1, -1)
        parts = urlsplit(next_url)
        assert (parts.netloc, parts.path) == ("api.example.org", PATH)
        assert parse_qs(parts.query)["probe_asn"] == ["AS1234"]
        url = f"{parts.path}?{parts.query}"
    assert len(set(seen)) == 7


def test_an_exact_multiple_ends_with_an_empty_page(filled: Any) -> None:
    reply = filled.http.get(PATH, params={"probe_cc": "DE", "limit": 1, "offset": 1}).json()
    assert reply["results"] == []
    assert (reply["metadata"]["count"], reply["metadata"]["pages"], reply["metadata"]["next_url"]) == (1, 1, None)


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


# metadata


def meta(api: Any, **params: object) -> Any:
    response = api.http.get("/api/v1/measurement_meta", params=params)
    assert response.status_code == 200, response.text
    reply = response.json()
    known = "test_name" in reply
    assert response.headers["cache-control"] == ("max-age=60" if known else "max-age=0, no-cache")
    return reply


@pytest.mark.parametrize("number", [1, 7, 8])
def test_meta_by_uid_and_by_report(filled: Any, number: int) -> None:
    row = ROWS[number]
    reply = meta(filled, measurement_uid=row["measurement_uid"])
    assert set(reply) == META_KEYS
    assert reply == {
        "anomaly": row["anomaly"],
        "category_code": "",
        "confirmed": False,
        "failure": False,
        "input": row["input"],
        "measurement_start_time": row["measurement_start_time"].isoformat() + "Z",
        "measurement_uid": row["measurement_uid"],
        "probe_asn": row["probe_asn"],
        "probe_cc": row["probe_cc"],
        "report_id": row["report_id"],
        "scores": row["scores"],
        "test_name": "web_connectivity",
        "test_start_time": row["test_start_time"].isoformat() + "Z",
    }
    assert meta(filled, report_id=row["report_id"], input=row["input"]) == reply


def test_meta_without_input(filled: Any) -> None:
    reply = meta(filled, report_id=ROWS[2]["report_id"])
    assert (reply["input"], reply["category_code"], reply["test_name"]) == ("", None, "ndt")
    assert meta(filled, report_id=ROWS[3]["report_id"])["test_name"] == "never_heard_of"
    assert meta(filled, report_id=ROWS[0]["report_id"]) == {}


def test_meta_of_nothing(filled: Any) -> None:
    unknown = uid_at(NOW, 999)
    assert meta(filled, measurement_uid=unknown) == {}
    assert meta(filled, measurement_uid=unknown, full="true") == {"raw_measurement": ""}
    assert meta(filled, measurement_uid=ROWS[10]["measurement_uid"]) == {}
    assert meta(filled, measurement_uid=ROWS[0]["measurement_uid"], full="1")["raw_measurement"] == ""


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("", "Invalid report_id"),
        ("report_id=x", "Invalid report_id field"),
        ("measurement_uid=x", "Invalid measurement_uid field"),
        ("measurement_uid=" + "1" * 101, "Invalid measurement_uid field"),
        ("measurement_uid=" + "%0A" * 20, "Invalid measurement_uid field"),
        (f"report_id={'x' * 20}&input=%3Cb%3E", "Invalid characters in input field"),
        ("report_id=%00", "Invalid characters"),
    ],
)
def test_meta_rejections(filled: Any, query: str, message: str) -> None:
    response = filled.http.get(f"/api/v1/measurement_meta?{query}")
    assert response.status_code == 400
    assert message in response.json()["error"]


# bodies

DOCUMENT = b'{ "test_name" : "web_connectivity",\n "n": 1.50, "dup":1, "dup":2, "u":"\\u00e9\xc3\xa9" }'


@pytest.fixture(scope="module")
def submitted(filled: Any) -> str:
    body = b'{"format":"json", "content": ' + DOCUMENT + b" }"
    uid: str = filled.submit(body, rid=rid_at(NOW, 77)).json()["measurement_uid"]
    return uid


def raw(api: Any, **params: object) -> Any:
    return api.http.get("/api/v1/raw_measurement", params=params)


def test_raw_from_the_first_moment_byte_for_byte(filled: Any, submitted: str) -> None:
    response = raw(filled, measurement_uid=submitted)
    assert response.status_code == 200
    assert response.content == DOCUMENT
    assert response.headers["content-type"] == "application/json"
    assert response.headers["cache-control"] == "max-age=86400"


def test_raw_by_report_id(filled: Any, submitted: str) -> None:
    row = {**ROWS[0], "measurement_uid": submitted, "report_id": rid_at(NOW, 77), "input": "https://a.example/<x>"}
    insert(filled.dsn, [row])
    response = raw(filled, report_id=row["report_id"], input=row["input"])
    assert response.content == DOCUMENT
    assert raw(filled, measurement_uid="short", report_id=row["report_id"], input=row["input"]).content == DOCUMENT
    unknown = uid_at(NOW, 4711)
    assert raw(filled, measurement_uid=unknown, report_id=row["report_id"], input=row["input"]).content == DOCUMENT
    assert raw(filled, report_id=row["report_id"]).json() == {}
    full = meta(filled, measurement_uid=submitted, full="true")
    assert full["raw_measurement"] == DOCUMENT.decode()
    assert json.loads(full["raw_measurement"])["n"] == 1.5


def test_raw_of_nothing(filled: Any) -> None:
    response = raw(filled, measurement_uid=uid_at(NOW, 999))
    assert (response.status_code, response.json()) == (200, {})
    assert response.headers["cache-control"] == "max-age=86400"
    response = raw(filled, measurement_uid=ROWS[0]["measurement_uid"])
    assert response.status_code == 500
    assert response.json() == {"error": "500 Internal Server Error: Measurement not found"}
    assert response.headers["cache-control"] == "no-cache"
    assert raw(filled, report_id=ROWS[10]["report_id"], input=ROWS[10]["input"]).json() == {}
    assert raw(filled, measurement_uid="01" + "0" * 38).json() == {}


@pytest.mark.parametrize("query", ["", "measurement_uid=x", "report_id=", "measurement_uid=../../etc/passwd"])
def test_raw_rejections(filled: Any, query: str) -> None:
    response = filled.http.get(f"/api/v1/raw_measurement?{query}")
    assert response.status_code == 400
    assert "Invalid report_id" in response.json()["error"]


def test_the_older_form(filled: Any, submitted: str) -> None:
    response = filled.http.get(f"/api/v1/measurement/{submitted}")
    assert response.content == DOCUMENT
    assert response.headers["cache-control"] == "max-age=3600"
    assert "content-disposition" not in response.headers
    response = filled.http.get(f"/api/v1/measurement/{submitted}?download=True")
    assert response.headers["content-disposition"] == f"attachment; filename=ooni_measurement-{submitted}.json"
    for unknown in (uid_at(NOW, 999), "x", "%00", "a%0d%0ab" * 3, "x" * 5000):
        response = filled.http.get(f"/api/v1/measurement/{unknown}")
        assert response.status_code == 400
        assert response.json() == {"error": "Incorrect or inexistent measurement_uid"}


def test_a_body_in_the_object_store(filled: Any) -> None:
    line = b'{"test_name":"ndt"}\n'
    packed = gzip.compress(line, mtime=0)
    name = "raw/20240101/00/IT/ndt/2024010100_IT_ndt.n1.0.jsonl.gz"
    path = filled.directory / "objects" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(b"something before" + packed)
    row = {**ROWS[2], "measurement_uid": uid_at(NOW - DAY, 555, test="ndt"), "report_id": rid_at(NOW - DAY, 555)}
    insert(filled.dsn, [row])
    with psycopg.connect(filled.dsn) as connection:
        connection.execute(
            "INSERT INTO jsonl (measurement_uid, report_id, input, s3path, linenum, member_offset, member_length)"
            " VALUES (%s, %s, '', %s, 0, 16, %s)",
            [row["measurement_uid"], row["report_id"], name, len(packed)],
        )
    before = filled.metric("api_body_source_total", source="store")
    assert raw(filled, measurement_uid=row["measurement_uid"]).content == line.strip()
    assert raw(filled, report_id=row["report_id"]).content == line.strip()
    assert filled.metric("api_body_source_total", source="store") == before + 2
    path.write_bytes(b"damaged" * 20)
    assert raw(filled, measurement_uid=row["measurement_uid"]).content == line.strip()  # from the cache
    assert filled.metric("api_body_source_total", source="store") == before + 3
    shutil.rmtree(filled.spool_dir / "cache")
    assert raw(filled, measurement_uid=row["measurement_uid"]).status_code == 500
    assert meta(filled, measurement_uid=row["measurement_uid"], full="true")["raw_measurement"] == ""
