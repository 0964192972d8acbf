"""Geolocation: files come, change, break and go; an answer is right or unknown, never wrong and never an error."""

import os
import random
import shutil
import time
from collections.abc import Callable
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import REGISTRY

from api import geolocation
from api.geolocation import NOWHERE, Geolocation, Place, asn_in, country_in, name_in
from api.proxies import Address

COUNTRIES = {
    "192.0.2.0/24": {"country": {"iso_code": "IE", "names": {"en": "Ireland"}}, "continent": {"code": "EU"}},
    "198.51.100.0/24": {"country": {"iso_code": "IT"}},
    "2001:db8:1::/48": {"country": {"iso_code": "BR"}},
}
NETWORKS = {
    "192.0.2.0/24": {"autonomous_system_number": 34245, "autonomous_system_organization": "Magnet"},
    "203.0.113.0/24": {"autonomous_system_number": 4294967295, "autonomous_system_organization": "Größe"},
    "2001:db8:1::/48": {"autonomous_system_number": 1},
}
BOTH = {
    "192.0.2.0/24": COUNTRIES["192.0.2.0/24"] | NETWORKS["192.0.2.0/24"],
    "198.51.100.0/24": COUNTRIES["198.51.100.0/24"],
}
KNOWN = ip_address("192.0.2.9")


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def later(self, seconds: float = 1.0) -> None:
        self.now += seconds


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    moved = Clock()
    monkeypatch.setattr("api.watched_file.time.monotonic", moved)
    return moved


@pytest.fixture
def country(tmp_path: Path, make_mmdb: Callable[..., Path]) -> Path:
    return make_mmdb(tmp_path / "country.mmdb", COUNTRIES)


@pytest.fixture
def asn(tmp_path: Path, make_mmdb: Callable[..., Path]) -> Path:
    return make_mmdb(tmp_path / "asn.mmdb", NETWORKS)


def good(kind: str) -> float | None:
    return REGISTRY.get_sample_value("api_geo_database_ok", {"database": kind})


def looked_up(kind: str, result: str) -> float:
    return REGISTRY.get_sample_value("api_geo_lookups_total", {"database": kind, "result": result}) or 0


@pytest.mark.parametrize(
    ("address", "place"),
    [
        ("192.0.2.9", Place("IE", 34245, "Magnet")),
        ("::ffff:192.0.2.9", Place("IE", 34245, "Magnet")),
        ("198.51.100.1", Place("IT", 0, None)),
        ("203.0.113.1", Place("ZZ", 4294967295, "Größe")),
        ("2001:db8:1::7", Place("BR", 1, None)),
        ("2001:db8:2::7", NOWHERE),
        ("127.0.0.1", NOWHERE),
        ("0.0.0.0", NOWHERE),
        ("255.255.255.255", NOWHERE),
        ("::", NOWHERE),
        ("fe80::1", NOWHERE),
    ],
)
def test_each_part_is_known_or_unknown_by_itself(country: Path, asn: Path, address: str, place: Place) -> None:
    assert Geolocation(str(country), str(asn)).locate(ip_address(address)) == place


def test_nobody_is_nowhere(country: Path, asn: Path) -> None:
    assert Geolocation(str(country), str(asn)).locate(None) == NOWHERE == ("ZZ", 0, None)
    assert Geolocation("", "").locate(KNOWN) == NOWHERE


def test_one_file_for_both(tmp_path: Path, make_mmdb: Callable[..., Path]) -> None:
    both = str(make_mmdb(tmp_path / "both.mmdb", BOTH))
    geo = Geolocation(both, both)
    assert geo.locate(KNOWN) == Place("IE", 34245, "Magnet")
    assert geo.locate(ip_address("198.51.100.1")) == Place("IT")
    assert Geolocation(both, "").locate(KNOWN) == Place("IE")
    assert Geolocation("", both).locate(KNOWN) == Place("ZZ", 34245, "Magnet")


