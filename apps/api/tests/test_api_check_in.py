"""Check-in of both versions over HTTP: what a probe is told, for what it says and for where it is seen."""

import itertools
import json
import re
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from api.check_in import TESTS, TESTS_V2

UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"
ITALY = "192.0.2.7"
ONLY_COUNTRY = "198.51.100.7"
NOWHERE = "203.0.113.7"
ASKED = {
    "charging": True,
    "on_wifi": True,
    "platform": "linux",
    "probe_asn": "AS30722",
    "probe_cc": "FR",
    "run_type": "timed",
    "software_name": "ooniprobe-cli",
    "software_version": "3.24.0",
    "web_connectivity": {"category_codes": []},
}


@pytest.fixture(scope="module")
def geo(tmp_path_factory: pytest.TempPathFactory, make_mmdb: Callable[..., Path]) -> dict[str, Path]:
    """Databases that know one address whole and one by its country alone."""
    directory = tmp_path_factory.mktemp("geo")
    network = {"autonomous_system_number": 64500, "autonomous_system_organization": "Rete d'esempio ò"}
    countries = {"192.0.2.0/24": {"country": {"iso_code": "IT"}}, "198.51.100.0/24": {"country": {"iso_code": "DE"}}}
    return {
        "geo_country_db": make_mmdb(directory / "country.mmdb", countries),
        "geo_asn_db": make_mmdb(directory / "asn.mmdb", {"192.0.2.0/24": network}),
    }


def fill_lists(dsn: str) -> None:
    """Put 150 URLs for everybody and 30 for Italy into the database."""
    listed = [("ZZ", number, code) for number, code in zip(range(150), itertools.cycle(["NEWS", "GOVT", "HUMR"]))]
    listed += [("it", number, "NEWS") for number in range(30)]
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)",
            [(f"{cc}{n}.example.org", f"https://{cc}{n}.example.org/", cc, code) for cc, n, code in listed],
        )


@pytest.fixture(scope="module")
def probes(start_api: Callable[..., Any], module_dsn: str, geo: dict[str, Path]) -> Any:
    """An API with test lists that knows where some addresses are."""
    fill_lists(module_dsn)
    return start_api(module_dsn, probe_config_directory="", **geo)


def check_in(api: Any, asked: object = None, *, source: str = NOWHERE, path: str = "/api/v1/check-in") -> Any:
    content = asked if isinstance(asked, bytes) else json.dumps(ASKED if asked is None else asked).encode()
    return api.http.post(path, content=content, headers={"x-real-ip": source})


def replied(api: Any, asked: object = None, **how: str) -> Any:
    response = check_in(api, asked, **how)
    assert response.status_code == 200, response.text
    return response.json()


def urls(reply: Any) -> list[dict[str, str]]:
    listed: list[dict[str, str]] = reply["tests"]["web_connectivity"]["urls"]
    return listed


