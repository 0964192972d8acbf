"""Findings: who sees them, who may change them, and what happens when two people change one."""

import csv
import io
import re
from typing import Any

import psycopg
import pytest
from findings import FINDING, Person, audit_lines, person, program_of
from flask import Flask
from people import account_id_of

from api.incident_fields import moment, slugs

SHOWN = {
    *("id", "slug", "title", "short_description", "event_type", "reported_by", "email_address", "start_time"),
    *("end_time", "create_time", "update_time", "published", "mine", "revision"),
    *("CCs", "ASNs", "domains", "tags", "test_names", "links", "themes"),
}
WHOLE_SECONDS = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}Z")


@pytest.fixture
def app(module_app: Flask) -> Flask:
    return module_app


@pytest.fixture
def owner(app: Flask, module_dsn: str, request: pytest.FixtureRequest) -> Person:
    """Another person in each test, since people may not create endlessly."""
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-")
    return person(app, module_dsn, name)


@pytest.fixture
def other(app: Flask, module_dsn: str) -> Person:
    return person(app, module_dsn, "other")


@pytest.fixture
def admin(app: Flask, module_dsn: str) -> Person:
    return person(app, module_dsn, "admin", "admin")


@pytest.fixture
def nobody(app: Flask) -> Person:
    return Person(app, {})


# What is shown -----------------------------------------------------------------------------------------------------


def test_what_was_written_is_shown(owner: Person) -> None:
    number = owner.create(end_time="2024-01-08T12:30:00Z")
    found = owner.show(number)
    assert set(found) == {*SHOWN, "text"}
    assert {name: found[name] for name in FINDING} == {**FINDING, "end_time": "2024-01-08T12:30:00Z"}
    assert (found["id"], found["mine"], found["revision"]) == (number, 1, 1)
    assert found["slug"] == "2024-messaging-blocked" or found["slug"].startswith("2024-messaging-blocked-")
    assert WHOLE_SECONDS.fullmatch(found["create_time"])
    assert found["update_time"] == found["create_time"]
    (listed,) = [each for each in owner.search("only_mine=true") if each["id"] == number]
    assert listed == {name: found[name] for name in SHOWN}, "the list is without the text"


def test_numbers_are_text_that_every_client_can_count(owner: Person) -> None:
    number = owner.create()
    assert isinstance(owner.show(number)["id"], str)
    assert int(number) % 100 == 1, "the last two digits are those of the collector"
    assert 100 < int(number) < 2**53


def test_what_is_left_out_is_empty(owner: Person) -> None:
    response = owner.post("create", title="Short", text="x", start_time="2024-01-01T00:00:00Z")
    found = owner.show(response.json["id"])
    assert [found[name] for name in ("CCs", "ASNs", "domains", "tags", "test_names", "links", "themes")] == [[]] * 7
    assert (found["short_description"], found["reported_by"], found["end_time"]) == ("", "", None)
    assert found["event_type"] == "incident"
    assert found["published"] is False


def test_list_is_sorted_by_title(owner: Person, nobody: Person, admin: Person) -> None:
    for title in ("b", "A", "é", "a", "Z", "中"):
        owner.create(title=title)
    assert [each["title"] for each in owner.search("only_mine=true")] == ["A", "Z", "a", "b", "é", "中"]
    titles = [each["title"] for each in admin.search()]
    assert titles == sorted(titles)


# Who sees what -----------------------------------------------------------------------------------------------------


def test_drafts_are_for_their_author_and_admins(owner: Person, other: Person, admin: Person, nobody: Person) -> None:
    number = owner.create()
    slug = owner.show(number)["slug"]
    everybody = (owner, admin, other, nobody)
    assert [each.sees(number) for each in everybody] == [True, True, False, False]
    assert [each.get(slug).status_code for each in everybody] == [200, 200, 400, 400]
    assert admin.post("publish", id=number).json == {"id": number, "r": 1}
    assert [each.sees(number) for each in everybody] == [True] * 4
    assert [each.show(slug)["id"] for each in everybody] == [number] * 4
    assert [each.show(number)["mine"] for each in everybody] == [1, 0, 0, 0]
    assert admin.post("unpublish", id=number).json == {"id": number, "r": 1}
    assert [each.sees(number) for each in everybody] == [True, True, False, False]
    assert owner.post("delete", id=number).json == {}
    assert [each.sees(number) for each in everybody] == [False] * 4
    assert [each.get(slug).status_code for each in everybody] == [400] * 4


