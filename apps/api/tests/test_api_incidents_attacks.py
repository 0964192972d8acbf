"""Findings with what nobody should send: markup, deceiving characters, things of others, too much of everything."""

import re
import unicodedata
from typing import Any

import psycopg
import pytest
from findings import FINDING, Person, person
from flask import Flask
from hypothesis import given
from hypothesis import strategies as st
from people import account_id_of

from api import incident_store
from api.incident_fields import MOST_ITEMS, is_slug, link, moment, slugs
from api.written_text import line, lines


@pytest.fixture
def owner(module_app: Flask, module_dsn: str, request: pytest.FixtureRequest) -> Person:
    name = re.sub("[^a-z0-9]+", "-", request.node.name.lower())[-60:].strip("-")
    return person(module_app, module_dsn, name)


@pytest.fixture
def admin(module_app: Flask, module_dsn: str) -> Person:
    return person(module_app, module_dsn, "admin", "admin")


def refused(owner: Person, name: str, value: object) -> None:
    """The value is refused in a new finding and in an update, and the field is named."""
    reply = owner.refused("create", **{**FINDING, name: value})
    assert reply["err_str"] == "err_request_params"
    assert reply["error"] == "Invalid parameters in the request"
    assert reply["hint"].startswith(f"Parameter {name} "), reply["hint"]
    number = owner.create()
    assert owner.refused("update", id=number, **{name: value}) == reply
    assert owner.show(number)[name] == FINDING[name]


# Markup ------------------------------------------------------------------------------------------------------------

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "[click](javascript:alert(1))",
    "</textarea><svg/onload=alert(1)>",
    "{{7*7}} ${7*7} <%= 7*7 %>",
    "'; DROP TABLE incidents; --",
    "%s %(title)s {0} \\x00 \\u0000",
    "&lt;b&gt; &#x202e;",
    "a\u200cb 👩\u200d💻 \u200fשלום",
]


@pytest.mark.parametrize("text", HOSTILE)
def test_markup_is_kept_as_written_and_sent_as_json_alone(owner: Person, text: str) -> None:
    number = owner.create(title=text, text=text, short_description=text, reported_by=text, tags=[text])
    for path in (f"/api/v1/incidents/show/{number}", "/api/v1/incidents/search?only_mine=1"):
        response = owner.client.get(path, headers=owner.headers)
        assert response.headers["Content-Type"] == "application/json"
        assert response.headers["X-Content-Type-Options"] == "nosniff"
        assert response.data.isascii()
        reply = response.json
        found = reply["incident"] if "incident" in reply else reply["incidents"][0]
        assert (found["title"], found["short_description"], found["reported_by"]) == (text, text, text)
        assert found["tags"] == [text]
    assert owner.show(number)["text"] == text


@pytest.mark.parametrize(
    "path", ["/api/v1/incidents/show/<script>", "/api/v1/incidents/search?only_mine=<script>", "/nothing<script>"]
)
def test_refusals_are_not_guessed_to_be_pages(owner: Person, path: str) -> None:
    response = owner.client.get(path)
    assert response.status_code >= 400
    assert response.headers["Content-Type"] == "application/json"
    assert response.headers["X-Content-Type-Options"] == "nosniff"


# Characters --------------------------------------------------------------------------------------------------------

DECEIVING = {
    "NUL": "\0",
    "escape": "\x1b[31m",
    "bell": "\x07",
    "delete": "\x7f",
    "C1": "\x9b31m",
    "right-to-left override": "\u202e",
    "left-to-right embedding": "\u202a",
    "isolate": "\u2066",
    "line separator": "\u2028",
    "byte order mark": "\ufeff",
    "tag": "\U000e0041",
    "no character": "\uffff",
    "half a pair": "\ud800",
}


@pytest.mark.parametrize("name", ["title", "text", "short_description", "reported_by", "event_type"])
@pytest.mark.parametrize("case", DECEIVING)
def test_characters_that_deceive_are_refused(owner: Person, name: str, case: str) -> None:
    refused(owner, name, f"a{DECEIVING[case]}b")


