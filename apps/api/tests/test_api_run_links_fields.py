"""What a run link may say: the most that is taken, what is refused and how, and hostile text."""

import json
from typing import Any

import pytest
from flask import Flask
from run_linkers import V2, WRITTEN, Linker, linker

from api import run_link_store
from api.run_link_fields import MOST_CONTENT_BYTES, MOST_INPUTS, MOST_NETTESTS, WEBSITES

ONE = [{"test_name": "web_connectivity"}]


@pytest.fixture(scope="module")
def owner(module_app: Flask, module_dsn: str) -> Linker:
    return linker(module_app, module_dsn, "owner")


@pytest.fixture(scope="module")
def nobody(module_app: Flask) -> Linker:
    return Linker(module_app, {})


def path(link: dict[str, Any]) -> str:
    return f"{V2}/{link['oonirun_link_id']}"


def web(**members: Any) -> list[dict[str, Any]]:
    return [{"test_name": "web_connectivity", **members}]


def nested(depth: int) -> Any:
    return {"a": nested(depth - 1)} if depth else 1


WRONG: list[tuple[dict[str, Any], list[Any]]] = [
    ({"name": "x"}, ["name"]),
    ({"name": "x" * 51}, ["name"]),
    ({"name": 5}, ["name"]),
    ({"name": "a\nb"}, ["name"]),
    ({"name": "a\0b"}, ["name"]),
    ({"name": "a\u202eb"}, ["name"]),
    ({"short_description": "x"}, ["short_description"]),
    ({"short_description": "x" * 201}, ["short_description"]),
    ({"description": "é" * 32_769}, ["description"]),
    ({"description": "a\x1b[31m"}, ["description"]),
    ({"description": ["x"]}, ["description"]),
    ({"name_intl": {"it": ""}}, ["name_intl", "it"]),
    ({"name_intl": {"it": "x" * 51}}, ["name_intl", "it"]),
    ({"name_intl": {"it": 1}}, ["name_intl", "it"]),
    ({"name_intl": {"": "x"}}, ["name_intl"]),
    ({"name_intl": {"__proto__": "x"}}, ["name_intl"]),
    ({"name_intl": ["it"]}, ["name_intl"]),
    ({"description_intl": {f"a{chr(97 + n % 26)}-{n:04}": "x" for n in range(101)}}, ["description_intl"]),
    ({"icon": "x" * 201}, ["icon"]),
    ({"color": "red"}, ["color"]),
    ({"color": "#12345g"}, ["color"]),
    ({"color": "#123456\n"}, ["color"]),
    ({"expiration_date": "tomorrow"}, ["expiration_date"]),
    ({"expiration_date": 5}, ["expiration_date"]),
    ({"expiration_date": "1999-12-31T23:59:59Z"}, ["expiration_date"]),
    ({"expiration_date": "9999-12-31T23:59:59-01:00"}, ["expiration_date"]),
    ({"expiration_date": "2024-01-31T12:00:00Z" + "0" * 100_000}, ["expiration_date"]),
    ({"nettests": {}}, ["nettests"]),
    ({"nettests": ONE * (MOST_NETTESTS + 1)}, ["nettests"]),
    ({"nettests": ["web_connectivity"]}, ["nettests", 0]),
    ({"nettests": [*ONE, {"test_name": ""}]}, ["nettests", 1, "test_name"]),
    ({"nettests": [{"test_name": "../../etc"}]}, ["nettests", 0, "test_name"]),
    ({"nettests": [{"inputs": []}]}, ["nettests", 0, "test_name"]),
    ({"nettests": web(inputs="https://x.example/")}, ["nettests", 0, "inputs"]),
    ({"nettests": web(inputs=[1])}, ["nettests", 0, "inputs", 0]),
    ({"nettests": web(inputs=["x", ""])}, ["nettests", 0, "inputs", 1]),
    ({"nettests": web(inputs=["x" * 2001])}, ["nettests", 0, "inputs", 0]),
    ({"nettests": web(inputs=["x"] * (MOST_INPUTS + 1))}, ["nettests", 0, "inputs"]),
    ({"nettests": web(inputs=["x"], inputs_extra=[])}, ["nettests", 0, "inputs_extra"]),
    ({"nettests": web(inputs=["x"], inputs_extra=[{}, {}])}, ["nettests", 0, "inputs_extra"]),
    ({"nettests": web(inputs_extra=[{}])}, ["nettests", 0, "inputs_extra"]),
    ({"nettests": web(inputs_extra="x")}, ["nettests", 0, "inputs_extra"]),
    ({"nettests": web(inputs=["x"], inputs_extra=["x"])}, ["nettests", 0, "inputs_extra"]),
    ({"nettests": web(inputs=["x"], inputs_extra=[nested(6)])}, ["nettests", 0, "inputs_extra"]),
    ({"nettests": web(targets_name="everything")}, ["nettests", 0, "targets_name"]),
    ({"nettests": web(targets_name=[])}, ["nettests", 0, "targets_name"]),
    ({"nettests": web(targets_name=WEBSITES, inputs=["x"])}, ["nettests", 0, "targets_name"]),
    ({"nettests": web(targets_name=WEBSITES) * 4}, ["nettests"]),
    ({"nettests": web(options=[])}, ["nettests", 0, "options"]),
    ({"nettests": web(options=nested(6))}, ["nettests", 0, "options"]),
    ({"nettests": web(options={"a": list(range(1000))})}, ["nettests", 0, "options"]),
    ({"nettests": web(options={"a": 10**4000})}, ["nettests", 0, "options"]),
    ({"nettests": web(options={"a": 1e300})}, ["nettests", 0, "options"]),
    ({"nettests": web(options={"a": "\0"})}, ["nettests", 0, "options"]),
    ({"nettests": web(options={"x" * 101: 1})}, ["nettests", 0, "options"]),
    ({"nettests": web(is_manual_run_enabled_default=1)}, ["nettests", 0, "is_manual_run_enabled_default"]),
    ({"nettests": web(is_background_run_enabled="no")}, ["nettests", 0, "is_background_run_enabled"]),
    ({"nettests": [*web(inputs=["x" * 2000] * 300)]}, []),
]


