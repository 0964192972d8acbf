"""Kinds of tests: how often each is run and when, what it measures, and what its verdicts look like."""

import random
from dataclasses import dataclass

from tests.load.sample.history import KINDS, MESSENGERS, Event
from tests.load.sample.names import domain

WEB = "web_connectivity"
WEB_REPORT = 24
"""Mean number of measurements in a report of web_connectivity; other tests make one a report."""

RUNTIME_IN_SCORES = ("tor", "torsf", "psiphon", "openvpn", "vanilla_tor")
"""Their scores have extra.test_runtime."""

OK, ANOMALY, FAILURE, BOTH = range(4)
STATES = ("ok", "anomaly", "failure", "anomaly and failure")


@dataclass(frozen=True, slots=True)
class Kind:
    """A test: its part of all measurements while it is run (first to last year), and how often it comes out how.

    `runtime`: its usual duration in seconds. `versions`: of the test, by age. `known`: type ootest has it.
    """

    name: str
    share: float
    first: int
    last: int
    anomalies: float
    failures: float
    runtime: float
    versions: tuple[str, ...]
    known: bool = True


KINDS_OF_TESTS = (
    Kind(WEB, 0.874, 2016, 9999, 0.035, 0.025, 3.0, ("0.0.1", "0.2.0", "0.4.0", "0.4.1", "0.4.2", "0.4.3", "0.5.28")),
    Kind("whatsapp", 0.0155, 2016, 9999, 0.04, 0.01, 2.0, ("0.6.0", "0.9.0", "0.11.0", "0.12.0")),
    Kind("telegram", 0.0150, 2016, 9999, 0.05, 0.01, 3.0, ("0.2.0", "0.3.0", "0.3.1")),
    Kind("facebook_messenger", 0.0145, 2016, 9999, 0.04, 0.01, 1.0, ("0.1.0", "0.2.0", "0.2.1")),
    Kind("signal", 0.0120, 2021, 9999, 0.03, 0.05, 2.0, ("0.2.0", "0.2.3", "0.2.5")),
    Kind("http_invalid_request_line", 0.0105, 2014, 9999, 0.03, 0.01, 5.0, ("0.1.4", "0.2.0", "0.2.1")),
    Kind("http_header_field_manipulation", 0.0105, 2014, 9999, 0.02, 0.03, 0.6, ("0.1.5", "0.2.0", "0.2.2")),
    Kind("ndt", 0.0110, 2016, 9999, 0.0, 0.04, 21.0, ("0.1.0", "0.8.0", "0.10.0")),
    Kind("dash", 0.0090, 2017, 9999, 0.0, 0.05, 40.0, ("0.3.0", "0.13.0", "0.14.0")),
    Kind("tor", 0.0060, 2020, 9999, 0.12, 0.02, 12.0, ("0.3.0", "0.4.1", "0.5.0")),
    Kind("psiphon", 0.0058, 2020, 9999, 0.06, 0.02, 8.0, ("0.5.0", "0.6.0")),
    Kind("vanilla_tor", 0.0020, 2016, 9999, 0.2, 0.02, 60.0, ("0.1.0", "0.2.0", "0.3.0")),
    Kind("torsf", 0.0022, 2022, 9999, 0.15, 0.03, 40.0, ("0.2.0", "0.5.0")),
    Kind("stunreachability", 0.0022, 2021, 9999, 0.05, 0.01, 0.3, ("0.2.0", "0.4.0")),
    Kind("riseupvpn", 0.0015, 2020, 9999, 0.1, 0.05, 9.0, ("0.1.0", "0.3.0")),
    Kind("dnscheck", 0.0045, 2021, 9999, 0.02, 0.02, 1.5, ("0.9.0", "0.9.2")),
    Kind("openvpn", 0.0016, 2024, 9999, 0.1, 0.03, 2.5, ("0.1.5", "0.1.6")),
    Kind("urlgetter", 0.0012, 2020, 9999, 0.0, 0.02, 1.0, ("0.1.0", "0.2.0")),
    Kind("browser_web", 0.0004, 2023, 9999, 0.05, 0.02, 0.4, ("0.1.0",)),
    Kind("echcheck", 0.0012, 2023, 9999, 0.0, 0.04, 0.7, ("0.1.2", "0.2.0")),
    Kind("http_requests", 0.40, 2012, 2017, 0.08, 0.03, 2.0, ("0.2.3", "0.2.5")),
    Kind("dns_consistency", 0.25, 2012, 2017, 0.1, 0.03, 2.0, ("0.5", "0.6")),
    Kind("tcp_connect", 0.15, 2012, 2018, 0.1, 0.02, 1.0, ("0.1", "0.2")),
    Kind("http_host", 0.05, 2012, 2018, 0.05, 0.03, 1.0, ("0.2.3", "0.2.4")),
    Kind("meek_fronted_requests_test", 0.006, 2015, 2018, 0.05, 0.01, 2.0, ("0.0.1",)),
    Kind("bridge_reachability", 0.02, 2014, 2018, 0.2, 0.02, 30.0, ("0.1.2",)),
    Kind("multi_protocol_traceroute", 0.01, 2013, 2018, 0.0, 0.02, 10.0, ("0.2.1",)),
    # People try tests of their own; the database keeps such a name as text.
    Kind("portfilter_lab", 0.00004, 2019, 9999, 0.0, 0.5, 1.0, ("0.0.1",), known=False),
    Kind("my_dnsprobe", 0.00002, 2021, 9999, 0.0, 0.5, 1.0, ("0.0.2",), known=False),
)

