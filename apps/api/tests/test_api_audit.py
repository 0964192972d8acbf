"""The audit log: shown to admins alone, page by page, and harmless in a spreadsheet."""

import csv
import io
import json
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from people import account_id_of, signed_in_headers
from psycopg.types.json import Jsonb
from werkzeug.test import TestResponse

from api.audit_routes import COLUMNS, DEFAULT_LIMIT, MOST_LINES

PATH = "/api/v1/audit_log"
FIRST, SECOND = "1" * 32, "2" * 32

HOSTILE = (
    '=HYPERLINK("http://evil.example")',
    "+1+1",
    "-2+3",
    "@SUM(1)",
    "\t=1",
    "\r=1",
    "\n=1",
    "  =1",
    "＝1",
    '"quoted", and more',
    "two\r\nlines",
    "<script>alert(1)</script>",
    "\u202eevil",
    "',--",
)


@pytest.fixture(scope="module")
def lines(module_dsn: str) -> list[int]:
    """Lines of two accounts and of a host, of 2024-01-01 on, one a day; returns their numbers."""
    made = []
    with psycopg.connect(module_dsn) as connection:
        for day in range(12):
            account_id, via = [(FIRST, "session"), (SECOND, "token"), ("command", "command")][day % 3]
            row = connection.execute(
                """INSERT INTO audit_log (happened_at, account_id, role, via, action, subject, detail)
                    VALUES (timestamptz '2024-01-01 00:00Z' + make_interval(days => %s), %s, 'user', %s, %s, %s, %s)
                    RETURNING audit_id""",
                [day, account_id, via, ["thing.make", "thing.break"][day % 2], f"s{day % 4}", Jsonb({"day": day})],
            ).fetchone()
            assert row is not None
            made.append(row[0])
    return made


@pytest.fixture(scope="module")
def admin(module_app: Flask, module_dsn: str) -> dict[str, str]:
    return signed_in_headers(module_app, module_dsn, role="admin", email="admin@example.org")


@pytest.fixture
def client(module_app: Flask) -> FlaskClient:
    return module_app.test_client()


def ask(client: FlaskClient, admin: dict[str, str], query: str = "") -> TestResponse:
    return client.get(f"{PATH}?{query}", headers=admin)


def numbers(client: FlaskClient, admin: dict[str, str], query: str) -> list[int]:
    response = ask(client, admin, query)
    assert response.status_code == 200, response.text
    return [line["audit_id"] for line in response.json["results"]]


def test_admins_see_the_newest_first(client: FlaskClient, admin: dict[str, str], lines: list[int]) -> None:
    response = ask(client, admin)
    assert response.status_code == 200
    assert response.headers["Cache-Control"] == "max-age=0, no-cache, private"
    assert response.json["metadata"] == {"limit": DEFAULT_LIMIT, "next_url": None}
    results = response.json["results"]
    assert [line["audit_id"] for line in results] == lines[::-1]
    assert results[0] == {
        "audit_id": lines[11],
        "happened_at": "2024-01-12T00:00:00Z",
        "account_id": "command",
        "role": "user",
        "via": "command",
        "action": "thing.break",
        "subject": "s3",
        "detail": {"day": 11},
    }


def test_nobody_else_does(client: FlaskClient, module_app: Flask, module_dsn: str, lines: list[int]) -> None:
    assert client.get(PATH).json["error"] == "Authentication required"
    user = signed_in_headers(module_app, module_dsn, email="user@example.org")
    response = client.get(PATH, headers=user)
    assert (response.status_code, response.json["error"]) == (401, "Role not authorized")


def test_a_role_that_is_taken_away_counts_at_once(
    client: FlaskClient, module_app: Flask, module_dsn: str, lines: list[int]
) -> None:
    headers = signed_in_headers(module_app, module_dsn, role="admin", email="short@example.org")
    assert client.get(PATH, headers=headers).status_code == 200
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            "UPDATE accounts SET role = 'user' WHERE account_id = %s", [account_id_of(module_app, "short@example.org")]
        )
    assert client.get(PATH, headers=headers).status_code == 401


