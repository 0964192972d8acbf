"""Reading one measurement: metadata, bodies."""

import gzip
import json
import shutil
from typing import Any

import psycopg
import pytest
from measurement_rows import DAY, META_KEYS, NOW, RESULT_KEYS, ROWS, insert, rid_at, uid_at


@pytest.fixture(scope="module")
def filled(api: Any) -> Any:
    insert(api.dsn, ROWS)
    return api


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
        "verification_status": None,
    }
    assert meta(filled, report_id=row["report_id"], input=row["input"]) == reply


def test_meta_without_input(filled: Any) -> None:
    reply = meta(filled, report_id=ROWS[2]["report_id"])
    assert (reply["input"], reply["category_code"], reply["test_name"]) == ("", None, "ndt")
    assert meta(filled, report_id=ROWS[3]["report_id"])["test_name"] == "never_heard_of"
    assert meta(filled, report_id=ROWS[0]["report_id"]) == {}


LISTS = [
    ("https://lists.example/all", "it", "NEWS"),
    ("https://lists.example/all", "ZZ", "HUMR"),
    ("https://lists.example/all", "de", "GAME"),
    ("https://lists.example/global", "ZZ", "HUMR"),
    ("https://lists.example/global", "de", "GAME"),
    ("https://lists.example/elsewhere", "fr", "POLR"),
    ("https://lists.example/elsewhere", "us", "MILX"),
]


@pytest.mark.parametrize(
    ("number", "path", "category"),
    [(100, "all", "NEWS"), (101, "global", "HUMR"), (102, "elsewhere", "POLR"), (103, "nowhere", "")],
)
def test_the_category_is_that_of_the_nearest_list(filled: Any, number: int, path: str, category: str) -> None:
    with psycopg.connect(filled.dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES ('', %s, %s, %s) ON CONFLICT DO NOTHING",
            LISTS,
        )
    identity = {"measurement_uid": uid_at(NOW, number), "report_id": rid_at(NOW, number)}
    row = {**ROWS[0], **identity, "input": f"https://lists.example/{path}"}
    insert(filled.dsn, [row])
    by_uid = meta(filled, measurement_uid=row["measurement_uid"])
    assert by_uid["category_code"] == category
    assert meta(filled, report_id=row["report_id"], input=row["input"]) == by_uid


@pytest.mark.parametrize(
    ("stored", "shown"), [("t", "verified"), ("f", "failed"), ("u", "unverified"), ("", None), (None, None)]
)
def test_the_verification_is_the_same_everywhere(filled: Any, stored: str | None, shown: str | None) -> None:
    number = 400 + sum(map(ord, stored or "")) + (stored is None)
    identity = {"measurement_uid": uid_at(NOW, number), "report_id": rid_at(NOW, number)}
    insert(filled.dsn, [{**ROWS[0], **identity, "is_verified": stored}])
    assert meta(filled, measurement_uid=identity["measurement_uid"])["verification_status"] == shown
    listed = filled.http.get("/api/v1/measurements", params={"report_id": identity["report_id"]}).json()
    assert [item["verification_status"] for item in listed["results"]] == [shown]


@pytest.mark.parametrize(
    ("number", "flags"),
    [
        (300, {}),
        (301, {"anomaly": True}),
        (302, {"anomaly": True, "confirmed": True}),
        (303, {"confirmed": True}),
        (304, {"msm_failure": True}),
        (305, {"msm_failure": True, "anomaly": True, "confirmed": True}),
    ],
)
def test_the_fields_that_the_web_interface_reads(filled: Any, number: int, flags: dict[str, bool]) -> None:
    scores = {"blocking_general": 1.0, "analysis": {"blocking_type": "dns", "confirmed": bool(flags)}}
    identity = {"measurement_uid": uid_at(NOW, number), "report_id": rid_at(NOW, number)}
    row = {**ROWS[0], **identity, **flags, "scores": json.dumps(scores)}
    insert(filled.dsn, [row])
    (item,) = filled.http.get("/api/v1/measurements", params={"report_id": row["report_id"]}).json()["results"]
    single = meta(filled, measurement_uid=row["measurement_uid"], full="true")
    for found in (item, single):
        for key, column in (("anomaly", "anomaly"), ("confirmed", "confirmed"), ("failure", "msm_failure")):
            assert found[key] is flags.get(column, False)
        assert found["test_name"] == "web_connectivity"
        assert found["probe_cc"] == "IT"
        assert found["measurement_uid"] == row["measurement_uid"]
        assert found["report_id"] == row["report_id"]
        assert found["input"] == row["input"]
        assert found["measurement_start_time"] == row["measurement_start_time"].isoformat() + "Z"
        assert found["verification_status"] is None
    assert set(item) == RESULT_KEYS
    assert item["scores"]["analysis"]["blocking_type"] == "dns"
    assert item["probe_asn"] == "AS1234"
    assert set(single) == {*META_KEYS, "raw_measurement"}
    assert single["raw_measurement"] == ""
    assert json.loads(single["scores"]) == scores
    assert single["probe_asn"] == 1234


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
    assert response.headers["cache-control"] == "max-age=0, no-cache", "it may be there in a moment"
    response = raw(filled, measurement_uid=ROWS[0]["measurement_uid"])
    assert response.status_code == 500
    assert response.json() == {"error": "500 Internal Server Error: Measurement not found"}
    assert response.headers["cache-control"] == "no-cache"
    assert raw(filled, report_id=ROWS[10]["report_id"], input=ROWS[10]["input"]).json() == {}
    assert raw(filled, measurement_uid="01" + "0" * 38).json() == {}


@pytest.mark.parametrize(
    "query",
    [
        *("", "measurement_uid=x", "report_id=", "measurement_uid=../../etc/passwd"),
        "report_id=&input=https%3A%2F%2Fwww.example.org%2F",  # what a probe sends that knows no report id
    ],
)
def test_raw_rejections(filled: Any, query: str) -> None:
    response = filled.http.get(f"/api/v1/raw_measurement?{query}")
    assert response.status_code == 400
    assert "Invalid report_id" in response.json()["error"]
    assert response.headers["cache-control"] == "no-cache"


def test_files_and_the_way_to_the_documentation(filled: Any) -> None:
    response = filled.http.get("/api/v1/files")
    assert (response.status_code, response.json()) == (200, {"msg": "not implemented"})
    assert response.headers["cache-control"] == "max-age=86400"
    for path in ("/api/", "/api"):
        response = filled.http.get(path)
        assert response.status_code == 302
        assert response.headers["location"].endswith("/apidocs/")


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
