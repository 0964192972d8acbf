"""Changing test lists over HTTP, up to the proposal: real git repositories, a real database, several people at once."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from flask import Flask
from list_editor import Person, Place, code, entry
from list_maintainers import ITALY
from people import signed_in_headers

NEWS = entry("https://it.example.org/", date="2019-05-01", source="somebody")
FILES = entry("https://it.example.net/", "FILE", "2019-05-01", "somebody", 'a, "quoted" note')
RIGHTS = entry("https://it.example.com/a", "HUMR", "2019-05-01", "somebody")
NEW = entry("https://new.example.org/x")


@pytest.fixture
def place(tmp_path: Path, dsn: str) -> Iterator[Place]:
    made = Place(tmp_path, dsn)
    yield made
    made.close()
    made.forge.stop()


@pytest.fixture
def person(place: Place) -> Person:
    return place.person()


def test_a_list_is_shown_as_it_is(person: Person) -> None:
    assert person.get("it") == {"changes": {}, "pr_url": None, "state": "CLEAN", "test_list": [NEWS, FILES, RIGHTS]}
    assert person.get("IT") == person.get("it")
    assert [each["url"] for each in person.get("global")["test_list"]] == [
        "https://www.example.org/",
        "https://www.example.com/",
    ]
    assert person.get("de")["test_list"] is None


def test_replies_are_for_nobody_else(person: Person) -> None:
    response = person.client.get("/api/_/url-submission/test-list/it", headers=person.headers)
    assert response.headers["Cache-Control"] == "max-age=0, no-cache, private"
    assert "Authorization" in response.headers["Vary"]


@pytest.mark.parametrize("cc", ["x", "ita", "globals", "1t", "ß1", "..", "%00%00", "i%0a"])
def test_what_is_no_country_is_refused(person: Person, cc: str) -> None:
    response = person.client.get(f"/api/_/url-submission/test-list/{cc}", headers=person.headers)
    assert code(response) == "err_invalid_country_code"


def test_adding_editing_and_deleting(person: Person) -> None:
    assert person.change("it", {}, NEW) == {**NEW, "category_description": "News Media"}
    edited = {**FILES, "category_code": "HOST", "notes": "not files"}
    assert person.change("IT", FILES, edited)["category_description"] == "Hosting and Blogging Platforms"
    assert person.change("it", NEWS, {}) == {}
    found = person.get("it")
    assert found["state"] == "IN_PROGRESS"
    assert found["test_list"] == [edited, RIGHTS, NEW]
    assert found["changes"] == {
        "it": [{**NEW, "action": "add"}, {**edited, "action": "edit"}, {**NEWS, "action": "delete"}]
    }
    assert person.get("global")["changes"] == found["changes"]


def test_what_is_taken_back_is_no_change(person: Person) -> None:
    person.change("it", {}, NEW)
    person.change("it", NEW, {**NEW, "notes": "better"})
    assert person.get()["changes"] == {"it": [{**NEW, "notes": "better", "action": "add"}]}
    person.change("it", {**NEW, "notes": "better"}, {})
    person.change("it", NEWS, {})
    person.change("it", {}, NEWS)
    person.change("it", FILES, {**FILES, "notes": "x"})
    person.change("it", {**FILES, "notes": "x"}, FILES)
    assert person.get() == {"changes": {}, "pr_url": None, "state": "CLEAN", "test_list": [NEWS, FILES, RIGHTS]}


def test_an_edit_after_a_deletion_is_one_edit(person: Person) -> None:
    person.change("it", NEWS, {})
    again = {**NEWS, "date_added": "2024-02-01"}
    person.change("it", {}, again)
    assert person.get()["changes"] == {"it": [{**again, "action": "edit"}]}


def test_changes_are_ones_own(place: Place, person: Person) -> None:
    person.change("it", NEWS, {})
    other = place.person("other@example.org")
    assert other.get()["test_list"] == [NEWS, FILES, RIGHTS]
    assert other.get()["changes"] == {}


def test_another_host_goes_on(place: Place, person: Person, tmp_path: Path) -> None:
    person.change("it", {}, NEW)
    other = Place(tmp_path / "other", place.dsn, other=place)
    try:
        there = Person(other, "somebody@example.org")
        assert there.get()["changes"] == {"it": [{**NEW, "action": "add"}]}
        there.change("it", NEW, {**NEW, "notes": "from there"})
        assert person.get()["changes"] == there.get()["changes"]
    finally:
        other.close()


def test_the_old_entry_must_be_exactly_that_of_the_list(person: Person) -> None:
    for old in ({**NEWS, "notes": "x"}, {**NEWS, "date_added": "2019-05-02"}, entry("https://nowhere.example/")):
        assert code(person.update("it", old, NEW)) == "err_cannot_update_list"
        assert code(person.update("it", old, {})) == "err_cannot_update_list"
    assert code(person.update("fr", NEWS, {})) == "err_cannot_update_list"


def test_nothing_proposed(person: Person) -> None:
    assert code(person.update("it", NEWS, NEWS)) == "err_no_proposed_changes"
    assert code(person.update("it", {}, {})) == "err_no_proposed_changes"
    assert code(person.submit()) == "err_no_proposed_changes"


def test_urls_are_there_once(person: Person) -> None:
    for cc, url in (
        ("it", "https://it.example.org/"),
        ("it", "https://www.example.org/"),
        ("global", "https://www.example.org/"),
    ):
        response = person.update(cc, {}, entry(url))
        assert code(response) == "err_duplicate_url"
        assert response.json["err_args"] == {"url": url}
        assert url in response.json["error"]
    assert code(person.update("it", FILES, {**FILES, "url": NEWS["url"]})) == "err_duplicate_url"
    person.change("global", {}, NEW)
    assert code(person.update("it", {}, NEW)) == "err_duplicate_url"
    person.change("it", NEWS, {})
    person.change("it", FILES, {**FILES, "url": NEWS["url"]})
    assert code(person.update("it", {}, NEWS)) == "err_duplicate_url"
    person.change("it", {}, entry(FILES["url"]))
    assert person.urls() == [NEWS["url"], RIGHTS["url"], FILES["url"]]


def test_an_entry_that_is_on_both_lists_can_be_edited(place: Place, person: Person) -> None:
    both = entry("https://www.example.com/", "COMT", "2020-01-01", "somebody", "here too")
    place.maintainers.write("it", ITALY + "https://www.example.com/,COMT,,2020-01-01,somebody,here too\n")
    place.notice()
    person.change("it", both, {**both, "category_code": "MMED"})
    assert person.get()["test_list"][-1]["category_code"] == "MMED"


def test_a_country_without_a_list(person: Person) -> None:
    assert code(person.update("de", {}, NEW)) == "err_country_not_supported"


TEXT_OF_ONE_KIND = "x" * 5000
HOSTILE = [
    ({"url": "ftp://new.example.org/"}, "err_bad_url"),
    ({"url": "javascript:alert(1)"}, "err_bad_url"),
    ({"url": "https://new.example.org"}, "err_bad_url"),
    ({"url": "https://new.example.org?x=/"}, "err_bad_url"),
    ({"url": "https://new.example.org/a\rb"}, "err_bad_url"),
    ({"url": "https://new.example.org/a\nhttps://b.example/"}, "err_bad_url"),
    ({"url": "https://new.example.org/\t"}, "err_bad_url"),
    ({"url": "https://new.example.org/\\"}, "err_bad_url"),
    ({"url": "https://new.example.org/\x00"}, "err_bad_url"),
    ({"url": "https://new.example.org/\ud800"}, "err_bad_url"),
    ({"url": "https://new.example.org/\u202egro"}, "err_bad_url"),
    ({"url": "https://somebody:secret@new.example.org/"}, "err_bad_url"),
    ({"url": "https://new.example.org/" + "x" * 1980}, "err_bad_url"),
    ({"url": "https://localhost/"}, "err_bad_url"),
    ({"url": "=HYPERLINK(1)"}, "err_bad_url"),
    ({"url": ""}, "err_bad_url"),
    ({"category_code": "NEWZ"}, "err_bad_category_code"),
    ({"category_code": "news"}, "err_bad_category_code"),
    ({"category_code": "=NEWS"}, "err_bad_category_code"),
    ({"category_code": ""}, "err_bad_category_code"),
    ({"category_description": "Other"}, "err_bad_category_description"),
    ({"date_added": ""}, "err_bad_date"),
    ({"date_added": "2024-02-30"}, "err_bad_date"),
    ({"date_added": "20240130"}, "err_bad_date"),
    ({"date_added": "2024-W01-1"}, "err_bad_date"),
    ({"date_added": "2024-01-31\n"}, "err_bad_date"),
    ({"date_added": "٢٠٢٤-٠١-٣١"}, "err_bad_date"),
    ({"notes": "=1+1"}, "err_request_params"),
    ({"notes": "  =1+1"}, "err_request_params"),
    ({"notes": "+1"}, "err_request_params"),
    ({"notes": "-1"}, "err_request_params"),
    ({"notes": "@SUM(A1)"}, "err_request_params"),
    ({"notes": "＝1+1"}, "err_request_params"),
    ({"notes": "a\nb"}, "err_request_params"),
    ({"notes": "a\rb"}, "err_request_params"),
    ({"notes": "a\tb"}, "err_request_params"),
    ({"notes": "a\x00b"}, "err_request_params"),
    ({"notes": "a\u2028b"}, "err_request_params"),
    ({"notes": "a\u202eb"}, "err_request_params"),
    ({"notes": "a\u2066b"}, "err_request_params"),
    ({"notes": "\ud800"}, "err_request_params"),
    ({"notes": TEXT_OF_ONE_KIND}, "err_request_params"),
    ({"source": "=cmd|' /C calc'!A0"}, "err_request_params"),
    ({"source": "x" * 201}, "err_request_params"),
    ({"notes": None}, "err_request_params"),
    ({"notes": 1}, "err_request_params"),
    ({"notes": ["a"]}, "err_request_params"),
    ({"more": "x"}, "err_request_params"),
]


@pytest.mark.parametrize(("fields", "expected"), HOSTILE, ids=[ascii(fields)[:50] for fields, _code in HOSTILE])
def test_hostile_entries_are_refused(module_place: Place, fields: dict[str, object], expected: str) -> None:
    person = module_place.person("attacker@example.org")
    response = person.update("it", {}, {**NEW, **fields})
    assert code(response) == expected
    assert response.json["hint"]
    assert code(person.update("it", NEWS, {**NEW, **fields})) == expected
    assert person.get()["state"] == "CLEAN"


@pytest.mark.parametrize(
    "more",
    [
        {"comment": 1},
        {"comment": "x" * 1001},
        {"comment": "a\x00b"},
        {"comment": "a\u202eb"},
        {"country_code": None},
        {"country_code": ["it"]},
        {"new_entry": "x"},
        {"new_entry": [NEW]},
        {"new_entry": {"url": "https://new.example.org/"}},
        {"old_entry": 1},
        {"old_entry": {**NEWS, "notes": None}},
        {"old_entry": {**NEWS, "more": ""}},
    ],
    ids=lambda more: ascii(more)[:50],
)
def test_requests_of_another_form_are_refused(module_place: Place, more: dict[str, object]) -> None:
    assert code(module_place.person().update("it", {}, NEW, **more)) == "err_request_params"


@pytest.mark.parametrize("old", [{**NEWS, "notes": "\x00"}, {**NEWS, "url": "\ud800"}, {**NEWS, "source": "x" * 9999}])
def test_hostile_old_entries_are_in_no_list(module_place: Place, old: dict[str, str]) -> None:
    person = module_place.person()
    assert code(person.update("it", old, NEW)) == "err_cannot_update_list"
    assert code(person.update("it", old, {})) == "err_cannot_update_list"


@pytest.mark.parametrize(
    ("field", "text"),
    [
        ("notes", '<script>alert("x")</script>'),
        ("notes", "quotes \", commas, and 'more'"),
        ("notes", "می‌خواهم"),
        ("notes", "1-1=0 @home"),
        ("source", "💚"),
        ("url", 'https://new.example.org/a,"b"?c=d&e=%20#f'),
        ("url", "https://пример.example/ж"),
    ],
)
def test_unusual_texts_are_taken(module_place: Place, field: str, text: str) -> None:
    person = module_place.person(f"{field}@example.org")
    new = {**NEW, field: text}
    person.change("it", {}, new)
    assert person.get()["test_list"][-1] == new
    person.change("it", new, {})


@pytest.fixture(scope="module")
def module_place(tmp_path_factory: pytest.TempPathFactory, module_dsn: str) -> Iterator[Place]:
    made = Place(tmp_path_factory.mktemp("place"), module_dsn)
    yield made
    made.close()
    made.forge.stop()


def test_many_additions_at_once_are_all_kept(place: Place, person: Person) -> None:
    person.get()
    urls = [f"https://new.example.org/{number}" for number in range(8)]
    with ThreadPoolExecutor(8) as pool:
        replies = list(pool.map(lambda url: person.update("it", {}, entry(url)), urls))
    assert [reply.status_code for reply in replies] == [200] * 8
    assert sorted(person.urls()[3:]) == urls


def test_of_two_edits_of_one_entry_at_once_one_wins(place: Place, person: Person) -> None:
    person.get()
    new = [{**NEWS, "notes": f"note {number}"} for number in range(6)]
    with ThreadPoolExecutor(6) as pool:
        replies = list(pool.map(lambda each: person.update("it", NEWS, each), new))
    won = [number for number, reply in enumerate(replies) if reply.status_code == 200]
    assert len(won) == 1
    assert {code(reply) for reply in replies if reply.status_code != 200} == {"err_cannot_update_list"}
    assert person.get()["test_list"][0] == new[won[0]]


def test_two_additions_of_one_url_at_once(place: Place, person: Person) -> None:
    person.get()
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda cc: person.update(cc, {}, NEW), ["it"] * 4))
    assert sorted(reply.status_code for reply in replies) == [200, 400, 400, 400]
    assert {code(reply) for reply in replies if reply.status_code != 200} == {"err_duplicate_url"}


def test_a_list_that_moves_under_changes(place: Place, person: Person) -> None:
    person.change("it", NEWS, {**NEWS, "notes": "mine"})
    person.change("it", FILES, {})
    person.change("it", {}, NEW)
    moved = ITALY.replace(
        "https://it.example.org/,NEWS,News Media,2019-05-01,somebody,",
        "https://it.example.org/,NEWS,News Media,2024-05-01,maintainer,",
    )
    place.maintainers.write("it", moved)
    place.notice()
    found = person.get()
    theirs = {**NEWS, "date_added": "2024-05-01", "source": "maintainer"}
    assert found["test_list"] == [theirs, RIGHTS, NEW]
    stale = {**NEWS, "notes": "mine", "action": "edit", "applies": False}
    assert found["changes"]["it"] == [{**FILES, "action": "delete"}, {**NEW, "action": "add"}, stale]
    person.change("it", {**NEWS, "notes": "mine"}, {})
    assert person.get()["changes"]["it"] == found["changes"]["it"][:2]


def test_a_change_made_anew_takes_the_place_of_one_that_does_not_apply(place: Place, person: Person) -> None:
    person.change("it", NEWS, {})
    place.maintainers.write("it", ITALY.replace("2019-05-01,somebody,\n", "2019-05-01,maintainer,\n", 1))
    place.notice()
    theirs = {**NEWS, "source": "maintainer"}
    assert person.get()["changes"]["it"] == [{**NEWS, "action": "delete", "applies": False}]
    person.change("it", theirs, {})
    assert person.get()["changes"]["it"] == [{**theirs, "action": "delete"}]


def test_what_the_maintainers_did_themselves_is_no_change_any_more(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    person.change("it", FILES, {})
    place.maintainers.write(
        "it",
        "".join(line for line in ITALY.splitlines(keepends=True) if ".net" not in line)
        + "https://new.example.org/x,NEWS,News Media,2024-01-31,me,\n",
    )
    place.notice()
    assert person.get()["state"] == "CLEAN"
    assert code(person.submit()) == "err_no_proposed_changes"


def test_the_number_of_changes_is_bounded(place: Place, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.testlist_plan.MOST_CHANGES", 3)
    for number in range(3):
        person.change("it", {}, entry(f"https://new.example.org/{number}"))
    assert code(person.update("it", {}, NEW)) == "err_request_params"
    person.change("it", entry("https://new.example.org/1"), {})
    person.change("it", {}, NEW)


def test_the_number_of_changes_of_a_day_is_bounded(person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.testlist_routes.CHANGES_A_DAY", 2)
    person.change("it", {}, NEW)
    person.change("it", NEW, {})
    assert person.update("it", {}, NEW).status_code == 429
    assert person.get()["state"] == "CLEAN"


def test_every_change_is_in_the_audit_log_and_no_address_anywhere(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    person.change("it", NEWS, {})
    assert place.audit() == [
        ("test_list.change", "it", {"kind": "add", "url": NEW["url"]}),
        ("test_list.change", "it", {"kind": "delete", "url": NEWS["url"]}),
    ]
    with psycopg.connect(place.dsn) as connection:
        for table in ("test_list_changes", "test_list_proposals", "audit_log"):
            rows = connection.execute(f"SELECT t::text FROM {table} t").fetchall()
            assert rows
            assert "somebody@" not in str(rows)


def test_a_refused_change_is_in_no_table(place: Place, person: Person) -> None:
    person.update("it", {**NEWS, "notes": "x"}, {})
    assert place.audit() == []


def test_editing_can_be_off(module_app: Flask, module_dsn: str) -> None:
    client, headers = module_app.test_client(), signed_in_headers(module_app, module_dsn)
    body = {"country_code": "it", "comment": "", "old_entry": {}, "new_entry": NEW}
    for response in (
        client.get("/api/_/url-submission/test-list/it", headers=headers),
        client.post("/api/v1/url-submission/update-url", json=body, headers=headers),
        client.post("/api/v1/url-submission/submit", headers=headers),
    ):
        assert response.status_code == 400
        assert response.json["error"] == "Test lists cannot be edited on this server."
        assert "test_lists_repository" in response.json["hint"]


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/api/_/url-submission/test-list/it"),
        ("POST", "/api/v1/url-submission/update-url"),
        ("POST", "/api/v1/url-submission/submit"),
    ],
)
def test_nobody_may_do_anything(module_app: Flask, method: str, path: str) -> None:
    response = module_app.test_client().open(path, method=method, json={} if method == "POST" else None)
    assert (response.status_code, response.json["error"]) == (401, "Authentication required")
