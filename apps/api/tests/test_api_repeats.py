"""A measurement that is sent again is answered with the uid it has, however far the first attempt came."""

import json
import shutil
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

UNREACHABLE = "host=/nonexistent dbname=ooni"
BODY = b'{"format":"json","content":{"test_name":"web_connectivity"}}'
OTHER_REPORT = "20240101T000000Z_webconnectivity_IE_34245_n1_ponmlkjihgfedcba"


@pytest.fixture(scope="module")
def alone(start_api: Callable[..., Any]) -> Any:
    """An API with two workers and without a database."""
    return start_api(UNREACHABLE, workers=2, threads=8)


def another(number: int) -> bytes:
    return BODY + b" " * number


def submit(api: Any, rid: str, body: bytes) -> str:
    """Post over a connection of its own, so that any worker may get it."""
    response = httpx.post(f"{api.url}/report/{rid}", content=body, timeout=30)
    assert response.status_code == 200, response.text
    uid: str = response.json()["measurement_uid"]
    return uid


def posts(api: Any, body: bytes) -> list[Path]:
    """Return the spool files that hold this body."""
    return [path for path in api.files() if path.suffix == ".post" and path.read_bytes().partition(b"\n")[2] == body]


def test_sent_again_it_has_the_same_uid_and_is_stored_once(alone: Any, rid: str) -> None:
    before = alone.metric("api_measurements_repeated_total", route="report", taken_by="this_host")
    uids = {submit(alone, rid, another(1)) for _ in range(10)}
    assert len(uids) == 1
    assert len(posts(alone, another(1))) == 1
    assert alone.metric("api_measurements_repeated_total", route="report", taken_by="this_host") == before + 9


def test_another_report_or_another_body_is_another_measurement(alone: Any, rid: str) -> None:
    uids = {submit(alone, report, another(number)) for report in (rid, OTHER_REPORT) for number in (2, 3)}
    assert len(uids) == 4


def test_at_the_same_time_on_several_workers_it_is_stored_once(alone: Any, rid: str) -> None:
    for number in range(10, 16):
        with ThreadPoolExecutor(16) as pool:
            uids = set(pool.map(lambda number: submit(alone, rid, another(number)), [number] * 16))
        assert len(uids) == 1
        assert len(posts(alone, another(number))) == 1


def test_after_it_was_archived_and_deleted_it_still_has_its_uid(alone: Any, rid: str) -> None:
    uid = submit(alone, rid, another(20))
    alone.spool.mark_scored([uid])
    alone.spool.remove_scored([uid])
    assert submit(alone, rid, another(20)) == uid
    assert posts(alone, another(20)) == []


def test_submissions_without_report_id_get_the_one_they_had(alone: Any) -> None:
    content = {"probe_cc": "IE", "probe_asn": "AS34245", "test_name": "ndt", "n": 1}

    def send(**changes: object) -> dict[str, Any]:
        document = {"format": "json", "content": json.dumps({**content, **changes})}
        reply: dict[str, Any] = httpx.post(f"{alone.url}/api/v1/submit_measurement", json=document).json()
        return reply

    first, second, third = send(), send(), send(n=2)
    assert first == second
    assert third["measurement_uid"] != first["measurement_uid"]
    assert third["report_id"] != first["report_id"]
    stored = alone.spool.read(first["measurement_uid"])
    assert stored.report_id == json.loads(stored.body)["content"]["report_id"] == first["report_id"]


def test_a_restart_forgets_nothing(start_api: Callable[..., Any], rid: str) -> None:
    api = start_api(UNREACHABLE)
    uid = submit(api, rid, BODY)
    api.restart()
    assert submit(api, rid, BODY) == uid


def test_what_a_power_cut_took_from_memory_comes_back_from_the_spool(start_api: Callable[..., Any], rid: str) -> None:
    api = start_api(UNREACHABLE)
    uids = [submit(api, rid, another(number)) for number in range(3)]
    api.spool.mark_scored(uids[:1])
    assert api.stop() == 0
    shutil.rmtree(api.spool_dir / "received")
    api.http = httpx.Client(base_url=api.url, timeout=30)
    api.start()
    deadline = time.monotonic() + 15
    while "remembered again" not in api.log():
        assert time.monotonic() < deadline, api.log()
        time.sleep(0.05)
    assert [submit(api, rid, another(number)) for number in range(3)] == uids


@pytest.mark.parametrize("point", ["api.after_claim", "api.after_put"])
def test_a_worker_killed_halfway_leaves_one_measurement(start_api: Callable[..., Any], rid: str, point: str) -> None:
    api = start_api(UNREACHABLE, workers=1, environment={"OONI_CRASH_AT": f"{point}:2"})
    submit(api, rid, another(1))
    with pytest.raises(httpx.TransportError):
        submit(api, rid, BODY)
    stored = posts(api, BODY)
    assert len(stored) == (1 if point == "api.after_put" else 0)
    deadline = time.monotonic() + 15
    while True:
        try:
            uid = submit(api, rid, BODY)
            break
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
    assert [path.stem for path in posts(api, BODY)] == [uid]
    assert submit(api, rid, BODY) == uid


def test_a_memory_that_cannot_be_written_refuses_nothing(start_api: Callable[..., Any], rid: str) -> None:
    api = start_api(UNREACHABLE)
    shutil.rmtree(api.spool_dir / "received", ignore_errors=True)
    (api.spool_dir / "received").write_text("in the way")
    api.restart()
    assert submit(api, rid, BODY) != submit(api, rid, BODY)
    assert len(posts(api, BODY)) == 2


def insert_row(dsn: str, uid: str, rid: str) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO fastpath (measurement_uid, report_id, input, domain, probe_cc, probe_asn, test_name,"
            " measurement_start_time, scores, anomaly, confirmed, msm_failure)"
            " VALUES (%s, %s, '', '', 'IE', 34245, 'web_connectivity', '2024-01-01', '{}', false, false, false)",
            [uid, rid],
        )


def test_another_host_that_scored_it_is_known_by_the_database(
    start_api: Callable[..., Any], module_dsn: str, rid: str
) -> None:
    first, second = (start_api(module_dsn, repeats_from_database=True) for _ in range(2))
    uid = submit(first, rid, BODY)
    insert_row(module_dsn, uid, rid)
    assert submit(second, rid, BODY) == uid
    assert posts(second, BODY) == []
    assert second.metric("api_measurements_repeated_total", route="report", taken_by="another_host") == 1
    assert submit(second, OTHER_REPORT, BODY) != uid
    assert submit(second, rid, another(1)) != uid


def test_a_database_that_is_away_delays_no_submission(start_api: Callable[..., Any], rid: str) -> None:
    api = start_api(UNREACHABLE, repeats_from_database=True)
    started = time.monotonic()
    uids = [submit(api, rid, another(number)) for number in range(10)]
    assert time.monotonic() - started < 8  # with the patience of readers the ten would take 30 s
    assert len(set(uids)) == 10
    assert submit(api, rid, another(0)) == uids[0]
