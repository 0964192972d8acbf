"""What fails or is cut off while changes to the test lists are submitted: the forge, the repository, the API itself."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import psycopg
import pytest
from list_editor import Person, Place, entry, submitted
from people import signed_in_headers

NEWS = entry("https://it.example.org/", date="2019-05-01", source="somebody")
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


def test_a_forge_that_fails_costs_nothing(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    place.forge.refuse = {"POST": 500}
    response = person.submit()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
    assert person.get()["state"] == "IN_PROGRESS"
    place.forge.refuse = {}
    assert submitted(person) == f"{place.forge.api}/pulls/1"
    assert len(place.maintainers.branches()) == 1


def test_a_repository_that_takes_no_branches(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    hook = place.maintainers.origin / "hooks" / "pre-receive"
    hook.parent.mkdir(exist_ok=True)
    hook.write_text("#!/bin/sh\nexit 1\n")
    hook.chmod(0o755)
    assert person.submit().status_code == 503
    assert place.forge.pulls == []
    hook.unlink()
    submitted(person)


@pytest.mark.parametrize(
    "reply",
    [
        {"number": 1, "html_url": "javascript:alert(1)"},
        {"number": 1, "html_url": "https://forge.example/\u202e"},
        {"number": 1, "html_url": 1},
        {"number": 1},
    ],
)
def test_a_page_that_is_no_address_is_not_shown(place: Place, person: Person, reply: dict[str, object]) -> None:
    real = place.forge.reply
    place.forge.reply = lambda method, *rest: (201, reply) if method == "POST" else real(method, *rest)
    person.change("it", {}, NEW)
    assert submitted(person) == person.get()["pr_url"] == f"{place.forge.api}/pulls/1"


@pytest.mark.parametrize(
    ("status", "reply"),
    [
        (201, {"number": "1/../../user"}),
        (201, {"number": True}),
        (201, {"number": -1}),
        (201, [1]),
        (200, {"number": 1}),
        (302, {"number": 1}),
        (201, {"number": 1, "more": "x" * 5_000_000}),
        (401, {"message": "Bad credentials"}),
    ],
    ids=lambda value: str(value)[:30],
)
def test_odd_replies_of_a_forge(place: Place, person: Person, status: int, reply: object) -> None:
    real = place.forge.reply
    place.forge.reply = lambda method, *rest: (status, reply) if method == "POST" else real(method, *rest)
    person.change("it", {}, NEW)
    assert person.submit().status_code == 503
    assert person.get()["state"] == "IN_PROGRESS"


def test_a_forge_that_opened_but_could_not_say_so(place: Place, person: Person) -> None:
    """The reply is lost: the next attempt finds the pull request by its branch."""

    def lose() -> None:
        raise ConnectionAbortedError

    person.change("it", {}, NEW)
    place.forge.after_open = lose
    place.forge.server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]
    assert person.submit().status_code == 503
    assert len(place.forge.pulls) == 1
    place.forge.after_open = lambda: None
    assert submitted(person) == f"{place.forge.api}/pulls/1"
    assert len(place.forge.pulls) == len(place.maintainers.branches()) == 1


def test_a_change_after_a_submission_that_was_cut_off_closes_what_it_left(place: Place, person: Person) -> None:
    def lose() -> None:
        raise ConnectionAbortedError

    person.change("it", {}, NEW)
    place.forge.after_open = lose
    place.forge.server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]
    assert person.submit().status_code == 503
    person.change("it", NEWS, {})
    assert [pull["state"] for pull in place.forge.pulls] == ["closed"]


def test_killed_between_push_and_reply(
    place: Place, person: Person, start_api: Callable[..., object], tmp_path: Path
) -> None:
    """A real API is killed while the forge, which has opened the pull request, has not answered yet."""
    held = {
        name: place.settings[name] for name in place.settings if name.startswith(("test_lists", "session", "account"))
    }
    server = start_api(place.dsn, **held)
    headers = signed_in_headers(place.app, place.dsn)
    person.change("it", {}, NEW)
    reached, release = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        release.wait(30)

    place.forge.after_open = hold
    place.forge.server.handle_error = lambda *_arguments: None  # type: ignore[method-assign]

    def ask() -> None:
        with pytest.raises(httpx.TransportError):
            httpx.post(f"{server.url}/api/v1/url-submission/submit", headers=headers, timeout=60)

    asking = threading.Thread(target=ask)
    asking.start()
    assert reached.wait(30)
    master = server.process.pid
    workers = [int(text) for text in Path(f"/proc/{master}/task/{master}/children").read_text().split()]
    for pid in (master, *workers):
        os.kill(pid, signal.SIGKILL)
    server.process.wait()
    server.http.close()
    asking.join(30)
    release.set()
    place.forge.after_open = lambda: None
    assert len(place.forge.pulls) == 1
    assert person.submit().status_code == 503  # nobody can know yet that it was cut off
    assert person.update("it", NEWS, {}).status_code == 503
    assert person.get()["state"] == "IN_PROGRESS"
    place.an_hour_passes()
    assert submitted(person) == f"{place.forge.api}/pulls/1"
    assert len(place.forge.pulls) == len(place.maintainers.branches()) == 1


def test_an_attempt_that_was_overtaken_notes_nothing(
    place: Place, person: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attempt hangs at the forge until a second one has taken over; its late end changes nothing."""
    monkeypatch.setattr("api.forge.TIMEOUT_S", 60.0)
    monkeypatch.setattr("api.forge.CALL_S", 60.0)
    person.change("it", {}, NEW)
    reached, release = threading.Event(), threading.Event()

    def hold() -> None:
        reached.set()
        release.wait(60)

    place.forge.after_open = hold
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(person.submit)
        assert reached.wait(30)
        place.an_hour_passes()
        assert submitted(person) == f"{place.forge.api}/pulls/1"
        release.set()
        late = first.result()
    assert late.status_code == 503
    assert person.get()["state"] == "PR_OPEN"
    assert len(place.forge.pulls) == 1
    with psycopg.connect(place.dsn) as connection:
        assert connection.execute("SELECT state, attempt FROM test_list_proposals").fetchall() == [("PR_OPEN", 2)]


def test_lists_that_cannot_be_fetched_are_not_submitted(place: Place, person: Person) -> None:
    person.change("it", {}, NEW)
    away = place.maintainers.origin.with_name("away.git")
    place.maintainers.origin.rename(away)
    response = person.submit()
    assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
    assert person.get()["changes"]["it"]  # what was fetched before serves
    away.rename(place.maintainers.origin)
    submitted(person)


def test_a_new_host_without_the_lists(place: Place, tmp_path: Path, dsn: str) -> None:
    """It answers 503 at once where there is nothing to wait for, and goes on when the repository is there."""
    away = place.maintainers.origin.with_name("away.git")
    place.maintainers.origin.rename(away)
    other = Place(tmp_path / "other", dsn, other=place)
    try:
        person = other.person()
        began = time.monotonic()
        response = person.client.get("/api/_/url-submission/test-list/it", headers=person.headers)
        assert time.monotonic() - began < 9
        assert (response.status_code, response.headers["Retry-After"]) == (503, "60")
        away.rename(place.maintainers.origin)
        other.editing.repository._next_try = 0.0
        assert len(person.get()["test_list"]) == 3
    finally:
        other.close()