def test_reply(probes: Any) -> None:
    response = check_in(probes)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert response.headers["content-type"] == "application/json"
    reply = response.json()
    assert set(reply) == {"v", "probe_cc", "probe_asn", "probe_network_name", "utc_time", "conf", "tests"}
    assert reply["v"] == 1
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\dZ", reply["utc_time"])
    assert abs(datetime.fromisoformat(reply["utc_time"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert set(reply["conf"]) == {"features", "test_helpers"}
    assert all(isinstance(flag, bool) for flag in reply["conf"]["features"].values())
    helpers = probes.http.get("/api/v1/test-helpers").json()
    assert set(reply["conf"]["test_helpers"]) == set(helpers)


def test_a_report_id_for_each_of_21_tests(probes: Any) -> None:
    tests = replied(probes)["tests"]
    assert sorted(tests) == list(TESTS)
    assert len(tests) == 21
    ids = {name: test["report_id"] for name, test in tests.items()}
    assert len(set(ids.values())) == 21
    for name, rid in ids.items():
        squeezed = name.replace("_", "")
        assert re.fullmatch(rf"20\d{{6}}T\d{{6}}Z_{squeezed}_FR_30722_n1_[0-9A-Za-z]{{16}}", rid)
    assert [name for name, test in tests.items() if set(test) != {"report_id"}] == ["web_connectivity"]


def test_measurements_can_be_sent_to_the_report_ids(probes: Any) -> None:
    rid = replied(probes)["tests"]["web_connectivity"]["report_id"]
    assert re.search(r"_FR_webconnectivity_", probes.submit(b'{"a":1}', rid).json()["measurement_uid"])


def test_urls_have_the_three_fields_of_text(probes: Any) -> None:
    listed = urls(replied(probes))
    assert listed
    for url in listed:
        assert set(url) == {"category_code", "country_code", "url"}
        assert re.fullmatch(r"[A-Z]+", url["category_code"])
        assert re.fullmatch(r"[A-Z]{2}", url["country_code"])
        assert url["country_code"] != "ZZ"
        assert url["url"].startswith(("http://", "https://"))


# where the probe is


@pytest.mark.parametrize(
    ("source", "place"),
    [
        (ITALY, ("IT", "AS64500", "Rete d'esempio ò")),
        (ONLY_COUNTRY, ("DE", "AS0", None)),
        (NOWHERE, ("ZZ", "AS0", None)),
        ("nonsense", ("ZZ", "AS0", None)),
    ],
)
@pytest.mark.parametrize("path", ["/api/v1/check-in", "/api/_/check-in"])
def test_the_reply_says_where_the_server_sees_the_probe(
    probes: Any, path: str, source: str, place: tuple[str, str, str | None]
) -> None:
    reply = replied(probes, source=source, path=path)
    assert (reply["probe_cc"], reply["probe_asn"], reply["probe_network_name"]) == place


@pytest.mark.parametrize(
    ("said", "used"),
    [
        ({"probe_cc": "ZZ", "probe_asn": "AS0"}, "IT_64500"),
        ({}, "IT_64500"),
        ({"probe_cc": None, "probe_asn": None}, "IT_64500"),
        ({"probe_cc": "", "probe_asn": ""}, "IT_64500"),
        ({"probe_cc": "A2", "probe_asn": "AS0"}, "IT_64500"),
        ({"probe_cc": "FR", "probe_asn": "AS0"}, "FR_0"),
        ({"probe_cc": "ZZ", "probe_asn": "AS30722"}, "ZZ_30722"),
        ({"probe_cc": "fr", "probe_asn": "as30722"}, "FR_30722"),
        ({"probe_cc": "FR", "probe_asn": "AS4294967295"}, "FR_4294967295"),
    ],
)
def test_what_the_probe_says_wins_unless_it_knows_nothing(probes: Any, said: dict[str, object], used: str) -> None:
    reply = replied(probes, said, source=ITALY)
    assert f"_ndt_{used}_n1_" in reply["tests"]["ndt"]["report_id"]
    assert (reply["probe_cc"], reply["probe_asn"]) == ("IT", "AS64500")


def test_no_address_is_logged_or_stored(probes: Any) -> None:
    check_in(probes, source=ITALY)
    check_in(probes, {"probe_cc": 1}, source=ITALY)
    assert ITALY not in probes.log()
    for path in probes.directory.rglob("*"):
        if path.is_file():
            assert ITALY.encode() not in path.read_bytes(), path


# how much it gets


def count(api: Any, **said: object) -> int:
    return len(urls(replied(api, {**ASKED, **said})))


@pytest.mark.parametrize(
    ("said", "number"),
    [
        ({}, 100),
        ({"charging": None, "run_type": None}, 100),
        ({"charging": False}, 20),
        ({"run_type": "something", "charging": False}, 20),
        ({"run_type": "Manual"}, 100),
        ({"run_type": "manual"}, 150),
        ({"run_type": "manual", "charging": False}, 150),
        ({"run_type": "manual", "probe_cc": "IT"}, 180),
    ],
)
def test_number_of_urls(probes: Any, said: dict[str, object], number: int) -> None:
    assert count(probes, **said) == number


def test_a_probe_that_says_nothing_gets_urls_of_a_timed_run(probes: Any) -> None:
    assert len(urls(replied(probes, {}))) == 100


def test_urls_of_the_country_and_of_the_world(probes: Any) -> None:
    countries = [url["country_code"] for url in urls(replied(probes, {"probe_cc": "it", "run_type": "manual"}))]
    assert (countries.count("IT"), countries.count("XX"), len(countries)) == (30, 150, 180)


def test_categories_are_a_filter(probes: Any) -> None:
    everything = urls(replied(probes, {**ASKED, "run_type": "manual"}))
    codes = sorted({url["category_code"] for url in everything})[:2]
    for wanted in (codes, ",".join(codes), [code.lower() for code in codes], f" {codes[0]} ,, {codes[1]},"):
        asked = {**ASKED, "run_type": "manual", "web_connectivity": {"category_codes": wanted}}
        assert sorted({url["category_code"] for url in urls(replied(probes, asked))}) == codes


@pytest.mark.parametrize(
    "nothing",
    [
        *(None, {}, {"category_codes": None}, {"category_codes": []}, {"category_codes": ""}, {"category_codes": [""]}),
        {"unknown": 1},
    ],
)
def test_no_categories_are_all_categories(probes: Any, nothing: object) -> None:
    asked = {**ASKED, "charging": False}
    assert len(urls(replied(probes, {**asked, "web_connectivity": nothing}))) == len(urls(replied(probes, asked)))


def test_an_unknown_category_has_no_urls(probes: Any) -> None:
    assert urls(replied(probes, {**ASKED, "web_connectivity": {"category_codes": ["NOTHING"]}})) == []


# what is refused

WRONG: dict[str, list[object]] = {
    "probe_cc": [1, True, [], {}, ["IT"], "ITA", "I", "И", "ИТ", "ＩＴ", "I\x00", "1T", "x" * 100_000, "\ud800\ud800"],
    "probe_asn": [
        1,
        True,
        [],
        {},
        "30722",
        "AS",
        "ASx",
        "AS-1",
        "AS1.5",
        "AS٣",
        "AS99999999999",
        "AS4294967296",
        "x" * 9999,
    ],
    "run_type": [1, True, [], {}, "x" * 100_000, "\x1b[0m"],
    "charging": ["true", 0, 1, 1.5, [], {}, "x" * 100_000],
    "web_connectivity": [1, True, "NEWS", [], ["NEWS"], "x" * 100_000],
    "web_connectivity.category_codes": [
        *(1, True, {}, [1], [None, 1], [["NEWS"]], "NEWS;GOVT", "НОВОСТИ", ["N3WS"], ["A" * 31], "x" * 100_000),
        *(["NEWS", "\ud800"], [chr(65 + number % 26) * (1 + number // 26) for number in range(101)]),
    ],
}


@pytest.mark.parametrize("path", ["/api/v1/check-in", "/api/_/check-in"])
@pytest.mark.parametrize("name", WRONG)
def test_what_is_wrong_is_named(probes: Any, path: str, name: str) -> None:
    for value in WRONG[name]:
        asked: dict[str, Any] = dict(ASKED)
        if "." in name:
            asked["web_connectivity"] = {name.partition(".")[2]: value}
        else:
            asked[name] = value
        response = check_in(probes, asked, path=path)
        assert response.status_code == 400, (value, response.text)
        assert f"parameter {name}: " in response.json()["error"]
        assert response.headers["cache-control"] == "no-cache"


@pytest.mark.parametrize("name", ["on_wifi", "platform", "software_name", "software_version"])
def test_what_is_not_used_may_be_anything(probes: Any, name: str) -> None:
    for value in (0, 1.5, "true", "x" * 10_000, "a\x00b", "\ud800", [], {}):
        assert check_in(probes, {**ASKED, name: value}).status_code == 200, value


def test_null_among_the_categories_counts_for_nothing(probes: Any) -> None:
    def asked_for(codes: object) -> list[str]:
        return urls(replied(probes, {**ASKED, "run_type": "manual", "web_connectivity": {"category_codes": codes}}))

    assert asked_for(["NEWS", None]) == asked_for(["NEWS"]) != asked_for([])
    assert asked_for([None]) == asked_for([])


@pytest.mark.parametrize("path", ["/api/v1/check-in", "/api/_/check-in"])
@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"1", b"\xff\xfe", b"\x00", b"[" * 50_000])
def test_no_json_object(probes: Any, path: str, body: bytes) -> None:
    response = check_in(probes, body, path=path)
    assert (response.status_code, response.json()) == (400, {"error": "JSON expected"})


def test_bodies_are_bounded(probes: Any) -> None:
    assert check_in(probes, b" " * 1_100_000 + b"{}").status_code == 413


def test_other_methods_are_405(probes: Any) -> None:
    response = probes.http.get("/api/v1/check-in")
    assert response.status_code == 405
    assert "error" in response.json()


@pytest.mark.parametrize("missing", ASKED)
@pytest.mark.parametrize("how", ["absent", "null"])
def test_every_field_may_be_missing_or_null(probes: Any, missing: str, how: str) -> None:
    asked = {name: value for name, value in ASKED.items() if name != missing}
    assert urls(replied(probes, asked if how == "absent" else {**asked, missing: None}))


def test_combinations_of_odd_values_are_never_a_500(probes: Any) -> None:
    odd = [None, "", 0, [], {}, "x", "\u0000", "ZZ", "AS0"]
    for cc, asn, rest in itertools.product(odd, odd, odd):
        asked = {"probe_cc": cc, "probe_asn": asn, "web_connectivity": rest, "charging": False}
        assert check_in(probes, asked).status_code in {200, 400}


# when things are away


def test_without_a_database_there_are_urls_all_the_same(start_api: Callable[..., Any]) -> None:
    api = start_api(UNREACHABLE, probe_config_directory="")
    assert urls(replied(api))
    assert replied(api, path="/api/_/check-in")["nettests"]


def test_a_warm_check_in_asks_the_database_nothing(probes: Any, module_dsn: str) -> None:
    def transactions() -> int:
        time.sleep(2.5)  # the server's statistics are that late
        with psycopg.connect(module_dsn, autocommit=True) as connection:
            row = connection.execute(
                "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()"
            ).fetchone()
            assert row is not None
            return int(row[0])

    count(probes)
    before = transactions()
    for _ in range(100):
        assert count(probes) == 100
    assert transactions() - before < 50  # what goes on in the background, and the question itself


# the experimental version


def test_second_version(probes: Any) -> None:
    response = check_in(probes, path="/api/_/check-in")
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    reply = response.json()
    assert set(reply) == {"v", "probe_cc", "probe_asn", "probe_network_name", "utc_time", "conf", "nettests"}
    assert reply["v"] == 2
    assert reply["conf"]["features"] == {}
    tests = {test["test_name"]: test for test in reply["nettests"]}
    assert len(reply["nettests"]) == len(tests) == 33
    assert set(tests) == set(TESTS_V2) >= set(TESTS)
    for name, test in tests.items():
        assert set(test) == {"test_name", "report_id", "targets"}
        assert f"_{name.replace('_', '')}_FR_30722_n1_" in test["report_id"]
        for target in test["targets"]:
            assert set(target) == {"attributes", "input", "options"}
            assert target["options"] == {}
    assert {name for name, test in tests.items() if test["targets"]} == {
        "dnscheck",
        "stunreachability",
        "web_connectivity",
    }
    assert tests["dnscheck"]["targets"][0] == {
        "attributes": {},
        "input": "https://dns.google/dns-query",
        "options": {},
    }
    assert tests["stunreachability"]["targets"][0]["input"] == "stun://stun.voip.blackberry.com:3478"
    first = tests["web_connectivity"]["targets"][0]
    assert set(first["attributes"]) == {"category_code", "country_code"}
    assert len(tests["web_connectivity"]["targets"]) == len(urls(replied(probes)))


@pytest.mark.parametrize(
    ("source", "features"),
    [
        ("10.34.0.1", {"webconnectivity_0.5": True}),
        ("10.239.34.34", {"webconnectivity_0.5": True}),
        ("34.10.239.1", {}),
        ("2001:db8:34::1", {}),
        ("::ffff:10.34.0.1", {"webconnectivity_0.5": True}),
    ],
)
def test_experiment_of_the_second_version(probes: Any, source: str, features: dict[str, bool]) -> None:
    assert replied(probes, source=source, path="/api/_/check-in")["conf"]["features"] == features
