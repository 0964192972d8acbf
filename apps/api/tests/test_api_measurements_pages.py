"""Pages of the list: walks by cursor are complete while rows come in, bounds of offsets, cursors that are none."""

import base64
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, quote_plus, urlsplit

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import given, settings
from hypothesis import strategies as st
from list_sample import ROW, SMALL_STEPS, TIMES, clear, is_listed, set_steps, write

from api import measurement_list
from api.cursor import Cursor
from api.list_order import ORDER_COLUMNS, Order, Position

PATH = "/api/v1/measurements"
ALL_TIME = {"since": "0001-01-01", "until": "9999-12-31"}
WINDOWS = (ALL_TIME, {"since": "2014-02-01", "until": "2014-03-31"}, {"since": "2012-11-30", "until": "2023-02-01"})
PLAIN: dict[str, Any] = {
    "input": "",
    "domain": "",
    "probe_cc": "IT",
    "probe_asn": 1,
    "test": "ndt",
    "measurement_start_time": TIMES[5],
    "anomaly": False,
    "confirmed": False,
    "msm_failure": False,
}


@pytest.fixture(scope="module")
def client(module_app: Flask) -> FlaskClient:
    return module_app.test_client()


@pytest.fixture(scope="module")
def database(module_dsn: str) -> Iterator[psycopg.Connection]:
    with psycopg.connect(module_dsn) as connection:
        yield connection


@pytest.fixture(scope="module")
def module_patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as patch:
        yield patch


def page(client: FlaskClient, url: str, params: dict[str, Any] | None = None) -> tuple[list[str], dict[str, Any]]:
    response = client.get(url, query_string=params)
    assert response.status_code == 200, response.text
    reply = response.get_json()
    return [item["measurement_uid"] for item in reply["results"]], reply["metadata"]


def local(next_url: str) -> str:
    parts = urlsplit(next_url)
    return f"{parts.path}?{parts.query}"


def in_order(connection: psycopg.Connection, order: Order, uids: set[str]) -> list[str]:
    """These rows as the database sorts them."""
    value = "NULL::text" if order.by_time else order.on_rows
    direction = order.direction
    found = connection.execute(
        f"SELECT measurement_uid FROM fastpath WHERE measurement_uid = ANY(%s)"
        f" ORDER BY {value} {direction}, measurement_start_time {direction}, measurement_uid {direction}".encode(),
        [list(uids)],
    ).fetchall()
    connection.commit()
    return [uid for (uid,) in found]


@pytest.mark.parametrize("direction", ["asc", "desc"])
@pytest.mark.parametrize("column", ORDER_COLUMNS)
@given(
    rows=st.lists(ROW, min_size=1, max_size=25),
    arrivals=st.lists(ROW, min_size=1, max_size=10),
    limit=st.integers(1, 7),
    filters=st.sampled_from([{}, {"failure": "false"}, {"probe_cc": "IT,DE"}]),
    steps=SMALL_STEPS,
    window=st.sampled_from(WINDOWS),
)
@settings(max_examples=20, derandomize=True)
def test_a_walk_gives_every_row_once_while_others_come_in(
    client: FlaskClient,
    database: psycopg.Connection,
    module_patch: pytest.MonkeyPatch,
    column: str,
    direction: str,
    rows: list[dict[str, Any]],
    arrivals: list[dict[str, Any]],
    limit: int,
    filters: dict[str, str],
    steps: dict[str, int],
    window: dict[str, str],
) -> None:
    clear(database)
    since, until = (datetime.fromisoformat(window[key]) for key in ("since", "until"))
    uids = write(database, rows)
    expected = {
        uid
        for uid, row in zip(uids, rows, strict=True)
        if is_listed(row)
        and since < row["measurement_start_time"] <= until
        and not ("failure" in filters and row["msm_failure"])
        and not ("probe_cc" in filters and row["probe_cc"] not in filters["probe_cc"])
    }
    set_steps(module_patch, steps)
    asked = {**window, **filters, "order_by": column, "order": direction, "limit": limit}
    seen, metadata = page(client, PATH, asked)
    number = len(rows)
    while metadata["next_url"] is not None:
        assert len(seen) == metadata["offset"] + limit
        if arrivals:
            write(database, [arrivals.pop()], first=number)
            number += 1
        more, metadata = page(client, local(metadata["next_url"]))
        assert more
        seen += more
    assert metadata["count"] == len(seen) == len(set(seen))
    assert set(seen) >= expected
    assert seen == in_order(database, Order(column, direction == "desc"), set(seen))


