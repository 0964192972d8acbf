"""What probes get that run a link: its tests, and the URLs that are chosen for the probe."""

import contextlib
import itertools
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from people import signed_in_headers
from run_linkers import DESCRIPTOR, V1, V2, WRITTEN

from api.engine_descriptor import NETWORK_TYPES
from api.errors import ApiError
from api.rate_limit import REMAINING, is_free
from api.run_link_fields import WEBSITES

ITALY = "192.0.2.7"
NOWHERE = "203.0.113.7"
BROWSER = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/135.0 Safari/537.36"
ASKED = {
    "run_type": "manual",
    "is_charging": True,
    "probe_asn": "AS30722",
    "probe_cc": "FR",
    "network_type": "wifi",
    "website_category_codes": [],
}
"""What the command-line probe says, always with a manual run, charging, wifi and no categories."""

DYNAMIC = {"test_name": "web_connectivity", "targets_name": WEBSITES, "is_background_run_enabled_default": False}


@pytest.fixture(scope="module")
def probes(
    start_api: Callable[..., Any],
    module_dsn: str,
    tmp_path_factory: pytest.TempPathFactory,
    make_mmdb: Callable[..., Path],
) -> Any:
    """An API with 150 URLs for everybody and 30 for Italy, that knows where one address is."""
    listed = [("ZZ", number, code) for number, code in zip(range(150), itertools.cycle(["NEWS", "GOVT", "HUMR"]))]
    listed += [("it", number, "NEWS") for number in range(30)]
    with psycopg.connect(module_dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)",
            [(f"{cc}{n}.example.org", f"https://{cc}{n}.example.org/", cc, code) for cc, n, code in listed],
        )
    directory = tmp_path_factory.mktemp("geo")
    country = make_mmdb(directory / "country.mmdb", {"192.0.2.0/24": {"country": {"iso_code": "IT"}}})
    network = make_mmdb(directory / "asn.mmdb", {"192.0.2.0/24": {"autonomous_system_number": 64500}})
    return start_api(module_dsn, geo_country_db=country, geo_asn_db=network)


@pytest.fixture(scope="module")
def people(probes: Any, module_dsn: str) -> dict[str, str]:
    return signed_in_headers(probes, module_dsn)


@pytest.fixture(scope="module")
def link(probes: Any, people: dict[str, str]) -> str:
    """A link of two revisions; the second one has dynamic targets."""
    made = probes.http.post(V2, json=WRITTEN, headers=people).json()
    edited = probes.http.put(
        f"{V2}/{made['oonirun_link_id']}", json={**WRITTEN, "nettests": [DYNAMIC, {"test_name": "ndt"}]}, headers=people
    )
    assert edited.json()["revision"] == "2"
    return str(made["oonirun_link_id"])


def ask(api: Any, link: str, revision: str = "latest", *, source: str = NOWHERE, **changes: Any) -> httpx.Response:
    response: httpx.Response = api.http.post(
        f"{V2}/{link}/engine-descriptor/{revision}",
        json={**ASKED, **changes},
        headers={"x-real-ip": source, "User-Agent": BROWSER},
    )
    return response


def nettests(api: Any, link: str, revision: str = "latest", **changes: Any) -> list[dict[str, Any]]:
    response = ask(api, link, revision, **changes)
    assert response.status_code == 200, response.text
    reply = response.json()
    assert set(reply) == {"date_created", "nettests", "revision"}
    found: list[dict[str, Any]] = reply["nettests"]
    return found


def test_reply(probes: Any, link: str) -> None:
    response = ask(probes, link, "1")
    reply = response.json()
    full = probes.http.get(f"{V2}/{link}/full-descriptor/1").json()
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert reply["revision"] == "1"
    assert reply["date_created"] == full["date_created"]
    flags = {"is_background_run_enabled": False, "is_manual_run_enabled": True}
    assert reply["nettests"] == [
        {**full["nettests"][0], **flags},
        {**full["nettests"][1], "is_background_run_enabled": True, "is_manual_run_enabled": True},
    ]
    assert reply["nettests"][0]["inputs_extra"] == WRITTEN["nettests"][0]["inputs_extra"]


class ProbeNettest(msgspec.Struct):
    """What the probe decodes of a test: a wrong type anywhere is the end of its run."""

    test_name: str
    inputs: list[str] | None
    inputs_extra: list[dict[str, str]] | None
    options: dict[str, bool | int | float | str]
    is_background_run_enabled: bool
    is_manual_run_enabled: bool


class ProbeDescriptor(msgspec.Struct):
    """What it decodes of the reply."""

    revision: str
    date_created: datetime
    nettests: list[ProbeNettest]