def test_only_mine(owner: Person, other: Person, admin: Person, nobody: Person) -> None:
    number = admin.create(published=True)
    mine = owner.create()
    assert number in {each["id"] for each in owner.search()}
    assert [each["id"] for each in owner.search("only_mine=true")] == [mine]
    assert mine not in {each["id"] for each in admin.search("only_mine=1")}
    assert number in {each["id"] for each in owner.search("only_mine=false")}
    assert nobody.search("only_mine=true") == [], "with v, unlike the reference"
    response = nobody.client.get("/api/v1/incidents/search?only_mine=perhaps")
    assert response.status_code == 400
    assert "only_mine" in response.json["error"]


def test_no_address_is_shown_or_stored(owner: Person, admin: Person, nobody: Person, module_dsn: str) -> None:
    number = owner.create(email_address=owner.email)
    owner.post("update", **{**owner.show(number), "email_address": owner.email, "title": "Changed"})
    admin.post("publish", id=number)
    for each in (owner, admin, nobody):
        assert each.show(number)["email_address"] is None
        assert {found["email_address"] for found in each.search()} == {None}
    owner.post("delete", id=number, email_address=owner.email)
    with psycopg.connect(module_dsn) as connection:
        for table in ("incidents", "audit_log", "accounts"):
            rows = connection.execute(f"SELECT t::text FROM {table} AS t").fetchall()
            assert rows
            assert not [row for row in rows if "@example.org" in row[0]]


def test_replies_are_for_nobody_elses_cache(owner: Person, nobody: Person) -> None:
    for path in ("/api/v1/incidents/search", f"/api/v1/incidents/show/{owner.create(published=False)}"):
        mine = owner.client.get(path, headers=owner.headers)
        assert mine.headers["Cache-Control"] == "max-age=0, no-cache, private"
        assert "Authorization" in mine.headers["Vary"]
    theirs = nobody.client.get("/api/v1/incidents/search")
    assert theirs.headers["Cache-Control"] == "max-age=0, no-cache"
    assert "Authorization" in theirs.headers["Vary"]


# Who may do what ---------------------------------------------------------------------------------------------------

OWNERSHIP = (400, "err_ownership")
DONE = (200, None)
NOT_SIGNED_IN = (401, "Authentication required")
NO_ADMIN = (401, "Role not authorized")


@pytest.mark.parametrize(
    ("who", "update", "delete", "publish", "unpublish"),
    [
        ("nobody", NOT_SIGNED_IN, NOT_SIGNED_IN, NOT_SIGNED_IN, NOT_SIGNED_IN),
        ("other", OWNERSHIP, OWNERSHIP, NO_ADMIN, NO_ADMIN),
        ("owner", DONE, DONE, NO_ADMIN, NO_ADMIN),
        ("admin", DONE, DONE, DONE, DONE),
    ],
)
def test_who_may_change_a_draft(
    request: pytest.FixtureRequest,
    owner: Person,
    who: str,
    update: Any,
    delete: Any,
    publish: Any,
    unpublish: Any,
) -> None:
    someone: Person = request.getfixturevalue(who)
    number = owner.create()
    for action, expected in (("update", update), ("publish", publish), ("unpublish", unpublish), ("delete", delete)):
        members = {**FINDING, "text": "Another"} if action == "update" else {}
        response = someone.post(action, id=number, **members)
        said = response.json.get("err_str", response.json.get("error"))
        assert (response.status_code, said) == expected, action


def test_user_can_not_publish_by_creating_or_updating(owner: Person, admin: Person) -> None:
    assert "published" in owner.refused("create", **{**FINDING, "published": True})["hint"]
    number = owner.create()
    assert "published" in owner.refused("update", **{**FINDING, "id": number, "published": True})["hint"]
    assert admin.show(number)["published"] is False


