"""Proposing changes to the test lists: branches in real git repositories, and pull requests."""

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest
from list_editor import TOKEN, Person, Place, code, entry, submitted
from list_maintainers import FRANCE, GLOBAL, ITALY, git
from people import account_id_of

NEWS = entry("https://it.example.org/", date="2019-05-01", source="somebody")
FILES = entry("https://it.example.net/", "FILE", "2019-05-01", "somebody", 'a, "quoted" note')
RIGHTS = entry("https://it.example.com/a", "HUMR", "2019-05-01", "somebody")
NEW = entry("https://new.example.org/x", notes='a "new" one, with commas')
LINE = 'https://new.example.org/x,NEWS,News Media,2024-01-31,me,"a ""new"" one, with commas"'


@pytest.fixture
def place(tmp_path: Path, dsn: str) -> Iterator[Place]:
    made = Place(tmp_path, dsn)
    yield made
    made.close()
    made.forge.stop()


@pytest.fixture
def lone(tmp_path: Path, dsn: str) -> Iterator[Place]:
    """A place whose settings name no forge."""
    made = Place(tmp_path, dsn, forge=False)
    yield made
    made.close()
    made.forge.stop()


@pytest.fixture
def person(place: Place) -> Person:
    return place.person()


def test_a_proposal_has_exactly_the_changes(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    person.change("it", FILES, {})
    person.change("it", NEWS, {**NEWS, "category_code": "HUMR"})
    person.change("fr", {}, entry("https://fr.example.org/2"))
    pr_id = submitted(person)
    assert pr_id == f"{place.forge.api}/pulls/1"
    [branch] = place.maintainers.branches()
    italy = ITALY.splitlines(keepends=True)
    del italy[2]
    italy[1] = "https://it.example.org/,HUMR,Human Rights Issues,2019-05-01,somebody,\n"
    assert place.maintainers.read("it", branch) == "".join(italy) + LINE + "\n"
    assert place.maintainers.read("fr", branch) == (
        FRANCE + "\r\nhttps://fr.example.org/2,NEWS,News Media,2024-01-31,me,\r\n"
    )
    changed = git(place.maintainers.origin, "diff", "--name-only", "master", branch).split()
    assert changed == ["lists/fr.csv", "lists/it.csv"]
    assert git(place.maintainers.origin, "rev-list", "--count", f"master..{branch}").strip() == "1"
    assert place.maintainers.read("it") == ITALY
    found = person.get()
    assert found["state"] == "PR_OPEN"
    assert found["pr_url"] == place.forge.pulls[0]["html_url"]
    assert len(found["changes"]["it"]) == 3


def test_a_proposal_tells_nothing_of_the_person(place: Place, person: Person) -> None:
    person.change("it", {}, NEW, comment="seen @there, closes #1 <script>")
    submitted(person)
    [branch] = place.maintainers.branches()
    commit = git(place.maintainers.origin, "cat-file", "commit", branch)
    account_id = account_id_of(place.app)
    [pull] = place.forge.pulls
    for text in (commit, branch, str(pull)):
        assert "somebody@" not in text
        assert account_id[:6] not in text
    assert commit.count("Lists <lists@example.org>") == 2
    assert " +0000\n" in commit
    assert commit.endswith("\n\nChanges to the test lists: it\n")
    assert pull["base"] == "master"
    assert pull["body"] == ("    it: add https://new.example.org/x\n        seen @there, closes #1 <script>")
    assert place.forge.tokens == {f"Bearer {TOKEN}"}


def test_branches_of_one_person_have_nothing_in_common(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    person.change("it", NEW, {**NEW, "notes": "again"})
    submitted(person)
    first, second = (branch.removeprefix("test-list-changes/") for branch in place.maintainers.branches())
    assert len(first) == len(second) == 16
    assert first[:4] != second[:4]


def test_submitting_again_gives_the_same_proposal(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    assert submitted(person) == submitted(person)
    assert len(place.forge.pulls) == 1


def test_submissions_of_a_day_are_bounded(place: Place, person: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("api.testlist_proposals.SUBMISSIONS_A_DAY", 2)
    before = NEWS
    for notes in ("first", "second", "third"):
        person.change("it", before, {**NEWS, "notes": notes})
        before = {**NEWS, "notes": notes}
        response = person.submit()
    assert (response.status_code, response.headers["Retry-After"]) == (429, "3600")
    assert len(place.forge.pulls) == 2
    assert person.get()["state"] == "IN_PROGRESS"


def test_a_change_beyond_the_bound_of_a_day_withdraws_nothing(
    place: Place, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.change("it", {}, NEW)
    assert person.submit().status_code == 200
    monkeypatch.setattr("api.testlist_routes.CHANGES_A_DAY", 1)
    assert person.update("it", NEW, {}).status_code == 429
    assert person.get()["state"] == "PR_OPEN"
    assert [pull["state"] for pull in place.forge.pulls] == ["open"]


def test_who_waits_for_the_work_of_others_takes_no_place_of_readers(
    place: Place, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    person.change("it", {}, NEW)
    monkeypatch.setattr("api.testlist_proposals._WAIT_S", 2.0)
    parts = place.app.extensions["api"]
    with ExitStack() as held, ThreadPoolExecutor(parts.settings.threads) as pool:
        while parts.testlist_editing.at_work.acquire(blocking=False):
            held.callback(parts.testlist_editing.at_work.release)
        waiting = [pool.submit(person.submit) for _ in range(parts.settings.threads)]
        time.sleep(1)
        with parts.read_slots.place():
            assert not any(each.done() for each in waiting)
        assert {each.result().status_code for each in waiting} == {503}


def test_two_submissions_at_once_make_one_proposal(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda _number: person.submit(), range(4)))
    assert {reply.status_code for reply in replies} <= {200, 400, 503}
    won = [reply for reply in replies if reply.status_code == 200]
    assert won
    assert len(place.forge.pulls) == len(place.maintainers.branches()) == 1
    assert person.get()["state"] == "PR_OPEN"
    for reply in replies:
        assert reply.status_code == 200 or reply.json["error"]


def test_a_change_withdraws_the_proposal(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    person.change("it", NEWS, {})
    assert place.forge.pulls[0]["state"] == "closed"
    found = person.get()
    assert (found["state"], found["pr_url"], len(found["changes"]["it"])) == ("IN_PROGRESS", None, 2)
    assert submitted(person) == f"{place.forge.api}/pulls/2"
    assert [action for action, _subject, _detail in place.audit()] == [
        "test_list.change",
        "test_list.submit",
        "test_list.propose",
        "test_list.withdraw",
        "test_list.change",
        "test_list.submit",
        "test_list.propose",
    ]


def test_a_refused_change_withdraws_nothing(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    assert code(person.update("it", {}, NEW)) == "err_duplicate_url"
    assert place.forge.pulls[0]["state"] == "open"
    assert person.get()["state"] == "PR_OPEN"


def test_a_proposal_that_cannot_be_withdrawn(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    place.forge.refuse = {"PATCH": 500}
    assert code(person.update("it", NEWS, {})) == "err_cannot_close_pr"
    assert place.forge.pulls[0]["state"] == "open"
    place.an_hour_passes()
    assert person.get()["state"] == "IN_PROGRESS"
    assert len(person.get()["changes"]["it"]) == 1
    place.forge.refuse = {}
    person.change("it", NEWS, {})
    assert place.forge.pulls[0]["state"] == "closed"


def test_a_proposal_that_was_not_withdrawn_is_taken_up_by_the_next_submission(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    pr_id = submitted(person)
    place.forge.refuse = {"PATCH": 500}
    assert code(person.update("it", NEWS, {})) == "err_cannot_close_pr"
    place.forge.refuse = {}
    assert submitted(person) == pr_id
    assert len(place.forge.open_pulls()) == len(place.maintainers.branches()) == 1


def test_a_withdrawal_whose_reply_is_lost_loses_no_changes(place: Place, person: Person) -> None:
    """The forge has closed it, and nobody was told: whoever looks must not take that for a refusal."""

    def lose() -> None:
        raise ConnectionAbortedError

    person.change("it", {}, NEW)
    submitted(person)
    place.forge.after_close = lose
    place.forge.server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]
    assert code(person.update("it", NEWS, {})) == "err_cannot_close_pr"
    assert place.forge.pulls[0]["state"] == "closed"
    place.an_hour_passes()
    assert len(person.get()["changes"]["it"]) == 1
    place.forge.after_close = lambda: None
    person.change("it", NEWS, {})
    assert len(person.get()["changes"]["it"]) == 2


def test_who_looks_while_a_proposal_is_withdrawn_loses_no_changes(
    place: Place, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The forge has closed it and has not answered yet; meanwhile somebody looks, changes and submits."""
    monkeypatch.setattr("api.forge.TIMEOUT_S", 60.0)
    monkeypatch.setattr("api.forge.CALL_S", 60.0)
    person.change("it", {}, NEW)
    submitted(person)
    place.an_hour_passes()
    reached, release = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        release.wait(60)

    place.forge.after_close = hold
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(person.update, "it", NEWS, {})
        assert reached.wait(30)
        assert len(person.get()["changes"]["it"]) == 1
        assert person.update("it", FILES, {}).status_code == 503
        assert person.submit().status_code == 503
        release.set()
        assert first.result().status_code == 200
    assert len(person.get()["changes"]["it"]) == 2


def test_changes_at_once_withdraw_a_proposal_once(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    urls = [f"https://new.example.org/{number}" for number in range(4)]
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(lambda url: person.update("it", {}, entry(url)), urls))
    kept = {url for url, reply in zip(urls, replies, strict=True) if reply.status_code == 200}
    assert kept
    assert set(person.urls()[4:]) == kept
    assert [action for action, _subject, _detail in place.audit()].count("test_list.withdraw") == 1
    assert place.forge.pulls[0]["state"] == "closed"


def test_a_proposal_that_was_taken_is_forgotten(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    place.maintainers.merge(place.maintainers.branches()[0])
    place.forge.pulls[0]["state"] = "closed"
    assert person.get()["state"] == "PR_OPEN"  # it was looked at less than a minute ago
    place.an_hour_passes()
    found = person.get()
    assert (found["state"], found["pr_url"], found["changes"]) == ("CLEAN", None, {})
    place.notice()
    assert person.urls()[-1] == NEW["url"]


def test_a_proposal_that_was_refused_is_forgotten_too(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    place.forge.pulls[0]["state"] = "closed"
    place.an_hour_passes()
    assert person.get() == {**person.get(), "state": "CLEAN", "changes": {}}
    assert NEW["url"] not in person.urls()


def test_the_forge_is_asked_once_a_minute_and_may_be_away(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    submitted(person)
    before = len(place.forge.calls)
    for _ in range(3):
        person.get()
    assert len(place.forge.calls) == before
    place.an_hour_passes()
    place.forge.refuse = {"GET": 502}
    for _ in range(3):
        assert person.get()["state"] == "PR_OPEN"
    assert len(place.forge.calls) == before + 1


def test_a_change_after_the_proposal_was_taken(place: Place, person: Person) -> None:
    """Nobody has looked since; the change is made to the list as it is, and nothing of the old ones is left."""
    person.change("it", {}, NEW)
    submitted(person)
    place.maintainers.merge(place.maintainers.branches()[0])
    place.forge.pulls[0]["state"] = "closed"
    place.notice()
    person.change("it", NEWS, {})
    assert person.get()["changes"] == {"it": [{**NEWS, "action": "delete"}]}


def test_changes_that_do_not_apply_are_not_pushed(place: Place, person: Person) -> None:
    person.change("it", NEWS, {**NEWS, "notes": "mine"})
    person.change("it", {}, NEW)
    place.maintainers.write("it", ITALY.replace("2019-05-01,somebody,\n", "2024-05-01,somebody,\n", 1))
    response = person.submit()
    assert code(response) == "err_cannot_update_list"
    assert response.json["err_args"] == {"country_code": "it", "urls": [NEWS["url"]]}
    assert place.maintainers.branches() == []
    assert person.get()["state"] == "IN_PROGRESS"
    person.change("it", {**NEWS, "notes": "mine"}, {})
    submitted(person)
    [branch] = place.maintainers.branches()
    assert place.maintainers.read("it", branch) == place.maintainers.read("it") + LINE + "\n"


def test_two_people_change_the_same_line(place: Place, person: Person) -> None:
    other = place.person("other@example.org")
    person.change("it", NEWS, {**NEWS, "notes": "first"})
    other.change("it", NEWS, {**NEWS, "notes": "second"})
    submitted(person)
    place.maintainers.merge(place.maintainers.branches()[0])
    response = other.submit()
    assert code(response) == "err_cannot_update_list"
    assert len(place.forge.pulls) == 1


def test_two_people_change_other_lines(place: Place, person: Person) -> None:
    other = place.person("other@example.org")
    person.change("it", NEWS, {**NEWS, "notes": "first"})
    other.change("it", RIGHTS, {})
    submitted(person)
    submitted(other)
    for branch in place.maintainers.branches():
        place.maintainers.merge(branch)
    lines = ITALY.splitlines(keepends=True)
    assert place.maintainers.read("it") == "".join([lines[0], lines[1].replace(",\n", ",first\n"), lines[2]])


def test_the_list_that_is_for_all_takes_a_url_first(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    place.maintainers.write("global", GLOBAL + f"{LINE}\n")
    assert code(person.submit()) == "err_cannot_update_list"


def test_without_a_forge_the_branch_is_the_proposal(lone: Place) -> None:
    person = lone.person()
    person.change("it", {}, NEW, comment="seen there")
    branch = submitted(person)
    assert [branch] == lone.maintainers.branches()
    found = person.get()
    assert (found["state"], found["pr_url"]) == ("PR_OPEN", None)
    commit = git(lone.maintainers.origin, "cat-file", "commit", branch)
    assert commit.endswith("\n\n    it: add https://new.example.org/x\n        seen there\n")
    person.change("it", NEWS, {})
    assert lone.maintainers.branches() == []
    assert person.get()["state"] == "IN_PROGRESS"
    branch = submitted(person)
    git(lone.maintainers.origin, "branch", "-D", branch)
    lone.an_hour_passes()
    assert person.get() == {**person.get(), "state": "CLEAN", "changes": {}}
    assert lone.forge.calls == []