def test_a_database_of_ipv4_alone_knows_no_ipv6(tmp_path: Path, make_mmdb: Callable[..., Path]) -> None:
    path = make_mmdb(tmp_path / "v4.mmdb", {"192.0.2.0/24": {"country": {"iso_code": "IE"}}}, ip_version=4)
    geo = Geolocation(str(path), "")
    before = looked_up("country", "failed")
    assert geo.locate(KNOWN).probe_cc == "IE"
    assert geo.locate(ip_address("2001:db8:1::7")) == NOWHERE
    assert looked_up("country", "failed") == before


def test_look_ups_are_counted(country: Path, asn: Path) -> None:
    geo = Geolocation(str(country), str(asn))
    before = [looked_up(*key) for key in (("country", "found"), ("asn", "not_found"))]
    geo.locate(ip_address("198.51.100.1"))
    assert [looked_up(*key) for key in (("country", "found"), ("asn", "not_found"))] == [n + 1 for n in before]


def replace_by_rename(path: Path, new: Path) -> None:
    new.rename(path)


def write_in_place(path: Path, new: Path) -> None:
    with path.open("r+b") as file:
        file.truncate(0)
        file.write(new.read_bytes())
    os.utime(path, (time.time() - 60,) * 2)


def overwrite_in_place(path: Path, new: Path) -> None:
    data = new.read_bytes()
    with path.open("r+b") as file:
        file.write(data)
        file.truncate(len(data))
    os.utime(path, (time.time() - 60,) * 2)


@pytest.mark.parametrize("replace", [replace_by_rename, write_in_place, overwrite_in_place])
def test_a_new_file_is_used_without_a_restart(
    country: Path, clock: Clock, make_mmdb: Callable[..., Path], replace: Callable[[Path, Path], None]
) -> None:
    geo = Geolocation(str(country), "")
    assert geo.locate(KNOWN).probe_cc == "IE"
    new = make_mmdb(country.with_name("new.mmdb"), {"192.0.2.0/24": {"country": {"iso_code": "FR"}}})
    replace(country, new)
    clock.later()
    assert geo.locate(KNOWN).probe_cc == "FR"
    assert good("country") == 1


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def cut_the_end(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 40)


def empty(path: Path) -> None:
    os.truncate(path, 0)


def write_text(path: Path) -> None:
    path.write_text("<html>404 Not Found</html>")


def remove(path: Path) -> None:
    path.unlink()