@pytest.mark.parametrize("revision", ["1", "2", "3", "latest"])
def test_probes_can_decode_it(probes: Any, link: str, revision: str) -> None:
    decoded = msgspec.json.decode(ask(probes, link, revision).content, type=ProbeDescriptor)
    assert len(decoded.nettests) == (0 if revision == "3" else 2)
    for nettest in decoded.nettests:
        assert len(nettest.inputs or ()) == len(nettest.inputs_extra or ())
    assert decoded.date_created.tzinfo is not None


def test_dynamic_targets(probes: Any, link: str) -> None:
    web, ndt = nettests(probes, link)
    assert (web["test_name"], ndt["test_name"], ndt["inputs"]) == ("web_connectivity", "ndt", None)
    assert (web["is_background_run_enabled"], web["is_background_run_enabled_default"]) == (False, False)
    assert len(web["inputs"]) == len(web["inputs_extra"]) == 150
    assert set(web["inputs"]) == {f"https://ZZ{number}.example.org/" for number in range(150)}
    for extra in web["inputs_extra"]:
        assert extra in [{"category_code": code, "country_code": "XX"} for code in ("NEWS", "GOVT", "HUMR")]


@pytest.mark.parametrize(
    ("run_type", "charging", "count"),
    [("manual", True, 180), ("manual", False, 180), ("timed", True, 100), ("timed", False, 20)],
)
def test_as_many_urls_as_at_a_check_in(probes: Any, link: str, run_type: str, charging: bool, count: int) -> None:
    web = nettests(probes, link, probe_cc="it", run_type=run_type, is_charging=charging)[0]
    assert len(web["inputs"]) == len(web["inputs_extra"]) == count
    asked = {
        "run_type": run_type,
        "charging": charging,
        "probe_cc": "IT",
        "probe_asn": "AS30722",
        "web_connectivity": {"category_codes": []},
    }
    checked_in = probes.http.post("/api/v1/check-in", json=asked).json()
    assert len(checked_in["tests"]["web_connectivity"]["urls"]) == count


def test_categories(probes: Any, link: str) -> None:
    web = nettests(probes, link, website_category_codes=["GOVT", "humr"])[0]
    assert {extra["category_code"] for extra in web["inputs_extra"]} == {"GOVT", "HUMR"}
    for none in ([], None):
        assert len(nettests(probes, link, website_category_codes=none)[0]["inputs"]) == 150


def test_probes_that_do_not_know_where_they_are_are_looked_up(probes: Any, link: str) -> None:
    def countries(**changes: Any) -> set[str]:
        return {extra["country_code"] for extra in nettests(probes, link, **changes)[0]["inputs_extra"]}

    assert countries(probe_cc="ZZ", probe_asn="AS0", source=ITALY) == {"IT", "XX"}
    assert countries(probe_cc="ZZ", probe_asn="AS0") == {"XX"}
    assert countries(probe_cc="ZZ", probe_asn="30722", source=ITALY) == {"XX"}
    assert countries(probe_cc="IT", probe_asn="0") == {"IT", "XX"}
    assert countries(probe_cc="A1") == {"XX"}


@pytest.mark.parametrize("revision", ["0", "3", "999999999"])
def test_a_revision_that_is_not_there_has_no_tests(probes: Any, link: str, revision: str) -> None:
    reply = ask(probes, link, revision).json()
    assert (reply["nettests"], reply["revision"]) == ([], revision)


def test_a_link_that_is_not_there(probes: Any) -> None:
    response = ask(probes, "999999999999999999")
    assert response.status_code == 404
    assert response.json()["detail"] == response.json()["error"]


@pytest.mark.parametrize("odd", ["x", "newest", "-1", "9999999999"])
def test_paths_that_are_none(probes: Any, link: str, odd: str) -> None:
    assert ask(probes, link, odd).status_code == 404


WRONG: list[tuple[str, list[Any]]] = [
    ("run_type", [None, "", "daily", 1, ["manual"]]),
    ("is_charging", [None, "true", 1, 0]),
    ("probe_asn", [None, "", "AS", "as1", "ASx", "AS12345678901", "AS4294967296", "AS-1", 1, "AS\u0661", "AS1\n"]),
    ("probe_cc", [None, "", "I", "ITA", "1T", "I T", 39, "\u0399\u03a4", "IT\n"]),
    ("network_type", [None, "", "WIFI", "satellite", 1, {}]),
    ("website_category_codes", ["NEWS", {}, [1], ["NEWS", None], ["NEWS;"], ["x" * 31], ["NEWS"] * 101, True]),
]


