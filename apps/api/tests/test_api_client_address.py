"""Whose address counts: what clients write into headers never does, what our proxies write does."""

from collections.abc import Callable
from ipaddress import IPv4Address, ip_address, ip_network
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.config import ApiSettings, check
from api.proxies import TrustedProxies, network_of, parse_address
from core.config import ConfigError

PROXIES = TrustedProxies(("127.0.0.0/8", "::1/128", "10.0.0.0/24"))
CLIENT = "198.51.100.7"
LIAR = "203.0.113.66"


def client(peer: str | None, real: str | None = None, hops: str | None = None) -> str | None:
    """Return the address found for a connection from `peer` with these headers."""
    environ = {"REMOTE_ADDR": peer, "HTTP_X_REAL_IP": real, "HTTP_X_FORWARDED_FOR": hops}
    found = PROXIES.client({key: value for key, value in environ.items() if value is not None})
    return None if found is None else str(found)


@pytest.mark.parametrize(
    ("peer", "real", "hops", "expected"),
    [
        # no proxy of ours: headers are what anybody may write
        (CLIENT, None, None, CLIENT),
        (CLIENT, LIAR, LIAR, CLIENT),
        ("2001:db8::5", LIAR, LIAR, "2001:db8::5"),
        ("::ffff:198.51.100.7", LIAR, None, CLIENT),
        ("10.0.1.1", LIAR, LIAR, "10.0.1.1"),
        # the proxy on this host says who it is
        ("127.0.0.1", CLIENT, None, CLIENT),
        ("::1", CLIENT, None, CLIENT),
        ("::ffff:127.0.0.1", CLIENT, None, CLIENT),
        ("127.0.0.1", "2001:db8::5", None, "2001:db8::5"),
        ("127.0.0.1", CLIENT, CLIENT, CLIENT),
        ("127.0.0.1", CLIENT, LIAR, CLIENT),
        ("127.0.0.1", CLIENT, f"{LIAR}, {CLIENT}", CLIENT),
        ("127.0.0.1", None, CLIENT, CLIENT),
        ("127.0.0.1", None, f"{LIAR}, {CLIENT}", CLIENT),
        ("127.0.0.1", None, f"{LIAR},{CLIENT}", CLIENT),
        ("127.0.0.1", "", CLIENT, CLIENT),
        # a chain of proxies of ours
        ("127.0.0.1", "10.0.0.9", CLIENT, CLIENT),
        ("127.0.0.1", "10.0.0.9", f"{LIAR}, {CLIENT}", CLIENT),
        ("127.0.0.1", "10.0.0.9", f"{LIAR}, {CLIENT}, 10.0.0.8", CLIENT),
        ("10.0.0.9", None, f"{CLIENT}, 127.0.0.1", CLIENT),
        # a Unix socket has no address and is on this host
        ("", CLIENT, None, CLIENT),
        (None, CLIENT, LIAR, CLIENT),
        ("", None, f"{LIAR}, {CLIENT}", CLIENT),
        ("", None, None, None),
        # nobody but ourselves
        ("127.0.0.1", None, None, "127.0.0.1"),
        ("127.0.0.1", "10.0.0.9", None, "10.0.0.9"),
        # with ports, as some balancers write them
        ("127.0.0.1", f"{CLIENT}:4711", None, CLIENT),
        ("127.0.0.1", "[2001:db8::5]:443", None, "2001:db8::5"),
        ("127.0.0.1", "[2001:db8::5]", None, "2001:db8::5"),
        # what a proxy says and nobody understands is not replaced by a guess
        ("127.0.0.1", "unknown", CLIENT, None),
        ("127.0.0.1", None, f"{CLIENT}, _hidden", None),
        ("127.0.0.1", None, f"{CLIENT}, ", None),
        ("127.0.0.1", None, " ", None),
        ("127.0.0.1", "198.51.100.7.1", None, None),
        ("127.0.0.1", "fe80::1%eth0", None, None),
        ("127.0.0.1", "١٩٨.٥١.١٠٠.٧", None, None),
        ("127.0.0.1", "1" * 5000, None, None),
        ("fe80::1%eth0", CLIENT, None, "fe80::1"),
        ("nonsense", CLIENT, None, None),
    ],
)
def test_who_it_is(peer: str | None, real: str | None, hops: str | None, expected: str | None) -> None:
    assert client(peer, real, hops) == expected


def test_a_long_list_of_hops_is_read_from_its_end_and_not_far() -> None:
    assert client("127.0.0.1", None, f"{LIAR}, " * 1000 + CLIENT) == CLIENT
    assert client("127.0.0.1", None, f"{LIAR}, " + "10.0.0.9, " * 1000 + "10.0.0.8") == "10.0.0.9"