def make_a_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def zero_the_tree(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[:200] = bytes(200)
    path.write_bytes(data)


def shift_the_data(path: Path) -> None:
    path.write_bytes(b"\x00\x00\x01\x00\x00\x01" + path.read_bytes())


SPOILERS = [truncate, cut_the_end, empty, write_text, remove, make_a_directory, zero_the_tree, shift_the_data]


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_broken_file_is_told_and_the_last_good_one_goes_on(
    country: Path, clock: Clock, spoil: Callable[[Path], None]
) -> None:
    geo = Geolocation(str(country), "")
    spoil(country)
    os.utime(country, (time.time() - 60,) * 2) if country.exists() else None
    clock.later()
    assert geo.locate(KNOWN).probe_cc == "IE"
    assert good("country") == 0
    assert REGISTRY.get_sample_value("api_geo_database_build_timestamp_seconds", {"database": "country"}) is not None


@pytest.mark.parametrize("spoil", SPOILERS)
def test_a_start_with_a_broken_file_knows_nothing_until_it_is_mended(
    country: Path, clock: Clock, make_mmdb: Callable[..., Path], spoil: Callable[[Path], None]
) -> None:
    spoil(country)
    os.utime(country, (time.time() - 60,) * 2) if country.exists() else None
    before = looked_up("country", "failed")
    geo = Geolocation(str(country), "")
    assert geo.locate(KNOWN) == NOWHERE
    assert looked_up("country", "failed") == before + 1
    assert good("country") == 0
    if country.is_dir():
        country.rmdir()
    make_mmdb(country, COUNTRIES)
    clock.later()
    assert geo.locate(KNOWN).probe_cc == "IE"
    assert good("country") == 1


def test_a_file_that_is_still_being_written_is_not_believed(country: Path, clock: Clock) -> None:
    geo = Geolocation(str(country), "")
    os.utime(country)
    fresh = Geolocation(str(country), "")
    assert fresh.locate(KNOWN) == NOWHERE
    assert good("country") == 0
    os.utime(country, (time.time() - geolocation.SETTLE_S - 1,) * 2)
    clock.later()
    assert fresh.locate(KNOWN).probe_cc == "IE"
    assert geo.locate(KNOWN).probe_cc == "IE"


def test_a_database_of_the_wrong_kind_is_told(country: Path, asn: Path) -> None:
    assert Geolocation(str(asn), str(country)).locate(KNOWN) == NOWHERE
    assert (good("country"), good("asn")) == (0, 0)


def test_an_empty_database_is_told(tmp_path: Path, make_mmdb: Callable[..., Path]) -> None:
    path = make_mmdb(tmp_path / "empty.mmdb", {"192.0.2.0/24": {}})
    assert Geolocation(str(path), "").locate(KNOWN) == NOWHERE
    assert good("country") == 0


def test_damage_that_a_look_up_meets_is_told(tmp_path: Path, clock: Clock, make_mmdb: Callable[..., Path]) -> None:
    networks = {f"10.0.{number}.0/24": {"country": {"iso_code": "IT"}, "n": number} for number in range(0, 256, 2)}
    networks |= {
        f"11.{number}.{low}.0/24": {"country": {"iso_code": "IT"}} for number in range(8) for low in range(128)
    }
    path = make_mmdb(tmp_path / "country.mmdb", networks | {"192.0.2.0/24": {"country": {"iso_code": "IE"}}})
    data = path.read_bytes()
    assert data.count(b"BIE") == 1  # a text of two bytes; now it claims to be longer than the file
    path.write_bytes(data.replace(b"BIE", b"\x5f\xff\xff"))
    os.utime(path, (time.time() - 60,) * 2)
    geo = Geolocation(str(path), "")
    assert good("country") == 1
    before = looked_up("country", "failed")
    assert geo.locate(KNOWN) == geo.locate(KNOWN) == NOWHERE
    assert looked_up("country", "failed") == before + 2
    assert good("country") == 0
    assert geo.locate(ip_address("10.0.2.1")).probe_cc == "IT"
    make_mmdb(path, COUNTRIES)
    clock.later()
    assert geo.locate(KNOWN).probe_cc == "IE"
    assert good("country") == 1


def test_metrics_follow_without_look_ups(country: Path, clock: Clock) -> None:
    geo = Geolocation(str(country), "")
    assert good("country") == 1
    country.unlink()
    clock.later()
    geo.refresh()
    assert good("country") == 0


def test_damage_anywhere_gives_right_answers_or_none(tmp_path: Path, make_mmdb: Callable[..., Path]) -> None:
    """Bytes that rot inside a record cannot be told; anything else must never become an error or a crash."""
    whole = make_mmdb(tmp_path / "whole.mmdb", BOTH).read_bytes()
    addresses: list[Address] = [ip_address(text) for text in ("192.0.2.9", "198.51.100.1", "8.8.8.8", "2001:db8:1::7")]
    chance = random.Random(7)
    path = tmp_path / "damaged.mmdb"
    for _ in range(1000):
        data = bytearray(whole)
        for _ in range(chance.randint(1, 8)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        if chance.random() < 0.2:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)
        os.utime(path, (time.time() - 60,) * 2)
        geo = Geolocation(str(path), str(path))
        for address in addresses:
            place = geo.locate(address)
            assert len(place.probe_cc) == 2
            assert place.probe_cc.isascii()
            assert 0 <= place.probe_asn < 2**32


@pytest.mark.parametrize(
    ("record", "cc"),
    [
        ({"country": {"iso_code": "IT"}}, "IT"),
        ({"country": {"iso_code": "it"}}, "IT"),
        ({"country_code": "IT"}, "IT"),
        ({"country": "IT"}, "IT"),
        ({"registered_country": {"iso_code": "IT"}}, "ZZ"),
        ({"country": {"iso_code": "A1"}}, "ZZ"),
        ({"country": {"iso_code": "ITA"}}, "ZZ"),
        ({"country": {"iso_code": "ＩＴ"}}, "ZZ"),
        ({"country": {"iso_code": None}}, "ZZ"),
        ({"country": ["IT"]}, "ZZ"),
        ({}, "ZZ"),
        (None, "ZZ"),
        ("IT", "ZZ"),
    ],
)
def test_countries_in_records(record: object, cc: str) -> None:
    assert country_in(record) == cc


@pytest.mark.parametrize(
    ("record", "asn", "name"),
    [
        ({"autonomous_system_number": 7, "autonomous_system_organization": "N"}, 7, "N"),
        ({"traits": {"autonomous_system_number": 7, "autonomous_system_organization": "N"}}, 7, "N"),
        ({"asn": "AS7", "as_name": "N"}, 7, "N"),
        ({"autonomous_system_number": 7, "autonomous_system_organization": ""}, 7, None),
        ({"autonomous_system_number": 2**32}, 0, None),
        ({"autonomous_system_number": -1}, 0, None),
        ({"autonomous_system_number": True}, 0, None),
        ({"autonomous_system_number": 7.0}, 0, None),
        ({"asn": "ASX"}, 0, None),
        (None, 0, None),
    ],
)
def test_networks_in_records(record: object, asn: int, name: str | None) -> None:
    assert (asn_in(record), name_in(record)) == (asn, name)


# Over HTTP.


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory, make_mmdb: Callable[..., Path]) -> Any:
    """An API with two workers and both databases."""
    where = tmp_path_factory.mktemp("geo")
    country = make_mmdb(where / "country.mmdb", COUNTRIES)
    asn = make_mmdb(where / "asn.mmdb", NETWORKS)
    return start_api("host=/nonexistent", workers=2, geo_country_db=country, geo_asn_db=asn)


