"""Run links over the older routes: what is kept of a descriptor, its versions, and who may change it."""

import re
from datetime import datetime
from typing import Any

import psycopg
import pytest
from flask import Flask
from psycopg import sql
from run_linkers import DESCRIPTOR, V1, V2, Linker, audit_lines, linker, program

from api import run_link_store

TIMES = ("descriptor_creation_time", "translation_creation_time")


@pytest.fixture(scope="module")
def owner(module_app: Flask, module_dsn: str) -> Linker:
    return linker(module_app, module_dsn, "owner")


@pytest.fixture(scope="module")
def other(module_app: Flask, module_dsn: str) -> Linker:
    return linker(module_app, module_dsn, "other")


@pytest.fixture(scope="module")
def admin(module_app: Flask, module_dsn: str) -> Linker:
    return linker(module_app, module_dsn, "admin", "admin")


@pytest.fixture(scope="module")
def nobody(module_app: Flask) -> Linker:
    return Linker(module_app, {})


def fetch(who: Linker, link_id: int, made_at: str | None = None) -> dict[str, Any]:
    query = "" if made_at is None else f"?creation_time={made_at}"
    found: dict[str, Any] = who.read(f"{V1}/fetch/{link_id}{query}")
    assert set(found) == {"archived", "descriptor", "mine", "v", *TIMES}
    return found


def moment(text: str) -> datetime:
    return datetime.fromisoformat(text)


def listed(who: Linker, query: str = "") -> list[dict[str, Any]]:
    reply = who.read(f"{V1}/list?{query}")
    assert reply["v"] == 1
    found: list[dict[str, Any]] = reply["descriptors"]
    return found


def test_what_was_written_is_fetched(owner: Linker, nobody: Linker) -> None:
    link_id = owner.make_v1()
    assert link_id >= 10_000
    mine, theirs = fetch(owner, link_id), fetch(nobody, link_id)
    assert mine["descriptor"] == theirs["descriptor"] == DESCRIPTOR
    assert (mine["mine"], theirs["mine"]) == (True, False)
    assert (mine["archived"], mine["v"]) == (False, 1)
    for name in TIMES:
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{3}000)?Z", mine[name])


def test_numbers_count_up(owner: Linker) -> None:
    first = owner.make_v1()
    assert owner.make_v1() > first


@pytest.mark.parametrize("name", ["", "   ", None])
def test_name_must_not_be_empty(owner: Linker, name: str | None) -> None:
    response = owner.create_v1(name=name)
    assert (response.status_code, response.json["error"]) == (400, "'name' field must not be empty")


@pytest.mark.parametrize("field", ["name_intl", "short_description_intl", "description_intl"])
@pytest.mark.parametrize("text", ["", " \t ", None])
def test_translations_must_not_be_empty(owner: Linker, field: str, text: str | None) -> None:
    response = owner.create_v1(**{field: {"it": text}})
    assert response.status_code == 400
    assert response.json["err_str"] == "err_empty_translation_field"
    assert response.json["error"] == "Empty translation field"
    assert field in response.json["hint"]


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"name": 5}, "name"),
        ({"name": "x" * 201}, "name"),
        ({"name_intl": {"<b>": "x"}}, "name_intl"),
        ({"nettests": "all"}, "nettests"),
        ({"nettests": [{}]}, "nettests.0.test_name"),
        ({"nettests": [{"test_name": "web_connectivity", "targets_name": "everything"}]}, "nettests.0.targets_name"),
        ({"author": "x" * 201}, "author"),
        ({"author": ["x"]}, "author"),
        ({"icon": 1}, "icon"),
    ],
)
def test_what_is_wrong_is_named(owner: Linker, changes: dict[str, Any], field: str) -> None:
    response = owner.create_v1(**changes)
    assert response.status_code == 400
    assert f"Invalid value in field {field}:" in response.json["error"]


@pytest.mark.parametrize(
    "changes",
    [
        {"nettests": DESCRIPTOR["nettests"][:1]},
        {"icon": "another"},
        {"author": "somebody else"},
        {"nettests": [{**DESCRIPTOR["nettests"][0], "is_manual_run_enabled": True}, DESCRIPTOR["nettests"][1]]},
    ],
)
def test_other_tests_icon_or_author_make_a_version(owner: Linker, nobody: Linker, changes: dict[str, Any]) -> None:
    link_id = owner.make_v1()
    before = fetch(nobody, link_id)
    assert owner.make_v1(link_id, **changes) == link_id
    after = fetch(nobody, link_id)
    assert after["descriptor"] == {**DESCRIPTOR, **changes}
    assert moment(after["descriptor_creation_time"]) > moment(before["descriptor_creation_time"])
    assert after["translation_creation_time"] == after["descriptor_creation_time"]
    assert fetch(nobody, link_id, before["descriptor_creation_time"]) == before


