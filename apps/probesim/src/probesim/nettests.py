"""Measurements of performance, and of the experimental tests."""

import random
from typing import Any

from probesim.finding import Finding
from probesim.vocabulary import Probe


def ndt(rng: random.Random, _: Probe) -> Finding:
    """A speed test."""
    keys: dict[str, Any] = {
        "download": [
            {"elapsed": step / 4, "num_bytes": step * rng.randrange(90_000, 900_000)} for step in range(1, 40)
        ],
        "failure": None,
        "protocol": 7,
        "server": {"hostname": "ndt.example.net", "site": "xyz01"},
        "summary": {
            "avg_rtt": rng.uniform(5, 300),
            "download": rng.uniform(100, 90_000),
            "min_rtt": rng.uniform(2, 90),
            "upload": rng.uniform(100, 50_000),
        },
        "upload": [{"elapsed": step / 4, "num_bytes": step * rng.randrange(30_000, 300_000)} for step in range(1, 40)],
    }
    return Finding("ndt", "0.10.2", None, keys, rng.uniform(15, 25))  # fmt: skip


def dash(rng: random.Random, _: Probe) -> Finding:
    """A streaming test."""
    keys: dict[str, Any] = {
        "failure": None,
        "receiver_data": [
            {
                "elapsed": rng.uniform(0.1, 2),
                "iteration": step,
                "rate": rng.randrange(2000, 20_000),
                "received": 50_000 * step,
            }
            for step in range(15)
        ],
        "server": {"hostname": "dash.example.net", "site": "xyz01"},
        "simple": {
            "connect_latency": rng.uniform(0.01, 0.4),
            "median_bitrate": rng.randrange(2000, 20_000),
            "min_playout_delay": rng.uniform(0.1, 3),
        },
    }
    return Finding("dash", "0.14.0", None, keys, rng.uniform(20, 40))  # fmt: skip


def dash_broken(rng: random.Random, probe: Probe) -> Finding:
    """A streaming test that the network ended."""
    finding = dash(rng, probe)
    finding.test_keys |= {"failure": "eof_error", "receiver_data": []}
    return finding


def dnscheck(rng: random.Random, _: Probe) -> Finding:
    """A check of a DNS resolver (experimental: stored, not scored)."""
    url = "https://dns.example.net/dns-query"
    keys: dict[str, Any] = {
        "bootstrap": {"failure": None, "queries": []},
        "bootstrap_failure": None,
        "default_domain": "example.org",
        "domain": "example.org",
        "lookups": {url: {"failure": None, "queries": []}},
    }
    return Finding("dnscheck", "0.9.2", url, keys, rng.uniform(0.3, 5))  # fmt: skip


def urlgetter(rng: random.Random, _: Probe) -> Finding:
    """A download with chosen options (experimental: stored, not scored)."""
    keys: dict[str, Any] = {
        "agent": "redirect",
        "failed_operation": None,
        "failure": None,
        "queries": [],
        "requests": [],
        "socksproxy": None,
        "tls_handshakes": [],
    }
    return Finding("urlgetter", "0.2.0", "https://www.example.com/", keys, rng.uniform(0.3, 5))  # fmt: skip


def echcheck(rng: random.Random, _: Probe) -> Finding:
    """A check of encrypted client hello (a test that the list of known names may not have yet)."""
    target = "https://ech.example.com/cdn-cgi/trace"
    keys = {"tls_handshakes": [{"failure": None, "server_name": "ech.example.com", "tls_version": "TLSv1.3"}]}
    return Finding("echcheck", "0.3.0", target, keys, rng.uniform(0.3, 3))


def browser_web(rng: random.Random, _: Probe) -> Finding:
    """A page loaded in a browser."""
    keys = {"browser_name": "Example Browser", "load_time_ms": rng.randrange(200, 9000), "result": "ok"}
    return Finding("browser_web", "0.1.0", "https://www.example.com/", keys, rng.uniform(0.3, 9))