_NONE = '{"blocking_general":%s,"blocking_global":0.0,"blocking_country":%s,"blocking_isp":0.0,"blocking_local":0.0%s}'
_EXTRA = {  # what a test adds to its scores, when it worked and when not
    "telegram": (
        ',"web_failure":null,"accessible_endpoints":10,"unreachable_endpoints":0,"http_success_cnt":10,"http_failure_cnt":0',
        ',"web_failure":null,"accessible_endpoints":0,"unreachable_endpoints":10,"http_success_cnt":0,"http_failure_cnt":10',
    ),
    "whatsapp": (',"analysis":{"registration_server_accessible":true,"whatsapp_endpoints_accessible":true}', ""),
    "facebook_messenger": ("", ',"facebook_tcp_blocking":true,"facebook_dns_blocking":true'),
    "signal": ("", ',"analysis":{"signal_backend_failure":"generic_timeout_error"}'),
    "stunreachability": (',"extra":{"endpoint":"stun.example:3478"}', ',"extra":{"endpoint":null,"failure":true}'),
    "browser_web": (',"extra":{"browser_name":"chrome","load_time_ms":357.4}',) * 2,
}
_FLAGS = ("f\tf\tf", "t\tf\tf", "f\tf\tt", "t\tf\tt")


def verdict(test: str, state: int, kind: str = "", runtime: float | None = None) -> str:
    """Return scores, anomaly, confirmed, msm_failure and blocking_type as COPY takes them."""
    anomalous = state in (ANOMALY, BOTH)
    rest = _EXTRA.get(test, ("", ""))[anomalous] if state != FAILURE else ""
    if kind:
        rest += f',"analysis":{{"blocking_type":"{kind}"}}'
    if state in (FAILURE, BOTH):
        rest += ',"accuracy":0.0'
    if runtime is not None:
        rest += f',"extra":{{"test_runtime":{runtime:.1f}}}'
    return f"{_NONE % ('1.0' if anomalous else '0.0', '0.0', rest)}\t{_FLAGS[state]}\t{kind}"


def confirmed_verdict(event: Event, number: int) -> str:
    """Return the same of a measurement in which a fingerprint was found."""
    found = "dns" if event.kind == "dns" else "body"
    rest = (
        f',"fingerprints":[{{"name":"sample.{event.country.lower()}_{number}","scope":"nat","location_found":"{found}",'
        f'"confidence_no_fp":5,"expected_countries":["{event.country}"]}}],"confirmed":true,'
        f'"analysis":{{"blocking_type":"{event.kind}"}}'
    )
    return f"{_NONE % ('2.0', '1.0', rest)}\tt\tt\tf\t{event.kind}"


def inputs(seed: int) -> dict[str, list[tuple[str, str]]]:
    """What tests other than web_connectivity measure: input and domain; tests without input are absent."""
    draw = random.Random(f"inputs {seed}")
    hosts = [domain(draw) for _ in range(60)]
    addresses = [f"192.0.2.{draw.randint(1, 254)}:{draw.choice((22, 80, 443, 9001))}" for _ in range(80)]
    return {
        "dnscheck": [(f"https://dns.{host}/dns-query", f"dns.{host}") for host in hosts[:25]],
        "stunreachability": [(f"stun://stun.{host}:3478", f"stun.{host}:3478") for host in hosts[25:33]],
        "openvpn": [
            (f"openvpn://vpn.corp/?address={address}&transport={draw.choice(('tcp', 'udp'))}", "vpn.corp")
            for address in addresses[:20]
        ],
        "urlgetter": [(f"https://{host}/", host) for host in hosts[33:45]],
        "browser_web": [(f"https://{host}/", host) for host in hosts[45:60]],
        "tcp_connect": [(address, address) for address in addresses],
        "bridge_reachability": [(f"obfs4 {address}", f"obfs4 {address}") for address in addresses[20:50]],
        "meek_fronted_requests_test": [(f"{{{host},meek.example}}", f"{{{host},meek.example}}") for host in hosts[:3]],
    }


assert set(MESSENGERS) <= {kind.name for kind in KINDS_OF_TESTS}
WEB_KINDS = KINDS
LISTED_TESTS = (WEB, "http_requests", "dns_consistency", "http_host")
"""Tests that measure what the test lists say."""