@pytest.mark.parametrize("column", ORDER_COLUMNS)
def test_pages_by_offset_are_those_by_cursor(client: FlaskClient, database: psycopg.Connection, column: str) -> None:
    clear(database)
    write(database, [{**PLAIN, "probe_asn": 1 + n % 3, "measurement_start_time": TIMES[n % 9]} for n in range(20)])
    asked = {**ALL_TIME, "order_by": column, "limit": 6}
    by_offset = [page(client, PATH, {**asked, "offset": offset})[0] for offset in range(0, 24, 6)]
    by_cursor, metadata = page(client, PATH, asked)
    pages = [by_cursor]
    while metadata["next_url"] is not None:
        found, metadata = page(client, local(metadata["next_url"]))
        pages.append(found)
    assert by_offset == pages
    assert [len(found) for found in pages] == [6, 6, 6, 2]


def test_the_metadata_of_pages(client: FlaskClient, database: psycopg.Connection) -> None:
    clear(database)
    write(database, [PLAIN] * 6)
    asked = {**ALL_TIME, "limit": "2", "probe_cc": "IT", "x": "ä&="}
    url: str | None = PATH
    for offset in (0, 2, 4):
        assert url is not None
        found, metadata = page(client, url, asked if url == PATH else None)
        assert len(found) == 2
        assert (metadata["offset"], metadata["limit"], metadata["current_page"]) == (offset, 2, offset / 2 + 1)
        if offset == 4:  # the last page is known to be the last, although it is full
            assert (metadata["count"], metadata["pages"], metadata["next_url"]) == (6, 3, None)
            break
        assert (metadata["count"], metadata["pages"]) == (-1, -1)
        parts = urlsplit(metadata["next_url"])
        assert f"{parts.scheme}://{parts.netloc}{parts.path}" == f"http://127.0.0.1:8000{PATH}"
        given_on = parse_qs(parts.query)
        assert len(given_on.pop("cursor")) == 1
        assert given_on == {**{key: [value] for key, value in asked.items()}, "offset": [str(offset + 2)]}
        url = local(metadata["next_url"])
    beyond = page(client, PATH, {**asked, "offset": 6})
    assert (beyond[0], beyond[1]["count"], beyond[1]["next_url"]) == ([], 6, None)