def test_user_who_edits_what_is_published_takes_it_back(owner: Person, admin: Person, nobody: Person) -> None:
    """Nothing that no admin has read is ever shown to the public."""
    number = owner.create(title="Read by an admin")
    admin.post("publish", id=number)
    assert "published" in owner.refused("update", id=number, text="Something else")["hint"]
    assert "published" in owner.refused("update", **{**owner.show(number), "text": "Something else"})["hint"]
    assert nobody.show(number)["text"] == FINDING["text"]
    assert owner.post("update", id=number, text="Something else", published=False).status_code == 200
    assert not nobody.sees(number)


def test_admin_publishes_in_any_way(admin: Person, nobody: Person) -> None:
    number = admin.create(published=True)
    assert nobody.sees(number)
    admin.post("update", id=number, published=False)
    assert not nobody.sees(number)
    admin.post("update", id=number, published=True)
    assert nobody.sees(number)


def test_access_tokens_write_for_their_account_as_users(app: Flask, module_dsn: str, owner: Person) -> None:
    account_id = account_id_of(app, owner.email)
    writer = program_of(app, module_dsn, account_id, "write")
    number = writer.create()
    assert owner.show(number)["mine"] == 1
    assert writer.post("update", id=number, title="Changed").status_code == 200
    reader = program_of(app, module_dsn, account_id, "read")
    assert reader.show(number)["title"] == "Changed"
    for action in ("create", "update", "delete", "publish"):
        response = reader.post(action, **FINDING, id=number)
        assert (response.status_code, response.json["error"]) == (401, "Role not authorized")


def test_access_token_of_an_admin_is_no_admin(app: Flask, module_dsn: str, owner: Person, admin: Person) -> None:
    program = program_of(app, module_dsn, account_id_of(app, admin.email), "write")
    number = owner.create()
    assert not program.sees(number)
    assert program.post("publish", id=number).status_code == 401
    assert program.refused("delete", id=number)["err_str"] == "err_ownership"
    assert "published" in program.refused("create", **{**FINDING, "published": True})["hint"]


@pytest.mark.parametrize("action", ["update", "delete", "publish", "unpublish"])
def test_what_is_not_there_can_not_be_changed(admin: Person, action: str) -> None:
    deleted = admin.create()
    admin.post("delete", id=deleted)
    for number in ("999999999999999999", deleted):
        assert admin.refused(action, **{**FINDING, "id": number})["error"] == "Incident not found"


def test_other_actions_are_refused(owner: Person, nobody: Person) -> None:
    for action in ("show", "search", "Create", "create%20", "undelete"):
        assert owner.refused(action, **FINDING)["error"] == "Invalid request"
        assert nobody.post(action, **FINDING).status_code == 401


# Changes -----------------------------------------------------------------------------------------------------------


def test_author_and_time_of_creation_stay(owner: Person, admin: Person) -> None:
    """In the reference the admin who edited a finding became its author."""
    number = owner.create()
    before = owner.show(number)
    edited = {**before, "title": "Better", "create_time": "1999-01-01T00:00:00Z", "mine": 1, "creator_account_id": "x"}
    assert admin.post("update", **edited).json == {"id": number, "r": 1}
    after = owner.show(number)
    assert (after["title"], after["mine"], after["create_time"]) == ("Better", 1, before["create_time"])
    assert admin.show(number)["mine"] == 0
    assert after["update_time"] > before["update_time"]
    assert after["revision"] == 2


def test_update_changes_what_is_given(owner: Person) -> None:
    number = owner.create(end_time="2024-02-01T00:00:00Z")
    assert owner.post("update", id=number, CCs=["FR", "DE"], themes=None).status_code == 200
    after = owner.show(number)
    kept = {name: after[name] for name in FINDING if name not in {"CCs", "end_time"}}
    assert kept == {name: FINDING[name] for name in kept}
    assert (after["CCs"], after["end_time"]) == (["FR", "DE"], "2024-02-01T00:00:00Z")
    owner.post("update", id=number, end_time=None, links=[], short_description="")
    after = owner.show(number)
    assert (after["end_time"], after["links"], after["short_description"]) == (None, [], "")