@pytest.mark.parametrize("case", DECEIVING)
@pytest.mark.parametrize("name", ["tags", "links", "domains", "test_names", "themes", "CCs"])
def test_characters_that_deceive_are_refused_in_lists(owner: Person, name: str, case: str) -> None:
    refused(owner, name, [f"{FINDING[name][0]}{DECEIVING[case]}x"])


@pytest.mark.parametrize("line_end", ["\n", "\r\n", "\r"])
def test_lines_are_for_texts_alone(owner: Person, line_end: str) -> None:
    text = f"# One{line_end}{line_end}\tTwo"
    number = owner.create(text=text, short_description=f"one{line_end}two")
    assert owner.show(number)["text"] == "# One\n\n\tTwo"
    assert owner.show(number)["short_description"] == "one\ntwo"
    for name in ("title", "reported_by", "event_type"):
        refused(owner, name, f"one{line_end}two")
    refused(owner, "tags", [f"one{line_end}two"])
    refused(owner, "links", [f"https://www.example.org/{line_end}Set-Cookie:x"])


@pytest.mark.parametrize("name", ["title", "text"])
@pytest.mark.parametrize("text", ["", " ", "\n", "\u200d", "\u00a0\u3000", "\u200b\u200e"])
def test_what_looks_empty_is_empty(owner: Person, name: str, text: str) -> None:
    refused(owner, name, text)


ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=80)
START = moment("2024-01-01T00:00:00Z")


@given(ANY_TEXT)
def test_no_text_has_what_deceives(text: str) -> None:
    """Whatever passes can be stored and sent, is the same when it is sent back, and holds no control character."""
    for check in (lines, line):
        try:
            kept = check(text, 1000)
        except ValueError:
            continue
        assert check(kept, 1000) == kept
        assert not {each for each in kept if unicodedata.category(each) in {"Cc", "Cs", "Zl", "Zp"}} - {"\n", "\t"}
        assert not {
            each for each in kept if unicodedata.bidirectional(each) in {"LRO", "RLO", "LRE", "RLE", "LRI", "RLI"}
        }
        assert kept.encode().decode() == kept


@given(ANY_TEXT)
def test_every_title_makes_slugs(title: str) -> None:
    assert START is not None
    made = slugs(title, START)
    assert all(is_slug(next(made)) for _ in range(12))


@given(st.one_of(ANY_TEXT, st.builds("{}:{}".format, st.sampled_from(["http", "https", "javascript"]), ANY_TEXT)))
def test_no_link_runs_anything(text: str) -> None:
    try:
        kept = link(text)
    except ValueError:
        return
    assert re.match("https?://[^/?#@]+", kept, re.IGNORECASE)
    assert not re.search(r"[\s\x00-\x20\"<>`\\]", kept)


# Links -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "link",
    [
        "javascript:alert(1)",
        "JavaScript:alert(1)",
        " javascript:alert(1)",
        "java\tscript:alert(1)",
        "data:text/html,<script>alert(1)</script>",
        "vbscript:x",
        "file:///etc/passwd",
        "ftp://www.example.org/",
        "//www.example.org/",
        "/relative",
        "www.example.org",
        "http:",
        "http://",
        "https:///path",
        "https://www.example.org@evil.example/",
        "https://user:password@www.example.org/",
        "https://www.example.org\\@evil.example/",
        "https://www.example.org/ a",
        'https://www.example.org/"onmouseover="alert(1)',
        "https://www.example.org/<script>",
        "https://www.example.org/`x`",
        "https://www.example.org:99999/",
        "https://www.example.org:x/",
        "https://[::1/",
        "https://www.example.org/" + "x" * 2000,
        7,
        None,
        ["https://www.example.org/"],
        {"href": "https://www.example.org/"},
    ],
)
def test_links_that_are_none_of_the_web_are_refused(owner: Person, link: object) -> None:
    refused(owner, "links", ["https://www.example.org/", link])