@pytest.mark.parametrize(
    "changes",
    [{}, {"name": "Another"}, {"name_intl": {"fr": "Autre"}}, {"description": "Other", "short_description": "O"}],
)
def test_other_texts_make_none(owner: Linker, nobody: Linker, changes: dict[str, Any]) -> None:
    link_id = owner.make_v1()
    before = fetch(nobody, link_id)
    owner.make_v1(link_id, **changes)
    after = fetch(nobody, link_id)
    assert after["descriptor"] == {**DESCRIPTOR, **changes}
    assert after["descriptor_creation_time"] == before["descriptor_creation_time"]
    assert moment(after["translation_creation_time"]) > moment(before["translation_creation_time"])
    assert len(listed(nobody, f"ooni_run_link_id={link_id}")) == 1


@pytest.mark.parametrize("stored", ["2024-01-31 12:00:00Z", "2024-01-31 12:00:00.120Z", "2024-01-31 12:00:00.123Z"])
def test_every_time_that_is_told_can_be_asked_for(owner: Linker, nobody: Linker, module_dsn: str, stored: str) -> None:
    link_id = owner.make_v1()
    with psycopg.connect(module_dsn) as connection:
        connection.execute("UPDATE oonirun_revisions SET created_at = %s WHERE link_id = %s", [moment(stored), link_id])
    told = fetch(nobody, link_id)["descriptor_creation_time"]
    seconds, _, fraction = told.rstrip("Z").partition(".")
    fraction = fraction or "000000"
    for written in (told, f"{seconds}.{fraction[:3]}Z", f"{seconds}.{fraction}Z", f"{seconds}.{fraction}"):
        assert fetch(nobody, link_id, written)["descriptor_creation_time"] == told
    for other in (f"{seconds}.{fraction[:3]}001Z", "1999-01-01T00:00:00Z"):
        response = nobody.get(f"{V1}/fetch/{link_id}?creation_time={other}")
        assert (response.status_code, response.json["error"]) == (400, "oonirun descriptor not found")
        assert "creation_time" in response.json["hint"]


@pytest.mark.parametrize(
    "text", ["yesterday", "2024-13-01T00:00:00Z", "2024-01-31", "2024-01-31T12:00:00+01:00", "\u0662"]
)
def test_times_that_are_none_are_refused(nobody: Linker, text: str) -> None:
    response = nobody.client.get(f"{V1}/fetch/10000", query_string={"creation_time": text})
    assert response.status_code == 400
    assert "creation_time" in response.json["error"]


def test_what_is_not_there(owner: Linker, nobody: Linker) -> None:
    response = nobody.get(f"{V1}/fetch/999999999999999999")
    assert (response.status_code, response.json["error"]) == (400, "oonirun descriptor not found")
    response = owner.create_v1(999_999_999)
    assert (response.status_code, response.json["error"]) == (400, "OONIRun descriptor not found")
    for path in ("x", "-1", "1.5", "9" * 19, "\u0661"):
        assert nobody.get(f"{V1}/fetch/{path}").status_code == 404


def test_only_the_owner_edits(owner: Linker, other: Linker, admin: Linker, nobody: Linker) -> None:
    link_id = owner.make_v1()
    for who in (other, admin):
        response = who.create_v1(link_id, name="Taken over")
        assert (response.status_code, response.json["error"]) == (400, "OONIRun descriptor not found")
    assert nobody.create_v1(link_id).status_code == 401
    assert fetch(nobody, link_id)["descriptor"] == DESCRIPTOR


def test_programs_read_and_write_by_their_scope(module_app: Flask, module_dsn: str, owner: Linker) -> None:
    writer, reader = (program(module_app, module_dsn, owner.email, scope) for scope in ("write", "read"))
    link_id = writer.make_v1()
    assert fetch(owner, link_id)["mine"]
    assert fetch(reader, link_id)["mine"]
    response = reader.create_v1(link_id)
    assert (response.status_code, response.json["error"]) == (401, "Role not authorized")
    assert reader.post(f"{V1}/archive/{link_id}", {}).status_code == 401