def test_update_that_changes_nothing_is_no_change(owner: Person, module_dsn: str) -> None:
    number = owner.create()
    before = owner.show(number)
    assert owner.post("update", **before).json == {"id": number, "r": 1}
    assert owner.show(number) == before
    assert [action for action, _ in audit_lines(module_dsn, number)] == ["incident.create"]


def test_parts_of_an_update_have_to_fit_the_rest(owner: Person) -> None:
    number = owner.create(start_time="2024-01-05T00:00:00Z")
    assert "end_time" in owner.refused("update", id=number, end_time="2024-01-04T00:00:00Z")["hint"]
    owner.post("update", id=number, end_time="2024-01-06T00:00:00Z")
    assert "end_time" in owner.refused("update", id=number, start_time="2024-01-07T00:00:00Z")["hint"]


def test_every_change_is_recorded(owner: Person, admin: Person, app: Flask, module_dsn: str) -> None:
    number = owner.create(title="Secret title")
    owner.post("update", id=number, text="New", CCs=["FR"])
    admin.post("publish", id=number)
    admin.post("publish", id=number)
    admin.post("update", id=number, published=False)
    admin.post("unpublish", id=number)
    owner.post("delete", id=number)
    lines = audit_lines(module_dsn, number)
    assert [action for action, _ in lines] == [
        *("incident.create", "incident.update", "incident.publish", "incident.update", "incident.unpublish"),
        "incident.delete",
    ]
    assert lines[1][1] == {"revision": 2, "changed": ["CCs", "text"]}
    with psycopg.connect(module_dsn) as connection:
        rows = connection.execute(
            "SELECT account_id, role, via FROM audit_log WHERE subject = %s ORDER BY audit_id", [number]
        ).fetchall()
    author, reader = (account_id_of(app, each.email) for each in (owner, admin))
    assert [row[:2] for row in rows] == [
        *((author, "user"), (author, "user"), (reader, "admin"), (reader, "admin"), (reader, "admin")),
        (author, "user"),
    ]
    assert {row[2] for row in rows} == {"session"}


def test_refused_changes_leave_no_trace(owner: Person, other: Person, module_dsn: str) -> None:
    number = owner.create()
    before = owner.show(number)
    other.refused("update", id=number, title="Mine now")
    other.refused("delete", id=number)
    owner.refused("update", id=number, title="")
    assert owner.show(number) == before
    assert [action for action, _ in audit_lines(module_dsn, number)] == ["incident.create"]


# Slugs -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("title", "slug"),
    [
        ("Iran's networks: down?", "2024-irans-networks-down"),
        ("  Blocage à Niamey — été ", "2024-blocage-a-niamey-ete"),
        ("中文", "2024-finding"),
        ("2024", "2024-2024"),
        ("x" * 100, "2024-" + "x" * 59),
        ("a" * 58 + " tail", "2024-" + "a" * 58),
        ("<script>alert(1)</script>", "2024-script-alert-1-script"),
    ],
)
def test_slugs_are_made_of_year_and_title(title: str, slug: str) -> None:
    start = moment("2024-05-01T00:00:00Z")
    assert start is not None
    made = slugs(title, start)
    first, second, *others = [next(made) for _ in range(20)]
    assert first == slug
    assert second == f"{slug[:62].rstrip('-')}-2"
    assert len({first, second, *others}) == 20
    assert all(re.fullmatch("[a-z0-9]+(-[a-z0-9]+)*", each) and len(each) <= 64 for each in (first, second, *others))


