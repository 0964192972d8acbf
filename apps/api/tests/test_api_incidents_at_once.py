"""Findings that several people change at once, and how many one person may write."""

import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from findings import FINDING, Person, audit_lines, person
from flask import Flask

from api import incident_changes


@pytest.fixture
def app(module_app: Flask) -> Flask:
    return module_app


@pytest.fixture
def owner(app: Flask, module_dsn: str, request: pytest.FixtureRequest) -> Person:
    """Another person in each test, since people may not create endlessly."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-")
    return person(app, module_dsn, name)


@pytest.fixture
def admin(app: Flask, module_dsn: str) -> Person:
    return person(app, module_dsn, "admin", "admin")


@pytest.fixture
def nobody(app: Flask) -> Person:
    return Person(app, {})


# Two at once -------------------------------------------------------------------------------------------------------


def test_who_edits_an_older_revision_is_told(owner: Person, admin: Person) -> None:
    number = owner.create()
    first = owner.show(number)
    assert admin.post("update", **{**first, "title": "By the admin"}).status_code == 200
    for stale in ({"revision": 1}, {"update_time": first["update_time"]}):
        for action in ("update", "delete"):
            reply = owner.refused(action, id=number, text="By the author", **stale)
            assert reply["err_str"] == "err_changed_meanwhile"
            assert reply["err_args"] == {"revision": 2}
            assert "Reload" in reply["error"]
        assert admin.refused("publish", id=number, **stale)["err_str"] == "err_changed_meanwhile"
    now = owner.show(number)
    assert (now["title"], now["text"]) == ("By the admin", FINDING["text"])
    current = {"revision": 2, "update_time": now["update_time"]}
    assert owner.post("update", id=number, text="By the author", **current).status_code == 200
    assert owner.show(number)["title"] == "By the admin"


def test_changes_within_a_second_have_different_times(owner: Person) -> None:
    number = owner.create()
    times = [owner.show(number)["update_time"]]
    for text in "abcde":
        owner.post("update", id=number, text=text)
        times.append(owner.show(number)["update_time"])
    assert times == sorted(set(times))


def test_of_many_edits_of_one_revision_one_is_kept(app: Flask, owner: Person, module_dsn: str) -> None:
    number = owner.create()
    editors = [Person(app, owner.headers) for _ in range(6)]

    def edit(which: int) -> int:
        return editors[which].post("update", id=number, text=f"Text {which}", revision=1).status_code

    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(edit, range(6)))
    assert sorted(statuses) == [200] + [400] * 5
    found = owner.show(number)
    assert found["revision"] == 2
    assert found["text"] == f"Text {statuses.index(200)}"
    assert [action for action, _ in audit_lines(module_dsn, number)] == ["incident.create", "incident.update"]


def test_of_edits_at_once_without_a_revision_none_is_half_written(app: Flask, owner: Person) -> None:
    number = owner.create()
    editors = [Person(app, owner.headers) for _ in range(6)]

    def edit(which: int) -> int:
        letter = "abcdef"[which]
        return editors[which].post("update", id=number, title=letter, text=letter, tags=[letter]).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(edit, range(6))) == [200] * 6
    found = owner.show(number)
    assert found["revision"] == 7
    assert found["title"] == found["text"] == found["tags"][0]


def test_publishing_and_editing_at_once_never_publishes_what_was_not_read(
    app: Flask, owner: Person, admin: Person, nobody: Person
) -> None:
    for _ in range(5):
        number = owner.create()
        writer, reader = Person(app, owner.headers), Person(app, admin.headers)
        with ThreadPoolExecutor(2) as pool:
            edited = pool.submit(writer.post, "update", id=number, text="Unread", published=False)
            published = pool.submit(reader.post, "publish", id=number, revision=1)
        assert edited.result().status_code == 200
        assert published.result().status_code in {200, 400}
        assert not nobody.sees(number), "published before the edit, it is a draft again; after it, it is refused"
        assert owner.show(number)["text"] == "Unread"


def test_same_title_gets_other_slugs_also_at_once(app: Flask, admin: Person) -> None:
    """Of users one creation waits for the other, of admins none does."""
    authors = [Person(app, admin.headers) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        numbers = list(pool.map(lambda author: author.create(title="The same title"), authors))
    found = {admin.show(number)["slug"] for number in numbers}
    assert found == {"2024-the-same-title", *(f"2024-the-same-title-{each}" for each in range(2, 7))}


# Bounds ------------------------------------------------------------------------------------------------------------


def test_user_creates_so_many_in_a_day(owner: Person, admin: Person, monkeypatch: Any) -> None:
    monkeypatch.setattr(incident_changes, "MOST_CREATED", 3)
    numbers = [owner.create() for _ in range(3)]
    owner.post("delete", id=numbers[0])
    response = owner.post("create", **FINDING)
    assert response.status_code == 429, "deleted ones count too"
    assert "3 times" in response.json["error"]
    assert int(response.headers["Retry-After"]) > 0
    assert owner.post("update", id=numbers[1], title="Still").status_code == 200
    for _ in range(4):
        admin.create()


def test_day_is_over_after_24_hours(owner: Person, monkeypatch: Any, module_dsn: str) -> None:
    monkeypatch.setattr(incident_changes, "MOST_CREATED", 2)
    first, _second = owner.create(), owner.create()
    assert owner.post("create", **FINDING).status_code == 429
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            "UPDATE audit_log SET happened_at = happened_at - interval '25 hours' WHERE subject = %s", [first]
        )
    owner.create()
    assert owner.post("create", **FINDING).status_code == 429


def test_bound_holds_for_requests_at_once(app: Flask, owner: Person, monkeypatch: Any) -> None:
    monkeypatch.setattr(incident_changes, "MOST_CREATED", 3)
    authors = [Person(app, owner.headers) for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        statuses = list(pool.map(lambda author: author.post("create", **FINDING).status_code, authors))
    assert sorted(statuses) == [200] * 3 + [429] * 3


def test_user_has_so_many_drafts(owner: Person, admin: Person, monkeypatch: Any) -> None:
    monkeypatch.setattr(incident_changes, "MOST_DRAFTS", 2)
    first, second = owner.create(), owner.create()
    assert "2 findings" in owner.refused("create", **FINDING)["hint"]
    admin.post("publish", id=first)
    owner.create()
    assert "2 findings" in owner.refused("create", **FINDING)["hint"]
    owner.post("delete", id=second)
    owner.create()


def test_user_changes_so_much_in_a_day(owner: Person, admin: Person, monkeypatch: Any) -> None:
    monkeypatch.setattr(incident_changes, "MOST_UPDATED", 2)
    number = owner.create()
    statuses = [owner.post("update", id=number, text=text).status_code for text in ("a", "a", "b", "c")]
    assert statuses == [200, 200, 200, 429], "what changes nothing does not count"
    assert owner.show(number)["text"] == "b"
    assert [admin.post("update", id=number, text=text).status_code for text in "defg"] == [200] * 4
    assert owner.post("delete", id=number).status_code == 200