@pytest.mark.parametrize(
    ("query", "days"),
    [
        (f"account_id={FIRST}", [9, 6, 3, 0]),
        (f"account_id={SECOND}", [10, 7, 4, 1]),
        ("account_id=command", [11, 8, 5, 2]),
        (f"account_id={'3' * 32}", []),
        ("action=thing.make", [10, 8, 6, 4, 2, 0]),
        ("action=thing.mak", []),
        ("subject=s3", [11, 7, 3]),
        ("subject=S3", []),
        ("subject=%25", []),
        ("since=2024-01-10", [11, 10, 9]),
        ("until=2024-01-03", [1, 0]),
        ("since=2024-01-05&until=2024-01-06", [4]),
        ("since=2024-01-05T00:00:00.000001Z&until=2024-01-06T01:00:00Z", [5]),
        ("since=2024-01-05T02:00:00%2B02:00&until=2024-01-05T02:00:01%2B02:00", [4]),
        (f"account_id={FIRST}&action=thing.make&subject=s2", [6]),
        ("limit=2", [11, 10]),
        ("since=2025-01-01", []),
    ],
)
def test_filters(client: FlaskClient, admin: dict[str, str], lines: list[int], query: str, days: list[int]) -> None:
    assert numbers(client, admin, query) == [lines[day] for day in days]


@pytest.mark.parametrize("query", ["limit=5", f"limit=1&account_id={FIRST}", "limit=3&since=2024-01-02&subject=s1"])
def test_a_walk_misses_nothing_and_repeats_nothing(
    client: FlaskClient, admin: dict[str, str], module_dsn: str, lines: list[int], query: str
) -> None:
    """Also when lines are added meanwhile."""
    whole = numbers(client, admin, query.replace("limit=", "limit=9"))
    walked: list[int] = []
    address: str | None = f"{PATH}?{query}"
    with psycopg.connect(module_dsn, autocommit=True) as connection:
        while address is not None:
            page = client.get(address, headers=admin).json
            walked += [line["audit_id"] for line in page["results"]]
            assert len(walked) <= len(whole), "the walk does not get on"
            parts = urlsplit(page["metadata"]["next_url"] or "")
            address = f"{parts.path}?{parts.query}" if parts.path else None
            connection.execute(
                """INSERT INTO audit_log (account_id, role, via, action, subject)
                    VALUES (%s, 'user', 'token', 'x.y', 's1')""",
                [FIRST],
            )
        connection.execute("DELETE FROM audit_log WHERE action = 'x.y'")
    assert walked == whole


def test_the_last_full_page_has_no_next(client: FlaskClient, admin: dict[str, str], lines: list[int]) -> None:
    assert ask(client, admin, "limit=12").json["metadata"]["next_url"] is None
    assert ask(client, admin, "limit=11").json["metadata"]["next_url"].endswith(f"?limit=11&before={lines[1]}")


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("limit", ("0", "-1", "x", "", str(MOST_LINES + 1), "9" * 40, "1.5")),
        ("before", ("x", "1.5", "9" * 40)),
        ("account_id", ("x y", "A" * 32, "0" * 31, "admin@example.org", "é", "%00", "'--")),
        ("action", ("x", "x.y.z", "X.Y", "é.é", "x." + "y" * 51, "%ff", "x.*")),
        ("subject", ("x" * 501, "%00", "%ff")),
        ("since", ("", "yesterday", "x", "01-01")),
        ("until", ("", "tomorrow", "2024-13-01")),
        ("format", ("xml", "x")),
    ],
)
def test_what_is_wrong_is_named(
    client: FlaskClient, admin: dict[str, str], lines: list[int], name: str, values: tuple[str, ...]
) -> None:
    for value in values:
        response = ask(client, admin, f"{name}={value}")
        assert response.status_code == 400, f"{name}={value}: {response.text}"
        assert f"parameter {name}" in response.json["error"]