@pytest.mark.parametrize(("changes", "loc"), WRONG, ids=lambda value: repr(value)[:60])
def test_what_is_wrong_is_refused_by_name(owner: Linker, changes: dict[str, Any], loc: list[Any]) -> None:
    response = owner.post(V2, {**WRITTEN, **changes})
    assert response.status_code == 422, response.text[:300]
    (detail,) = response.json["detail"]
    assert detail["loc"] == ["body", *loc]
    assert detail["msg"] in response.json["error"]
    assert ".".join(map(str, loc)) in response.json["error"]
    assert len(response.text) < 1000


@pytest.mark.parametrize("number", [b"NaN", b"Infinity", b"-Infinity", b"1e400", b"9007199254740993"])
def test_numbers_that_would_not_come_back_are_refused(owner: Linker, number: bytes) -> None:
    body = json.dumps({**WRITTEN, "nettests": web(options={"a": "NUMBER"})}).encode().replace(b'"NUMBER"', number)
    response = owner.client.post(V2, data=body, headers=owner.headers)
    assert response.status_code == 422, response.text[:300]
    assert response.json["detail"][0]["loc"] == ["body", "nettests", 0, "options"]


@pytest.mark.parametrize("name", ["name", "short_description", "nettests"])
def test_what_is_missing_is_named(owner: Linker, name: str) -> None:
    for body in ({**WRITTEN, name: None}, {key: value for key, value in WRITTEN.items() if key != name}):
        response = owner.post(V2, body)
        assert response.status_code == 422
        assert response.json["detail"][0]["type"] == "missing"
        assert response.json["detail"][0]["loc"] == ["body", name]


def test_nothing_of_a_refused_edit_is_kept(owner: Linker) -> None:
    link = owner.make()
    for changes, _ in WRONG[:3]:
        assert owner.put(link["oonirun_link_id"], **changes, nettests=ONE).status_code == 422
    assert owner.read(path(link)) == link


def test_the_most_that_is_taken(owner: Linker) -> None:
    link = owner.make(
        name="x" * 50,
        short_description="ü" * 200,
        description="é" * 32_768,
        nettests=web(inputs=["https://www.example.org/" + "x" * 100] * MOST_INPUTS) + ONE * (MOST_NETTESTS - 1),
    )
    assert len(link["nettests"][0]["inputs"]) == MOST_INPUTS
    assert owner.read(path(link)) == link


HOSTILE = [
    "<script>alert(1)</script>",
    '=HYPERLINK("http://x")',
    "'; DROP TABLE oonirun_links; --",
    "%s %(x)s {} ${x}",
    "می‌خواهم",
    "👩‍💻 emoji",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_comes_back_as_it_is(owner: Linker, nobody: Linker, text: str) -> None:
    changes: dict[str, Any] = {
        "name": text,
        "short_description": text,
        "description": f"{text}\n\t{text}",
        "icon": text,
        "name_intl": {"it": text},
        "nettests": web(inputs=[text], options={text: [text]}),
    }
    link = owner.make(**changes)
    response = nobody.get(path(link))
    assert response.mimetype == "application/json"
    assert {
        name: response.json[name] for name in ("name", "short_description", "description", "icon", "name_intl")
    } == {name: value for name, value in changes.items() if name != "nettests"}
    assert response.json["nettests"][0]["inputs"] == [text]
    assert response.json["nettests"][0]["options"] == {text: [text]}


def test_an_account_has_so_many_links_of_so_many_revisions(
    module_app: Flask, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    somebody = linker(module_app, module_dsn, "busy")
    monkeypatch.setattr(run_link_store, "MOST_LINKS", 2)
    monkeypatch.setattr(run_link_store, "MOST_REVISIONS", 2)
    number, _ = (somebody.make()["oonirun_link_id"] for _ in range(2))
    for response in (somebody.post(V2, WRITTEN), somebody.create_v1()):
        assert response.status_code == 400
        assert "2 run links" in response.json["error"]
    somebody.edit(number, nettests=ONE)
    response = somebody.put(number, nettests=[])
    assert response.status_code == 400
    assert "2 revisions" in response.json["error"]
    monkeypatch.setattr(run_link_store, "MOST_BYTES", 5000)
    response = somebody.put(number, nettests=ONE, description="x" * 5000)
    assert response.status_code == 400
    assert "5000 bytes" in response.json["error"]
    assert MOST_CONTENT_BYTES < run_link_store.LISTED_BYTES, "a list could not show the largest link"