def ask(api: Any, *addresses: object) -> Any:
    return api.http.post("/api/v1/geolookup", json={"addresses": list(addresses)})


def test_geolookup(api: Any) -> None:
    response = ask(api, "192.0.2.9", "198.51.100.1", "203.0.113.1", "8.8.8.8", "2001:DB8:1:0::7", "192.0.2.9")
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert response.json() == {
        "v": 1,
        "geolocation": {
            "192.0.2.9": {"cc": "IE", "asn": 34245, "as_name": "Magnet"},
            "198.51.100.1": {"cc": "IT", "asn": None, "as_name": None},
            "203.0.113.1": {"cc": None, "asn": 4294967295, "as_name": "Größe"},
            "8.8.8.8": {"cc": None, "asn": None, "as_name": None},
            "2001:DB8:1:0::7": {"cc": "BR", "asn": 1, "as_name": None},
        },
    }


def test_geolookup_of_nothing_and_of_much(api: Any) -> None:
    assert ask(api).json() == {"v": 1, "geolocation": {}}
    many = [f"10.1.{number >> 8}.{number & 255}" for number in range(1000)]
    assert len(ask(api, *many).json()["geolocation"]) == 1000
    response = ask(api, *many, "192.0.2.9")
    assert response.status_code == 400
    assert "addresses" in response.json()["error"]


@pytest.mark.parametrize(
    "item",
    ["", " ", "192.0.2", "192.0.2.256", "192.0.2.9:80", "192.0.2.0/24", "example.org", "fe80::1%eth0", "::g", "[::1]",
     " 192.0.2.9", "١٩٢.٠.٢.٩", "\x00", "\ud800", "1" * 100_000, None, 1, 3221225993, True, [], {}, ["192.0.2.9"]],
)  # fmt: skip
def test_geolookup_names_what_is_no_address_and_does_not_repeat_it(api: Any, item: object) -> None:
    import json

    body = json.dumps({"addresses": ["192.0.2.9", item]}).encode()
    response = api.http.post("/api/v1/geolookup", content=body)
    assert response.status_code == 400
    assert "addresses[1]" in response.json()["error"]
    assert len(response.json()["error"]) < 200


