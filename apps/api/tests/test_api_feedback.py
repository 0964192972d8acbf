"""Feedback on measurements: one status per measurement and account, the last one counts, everybody sees the sums."""

from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import psycopg
import pytest
from findings import Person, audit_lines, person, program_of
from flask import Flask
from people import account_id_of
from werkzeug.test import TestResponse

from api import feedback
from api.feedback import STATUSES

_numbers = count()


@pytest.fixture
def uid() -> str:
    """A measurement of this test alone."""
    return f"20240101000102.{next(_numbers):06}_IE_webconnectivity_0123456789abcdef"


@pytest.fixture
def alice(module_app: Flask, module_dsn: str) -> Person:
    return person(module_app, module_dsn, "alice")


@pytest.fixture
def bob(module_app: Flask, module_dsn: str) -> Person:
    return person(module_app, module_dsn, "bob")


@pytest.fixture
def nobody(module_app: Flask) -> Person:
    return Person(module_app, {})


def say(who: Person, uid: object, status: object) -> TestResponse:
    return who.client.post(
        "/api/_/measurement_feedback", json={"measurement_uid": uid, "status": status}, headers=who.headers
    )


def asked(who: Person, uid: str) -> TestResponse:
    return who.client.get(f"/api/_/measurement_feedback/{uid}", headers=who.headers)


def test_sums_are_for_everybody_and_the_own_answer_for_who_gave_it(
    alice: Person, bob: Person, nobody: Person, uid: str, module_app: Flask, module_dsn: str
) -> None:
    carol = person(module_app, module_dsn, "carol")
    for who, status in ((alice, "ok"), (bob, "ok"), (carol, "blocked")):
        response = say(who, uid, status)
        assert (response.status_code, response.json) == (200, {})
    assert asked(nobody, uid).json == {"summary": {"ok": 2, "blocked": 1}}
    assert asked(alice, uid).json == {"summary": {"ok": 2, "blocked": 1}, "user_feedback": "ok"}
    assert asked(carol, uid).json == {"summary": {"ok": 2, "blocked": 1}, "user_feedback": "blocked"}
    dave = person(module_app, module_dsn, "dave")
    assert asked(dave, uid).json == {"summary": {"ok": 2, "blocked": 1}}


def test_later_answer_replaces_the_earlier_one(alice: Person, bob: Person, nobody: Person, uid: str) -> None:
    say(bob, uid, "down")
    for status in ("ok", "blocked.dns", "blocked.tls"):
        assert say(alice, uid, status).status_code == 200
        assert asked(alice, uid).json == {"summary": {"down": 1, status: 1}, "user_feedback": status}
    assert asked(nobody, uid).json == {"summary": {"down": 1, "blocked.tls": 1}}


@pytest.mark.parametrize("status", STATUSES)
def test_every_status(alice: Person, uid: str, status: str) -> None:
    assert say(alice, f" {uid}\n", f"\t{status} ").status_code == 200, "both are trimmed"
    assert asked(alice, uid).json == {"summary": {status: 1}, "user_feedback": status}


def test_statuses_are_those_of_the_contract() -> None:
    assert len(STATUSES) == len(set(STATUSES)) == 15


@pytest.mark.parametrize("status", ["", "OK", "blocked.", "blocked.x", "okay", "<b>", "ok\u202e", "'; --", None])
def test_other_statuses_are_refused(alice: Person, nobody: Person, uid: str, status: object) -> None:
    response = say(alice, uid, status)
    assert response.status_code == 400
    assert "status" in response.json["error"]
    assert asked(nobody, uid).json == {"summary": {}}


def test_refusal_of_a_status_is_that_of_the_contract(alice: Person, uid: str) -> None:
    reply = say(alice, uid, "perhaps").json
    assert reply["error"] == "Invalid status"
    assert "blocked.dns" in reply["hint"]


@pytest.mark.parametrize("value", [7, True, [], {}, "x" * 5000, "ok\0"])
def test_statuses_that_are_no_text(alice: Person, uid: str, value: object) -> None:
    response = say(alice, uid, value)
    assert response.status_code == 400
    assert "status" in response.json["error"]


BAD_UIDS = ["x", "x" * 101, "a b c d e f g", "20240101000102-IE", "<script>alert", "ΑΒΓΔΕΖΗΘΙΚΛ", "a'--bbbbbbb"]