@pytest.mark.parametrize(
    "link",
    [
        "http://www.example.org",
        "https://www.example.org:8443/a?b=c&d=%20#e",
        "HTTPS://WWW.EXAMPLE.ORG/",
        "https://192.0.2.1/",
        "https://[2001:db8::1]/",
        "https://example.org/wiki/Ελλάδα_(χώρα)|x",
        "https://www.example.org/" + "x" * 1900,
    ],
)
def test_links_of_the_web_are_kept(owner: Person, link: str) -> None:
    assert owner.show(owner.create(links=[link]))["links"] == [link]


# Forms -------------------------------------------------------------------------------------------------------------

WRONG: dict[str, list[Any]] = {
    "title": [7, True, [], {}, "x" * 301, 10**30, 1.5],
    "text": [7, ["a"], {"a": 1}, "x" * 65_537, "é" * 32_769],
    "short_description": [7, [], "x" * 1_001],
    "reported_by": [7, "x" * 201],
    "event_type": [7, "x" * 51],
    "published": ["true", 1, 0, "", [], {}],
    "start_time": [
        *("2024-01-01", "2024-01-01T00:00:00", "2024-01-01 00:00:00Z", "2024-01-01T00:00:00.5Z", "yesterday", ""),
        *("2024-02-30T00:00:00Z", "2024-01-01T24:00:00Z", "2024-01-01T00:00:60Z", "0001-01-01T00:00:00Z"),
        *("9999-12-31T23:59:59Z", "1989-12-31T23:59:59Z", "2024-01-01T00:00:00+01:00", "٢٠٢٤-01-01T00:00:00Z", 7, []),
    ],
    "end_time": ["2023-12-31T23:59:59Z", "2024-01-01", "never", 7, False, "undefined"],
    "CCs": ["IT", {"IT": 1}, ["it"], ["ITA"], ["I"], ["1T"], [7], [None], [["IT"]], ["ıT"], ["AA"] * 251],
    "ASNs": [30722, ["30722"], ["AS30722"], [0], [-1], [2**32], [1.5], [True], [None], [[1]], [10**40], [1] * 501],
    "domains": [
        "a.example",
        ["example"],
        ["a b.example"],
        ["<a>.example"],
        ["http://a.example"],
        [7],
        ["a.example"] * 201,
    ],
    "tags": ["a", [7], ["x" * 51], [["a"]], ["a"] * 51],
    "test_names": ["signal", ["Signal"], ["web connectivity"], ["x" * 51], [7], ["signal"] * 51],
    "themes": ["im", ["Im"], ["im-1"], ["x" * 51], [7], ["im"] * 21],
    "links": ["https://www.example.org/", ["https://www.example.org/"] * 101],
    "slug": ["A", "a b", "a--b", "-a", "a-", "a/b", "123", "é", "x" * 65, 7, ["a"], "../a", "a\n"],
}


@pytest.mark.parametrize(
    ("name", "value"),
    [pytest.param(name, value, id=f"{name}-{str(value)[:30]}") for name, values in WRONG.items() for value in values],
)
def test_other_forms_are_refused(owner: Person, name: str, value: object) -> None:
    if name == "slug":  # which has no value in FINDING
        assert "slug" in owner.refused("create", **{**FINDING, "slug": value})["hint"]
    else:
        refused(owner, name, value)


@pytest.mark.parametrize("name", ["title", "text", "start_time"])
def test_what_must_be_there(owner: Person, name: str) -> None:
    without = {key: value for key, value in FINDING.items() if key != name}
    assert name in owner.refused("create", **without)["hint"]
    assert name in owner.refused("create", **{**without, name: None})["hint"]


