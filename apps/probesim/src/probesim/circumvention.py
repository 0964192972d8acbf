"""Measurements of circumvention tools: Tor in its forms, Psiphon, VPNs, and STUN (which snowflake needs)."""

import random
from typing import Any

from probesim.finding import Finding
from probesim.vocabulary import Probe, site_address


def tor(rng: random.Random, _: Probe) -> Finding:
    """Most bridges and directory authorities answer."""
    return _tor(rng, blocked_share=0.1)


def tor_blocked(rng: random.Random, _: Probe) -> Finding:
    """Most bridges and directory authorities do not answer."""
    return _tor(rng, blocked_share=0.9)


def _tor(rng: random.Random, blocked_share: float) -> Finding:
    targets: dict[str, Any] = {}
    total = 16
    for index in range(total):
        blocked = index < total * blocked_share
        kind = ("or_port_dirauth", "dir_port", "obfs4")[index % 3]
        address = f"{site_address(rng)}:{rng.choice((80, 443, 9001))}"
        failure = "generic_timeout_error" if blocked else None
        targets[f"{rng.getrandbits(256):064x}"] = {
            "agent": "redirect",
            "failure": failure,
            "network_events": [
                {"address": address, "failure": failure, "operation": "connect", "proto": "tcp", "t": 0.2}
            ],
            "queries": None,
            "requests": None,
            "summary": {"connect": {"failure": failure}},
            "target_address": address,
            "target_name": "",
            "target_protocol": kind,
            "target_source": "",
            "tcp_connect": [],
            "tls_handshakes": None,
        }
    keys: dict[str, Any] = {
        "dir_port_accessible": 5,
        "dir_port_total": 5,
        "obfs4_accessible": 5,
        "obfs4_total": 5,
        "or_port_dirauth_accessible": 6,
        "or_port_dirauth_total": 6,
        "targets": targets,
    }
    return Finding("tor", "0.4.1", None, keys, rng.uniform(5, 60))


def vanilla_tor(rng: random.Random, _: Probe) -> Finding:
    """Tor starts."""
    return _vanilla_tor(rng, 100)


def vanilla_tor_stuck(rng: random.Random, _: Probe) -> Finding:
    """Tor does not get past the first steps."""
    return _vanilla_tor(rng, rng.choice((5, 10, 25)))


def _vanilla_tor(rng: random.Random, progress: int) -> Finding:
    steps = [step for step in (0, 5, 10, 25, 50, 75, 100) if step <= progress]
    logs = [
        f"Bootstrapped {step}% ({'done' if step == 100 else 'conn'}): {'Done' if step == 100 else 'Connecting'}"
        for step in steps
    ]
    keys: dict[str, Any] = {
        "bootstrap_time": rng.uniform(3, 30) if progress == 100 else 0,
        "error": None if progress == 100 else "timeout-reached",
        "failure": None if progress == 100 else "generic_timeout_error",
        "success": progress == 100,
        "timeout": 200,
        "tor_logs": logs,
        "tor_progress": progress,
        "tor_progress_summary": logs[-1],
        "tor_progress_tag": "done" if progress == 100 else "conn",
        "tor_version": "0.4.8.10",
        "transport_name": "vanilla",
    }
    return Finding("vanilla_tor", "0.3.0", None, keys, rng.uniform(3, 200))  # fmt: skip


def torsf(rng: random.Random, _: Probe) -> Finding:
    """Tor starts through snowflake."""
    keys: dict[str, Any] = {
        "bootstrap_time": rng.uniform(8, 60),
        "default_timeout": 600,
        "failure": None,
        "persistent_datadir": True,
        "rendezvous_method": "domain_fronting",
        "success": True,
        "timeout": 600,
        "tor_logs": ["Bootstrapped 100% (done): Done"],
        "tor_progress": 100,
        "tor_version": "0.4.8.10",
        "transport_name": "snowflake",
    }
    return Finding("torsf", "0.5.0", None, keys, rng.uniform(8, 90))


