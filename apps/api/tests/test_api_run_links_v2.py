"""Run links over the newer routes: what is kept, revisions, who may edit until when, and edits at once."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from api_sample import DAY, TODAY, Sample
from flask import Flask
from run_linkers import V1, V2, WRITTEN, Linker, audit_lines, linker, program

from api import run_link_store
from fastpath.store import Store

MICROSECONDS = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}000Z")
ONE = [{"test_name": "web_connectivity"}]


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


def path(link: dict[str, Any]) -> str:
    return f"{V2}/{link['oonirun_link_id']}"


def from_now(**distance: float) -> str:
    return f"{datetime.now(UTC) + timedelta(**distance):%Y-%m-%dT%H:%M:%SZ}"


# What is shown -----------------------------------------------------------------------------------------------------


def test_what_was_written_is_shown(owner: Linker, nobody: Linker) -> None:
    link = owner.make()
    shown = {
        **WRITTEN,
        "nettests": [
            {**WRITTEN["nettests"][0], "targets_name": None},
            {
                "test_name": "signal",
                "inputs": None,
                "inputs_extra": None,
                "options": {},
                "targets_name": None,
                "is_background_run_enabled_default": True,
                "is_manual_run_enabled_default": True,
            },
        ],
    }
    assert {name: link[name] for name in WRITTEN} == shown
    assert (link["revision"], link["is_mine"], link["is_expired"]) == ("1", True, False)
    assert int(link["oonirun_link_id"]) >= 10_000
    for name in ("date_created", "date_updated", "expiration_date"):
        assert MICROSECONDS.fullmatch(link[name])
    assert link["date_created"] == link["date_updated"]
    lasts = datetime.fromisoformat(link["expiration_date"]) - datetime.fromisoformat(link["date_created"])
    assert abs(lasts - timedelta(days=180)) < timedelta(minutes=1)
    assert owner.read(path(link)) == link
    assert nobody.read(path(link)) == {**link, "is_mine": False, "author": ""}
    assert nobody.read(f"{path(link)}/full-descriptor/latest") == nobody.read(path(link))


def test_what_is_left_out_is_empty(owner: Linker) -> None:
    least = dict.fromkeys(WRITTEN) | {"name": "Messengers", "short_description": "xy", "nettests": []}
    link = owner.make(**least)
    assert (link["description"], link["icon"], link["color"], link["nettests"]) == ("", "", None, [])
    assert link["name_intl"] == link["short_description_intl"] == link["description_intl"] == {}


def test_replies_are_for_nobody_elses_cache(owner: Linker, nobody: Linker) -> None:
    link = owner.make()
    for suffix in ("", "/full-descriptor/latest"):
        public, private = nobody.get(path(link) + suffix), owner.get(path(link) + suffix)
        assert public.headers["Cache-Control"] == "max-age=0, no-cache"
        assert "private" in private.headers["Cache-Control"]
        assert "Authorization" in public.headers["Vary"]
    assert nobody.get(f"{path(link)}/revisions").headers["Cache-Control"] == "max-age=0, no-cache"


def test_what_is_not_there_is_404(owner: Linker, nobody: Linker) -> None:
    missing = f"{V2}/999999999999999999"
    for suffix in ("", "/revisions", "/full-descriptor/latest", "/full-descriptor/1"):
        response = nobody.get(missing + suffix)
        assert response.status_code == 404
        assert response.json["error"] == response.json["detail"]
    assert owner.put("999999999999999999").status_code == 404
    for odd in ("x", "-1", "9" * 19, "1.0", "latest"):
        assert nobody.get(f"{V2}/{odd}").status_code == 404
        assert nobody.get(f"{V2}/10000/full-descriptor/{'x' if odd == 'latest' else odd}").status_code == 404


# Authors -----------------------------------------------------------------------------------------------------------


def test_author_is_the_own_address_and_is_shown_to_its_owner_alone(
    owner: Linker, nobody: Linker, admin: Linker
) -> None:
    for author in (owner.email, f" {owner.email.upper()}", "", None):
        link = owner.make(author=author)
        assert link["author"] == owner.email
        assert owner.edit(link["oonirun_link_id"], author=author)["author"] == owner.email
        assert nobody.read(path(link))["author"] == ""
        assert admin.read(path(link))["author"] == ""


@pytest.mark.parametrize("author", ["other@example.org", "Example Observatory", "x" * 300, "@"])
def test_another_author_is_refused(owner: Linker, author: str) -> None:
    response = owner.post(V2, {**WRITTEN, "author": author})
    assert response.status_code == 400
    assert "author" in response.json["error"]
    link = owner.make()
    response = owner.put(link["oonirun_link_id"], author=author, name="Changed")
    assert response.status_code == 403
    assert "author" in response.json["error"]
    assert owner.read(path(link)) == link


def test_programs_write_by_their_scope(module_app: Flask, module_dsn: str, owner: Linker) -> None:
    """They need no author, may give that of their account, and are not shown it."""
    writer, reader = (program(module_app, module_dsn, owner.email, scope) for scope in ("write", "read"))
    link = writer.make()
    assert (link["is_mine"], link["author"]) == (True, "")
    assert writer.edit(link["oonirun_link_id"], author=owner.email, name="Changed")["name"] == "Changed"
    assert writer.post(V2, {**WRITTEN, "author": "other@example.org"}).status_code == 400
    assert reader.read(path(link))["is_mine"]
    for response in (reader.post(V2, WRITTEN), reader.put(link["oonirun_link_id"])):
        assert (response.status_code, response.json["error"]) == (401, "Role not authorized")


def test_who_may_edit(
    module_app: Flask, module_dsn: str, owner: Linker, other: Linker, admin: Linker, nobody: Linker
) -> None:
    link = owner.make()
    number = link["oonirun_link_id"]
    assert (nobody.put(number).status_code, nobody.post(V2, WRITTEN).status_code) == (401, 401)
    response = other.put(number, name="Taken over")
    assert response.status_code == 403
    assert response.json["detail"] == response.json["error"]
    assert program(module_app, module_dsn, admin.email, "write").put(number).status_code == 403
    assert owner.read(path(link)) == link
    edited = admin.edit(number, name="By an admin")
    assert (edited["name"], edited["is_mine"], edited["author"]) == ("By an admin", False, "")
    shown = owner.read(path(link))
    assert (shown["name"], shown["is_mine"], shown["author"]) == ("By an admin", True, owner.email)


# Revisions ---------------------------------------------------------------------------------------------------------

OTHER_TESTS: list[Any] = [
    [],
    ONE,
    WRITTEN["nettests"][::-1],
    [WRITTEN["nettests"][0] | {"inputs_extra": [{"category_code": "NEWS"}, {}]}, WRITTEN["nettests"][1]],
    [WRITTEN["nettests"][0] | {"options": {}}, WRITTEN["nettests"][1]],
    [WRITTEN["nettests"][0], {"test_name": "signal", "is_manual_run_enabled_default": False}],
]


@pytest.mark.parametrize("nettests", OTHER_TESTS)
def test_other_tests_make_a_revision(owner: Linker, nobody: Linker, nettests: list[Any]) -> None:
    first = owner.make()
    second = owner.edit(first["oonirun_link_id"], nettests=nettests)
    assert second["revision"] == "2"
    assert second["date_updated"] > first["date_updated"]
    assert second["date_created"] == first["date_created"]
    assert nobody.read(f"{path(first)}/revisions") == {"revisions": ["2", "1"]}
    then = owner.read(f"{path(first)}/full-descriptor/1")
    assert then == {**second, "nettests": first["nettests"], "revision": "1"}
    assert owner.read(f"{path(first)}/full-descriptor/2") == owner.read(path(first)) == second


@pytest.mark.parametrize(
    "changes",
    [
        {"name": "Another"},
        {"name_intl": None},
        {"description_intl": {"it": "Altro", "fr": "Autre"}},
        {"color": "#000000", "icon": ""},
        {"expiration_date": from_now(days=10)},
    ],
)
def test_other_texts_make_none(owner: Linker, nobody: Linker, changes: dict[str, Any]) -> None:
    first = owner.make()
    second = owner.edit(first["oonirun_link_id"], **changes)
    assert second["revision"] == "1"
    assert second["nettests"] == first["nettests"]
    assert second["date_updated"] > first["date_updated"]
    assert nobody.read(f"{path(first)}/revisions") == {"revisions": ["1"]}


def test_an_edit_that_changes_nothing_is_none(owner: Linker, module_dsn: str) -> None:
    link = owner.make()
    assert owner.edit(link["oonirun_link_id"]) == link
    assert owner.client.put(path(link), json=link, headers=owner.headers).json == link
    same = [WRITTEN["nettests"][0], {"test_name": "signal", "is_manual_run_enabled": True, "options": {}}]
    assert owner.edit(link["oonirun_link_id"], nettests=same) == link
    assert len(audit_lines(module_dsn, link["oonirun_link_id"])) == 1


def test_a_revision_that_is_not_there_has_no_tests(owner: Linker, nobody: Linker) -> None:
    link = owner.make()
    for number in ("0", "2", "999999999"):
        shown = nobody.read(f"{path(link)}/full-descriptor/{number}")
        assert (shown["nettests"], shown["revision"], shown["name"]) == ([], number, link["name"])


def test_every_write_is_recorded(owner: Linker, other: Linker, admin: Linker, module_dsn: str) -> None:
    number = owner.make()["oonirun_link_id"]
    owner.edit(number, nettests=ONE)
    admin.edit(number, nettests=ONE, name="Renamed")
    other.put(number, name="Refused")
    owner.put(number, name="x")
    assert audit_lines(module_dsn, number) == [
        ("user", "run_link.create", {"tests": 2}),
        ("user", "run_link.edit", {"made_from": 1, "revised": True, "expires": False}),
        ("admin", "run_link.edit", {"made_from": 2, "revised": False, "expires": False}),
    ]


# Expiry ------------------------------------------------------------------------------------------------------------


def test_expired_links_stay_as_they_are(owner: Linker, admin: Linker, nobody: Linker) -> None:
    link = owner.make(expiration_date=from_now(days=1))
    assert not link["is_expired"]
    past = from_now(days=-1)
    expired = owner.edit(link["oonirun_link_id"], expiration_date=past)
    assert expired["is_expired"]
    assert expired["expiration_date"] == f"{past[:-1]}.000000Z"
    for who in (owner, admin):
        response = who.put(link["oonirun_link_id"], expiration_date=from_now(days=1))
        assert response.status_code == 403
        assert "expired" in response.json["error"]
    assert nobody.read(path(link))["is_expired"]
    assert nobody.read(f"{V1}/fetch/{link['oonirun_link_id']}")["archived"]


@pytest.mark.parametrize(
    ("written", "shown"),
    [
        ("2099-01-31T12:00:00Z", "2099-01-31T12:00:00.000000Z"),
        ("2099-01-31T12:00:00.123456+02:00", "2099-01-31T10:00:00.123000Z"),
        ("2099-01-31", "2099-01-31T00:00:00.000000Z"),
        ("9999-12-31T23:59:59.999999", "9999-12-31T23:59:59.999000Z"),
    ],
)
def test_expiry_may_be_written_in_any_iso_form(owner: Linker, written: str, shown: str) -> None:
    assert owner.make(expiration_date=written)["expiration_date"] == shown


def test_expiry_stays_when_it_is_left_out(owner: Linker) -> None:
    link = owner.make(expiration_date="2099-01-31T12:00:00Z")
    assert owner.edit(link["oonirun_link_id"], name="Changed")["expiration_date"] == link["expiration_date"]


# The list ----------------------------------------------------------------------------------------------------------


def numbers(who: Linker, query: str = "") -> list[str]:
    return [link["oonirun_link_id"] for link in who.read(f"{V2}?{query}")["oonirun_links"]]


def test_list(owner: Linker, other: Linker, nobody: Linker) -> None:
    old, new, theirs = (who.make()["oonirun_link_id"] for who in (owner, owner, other))
    owner.edit(old, expiration_date=from_now(days=-1))
    owner.edit(new, nettests=ONE)
    assert numbers(nobody)[:3] == [theirs, new, old]
    assert numbers(nobody, "is_expired=false")[:2] == [theirs, new]
    assert numbers(nobody, "is_expired=true")[0] == old
    assert numbers(owner, "is_mine=true")[:2] == [new, old]
    assert numbers(owner, "is_mine=true&is_expired=false")[0] == new
    assert theirs not in numbers(owner, "is_mine=true")
    assert numbers(owner, "is_mine=false&is_expired=")[:3] == [theirs, new, old]
    assert numbers(nobody, "is_mine=true") == []
    assert numbers(nobody, "offset=1")[:2] == [new, old]
    shown = owner.read(V2)["oonirun_links"][1]
    assert shown == owner.read(f"{V2}/{new}")
    assert [nettest["test_name"] for nettest in shown["nettests"]] == ["web_connectivity"]


@pytest.mark.parametrize(
    "query", ["is_mine=maybe", "is_expired=2", "offset=-1", "offset=x", "offset=1000001", "is_mine=%00"]
)
def test_bad_queries_are_refused(nobody: Linker, query: str) -> None:
    response = nobody.get(f"{V2}?{query}")
    assert response.status_code == 400
    assert query.partition("=")[0] in response.json["error"]


def test_list_is_bounded_in_bytes(owner: Linker, nobody: Linker, monkeypatch: pytest.MonkeyPatch) -> None:
    made = [owner.make(description="x" * 5000)["oonirun_link_id"] for _ in range(3)][::-1]
    least = str(run_link_store.LISTED_BYTES)
    monkeypatch.setattr(run_link_store, "_LIST", run_link_store._LIST.replace(least, "13000"))
    assert numbers(nobody) == made[:2]
    assert numbers(nobody, "offset=2")[0] == made[2]


# Edits at once -----------------------------------------------------------------------------------------------------


def test_an_edit_of_what_was_edited_since_is_refused(owner: Linker, admin: Linker) -> None:
    link = owner.make()
    number, first = link["oonirun_link_id"], link["date_updated"]
    second = admin.edit(number, name="By somebody else", if_date_updated=first)
    response = owner.put(number, name="Mine", if_date_updated=first)
    assert response.status_code == 409
    assert response.json["error"] == response.json["detail"]
    assert second["date_updated"] in response.json["hint"]
    assert owner.read(path(link))["name"] == "By somebody else"
    assert owner.edit(number, name="Mine", if_date_updated=second["date_updated"])["name"] == "Mine"
    assert owner.edit(number, name="Without asking")["name"] == "Without asking"
    assert owner.put(number, if_date_updated="before").status_code == 422


def web(*inputs: str) -> list[dict[str, Any]]:
    return [{"test_name": "web_connectivity", "inputs": list(inputs)}]


def at_once(app: Flask, owner: Linker, work: Callable[[Linker, int], Any], count: int) -> list[Any]:
    with ThreadPoolExecutor(count) as threads:
        return list(threads.map(lambda which: work(Linker(app, owner.headers, owner.email), which), range(count)))


def test_of_edits_at_once_no_revision_is_lost(module_app: Flask, owner: Linker) -> None:
    link = owner.make(nettests=[])

    def edit(who: Linker, which: int) -> list[int]:
        """Edit until the server has room; returns the status of each attempt."""
        statuses = []
        while not statuses or statuses[-1] == 503:
            number = link["oonirun_link_id"]
            statuses.append(who.put(number, nettests=web(f"https://{which}.example.org/")).status_code)
        return statuses

    assert {statuses[-1] for statuses in at_once(module_app, owner, edit, 8)} == {200}
    revisions = owner.read(f"{path(link)}/revisions")["revisions"]
    assert revisions == [str(number) for number in range(9, 0, -1)]
    shown = [owner.read(f"{path(link)}/full-descriptor/{number}")["nettests"] for number in revisions[:-1]]
    assert {nettests[0]["inputs"][0] for nettests in shown} == {f"https://{which}.example.org/" for which in range(8)}


def test_of_edits_at_once_from_the_same_state_one_is_kept(module_app: Flask, owner: Linker) -> None:
    link = owner.make()

    def edit(who: Linker, which: int) -> int:
        status = 503
        while status == 503:
            changes = {"name": f"Edit {which}", "if_date_updated": link["date_updated"]}
            status = who.put(link["oonirun_link_id"], **changes).status_code
        return status

    assert sorted(at_once(module_app, owner, edit, 6)) == [200, 409, 409, 409, 409, 409]


def test_of_edits_of_both_generations_at_once_none_is_lost(module_app: Flask, owner: Linker, module_dsn: str) -> None:
    number = owner.make_v1(icon="first")

    def edit(who: Linker, which: int) -> int:
        status = 503
        while status == 503:
            old, new = who.create_v1, who.put
            response = old(number, icon=f"old-{which}") if which % 2 else new(number, nettests=web(str(which)))
            status = response.status_code
        return status

    assert set(at_once(module_app, owner, edit, 6)) == {200}
    with psycopg.connect(module_dsn) as connection:
        rows = connection.execute(
            "SELECT revision, created_at FROM oonirun_revisions WHERE link_id = %s ORDER BY revision", [number]
        ).fetchall()
    moments = [made_at for _, made_at in rows]
    assert moments == sorted(set(moments)), "each can be fetched by when it was made"
    assert len(audit_lines(module_dsn, number)) == 7
    versions = owner.read(f"{V1}/list?ooni_run_link_id={number}")["descriptors"]
    assert {each["icon"] for each in versions} >= {"old-1", "old-3", "old-5"}


def test_links_made_at_once_have_numbers_of_their_own(module_app: Flask, owner: Linker) -> None:
    def make(who: Linker, which: int) -> str:
        while True:
            response = who.post(V2, {**WRITTEN, "name": f"Link {which}"})
            if response.status_code != 503:
                return str(response.json["oonirun_link_id"])

    made = at_once(module_app, owner, make, 8)
    assert len(set(made)) == 8
    assert {owner.read(f"{V2}/{number}")["name"] for number in made} == {f"Link {which}" for which in range(8)}


def test_an_edit_that_waited_while_the_link_was_archived_is_refused(
    module_app: Flask, owner: Linker, module_dsn: str
) -> None:
    link = owner.make()
    with psycopg.connect(module_dsn) as archiving, ThreadPoolExecutor(1) as threads:
        archiving.execute("SELECT FROM oonirun_links WHERE link_id = %s FOR UPDATE", [link["oonirun_link_id"]])
        edit = threads.submit(Linker(module_app, owner.headers).put, link["oonirun_link_id"], name="Too late")
        with psycopg.connect(module_dsn, autocommit=True) as other:
            while not other.execute("SELECT FROM pg_locks WHERE NOT granted").fetchall():
                assert not edit.done(), edit.result().text
        archiving.execute(  # the column would round up, into the future
            "UPDATE oonirun_links SET expires_at = date_trunc('milliseconds', clock_timestamp()) WHERE link_id = %s",
            [link["oonirun_link_id"]],
        )
        archiving.commit()
        assert edit.result(60).status_code == 403
    assert owner.read(path(link))["name"] == link["name"]


def test_measurements_are_found_by_the_numbers_of_both_generations(
    owner: Linker, nobody: Linker, module_dsn: str
) -> None:
    old, new = owner.make_v1(), owner.make()["oonirun_link_id"]
    measured = [Sample(TODAY - DAY, int(number), run_link=int(number)) for number in (old, new)]
    store = Store(module_dsn)
    store.insert([sample.row() for sample in measured])
    store.close()
    for sample, number in zip(measured, (old, new), strict=True):
        found = nobody.read(f"/api/v1/measurements?ooni_run_link_id={number}")["results"]
        assert [each["measurement_uid"] for each in found] == [sample.uid]


def test_edits_of_a_day_are_bounded(module_app: Flask, module_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    busy = linker(module_app, module_dsn, "busy")
    newer, older = busy.make()["oonirun_link_id"], busy.make_v1()
    monkeypatch.setattr("api.run_link_store.MOST_EDITS", 2)
    busy.edit(newer, name="First")
    busy.make_v1(older, name="Second")
    for response in (busy.put(newer, name="Third"), busy.create_v1(older, name="Third")):
        assert (response.status_code, response.headers["Retry-After"]) == (429, "3600")
    assert busy.read(f"{V2}/{newer}")["name"] == "First"


def test_who_has_no_room_left_can_shorten(module_app: Flask, module_dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    full = linker(module_app, module_dsn, "full")
    number = full.make(description="x" * 5000)["oonirun_link_id"]
    monkeypatch.setattr("api.run_link_store.MOST_BYTES", 6000)
    longer = full.put(number, description="x" * 9000)
    assert longer.status_code == 400
    assert "6000 bytes" in longer.json["error"]
    assert full.edit(number, description="short")["description"] == "short"