@pytest.mark.parametrize(("name", "values"), WRONG, ids=[name for name, _ in WRONG])
def test_what_is_wrong_is_refused_by_name(probes: Any, link: str, name: str, values: list[Any]) -> None:
    for value in values:
        response = ask(probes, link, **{name: value})
        if value is None and name == "website_category_codes":
            continue
        assert response.status_code == 422, repr(value)
        (detail,) = response.json()["detail"]
        assert detail["loc"] == ["body", name]
        assert detail["type"] == ("missing" if value is None else "value_error")
        assert name in response.json()["error"]


def test_every_kind_of_network_is_taken(probes: Any, link: str) -> None:
    for kind in NETWORK_TYPES:
        assert ask(probes, link, "1", network_type=kind).status_code == 200


def test_what_is_not_asked_for_makes_no_difference(probes: Any, link: str) -> None:
    assert ask(probes, link, "1", platform={"any": "thing"}, probe_cc="IT").status_code == 200
    body = {name: value for name, value in ASKED.items() if name != "website_category_codes"}
    response = probes.http.post(f"{V2}/{link}/engine-descriptor/latest", json=body)
    assert len(response.json()["nettests"][0]["inputs"]) == 150


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff"])
def test_bodies_that_are_no_object(probes: Any, link: str, body: bytes) -> None:
    response = probes.http.post(f"{V2}/{link}/engine-descriptor/latest", content=body)
    assert (response.status_code, response.json()["error"]) == (400, "JSON expected")


def test_links_of_the_older_routes_run_too(probes: Any, people: dict[str, str]) -> None:
    made = probes.http.post(f"{V1}/create", json=DESCRIPTOR, headers=people).json()
    web, dnscheck = nettests(probes, str(made["ooni_run_link_id"]))
    assert web["inputs"] == DESCRIPTOR["nettests"][0]["inputs"]
    assert (web["is_background_run_enabled"], web["is_manual_run_enabled"]) == (False, False)
    assert (dnscheck["is_background_run_enabled"], dnscheck["is_manual_run_enabled"]) == (True, True)


def test_expired_links_still_run(probes: Any, people: dict[str, str]) -> None:
    """Probes that have installed one ask for it every day; whether it is expired is for applications to look at."""
    made = probes.http.post(V2, json={**WRITTEN, "expiration_date": "2024-01-01T00:00:00Z"}, headers=people).json()
    assert made["is_expired"]
    assert len(nettests(probes, made["oonirun_link_id"])) == 2


def test_probes_have_no_quota(probes: Any, link: str) -> None:
    assert REMAINING not in ask(probes, link).headers
    assert REMAINING in probes.http.get(f"{V2}/{link}", headers={"x-real-ip": NOWHERE}).headers
    assert is_free(f"{V2}/{link}/engine-descriptor/latest")
    for path in (
        V2,
        f"{V2}/{link}",
        f"{V2}/{link}/revisions",
        f"{V2}/{link}/full-descriptor/1",
        "/x/engine-descriptor/1",
    ):
        assert not is_free(path)


def test_a_bad_token_is_not_looked_at(probes: Any, link: str) -> None:
    path = f"{V2}/{link}/engine-descriptor/1"
    assert probes.http.post(path, json=ASKED, headers={"Authorization": "Bearer x"}).status_code == 200


def test_probes_do_not_wait_for_readers(module_app: Flask, module_dsn: str) -> None:
    """All places and turns of readers are taken, for as long as they like."""
    headers = signed_in_headers(module_app, module_dsn, "user", "busy@example.org")
    client: FlaskClient = module_app.test_client()
    made: Any = client.post(V2, json={**WRITTEN, "author": ""}, headers=headers).json
    slots = module_app.extensions["api"].read_slots
    with contextlib.ExitStack() as taken:
        with contextlib.suppress(ApiError):
            for _ in range(1000):
                taken.enter_context(slots.place())
        assert client.get(f"{V2}/{made['oonirun_link_id']}").status_code == 503
        for revision in ("1", "latest"):
            reply = client.post(f"{V2}/{made['oonirun_link_id']}/engine-descriptor/{revision}", json=ASKED)
            assert reply.status_code == 200


def test_database_that_is_away(lone_app: Flask) -> None:
    client: FlaskClient = lone_app.test_client()
    response = client.post(f"{V2}/10000/engine-descriptor/latest", json=ASKED)
    assert response.status_code == 503
    assert response.headers["Retry-After"]
    assert client.post(f"{V2}/10000/engine-descriptor/latest", json={}).status_code == 422