def read_csv(response: TestResponse) -> list[dict[str, str]]:
    assert response.status_code == 200, response.text
    assert response.headers["Content-Type"] == "text/csv"
    return list(csv.DictReader(io.StringIO(response.text, newline="")))


@pytest.mark.parametrize("spelling", ["CSV", "csv", "cSv"])
def test_the_same_lines_as_csv(client: FlaskClient, admin: dict[str, str], lines: list[int], spelling: str) -> None:
    response = ask(client, admin, f"limit=3&format={spelling}")
    assert response.text.splitlines()[0] == ",".join(sorted(COLUMNS))
    assert response.headers["Cache-Control"] == "max-age=0, no-cache, private"
    rows = read_csv(response)
    expected = ask(client, admin, "limit=3").json["results"]
    assert [{**row, "audit_id": int(row["audit_id"]), "detail": json.loads(row["detail"])} for row in rows] == expected


@pytest.mark.parametrize("column", ["subject", "action", "role"])
def test_no_cell_is_a_formula(
    client: FlaskClient, admin: dict[str, str], module_dsn: str, lines: list[int], column: str
) -> None:
    """Whatever ended up in a line: a cell is the same text, or the same text after an apostrophe."""
    with psycopg.connect(module_dsn) as connection:
        for text in HOSTILE:
            values: dict[str, Any] = {"role": "user", "action": "x.y", "subject": "s", column: text}
            connection.execute(
                """INSERT INTO audit_log (account_id, role, via, action, subject, detail)
                    VALUES ('hostile', %(role)s, 'session', %(action)s, %(subject)s, %(detail)s)""",
                {**values, "detail": Jsonb({"title": text})},
            )
    try:
        rows = read_csv(ask(client, admin, "account_id=hostile&format=CSV"))
        plain = ask(client, admin, "account_id=hostile").json["results"]
    finally:
        with psycopg.connect(module_dsn) as connection:
            connection.execute("DELETE FROM audit_log WHERE account_id = 'hostile'")
    assert [line[column] for line in plain] == list(reversed(HOSTILE)), "JSON has it as it is"
    assert [line["detail"]["title"] for line in plain] == list(reversed(HOSTILE))
    for row, text in zip(rows, reversed(HOSTILE), strict=True):
        assert row[column] in {text, f"'{text}"}
        for cell in row.values():
            assert cell.strip()[:1] not in {*"=+-@＝＋－＠"}, cell
        assert json.loads(row["detail"]) == {"title": text}
    formulas = [row[column] for row in rows if row[column].startswith("'")]
    assert len(formulas) == 10, "nine formulas, and one that has an apostrophe of its own"


def test_names_of_tokens_are_no_formulas_either(
    client: FlaskClient, admin: dict[str, str], module_app: Flask, module_dsn: str
) -> None:
    """From the request that a person sends to the cell that an admin opens."""
    email = "formula@example.org"
    user = signed_in_headers(module_app, module_dsn, email=email)
    name = '=cmd|"/c calc"!A1'
    assert client.post("/api/v1/access_tokens", json={"name": name}, headers=user).json["name"] == name
    account_id = account_id_of(module_app, email)
    (row,) = read_csv(ask(client, admin, f"account_id={account_id}&format=CSV"))
    assert json.loads(row["detail"])["name"] == name
    assert all(cell[:1] not in {*"=+-@"} for cell in row.values())
    with psycopg.connect(module_dsn) as connection:
        connection.execute("DELETE FROM audit_log WHERE account_id = %s", [account_id])


def test_a_log_that_takes_too_long_says_how_to_ask_for_less(
    client: FlaskClient, admin: dict[str, str], module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("api.audit_routes.TIMEOUT_S", 0.2)
    with psycopg.connect(module_dsn) as other:
        other.execute("LOCK TABLE audit_log IN ACCESS EXCLUSIVE MODE")
        response = ask(client, admin)
    assert response.status_code == 504
    assert "account_id" in response.json["error"]