@pytest.mark.parametrize("letters", ["/?=,:@", "a", "é&+ ;"])
def test_the_next_page_can_be_asked_for_or_the_query_is_refused(
    client: FlaskClient, database: psycopg.Connection, letters: str
) -> None:
    clear(database)
    write(database, [PLAIN] * 3)
    statuses = set()
    for length in (100, 2600, 7000, 7900, 8100):
        written = len(quote_plus(letters, safe="/?=,:@"))
        given = dict.fromkeys("xy", letters * (length // 2 // written))
        asked = {**ALL_TIME, **given, "limit": "1", "probe_cc": "IT"}
        response = client.get(PATH, query_string=asked)
        statuses.add(response.status_code)
        if response.status_code == 400:
            assert "Shorten" in response.get_json()["error"]
            continue
        parts = urlsplit(response.get_json()["metadata"]["next_url"])
        assert len(f"GET {parts.path}?{parts.query} HTTP/1.1") <= 8190
        assert {name: parse_qs(parts.query)[name] for name in given} == {name: [text] for name, text in given.items()}
        assert page(client, local(parts.geturl()))[0]
    assert statuses == {200, 400}


def test_a_walk_over_midnight_stays_in_its_window(
    client: FlaskClient, database: psycopg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    today = measurement_list._tomorrow()
    oldest = today - timedelta(days=30) + timedelta(hours=1)
    times = [oldest, oldest + timedelta(hours=1), today - timedelta(days=3), today - timedelta(days=2)]
    clear(database)
    uids = write(database, [{**PLAIN, "measurement_start_time": time} for time in times])
    for direction in ("asc", "desc"):
        monkeypatch.setattr(measurement_list, "_tomorrow", lambda: today)
        seen, metadata = page(client, PATH, {"limit": 1, "order": direction})
        monkeypatch.setattr(measurement_list, "_tomorrow", lambda: today + timedelta(days=1))
        while metadata["next_url"] is not None:
            more, metadata = page(client, local(metadata["next_url"]))
            seen += more
        assert seen == (uids if direction == "asc" else uids[::-1])
    assert len(page(client, PATH)[0]) == 2  # a walk that begins now has the new window
    for uid in uids:
        database.execute("DELETE FROM fastpath WHERE measurement_uid = %s", [uid])
    database.commit()


def test_offsets_are_bounded_unless_there_is_a_cursor(client: FlaskClient, database: psycopg.Connection) -> None:
    clear(database)
    write(database, [PLAIN] * 3)
    response = client.get(PATH, query_string={"offset": 10_001})
    assert response.status_code == 400
    assert "next_url" in response.get_json()["error"]
    _, metadata = page(client, PATH, {**ALL_TIME, "limit": 1})
    cursor = parse_qs(urlsplit(metadata["next_url"]).query)["cursor"][0]
    found, metadata = page(client, PATH, {**ALL_TIME, "limit": 1, "offset": 5_000_000, "cursor": cursor})
    assert len(found) == 1
    assert (metadata["offset"], metadata["current_page"]) == (5_000_000, 5_000_001)
    assert "offset=5000001&" in metadata["next_url"]


CURSOR = Cursor(Position(None, TIMES[5], "0" * 20), None, None)
BY_TIME = Order("measurement_start_time", descending=True)


def encoded(*fields: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(fields).encode()).decode().rstrip("=")


@pytest.mark.parametrize(
    "cursor",
    [
        *("x", "====", "é", "a b", "%00", "x" * 5000, encoded(), encoded(1), base64.urlsafe_b64encode(b"7").decode()),
        CURSOR.encode(BY_TIME)[:-4],
        encoded(2, "measurement_start_time", "DESC", None, "2020-01-01T00:00:00", "u", None, None),
        encoded(1, "measurement_start_time", "DESC", "v", "2020-01-01T00:00:00", "u", None, None),
        encoded(1, "measurement_start_time", "DESC", None, "2020-01-01T00:00:00Z", "u", None, None),
        encoded(1, "measurement_start_time", "DESC", None, "yesterday", "u", None, None),
        encoded(1, "measurement_start_time", "DESC", None, 5, "u", None, None),
        encoded(1, "measurement_start_time", "DESC", None, "2020-01-01T00:00:00", "\x00", None, None),
        encoded(1, "measurement_start_time", "DESC", None, "2020-01-01T00:00:00", "\ud800", None, None),
        encoded(1, "measurement_start_time", "DESC", None, "2020-01-01T00:00:00", None, None, None),
        encoded(1, "measurement_start_time", "DESC", None, "2020-01-01T00:00:00", "u", None, "x"),
        "W" * 3000,
        base64.urlsafe_b64encode(b"[" * 2900).decode(),
    ],
)
def test_what_is_no_cursor_is_refused(client: FlaskClient, cursor: str) -> None:
    response = client.get(PATH, query_string={"cursor": cursor})
    assert response.status_code == 400
    assert "Start again from the first page" in response.get_json()["error"]


@pytest.mark.parametrize(
    ("column", "value"),
    [
        *[("probe_asn", None), ("probe_asn", "1"), ("probe_asn", 2**63), ("probe_asn", -1), ("probe_asn", True)],
        *[("input", None), ("input", 1), ("input", "x" * 201), ("probe_cc", "\x00"), ("test_name", ["x"])],
    ],
)
def test_values_of_cursors_are_checked(client: FlaskClient, column: str, value: object) -> None:
    cursor = encoded(1, column, "ASC", value, "2020-01-01T00:00:00", "u", None, None)
    response = client.get(PATH, query_string={"cursor": cursor, "order_by": column, "order": "asc"})
    assert response.status_code == 400
    assert "Start again from the first page" in response.get_json()["error"]


@pytest.mark.parametrize("other", [{"order": "asc"}, {"order_by": "input"}, {"order_by": "probe_asn", "order": "asc"}])
def test_a_cursor_belongs_to_its_order(client: FlaskClient, other: dict[str, str]) -> None:
    cursor = CURSOR.encode(BY_TIME)
    assert client.get(PATH, query_string={"cursor": cursor, "order": "DESC"}).status_code == 200
    response = client.get(PATH, query_string={"cursor": cursor, **other})
    assert response.status_code == 400
    assert "belongs to another order_by or order" in response.get_json()["error"]


@given(text=st.binary(max_size=60), value=st.none() | st.integers() | st.text(max_size=30), when=st.datetimes())
@settings(max_examples=60, derandomize=True)
def test_no_cursor_breaks_the_list(client: FlaskClient, text: bytes, value: object, when: datetime) -> None:
    made_up = encoded(1, "input", "DESC", value, when.isoformat(), "u", None, when.isoformat())
    for cursor in (base64.urlsafe_b64encode(text).decode(), made_up):
        response = client.get(PATH, query_string={"cursor": cursor, "order_by": "input"})
        assert response.status_code in {200, 400}, response.text
