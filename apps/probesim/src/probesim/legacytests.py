"""Measurements that only old probes make: http_requests, dns_consistency, tcp_connect, meek_fronted_requests_test."""

import random
from typing import Any

from probesim.finding import Finding
from probesim.site import response
from probesim.vocabulary import Probe, page, site_address

_FRONT_SERVER = "ECAcc (example/0000)"
"""What the front of meek calls itself; scorers look for the first word."""


def http_requests(rng: random.Random, probe: Probe) -> Finding:
    """The site answers over Tor and without it, and alike."""
    return _http_requests(rng, probe, same=True)


def http_requests_different(rng: random.Random, probe: Probe) -> Finding:
    """Without Tor the answer is another one."""
    return _http_requests(rng, probe, same=False)


def _http_requests(rng: random.Random, probe: Probe, *, same: bool) -> Finding:
    url = rng.choice(probe.sites)
    headers = {"Content-Type": "text/html; charset=utf-8", "Server": "example-httpd"}
    true_page = page(rng, "Example page", 1800)
    seen = true_page if same else page(rng, "Sign in to continue", 700)
    keys: dict[str, Any] = {
        "agent": "agent",
        "body_length_match": same,
        "body_proportion": 1.0 if same else 0.4,
        "control_failure": None,
        "experiment_failure": None,
        "factor": 0.8,
        "headers_diff": [] if same else ["Server"],
        "headers_match": same,
        "requests": [
            _request(url, over_tor=False, answered=response(200, seen, headers if same else {})),
            _request(url, over_tor=True, answered=response(200, true_page, headers)),
        ],
        "socksproxy": "127.0.0.1:9050",
    }
    return Finding("http_requests", "0.2.5", url, keys, rng.uniform(2, 20))


def dns_consistency(rng: random.Random, probe: Probe) -> Finding:
    """The resolvers of the network agree with the control resolver."""
    url = rng.choice(probe.sites)
    address = site_address(rng)
    resolvers = (probe.resolver_ip, "192.0.2.53")
    keys: dict[str, Any] = {
        "control_resolver": "198.51.100.53:53",
        "errors": dict.fromkeys(resolvers, "no_answer"),
        "failures": [],
        "inconsistent": [],
        "queries": [
            {
                "answers": [{"answer_type": "A", "ipv4": address}],
                "failure": None,
                "hostname": url.split("/")[2],
                "query_type": "A",
                "resolver_hostname": resolver,
                "resolver_port": 53,
            }
            for resolver in resolvers
        ],
        "successful": list(resolvers),
    }
    return Finding("dns_consistency", "0.7.0", url, keys, rng.uniform(1, 9))


def tcp_connect(rng: random.Random, _: Probe) -> Finding:
    """The connection is made."""
    return _tcp_connect(rng, "success")


def tcp_connect_blocked(rng: random.Random, _: Probe) -> Finding:
    """The connection times out."""
    return _tcp_connect(rng, "generic_timeout_error")


def _tcp_connect(rng: random.Random, outcome: str) -> Finding:
    return Finding("tcp_connect", "0.1.0", f"{site_address(rng)}:443", {"connection": outcome}, rng.uniform(0.05, 10))


def meek_fronted_requests(rng: random.Random, _: Probe) -> Finding:
    """The front answers, for itself."""
    return _meek(rng, _FRONT_SERVER)


def meek_fronted_requests_blocked(rng: random.Random, _: Probe) -> Finding:
    """Somebody else answers in the place of the front."""
    return _meek(rng, "example-proxy")


def _meek(rng: random.Random, server: str) -> Finding:
    front, inner = "https://front.example.net/", "meek.example.net"
    answered = response(200, "I'm just a happy little web server.", {"Server": server})
    keys: dict[str, Any] = {
        "agent": "agent",
        "requests": [_request(front, over_tor=False, answered=answered) for _ in range(2)],
        "socksproxy": None,
        "success": server == _FRONT_SERVER,
    }
    return Finding("meek_fronted_requests_test", "0.0.1", [front, inner], keys, rng.uniform(1, 6))


def _request(url: str, *, over_tor: bool, answered: dict[str, Any]) -> dict[str, Any]:
    return {
        "failure": None,
        "request": {
            "body": None,
            "headers": {"User-Agent": "Mozilla/5.0 (example)"},
            "method": "GET",
            "tor": {"exit_ip": "203.0.113.77" if over_tor else None, "exit_name": None, "is_tor": over_tor},
            "url": url,
        },
        "response": answered,
    }
