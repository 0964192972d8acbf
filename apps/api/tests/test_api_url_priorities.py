"""Changing the rules of URL priorities: what is refused, two admins at once, and that workers notice."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask import Flask
from people import signed_in_headers
from werkzeug.test import TestResponse

from api.url_queries import UrlQueries
from api.url_selection import UrlSelection

PATH = "/api/_/url-priorities/update"
NEWS = {"category_code": "NEWS", "cc": "*", "domain": "*", "url": "*", "priority": 100}
MINE = {"category_code": "MISC", "cc": "US", "domain": "*", "url": "*", "priority": -200}

Update = Callable[..., TestResponse]


@pytest.fixture(autouse=True)
def rules_of_a_new_database(module_dsn: str) -> None:
    """Each test begins with one rule and an empty audit log."""
    with psycopg.connect(module_dsn) as connection:
        connection.execute("DELETE FROM url_priorities")
        connection.execute("INSERT INTO url_priorities (category_code, priority) VALUES ('NEWS', 100)")
        connection.execute("DELETE FROM audit_log")


@pytest.fixture
def admin(module_app: Flask, module_dsn: str) -> dict[str, str]:
    return signed_in_headers(module_app, module_dsn, role="admin", email="admin@example.org")


@pytest.fixture
def update(module_app: Flask, admin: dict[str, str]) -> Update:
    def post(old: Any = None, new: Any = None, **members: Any) -> TestResponse:
        body = {"old_entry": old, "new_entry": new, **members}
        return module_app.test_client().post(PATH, json=body, headers=admin)

    return post


def rules(dsn: str) -> list[dict[str, Any]]:
    with psycopg.connect(dsn) as connection:
        rows = connection.execute(
            "SELECT category_code, cc, domain, url, priority FROM url_priorities ORDER BY 1, 2, 3, 4"
        ).fetchall()
    return [dict(zip(NEWS, row, strict=True)) for row in rows]


def code(response: TestResponse, status: int = 400) -> str:
    assert response.status_code == status, response.text
    return response.json["err_str"]


def test_adding_changing_deleting(update: Update, module_dsn: str, module_app: Flask) -> None:
    response = update(new=MINE)
    assert (response.status_code, response.text) == (200, "1\n")
    assert response.headers["Cache-Control"] == "max-age=0, no-cache, private"
    assert rules(module_dsn) == [MINE, NEWS]
    changed = {**MINE, "priority": 5}
    assert update(MINE, changed).text == "1\n"
    assert module_app.test_client().get("/api/_/url-priorities/list").json == {"rules": [changed, NEWS]}
    assert update(changed).text == "1\n"
    assert rules(module_dsn) == [NEWS]


def test_what_is_left_open_is_any(update: Update, module_dsn: str) -> None:
    assert update(new={"category_code": None, "cc": "", "domain": "example.org", "priority": 3}).status_code == 200
    assert rules(module_dsn)[0] == {"category_code": "*", "cc": "*", "domain": "example.org", "url": "*", "priority": 3}
    assert update({"domain": "example.org", "priority": 3}).status_code == 200
    assert rules(module_dsn) == [NEWS]


def test_countries_are_in_upper_case(update: Update, module_dsn: str) -> None:
    assert update(new={**MINE, "cc": "us"}).status_code == 200
    assert rules(module_dsn)[0] == MINE
    assert code(update(new={**MINE, "cc": "uS", "priority": 1})) == "err_duplicate_rule"


def test_the_old_rule_must_be_there_with_its_priority(update: Update, module_dsn: str) -> None:
    for old in ({**NEWS, "priority": 99}, {**NEWS, "cc": "IT"}, MINE):
        assert code(update(old), 404) == "err_rule_not_found"
        assert code(update(old, {**MINE, "cc": "FR"}), 404) == "err_rule_not_found"
    assert rules(module_dsn) == [NEWS]


def test_a_rule_that_is_there_is_a_duplicate(update: Update, module_dsn: str) -> None:
    response = update(new={**NEWS, "priority": 7})
    assert code(response) == "err_duplicate_rule"
    assert response.json["err_args"] == {**NEWS, "priority": 7}
    update(new=MINE)
    assert code(update(MINE, {**NEWS, "priority": 7})) == "err_duplicate_rule"
    assert rules(module_dsn) == [MINE, NEWS], "both or neither"


def test_nothing_proposed(update: Update) -> None:
    assert code(update()) == "err_no_proposed_changes"
    assert code(update({}, {})) == "err_no_proposed_changes"
    assert code(update(NEWS, NEWS)) == "err_no_proposed_changes"
    assert code(update({**NEWS, "cc": ""}, NEWS)) == "err_no_proposed_changes"


def test_rules_written_by_hand_can_be_deleted_and_count_as_the_same(update: Update, module_dsn: str) -> None:
    by_hand = {"category_code": "GAME", "cc": "it", "domain": "", "url": "", "priority": 1}
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            "INSERT INTO url_priorities (category_code, cc, domain, url, priority) VALUES ('GAME', 'it', '', '', 1)"
        )
    assert code(update(new={**by_hand, "priority": 2})) == "err_duplicate_rule"
    shown = {**by_hand, "domain": "*", "url": "*"}
    assert update(shown, {**shown, "priority": 2}).status_code == 200
    assert rules(module_dsn)[0] == {**shown, "cc": "IT", "priority": 2}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"category_code": "NEWZ"}, "err_bad_category_code"),
        ({"category_code": "news"}, "err_bad_category_code"),
        ({"category_code": 1}, "err_request_params"),
        ({"cc": "ITA"}, "err_invalid_country_code"),
        ({"cc": "I"}, "err_invalid_country_code"),
        ({"cc": "**"}, "err_invalid_country_code"),
        ({"cc": "ßß"}, "err_invalid_country_code"),
        ({"cc": "I\n"}, "err_invalid_country_code"),
        ({"url": "ftp://example.org/"}, "err_bad_url"),
        ({"url": "https://example.org/ b"}, "err_bad_url"),
        ({"url": "https://example.org/\x00"}, "err_bad_url"),
        ({"url": "https://example.org/\u202e"}, "err_bad_url"),
        ({"url": "https://example.org/" + "é" * 1000}, "err_bad_url"),
        ({"domain": "https://example.org"}, "err_request_params"),
        ({"domain": "example.org/path"}, "err_request_params"),
        ({"domain": "=cmd"}, "err_request_params"),
        ({"domain": "a\x00b.example"}, "err_request_params"),
        ({"domain": "x" * 300 + ".example"}, "err_request_params"),
        ({"priority": 100_001}, "err_request_params"),
        ({"priority": -100_001}, "err_request_params"),
        ({"priority": 10**30}, "err_request_params"),
        ({"priority": 1.5}, "err_request_params"),
        ({"priority": "1"}, "err_request_params"),
        ({"priority": True}, "err_request_params"),
        ({"priority": None}, "err_request_params"),
        ({"sign": 1}, "err_request_params"),
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_bad_rules_are_refused(update: Update, module_dsn: str, fields: dict[str, Any], expected: str) -> None:
    response = update(new={**MINE, **fields})
    assert code(response) == expected
    assert response.json["hint"]
    assert rules(module_dsn) == [NEWS]


@pytest.mark.parametrize("value", [1, "x", [], [NEWS], True, {"cc": "IT"}, {"priority": {}}])
def test_what_is_no_rule_is_refused(update: Update, value: Any) -> None:
    assert code(update(new=value)) == "err_request_params"
    assert code(update(old=value)) == "err_request_params"


@pytest.mark.parametrize(
    "fields", [{"url": "x" * 2000}, {"domain": "d" * 2000, "url": "x" * 2000}, {"priority": -(2**31) + 1}]
)
def test_long_old_rules_are_looked_for(update: Update, fields: dict[str, Any]) -> None:
    assert code(update({**NEWS, **fields}), 404) == "err_rule_not_found"


@pytest.mark.parametrize(
    "fields",
    [
        {"cc": "ZZ"},
        {"domain": "www.example.org:8080"},
        {"domain": "пример.example"},
        {"url": "https://example.org"},
        {"url": "http://" + "a" * 60 + ".example/" + "b" * 1900},
        {"priority": 0},
        {"priority": 100_000},
    ],
    ids=lambda value: ascii(value)[:40],
)
def test_unusual_rules_are_taken(update: Update, module_dsn: str, fields: dict[str, Any]) -> None:
    assert update(new={**MINE, **fields}).status_code == 200
    assert {**MINE, **fields} in rules(module_dsn)


def test_of_two_admins_who_change_one_rule_one_wins(update: Update, module_dsn: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda number: update(NEWS, {**NEWS, "priority": number}), range(6)))
    won = [number for number, reply in enumerate(replies) if reply.status_code == 200]
    assert len(won) == 1
    assert {code(reply, 404) for reply in replies if reply.status_code != 200} == {"err_rule_not_found"}
    assert rules(module_dsn) == [{**NEWS, "priority": won[0]}]


def test_of_two_admins_who_add_one_rule_one_wins(update: Update, module_dsn: str) -> None:
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda number: update(new={**MINE, "priority": number}), range(6)))
    assert sorted(reply.status_code for reply in replies) == [200, *[400] * 5]
    assert {code(reply) for reply in replies if reply.status_code != 200} == {"err_duplicate_rule"}
    assert len(rules(module_dsn)) == 2


def test_each_change_has_a_line_in_the_audit_log_and_refusals_have_none(update: Update, module_dsn: str) -> None:
    update(new=MINE)
    update(MINE, {**MINE, "priority": 1})
    update(new=NEWS)
    update(MINE)
    with psycopg.connect(module_dsn) as connection:
        lines = connection.execute("SELECT action, subject, role, detail FROM audit_log ORDER BY audit_id").fetchall()
    assert lines == [
        ("url_priority.update", "MISC US * *", "admin", {"old": None, "new": MINE}),
        ("url_priority.update", "MISC US * *", "admin", {"old": MINE, "new": {**MINE, "priority": 1}}),
    ]


def test_only_admins_may(module_app: Flask, module_dsn: str) -> None:
    client = module_app.test_client()
    user = signed_in_headers(module_app, module_dsn, email="user@example.org")
    body = {"new_entry": MINE}
    assert client.post(PATH, json=body).json["error"] == "Authentication required"
    refused = client.post(PATH, json=body, headers=user)
    assert (refused.status_code, refused.json["error"]) == (401, "Role not authorized")
    assert rules(module_dsn) == [NEWS]


def test_workers_notice_new_rules(module_app: Flask, module_dsn: str, update: Update, tmp_path: Path) -> None:
    """What a probe is told changes after a change of a rule, without a restart."""
    with psycopg.connect(module_dsn) as connection:
        connection.execute("DELETE FROM citizenlab")
        connection.cursor().executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, 'ZZ', %s)",
            [("a.example", "https://a.example/", "NEWS"), ("b.example", "https://b.example/", "MISC")],
        )
    queries = UrlQueries(module_app.extensions["api"].pool)
    selection = UrlSelection(queries, tmp_path, lists_refresh_s=0.05)
    selection.start()
    try:

        def told() -> list[str]:
            return [url.url for url in selection.listing("US", (), 10)]

        def wait_for(urls: list[str]) -> None:
            deadline = time.monotonic() + 30
            while told() != urls and time.monotonic() < deadline:
                time.sleep(0.05)
            assert told() == urls

        wait_for(["https://a.example/"])
        update(new={**MINE, "priority": 500})
        wait_for(["https://b.example/", "https://a.example/"])
        update({**MINE, "priority": 500}, MINE)
        wait_for(["https://a.example/"])
    finally:
        selection.close()