@pytest.mark.parametrize("bad", BAD_UIDS)
def test_uids_that_are_none(alice: Person, nobody: Person, bad: str) -> None:
    for response in (say(alice, bad, "ok"), asked(nobody, bad)):
        assert response.status_code == 400
        assert response.json["error"] == "Invalid measurement_uid field"


@pytest.mark.parametrize("value", [None, 7, [], {}, "x" * 5000, "2024\0"])
def test_uids_that_are_no_text(alice: Person, value: object) -> None:
    response = say(alice, value, "ok")
    assert response.status_code == 400
    assert "measurement_uid" in response.json["error"]


def test_unknown_measurement_has_no_feedback(nobody: Person, alice: Person, uid: str) -> None:
    assert asked(nobody, uid).json == {"summary": {}}
    assert asked(alice, uid).json == {"summary": {}}


def test_who_is_not_signed_in_says_nothing(nobody: Person, uid: str) -> None:
    response = say(nobody, uid, "ok")
    assert (response.status_code, response.json["error"]) == (401, "Authentication required")
    assert asked(nobody, uid).json == {"summary": {}}


def test_programs_speak_for_their_account(module_app: Flask, module_dsn: str, alice: Person, uid: str) -> None:
    account_id = account_id_of(module_app, alice.email)
    assert say(program_of(module_app, module_dsn, account_id, "write"), uid, "ok").status_code == 200
    reader = program_of(module_app, module_dsn, account_id, "read")
    assert say(reader, uid, "down").status_code == 401
    assert asked(reader, uid).json == {"summary": {"ok": 1}, "user_feedback": "ok"}


def test_own_answer_is_for_nobody_elses_cache(alice: Person, nobody: Person, uid: str) -> None:
    say(alice, uid, "ok")
    mine, theirs = asked(alice, uid), asked(nobody, uid)
    assert "private" in mine.headers["Cache-Control"]
    assert theirs.headers["Cache-Control"] == "max-age=0"
    for response in (mine, theirs):
        assert "Authorization" in response.headers["Vary"]
    assert theirs.headers["ETag"] != mine.headers.get("ETag")


def test_who_asks_again_is_told_when_something_changed(alice: Person, bob: Person, nobody: Person, uid: str) -> None:
    say(alice, uid, "ok")
    tag = asked(nobody, uid).headers["ETag"]
    path, headers = f"/api/_/measurement_feedback/{uid}", {"If-None-Match": tag}
    assert nobody.client.get(path, headers=headers).status_code == 304
    say(bob, uid, "ok")
    assert nobody.client.get(path, headers=headers).json == {"summary": {"ok": 2}}


def test_each_change_is_recorded_once(alice: Person, uid: str, module_dsn: str) -> None:
    for status in ("ok", "ok", "down", "down", "ok"):
        assert say(alice, uid, status).status_code == 200
    assert audit_lines(module_dsn, uid) == [("feedback.submit", {"status": each}) for each in ("ok", "down", "ok")]


def test_account_says_so_much_in_a_day(
    module_app: Flask, module_dsn: str, uid: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feedback, "MOST_IN_A_DAY", 3)
    flooder = person(module_app, module_dsn, "flooder")
    statuses = [say(flooder, f"{uid}{number}", "ok").status_code for number in range(5)]
    assert statuses == [200, 200, 200, 429, 429]
    response = say(flooder, f"{uid}0", "down")
    assert response.status_code == 429, "changing counts too"
    assert int(response.headers["Retry-After"]) > 0
    assert say(person(module_app, module_dsn, "erin"), uid, "ok").status_code == 200


def test_many_answers_of_one_account_at_once_are_one(
    module_app: Flask, alice: Person, nobody: Person, uid: str, module_dsn: str
) -> None:
    statuses = STATUSES[:6]

    def answer(status: str) -> int:
        return say(Person(module_app, alice.headers), uid, status).status_code

    with ThreadPoolExecutor(6) as pool:
        assert list(pool.map(answer, statuses)) == [200] * 6
    summary: dict[str, Any] = asked(nobody, uid).json["summary"]
    assert sum(summary.values()) == 1
    with psycopg.connect(module_dsn) as connection:
        rows = connection.execute("SELECT status FROM msmt_feedback WHERE measurement_uid = %s", [uid]).fetchall()
    assert [status for (status,) in rows] == list(summary)
    assert audit_lines(module_dsn, uid)[-1][1] == {"status": rows[0][0]}, "the last one recorded is the one that counts"