def test_slug_can_be_chosen_and_is_nobody_elses(owner: Person, admin: Person) -> None:
    number = owner.create(slug="my-own-slug")
    assert owner.show("my-own-slug")["id"] == number
    assert "my-own-slug" in admin.refused("create", **{**FINDING, "slug": "my-own-slug"})["hint"]
    another = owner.create(title="Another")
    assert "my-own-slug" in owner.refused("update", id=another, slug="my-own-slug")["hint"]
    assert owner.post("update", id=number, slug="better-slug").status_code == 200
    assert owner.get("my-own-slug").status_code == 400
    assert owner.show("better-slug")["id"] == number
    owner.post("delete", id=number)
    assert "better-slug" in admin.refused("create", **{**FINDING, "slug": "better-slug"})["hint"]


def test_slug_stays_when_the_title_changes(owner: Person) -> None:
    number = owner.create(title="First title of this one")
    owner.post("update", id=number, title="Second title", slug=None)
    assert owner.show("2024-first-title-of-this-one")["title"] == "Second title"


# Filters, CSV ------------------------------------------------------------------------------------------------------


@pytest.fixture
def three(owner: Person) -> dict[str, str]:
    """Findings by letter."""
    return {
        owner.create(title="a", CCs=["IT", "FR"], ASNs=[1, 2], domains=["A.example"], themes=["im", "elections"]): "a",
        owner.create(title="b", CCs=["IT"], ASNs=[2, 4294967295], domains=["b.example"], themes=["social_media"]): "b",
        owner.create(title="c", CCs=[], ASNs=[], domains=[], themes=[]): "c",
    }


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", "abc"),
        ("country_code=IT", "ab"),
        ("country_code=it", "ab"),
        ("country_code=FR&country_code=DE", "a"),
        ("country_code=DE", ""),
        ("theme=im", "a"),
        ("theme=im&theme=social_media", "ab"),
        ("theme=im&country_code=IT", "a"),
        ("theme=social_media&country_code=FR", ""),
        ("asn=1", "a"),
        ("asn=AS2", "ab"),
        ("asn=1&asn=4294967295", "ab"),
        ("asn=AS70000", ""),
        ("domain=a.example", "a"),
        ("domain=A.EXAMPLE&domain=b.example", "ab"),
        ("domain=example", None),
        ("domain=a.example&asn=2&country_code=IT&theme=elections", "a"),
        ("theme=&country_code=&asn=&domain=", "abc"),
        ("asn=x", None),
        ("asn=0", None),
        ("asn=4294967296", None),
        ("country_code=ITA", None),
        ("theme=Im", None),
        ("&".join(f"asn={number}" for number in range(1, 102)), None),
        ("unknown=1", "abc"),
    ],
)
def test_filters(owner: Person, three: dict[str, str], query: str, expected: str | None) -> None:
    if expected is None:
        response = owner.client.get(f"/api/v1/incidents/search?{query}", headers=owner.headers)
        assert response.status_code == 400
        assert query.partition("=")[0] in response.json["error"]
    else:
        found = [three[each["id"]] for each in owner.search(query) if each["id"] in three]
        assert "".join(found) == expected


def test_csv_has_what_json_has_and_no_formula(owner: Person) -> None:
    hostile = '=HYPERLINK("http://evil.example","x")'
    number = owner.create(title=hostile, reported_by="@cmd", tags=["+1", "b"], short_description='-2\nof, "two" lines')
    response = owner.client.get("/api/v1/incidents/search?only_mine=1&format=CSV", headers=owner.headers)
    assert response.status_code == 200
    assert response.headers["Content-Type"] == "text/csv"
    assert "no-cache" in response.headers["Cache-Control"]
    (row,) = csv.DictReader(io.StringIO(response.text, newline=""))
    found = owner.show(number)
    assert set(row) == SHOWN - {"mine", "email_address"}
    assert (row["id"], row["slug"], row["published"]) == (number, found["slug"], "false")
    assert row["title"] == f"'{hostile}"
    assert row["reported_by"] == "'@cmd"
    assert row["tags"] == "'+1, b"
    assert row["short_description"] == '\'-2\nof, "two" lines'
    assert (row["start_time"], row["end_time"]) == ("2024-01-01T00:00:00Z", "")
    assert (row["CCs"], row["ASNs"], row["links"]) == ("IT", "30722", FINDING["links"][0])
