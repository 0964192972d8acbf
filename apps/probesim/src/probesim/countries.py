"""How the simulated countries behave: what their networks interfere with, and how often.

The codes are real, since tables, maps and fingerprints are keyed by them; the behaviour is invented and says nothing
about the countries. One that is not in the table interferes with nothing.
"""

import random
from collections.abc import Mapping

from probesim.sample import SCENARIOS
from probesim.vocabulary import NETWORKS_PER_COUNTRY

BEHAVIOUR: Mapping[str, Mapping[str, float]] = {
    "IR": {
        "web_connectivity/dns_injected": 0.3,
        "web_connectivity/tls_reset": 0.2,
        "telegram/endpoints_blocked": 0.9,
        "whatsapp/registration_blocked": 0.7,
        "signal/blocked": 0.9,
        "tor/blocked": 0.8,
        "vanilla_tor/stuck": 0.9,
        "torsf/blocked": 0.3,
        "psiphon/blocked": 0.4,
        "openvpn/blocked": 0.9,
        "meek_fronted_requests_test/blocked": 0.3,
    },
    "RU": {
        "web_connectivity/tcp_blocked": 0.2,
        "web_connectivity/tls_reset": 0.2,
        "web_connectivity/block_page": 0.1,
        "facebook_messenger/tcp_blocked": 0.8,
        "signal/blocked": 0.6,
        "vanilla_tor/stuck": 0.7,
        "openvpn/blocked": 0.6,
        "stunreachability/blocked": 0.2,
    },
    "IT": {"web_connectivity/dns_injected": 0.15, "web_connectivity/block_page": 0.1},
    "ID": {
        "web_connectivity/dns_injected": 0.25,
        "web_connectivity/block_page": 0.15,
        "http_requests/different": 0.3,
        "http_invalid_request_line/answered": 0.3,
    },
    "TR": {
        "web_connectivity/dns_nxdomain": 0.1,
        "web_connectivity/tls_reset": 0.15,
        "tor/blocked": 0.5,
        "vanilla_tor/stuck": 0.6,
    },
    "EG": {
        "web_connectivity/tls_reset": 0.3,
        "facebook_messenger/dns_blocked": 0.4,
        "signal/blocked": 0.5,
        "http_header_field_manipulation/changed": 0.4,
    },
    "VE": {"web_connectivity/dns_bogus": 0.2, "telegram/web_blocked": 0.3, "tcp_connect/blocked": 0.3},
    "MM": {
        "web_connectivity/http_different": 0.2,
        "facebook_messenger/tcp_blocked": 0.9,
        "whatsapp/endpoints_blocked": 0.8,
    },
}
"""Chance with which a measurement in a country comes to a scenario of `probesim.sample.SCENARIOS`."""


def choose_scenario(rng: random.Random, cc: str, test_name: str) -> str:
    """Return the scenario of one measurement of a test in country `cc`; without interference, that all is well."""
    left = rng.random()
    for scenario, chance in BEHAVIOUR.get(cc, {}).items():
        if scenario.startswith(f"{test_name}/"):
            left -= chance
            if left < 0:
                return scenario
    return "web_connectivity/accessible" if test_name == "web_connectivity" else f"{test_name}/ok"


def unknown_countries(codes: list[str]) -> list[str]:
    """Return the codes in which no network is simulated."""
    return sorted(set(codes) - NETWORKS_PER_COUNTRY.keys())


assert all(name in SCENARIOS for behaviour in BEHAVIOUR.values() for name in behaviour)