def test_archiving(owner: Linker, other: Linker, nobody: Linker, module_dsn: str) -> None:
    link_id = owner.make_v1()
    owner.make_v1(link_id, icon="other")
    for who, number in ((other, link_id), (owner, 999_999_999)):  # nothing of theirs, which is no error
        response = who.post(f"{V1}/archive/{number}", {})
        assert (response.status_code, response.json) == (200, {"v": 1})
    assert not fetch(nobody, link_id)["archived"]
    for _ in range(2):
        assert owner.post(f"{V1}/archive/{link_id}", None).json == {"v": 1}
    assert [version["archived"] for version in listed(nobody, f"ooni_run_link_id={link_id}&include_archived=1")] == [
        True,
        True,
    ]
    assert fetch(nobody, link_id)["archived"]
    assert listed(nobody, f"ooni_run_link_id={link_id}") == []
    response = owner.create_v1(link_id)
    assert response.status_code == 400
    assert "archived" in response.json["error"]
    assert [action for _, action, _ in audit_lines(module_dsn, link_id)] == [
        "run_link.create",
        "run_link.edit",
        "run_link.archive",
    ]
    assert audit_lines(module_dsn, 999_999_999) == []


def test_admins_archive_what_others_made(owner: Linker, admin: Linker, nobody: Linker, module_dsn: str) -> None:
    link_id = owner.make_v1()
    assert nobody.post(f"{V1}/archive/{link_id}", {}).status_code == 401
    assert not fetch(nobody, link_id)["archived"]
    assert admin.post(f"{V1}/archive/{link_id}", {}).status_code == 200
    assert fetch(nobody, link_id)["archived"]
    assert audit_lines(module_dsn, link_id)[-1][:2] == ("admin", "run_link.archive")


def test_list(owner: Linker, other: Linker, nobody: Linker) -> None:
    mine, theirs = owner.make_v1(name="Mine"), other.make_v1(name="Theirs")
    owner.make_v1(mine, icon="new", name="Mine, newer")
    versions = [each for each in listed(owner) if each["ooni_run_link_id"] in {mine, theirs}]
    assert [each["name"] for each in versions] == ["Mine", "Theirs", "Mine, newer"]
    assert [each["mine"] for each in versions] == [True, False, True]
    times = [[moment(each[name]) for name in TIMES] for each in versions]
    assert times == sorted(times)
    assert set(versions[0]) == {
        *("archived", "author", "icon", "mine", "name", "ooni_run_link_id", "short_description"),
        *TIMES,
    }
    assert versions[2]["icon"] == "new"
    assert versions[2]["author"] == DESCRIPTOR["author"]
    assert versions[2]["short_description"] == DESCRIPTOR["short_description"]
    assert [each["name"] for each in listed(owner, f"ooni_run_link_id={mine}&only_latest=true")] == ["Mine, newer"]
    assert {each["ooni_run_link_id"] for each in listed(other, "only_mine=yes")} >= {theirs}
    assert mine not in {each["ooni_run_link_id"] for each in listed(other, "only_mine=yes")}
    assert listed(nobody, "only_mine=1") == []


@pytest.mark.parametrize(
    ("word", "on"), [("true", True), ("1", True), ("YES", True), ("false", False), ("0", False), ("", False)]
)
def test_false_is_false(owner: Linker, nobody: Linker, word: str, on: bool) -> None:
    link_id = owner.make_v1()
    owner.make_v1(link_id, icon="other")
    assert len(listed(nobody, f"ooni_run_link_id={link_id}&only_latest={word}")) == (1 if on else 2)
    assert bool(listed(nobody, f"ooni_run_link_id={link_id}&only_mine={word}")) is not on
    owner.post(f"{V1}/archive/{link_id}", {})
    assert bool(listed(nobody, f"ooni_run_link_id={link_id}&include_archived={word}")) is on