def test_longest_of_everything_fits(owner: Person) -> None:
    items: dict[str, Any] = {
        "CCs": [f"{chr(65 + number // 26)}{chr(65 + number % 26)}" for number in range(MOST_ITEMS["CCs"])],
        "ASNs": list(range(2**32 - MOST_ITEMS["ASNs"], 2**32)),
        "domains": [f"{number}.{'a' * 60}.{'b' * 60}.example" for number in range(MOST_ITEMS["domains"])],
        "tags": [f"{'中' * 47}{number:3}" for number in range(MOST_ITEMS["tags"])],
        "test_names": [f"{number:02}{'_' * 48}" for number in range(MOST_ITEMS["test_names"])],
        "links": [f"https://www.example.org/{number}/{'x' * 1900}" for number in range(MOST_ITEMS["links"])],
        "themes": ["a" * (each + 1) for each in range(MOST_ITEMS["themes"])],
    }
    written = {
        **items,
        "title": "中" * 300,
        "text": "é" * 32_768,
        "short_description": "x" * 1_000,
        "reported_by": "中" * 200,
        "event_type": "x" * 50,
        "slug": "x" * 64,
        "start_time": "1990-01-01T00:00:00Z",
        "end_time": "2099-12-31T23:59:59Z",
    }
    found = owner.show(owner.create(**written))
    assert {name: found[name] for name in written} == written


def test_too_much_of_everything_together_is_refused(owner: Person) -> None:
    """Each link may be long and there may be many, but lists of findings hold all of them."""
    links = [f"https://www.example.org/{number}/{'中' * 900}" for number in range(MOST_ITEMS["links"])]
    reply = owner.refused("create", **{**FINDING, "links": links})
    assert reply["hint"].startswith("Parameter links and all others but text take more than")


def test_a_list_has_as_many_findings_as_fit(owner: Person, monkeypatch: pytest.MonkeyPatch) -> None:
    numbers = {owner.create(links=[f"https://www.example.org/{'x' * 1900}"]) for _ in range(4)}
    whole = incident_store._SEARCH
    assert f"bytes <= {incident_store.LISTED_BYTES}" in whole
    monkeypatch.setattr(
        incident_store, "_SEARCH", whole.replace(f"bytes <= {incident_store.LISTED_BYTES}", "bytes <= 6000")
    )
    found = owner.search("only_mine=1")
    assert 1 <= len(found) <= 3
    assert {each["id"] for each in found} < numbers


def test_empty_items_and_repeated_ones_are_left_out(owner: Person) -> None:
    """As forms send them."""
    found = owner.show(owner.create(CCs=["IT", "", "IT", "FR"], domains=[""], tags=["a", " a ", ""]))
    assert (found["CCs"], found["domains"], found["tags"]) == (["IT", "FR"], [], ["a"])


def test_body_that_is_too_large_is_413(owner: Person) -> None:
    response = owner.post("create", **{**FINDING, "text": "x" * 1_100_000})
    assert response.status_code == 413


@pytest.mark.parametrize(
    "number", [None, 1, "", "0", "-1", "1.5", "1e3", "٣", "1 OR 1=1", "x" * 5000, "9" * 19, [], {}, True, "0x10", " 1"]
)
@pytest.mark.parametrize("action", ["update", "delete"])
def test_ids_that_are_none(owner: Person, action: str, number: object) -> None:
    reply = owner.refused(action, **{**FINDING, "id": number})
    assert reply["hint"].startswith("Parameter id ")


@pytest.mark.parametrize("value", ["1", 1.5, True, [], {}])
def test_revisions_that_are_none(owner: Person, value: object) -> None:
    number = owner.create()
    assert "revision" in owner.refused("update", id=number, revision=value)["hint"]


@pytest.mark.parametrize("path", ["0", "x" * 200, "a%2Fb", "%00", "%0d%0aX-Injected:1", "..", "a'--", "٣", "9" * 30])
def test_names_that_are_none(owner: Person, path: str) -> None:
    response = owner.client.get(f"/api/v1/incidents/show/{path}", headers=owner.headers)
    assert response.status_code in {400, 404}
    assert "X-Injected" not in response.headers


# Other people ------------------------------------------------------------------------------------------------------