def torsf_blocked(rng: random.Random, probe: Probe) -> Finding:
    """Tor does not start through snowflake."""
    finding = torsf(rng, probe)
    finding.test_keys |= {"failure": "generic_timeout_error", "bootstrap_time": 0, "success": False, "tor_progress": 10}
    return finding


def psiphon(rng: random.Random, _: Probe) -> Finding:
    """The tunnel comes up."""
    keys: dict[str, Any] = {
        "agent": "redirect",
        "bootstrap_time": rng.uniform(1, 20),
        "failure": None,
        "max_runtime": 60,
        "requests": [],
    }
    return Finding("psiphon", "0.6.0", None, keys, rng.uniform(2, 30))  # fmt: skip


def psiphon_blocked(rng: random.Random, probe: Probe) -> Finding:
    """The tunnel does not come up."""
    finding = psiphon(rng, probe)
    finding.test_keys |= {"bootstrap_time": 0, "failure": "generic_timeout_error"}
    return finding


def psiphon_without_resolver(rng: random.Random, probe: Probe) -> Finding:
    """The probe had no network at all, which shows in the resolver it could not find."""
    finding = psiphon_blocked(rng, probe)
    finding.without_resolver = True
    return finding


def riseupvpn(rng: random.Random, _: Probe) -> Finding:
    """The gateways of the service answer."""
    keys: dict[str, Any] = {
        "api_failures": [],
        "ca_cert_status": True,
        "failing_gateways": None,
        "requests": [],
        "tcp_connect": [
            {"ip": site_address(rng), "port": 443, "status": {"failure": None, "success": True}} for _ in range(6)
        ],
    }
    return Finding("riseupvpn", "0.3.0", None, keys, rng.uniform(2, 40))


def openvpn(rng: random.Random, _: Probe) -> Finding:
    """The handshake with the VPN gateway completes."""
    return _openvpn(rng, success=True)


def openvpn_blocked(rng: random.Random, _: Probe) -> Finding:
    """The handshake with the VPN gateway does not complete."""
    return _openvpn(rng, success=False)


def _openvpn(rng: random.Random, *, success: bool) -> Finding:
    address, port = site_address(rng), 1194
    failure = None if success else "generic_timeout_error"
    keys: dict[str, Any] = {
        "bootstrap_time": 1.2 if success else 0,
        "failure": failure,
        "network_events": [],
        "openvpn_handshake": [
            {
                "bootstrap_time": 1.2 if success else 0,
                "endpoint": f"openvpn://{address}:{port}",
                "failure": failure,
                "handshake_time": 1.2,
                "ip": address,
                "openvpn_options": {"auth": "SHA512", "cipher": "AES-256-GCM"},
                "port": port,
                "provider": "riseupvpn",
                "t": 1.4,
                "t0": 0.2,
                "tags": [],
                "transaction_id": 1,
                "transport": "tcp",
            }
        ],
        "success": success,
        "tcp_connect": [
            {"ip": address, "port": port, "status": {"failure": None, "success": True}, "t": 0.2, "transaction_id": 1}
        ],
        "tunnel": "openvpn",
    }
    target = f"openvpn://riseupvpn.corp/?address={address}%3A{port}&transport=tcp"
    return Finding("openvpn", "0.1.6", target, keys, rng.uniform(1, 10))


def stunreachability(rng: random.Random, _: Probe) -> Finding:
    """The STUN server answers."""
    keys: dict[str, Any] = {"endpoint": "stun.example.net:3478", "failure": None, "network_events": [], "queries": []}
    return Finding("stunreachability", "0.4.0", "stun://stun.example.net:3478", keys, rng.uniform(0.1, 2))


def stunreachability_blocked(rng: random.Random, probe: Probe) -> Finding:
    """The STUN server does not answer."""
    finding = stunreachability(rng, probe)
    finding.test_keys["failure"] = "generic_timeout_error"
    return finding