@given(st.text(max_size=80), st.text(max_size=300), st.text(max_size=300))
def test_no_text_is_an_error(peer: str, real: str, hops: str) -> None:
    client(peer, real, hops)
    client("127.0.0.1", real, hops)


@given(st.ip_addresses())
def test_every_address_is_read_back(address: Any) -> None:
    parsed = parse_address(str(address))
    assert parsed == (getattr(address, "ipv4_mapped", None) or address)


@given(st.ip_addresses(), st.text(max_size=60), st.text(max_size=60))
def test_a_stranger_cannot_be_somebody_else(address: Any, real: str, hops: str) -> None:
    plain = getattr(address, "ipv4_mapped", None) or address
    if plain not in PROXIES:
        assert client(str(address), real, hops) == str(plain)


def test_networks_of_subscribers() -> None:
    assert network_of(IPv4Address(CLIENT)) == ip_network(f"{CLIENT}/32")
    assert network_of(ip_address("2001:db8:1:2:3:4:5:6")) == ip_network("2001:db8:1:2::/64")


def test_without_proxies_nothing_is_believed() -> None:
    nobody = TrustedProxies(())
    environ = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_REAL_IP": CLIENT}
    assert str(nobody.client(environ)) == "127.0.0.1"


@pytest.mark.parametrize("value", ["localhost", "10.0.0.1/24", "10.0.0.0/33", ""])
def test_what_is_no_network_is_refused_with_the_name_of_the_setting(value: str) -> None:
    with pytest.raises(ConfigError, match="trusted_proxies"):
        check(ApiSettings(trusted_proxies=("127.0.0.1", value)))


# Over HTTP: a database knows the client's network, and the metric says whether its address was the one that counted.


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory, make_mmdb: Callable[..., Path]) -> Path:
    networks = {
        "198.51.100.0/24": {"country": {"iso_code": "IE"}, "autonomous_system_number": 34245},
        "203.0.113.0/24": {"country": {"iso_code": "IT"}, "autonomous_system_number": 1},
    }
    return make_mmdb(tmp_path_factory.mktemp("geo") / "both.mmdb", networks)


def settings_for(database: Path) -> dict[str, object]:
    return {"geo_country_db": database, "geo_asn_db": database}


def test_headers_of_a_trusted_proxy_over_http(start_api: Callable[..., Any], database: Path) -> None:
    api = start_api("host=/nonexistent", **settings_for(database))
    api.submit(b'{"n": 1}', X_Real_IP=CLIENT)
    api.submit(b'{"n": 2}', X_Forwarded_For=f"{LIAR}, {CLIENT}")
    assert api.metric("api_probe_place_total", result="match") == 2
    api.submit(b'{"n": 3}', X_Real_IP=LIAR, X_Forwarded_For=CLIENT)
    assert api.metric("api_probe_place_total", result="both_differ") == 1
    rid = "20240101T000000Z_ndt_IE_34245_n1_abcdefghijklmnop"
    smuggled = (
        f"POST /report/{rid} HTTP/1.1\r\nHost: a\r\nX_Real_IP: {CLIENT}\r\nContent-Length: 2\r\n"
        "Connection: close\r\n\r\n{}"
    )
    api.raw(smuggled.encode())
    assert api.metric("api_probe_place_total", result="match") == 2
    assert api.metric("api_probe_place_total", result="unknown") == 1  # 127.0.0.1 is in no database
    for address in (CLIENT, LIAR):
        assert address not in api.log()
        assert not any(address.encode() in path.read_bytes() for path in api.files())


def test_headers_of_a_stranger_over_http(start_api: Callable[..., Any], database: Path) -> None:
    api = start_api("host=/nonexistent", trusted_proxies="10.9.9.9", **settings_for(database))
    api.submit(b"{}", X_Real_IP=CLIENT, X_Forwarded_For=CLIENT)
    assert api.metric("api_probe_place_total", result="match") == 0
    assert api.metric("api_probe_place_total", result="unknown") == 1


# Until the server listens, httpcore leaves the sockets of refused connections to the garbage collector.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_headers_over_a_unix_socket(api_class: type[Any], database: Path, tmp_path: Path) -> None:
    socket = tmp_path / "api.socket"
    api = api_class(tmp_path, "host=/nonexistent", bind=f"unix:{socket}", **settings_for(database))
    api.http = httpx.Client(transport=httpx.HTTPTransport(uds=str(socket)), base_url="http://api.example.org")
    api.start()
    try:
        assert api.submit(b"{}", X_Real_IP=CLIENT).status_code == 200
        assert api.metric("api_probe_place_total", result="match") == 1
    finally:
        assert api.stop() == 0, api.log()