def test_other_keys_change_nothing(owner: Person, module_app: Flask, module_dsn: str, admin: Person) -> None:
    """What the server sets can not be set by who writes."""
    sly = {
        "creator_account_id": account_id_of(module_app, admin.email),
        "account_id": account_id_of(module_app, admin.email),
        "incident_id": 7,
        "create_time": "1999-01-01T00:00:00Z",
        "deleted": True,
        "mine": 0,
        "body": "other text",
        "ccs": ["XX"],
        "__proto__": {"published": True},
        "role": "admin",
        "%(published)s": True,
    }
    number = owner.create(**sly, id="7", revision=9)
    assert number != "7"
    found = owner.show(number)
    assert (found["mine"], found["revision"], found["published"]) == (1, 1, False)
    assert not found["create_time"].startswith("1999")
    assert {name: found[name] for name in FINDING} == FINDING
    assert owner.post("update", id=number, **sly).status_code == 200
    assert owner.show(number) == found
    with psycopg.connect(module_dsn) as connection:
        row = connection.execute(
            "SELECT creator_account_id, deleted FROM incidents WHERE incident_id = %s", [int(number)]
        ).fetchone()
    assert row == (account_id_of(module_app, owner.email), False)


@pytest.mark.parametrize("address", ["other@example.org", "nothing", "a@b", "x" * 5000, "\0", "a@example.org\n"])
def test_address_of_somebody_else_is_refused(owner: Person, address: str) -> None:
    number = owner.create()
    for action, members in (("create", FINDING), ("update", {"id": number, "title": "x"}), ("delete", {"id": number})):
        reply = owner.refused(action, **{**members, "email_address": address})
        assert reply["err_str"] == "err_ownership"
        assert "email_address" in reply["hint"]
    assert owner.sees(number)


@pytest.mark.parametrize("address", [7, [], {}, True])
def test_addresses_that_are_no_text(owner: Person, admin: Person, address: object) -> None:
    for someone in (owner, admin):
        reply = someone.refused("create", **{**FINDING, "email_address": address})
        assert reply["err_str"] == "err_request_params"
        assert "email_address" in reply["hint"]


def test_own_address_in_any_spelling_is_accepted(owner: Person) -> None:
    for address in (owner.email, owner.email.upper(), f" {owner.email} ", "", None):
        owner.create(email_address=address)


def test_admin_may_name_any_address(admin: Person, module_dsn: str) -> None:
    number = admin.create(email_address="reporter@example.org")
    assert admin.show(number)["email_address"] is None
    with psycopg.connect(module_dsn) as connection:
        rows = connection.execute("SELECT i::text FROM incidents AS i").fetchall()
    assert not [row for row in rows if "reporter@" in row[0]]


@pytest.mark.parametrize("header", ["Bearer x.y.z", "Bearer ooni_" + "x" * 43, "Basic eDp5", "Bearer", "null"])
def test_bad_credentials_read_as_anybody_and_write_nothing(
    module_app: Flask, owner: Person, admin: Person, header: str
) -> None:
    draft, published = owner.create(), admin.create(published=True)
    stranger = Person(module_app, {"Authorization": header})
    assert not stranger.sees(draft)
    assert stranger.sees(published)
    assert stranger.search("only_mine=true") == []
    assert stranger.post("create", **FINDING).status_code == 401
    assert stranger.post("delete", id=published).status_code == 401


def test_token_of_a_probe_is_no_credential(module_app: Flask, owner: Person) -> None:
    client = module_app.test_client()
    client_id = client.post("/api/v1/register", json={}).json["client_id"]
    token = client.post("/api/v1/login", json={"username": client_id, "password": "x"}).json["token"]
    probe = Person(module_app, {"Authorization": f"Bearer {token}"})
    draft = owner.create()
    assert not probe.sees(draft)
    assert probe.post("create", **FINDING).status_code == 401
    assert probe.post("update", id=draft, title="x").status_code == 401