@pytest.mark.parametrize("value", ["192.0.2.9", None, 1, {}, {"0": "192.0.2.9"}, True])
def test_geolookup_wants_a_list(api: Any, value: object) -> None:
    for body in ({"addresses": value}, {}):
        response = api.http.post("/api/v1/geolookup", json=body)
        assert response.status_code == 400
        assert "addresses" in response.json()["error"]


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b"\xff", b"[" * 90_000])
def test_geolookup_wants_json(api: Any, body: bytes) -> None:
    response = api.http.post("/api/v1/geolookup", content=body)
    assert (response.status_code, response.json()["error"]) == (400, "JSON expected")


def test_addresses_asked_for_are_kept_nowhere(api: Any) -> None:
    asked = "203.0.113.199"
    ask(api, asked)
    ask(api, asked, "x")
    assert asked not in api.log()
    assert asked not in api.metrics_text()
    assert not any(asked.encode() in path.read_bytes() for path in api.files())


def test_the_files_are_watched_over_http(api: Any, make_mmdb: Callable[..., Path]) -> None:
    country = Path(str(api.settings["geo_country_db"]))
    assert api.metric("api_geo_database_ok", database="country") == 1
    make_mmdb(country, {"192.0.2.0/24": {"country": {"iso_code": "FR"}}})
    until(lambda: [ask(api, "192.0.2.9").json()["geolocation"]["192.0.2.9"]["cc"] for _ in range(10)] == ["FR"] * 10)
    shutil.copy(country, country.with_name("kept"))
    country.write_bytes(b"rubbish")
    os.utime(country, (time.time() - 60,) * 2)
    until(lambda: api.http.get("/health") and api.metric("api_geo_database_ok", database="country") == 0)
    assert ask(api, "192.0.2.9").json()["geolocation"]["192.0.2.9"]["cc"] == "FR"
    assert api.metric("api_geo_database_ok", database="asn") == 1
    country.with_name("kept").rename(country)
    os.utime(country, (time.time() - 60,) * 2)
    until(lambda: api.http.get("/health") and api.metric("api_geo_database_ok", database="country") == 1)
    assert api.metric("api_geo_database_build_timestamp_seconds", database="country") > 1e9


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_an_api_without_databases_knows_nothing_and_complains_of_nothing(start_api: Callable[..., Any]) -> None:
    api = start_api("host=/nonexistent")
    assert ask(api, "192.0.2.9").json()["geolocation"]["192.0.2.9"] == {"cc": None, "asn": None, "as_name": None}
    assert "api_geo_database_ok{" not in api.metrics_text()


def test_a_missing_database_is_no_reason_not_to_start(start_api: Callable[..., Any], tmp_path: Path) -> None:
    api = start_api("host=/nonexistent", geo_country_db=tmp_path / "absent.mmdb")
    assert ask(api, "192.0.2.9").json()["geolocation"]["192.0.2.9"]["cc"] is None
    assert api.metric("api_geo_database_ok", database="country") == 0
    assert 'api_geo_database_ok{database="country"} 0' in api.metrics_text()
    assert "does not exist" in api.log()


@pytest.mark.parametrize("query", ["", "?report_id=20240101T000000Z_ndt_IE_34245_n1_abcdefghijklmnop", "?other=1"])
def test_check_report_id(api: Any, query: str) -> None:
    response = api.http.get(f"/api/_/check_report_id{query}")
    assert (response.status_code, response.json()) == (200, {"v": 0, "found": True})
    assert response.headers["cache-control"] == "max-age=1"


@pytest.mark.parametrize("text", ["", "x", "x" * 101, "%C3%A9" * 20, "é" * 20, "../../../../etc/passwd"])
def test_check_report_id_is_yes_to_odd_ids_too(api: Any, text: str) -> None:
    response = api.http.get(f"/api/_/check_report_id?report_id={text}")
    assert (response.status_code, response.json()) == (200, {"v": 0, "found": True})


@pytest.mark.parametrize("text", ["%FF" * 20, "a" * 20 + "%00"])
def test_check_report_id_of_what_is_no_text(api: Any, text: str) -> None:
    response = api.http.get(f"/api/_/check_report_id?report_id={text}")
    assert response.status_code == 400
    assert "report_id" in response.json()["error"] or response.json()["error"] == "Invalid characters"