def test_list_is_bounded(owner: Linker, nobody: Linker, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = [owner.make_v1() for _ in range(3)]
    monkeypatch.setattr(run_link_store, "_LIST_V1", run_link_store._LIST_V1.replace("LIMIT 1000", "LIMIT 2"))
    assert [each["ooni_run_link_id"] for each in listed(nobody)] == numbers[1:]


@pytest.mark.parametrize(
    "query", ["ooni_run_link_id=x", "ooni_run_link_id=-1", "ooni_run_link_id=1.5", "only_mine=%ff"]
)
def test_bad_queries_are_refused(nobody: Linker, query: str) -> None:
    response = nobody.get(f"{V1}/list?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json["error"]


def test_caching(owner: Linker, nobody: Linker) -> None:
    """An hour for anybody; what depends on who asks is for nobody else's cache."""
    path = f"{V1}/fetch/{owner.make_v1()}"
    public, private = nobody.get(path), owner.get(path)
    assert public.headers["Cache-Control"] == "max-age=3600"
    assert "Authorization" in public.headers["Vary"]
    assert {part.strip() for part in private.headers["Cache-Control"].split(",")} >= {"no-cache", "private"}
    assert nobody.get(f"{V1}/list").headers["Cache-Control"] == "max-age=0, no-cache"
    assert nobody.get(f"{V1}/fetch/1").headers["Cache-Control"] == "no-cache"
    assert "max-age=0" in owner.create_v1().headers["Cache-Control"]


def test_addresses_are_not_kept(owner: Linker, nobody: Linker, module_dsn: str) -> None:
    """Its owner sees it nevertheless, in a session."""
    link_id = owner.make_v1(author=f" {owner.email.upper()} ")
    assert fetch(owner, link_id)["descriptor"]["author"] == owner.email
    assert fetch(nobody, link_id)["descriptor"]["author"] == ""
    assert owner.email not in nobody.get(f"{V1}/list").text
    with psycopg.connect(module_dsn) as connection:
        tables = connection.execute(
            "SELECT relname FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
        ).fetchall()
        for (table,) in tables:
            count = sql.SQL("SELECT count(*) FROM {} t WHERE t::text ILIKE %s").format(sql.Identifier(table))
            assert connection.execute(count, [f"%{owner.email}%"]).fetchone() == (0,), table


HOSTILE = [
    "<script>alert(1)</script>",
    '=HYPERLINK("http://x")',
    "'; DROP TABLE oonirun_links; --",
    "\\u0000",
    "a/b%00",
]
REFUSED = ["a\0b", "a\x1bb", "a\u202eb", "a\ud800b", "a\nb"]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_is(owner: Linker, nobody: Linker, text: str) -> None:
    nettests = [{"test_name": "dnscheck", "inputs": [text], "options": {text: text}}]
    changes = {"name": text, "icon": text, "author": text, "name_intl": {"it": text}, "nettests": nettests}
    link_id = owner.make_v1(**changes)
    response = nobody.get(f"{V1}/fetch/{link_id}")
    assert response.json["descriptor"] == {**DESCRIPTOR, **changes}
    assert response.mimetype == "application/json"
    assert listed(nobody, f"ooni_run_link_id={link_id}")[0]["name"] == text


@pytest.mark.parametrize("text", REFUSED)
@pytest.mark.parametrize("field", ["name", "icon", "author", "short_description"])
def test_text_that_deceives_or_cannot_be_stored_is_refused(owner: Linker, field: str, text: str) -> None:
    response = owner.create_v1(**{field: text})
    assert response.status_code == 400
    assert field in response.json["error"]


def test_both_generations_see_the_same_links(owner: Linker, nobody: Linker) -> None:
    old, new = owner.make_v1(), owner.make()
    seen = nobody.read(f"{V2}/{old}")
    assert (seen["oonirun_link_id"], seen["name"], seen["author"]) == (
        str(old),
        DESCRIPTOR["name"],
        DESCRIPTOR["author"],
    )
    assert seen["expiration_date"] == "9999-12-31T00:00:00.000000Z"
    assert [each["is_background_run_enabled_default"] for each in seen["nettests"]] == [False, True]
    assert [each["is_manual_run_enabled_default"] for each in seen["nettests"]] == [False, True]
    assert [each["backend_options"] for each in seen["nettests"]] == [{}, {}]
    descriptor = fetch(nobody, int(new["oonirun_link_id"]))["descriptor"]
    assert descriptor["name"] == new["name"]
    assert descriptor["nettests"][0]["is_background_run_enabled"] is False
    assert "is_background_run_enabled" not in descriptor["nettests"][1]
    owner.post(f"{V1}/archive/{new['oonirun_link_id']}", {})
    assert nobody.read(f"{V2}/{new['oonirun_link_id']}")["is_expired"]


def test_what_one_generation_shows_the_other_takes_without_a_revision(owner: Linker) -> None:
    old = owner.make_v1()
    shown = owner.read(f"{V2}/{old}")
    edited = owner.client.put(f"{V2}/{old}", json=shown, headers=owner.headers).json
    assert edited["revision"] == "1"
    assert edited["nettests"] == shown["nettests"]
    assert fetch(owner, old)["descriptor"]["author"] == DESCRIPTOR["author"]
    new = owner.make()
    descriptor = fetch(owner, int(new["oonirun_link_id"]))["descriptor"]
    owner.make_v1(new["oonirun_link_id"], **dict.fromkeys(DESCRIPTOR) | descriptor)
    after = owner.read(f"{V2}/{new['oonirun_link_id']}")
    assert after["revision"] == "1"
    assert after == {**new, "date_updated": after["date_updated"]}
