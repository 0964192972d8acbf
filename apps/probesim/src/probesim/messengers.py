"""Measurements of messengers: telegram, whatsapp, facebook_messenger and signal."""

import random
from typing import Any

from probesim.finding import Finding
from probesim.vocabulary import Probe, site_address

_FACEBOOK_SERVICES = ("b_api", "b_graph", "edge", "external_cdn", "scontent_cdn", "star")


def telegram(rng: random.Random, _: Probe) -> Finding:
    """Every data centre and the web page answer."""
    return _telegram(rng, None, None)


def telegram_endpoints_blocked(rng: random.Random, _: Probe) -> Finding:
    """No data centre answers, on any port; the web page does."""
    return _telegram(rng, "generic_timeout_error", None)


def telegram_web_blocked(rng: random.Random, _: Probe) -> Finding:
    """The web page is blocked, the data centres answer."""
    return _telegram(rng, None, "connection_reset")


def _telegram(rng: random.Random, endpoint_failure: str | None, web_failure: str | None) -> Finding:
    addresses = [site_address(rng) for _ in range(5)]
    web_status = "ok" if web_failure is None else "blocked"
    requests = [_request(f"http://{address}/", "POST", endpoint_failure, 501) for address in addresses]
    requests += [_request(f"{scheme}://web.telegram.org/", "GET", web_failure, 200) for scheme in ("https", "http")]
    keys: dict[str, Any] = {
        "agent": "redirect",
        "client_resolver": "192.0.2.53",
        "failed_operation": None,
        "failure": None,
        "network_events": None,
        "queries": [_query("web.telegram.org", site_address(rng))],
        "requests": requests,
        "tcp_connect": [_connect(rng, ip, port, endpoint_failure) for ip in addresses for port in (80, 443)],
        "telegram_http_blocking": endpoint_failure is not None,
        "telegram_tcp_blocking": endpoint_failure is not None,
        "telegram_web_failure": web_failure,
        "telegram_web_status": web_status,
        "tls_handshakes": None,
    }
    return Finding("telegram", "0.3.1", None, keys, rng.uniform(1, 8))


def whatsapp(rng: random.Random, _: Probe) -> Finding:
    """Endpoints, registration and web page answer."""
    return _whatsapp(rng, None, None)


def whatsapp_registration_blocked(rng: random.Random, _: Probe) -> Finding:
    """The registration server cannot be reached."""
    return _whatsapp(rng, None, "connection_reset")


def whatsapp_endpoints_blocked(rng: random.Random, _: Probe) -> Finding:
    """No chat endpoint can be reached."""
    return _whatsapp(rng, "generic_timeout_error", None)


def _whatsapp(rng: random.Random, endpoint_failure: str | None, registration_failure: str | None) -> Finding:
    keys: dict[str, Any] = {
        "failed_operation": None,
        "failure": None,
        "queries": [_query("v.whatsapp.net", site_address(rng))],
        "registration_server_failure": registration_failure,
        "registration_server_status": "ok" if registration_failure is None else "blocked",
        "requests": [
            _request("https://v.whatsapp.net/v2/register", "GET", registration_failure, 400),
            _request("https://web.whatsapp.com/", "GET", None, 200),
        ],
        "tcp_connect": [
            _connect(rng, site_address(rng), port, endpoint_failure) for _ in range(8) for port in (443, 5222)
        ],
        "whatsapp_endpoints_blocked": [],
        "whatsapp_endpoints_dns_inconsistent": [],
        "whatsapp_endpoints_status": "ok" if endpoint_failure is None else "blocked",
        "whatsapp_web_failure": None,
        "whatsapp_web_status": "ok",
    }
    return Finding("whatsapp", "0.12.0", None, keys, rng.uniform(1, 12))


def facebook_messenger(rng: random.Random, _: Probe) -> Finding:
    """Every service resolves and answers."""
    return _facebook(rng, dns=True, tcp=True)


def facebook_dns_blocked(rng: random.Random, _: Probe) -> Finding:
    """The services' names resolve to other networks."""
    return _facebook(rng, dns=False, tcp=True)


def facebook_tcp_blocked(rng: random.Random, _: Probe) -> Finding:
    """The names are right and connections fail."""
    return _facebook(rng, dns=True, tcp=False)


def _facebook(rng: random.Random, *, dns: bool, tcp: bool) -> Finding:
    keys: dict[str, Any] = {
        "agent": "redirect",
        "facebook_dns_blocking": not dns,
        "facebook_stun_dns_consistent": dns,
        "facebook_tcp_blocking": not tcp,
        "failed_operation": None,
        "failure": None,
        "queries": [_query("stun.example.org", site_address(rng))],
        "requests": None,
        "tcp_connect": [
            _connect(rng, site_address(rng), 443, None if tcp else "connection_refused") for _ in _FACEBOOK_SERVICES
        ],
    }
    for service in _FACEBOOK_SERVICES:
        keys[f"facebook_{service}_dns_consistent"] = dns
        keys[f"facebook_{service}_reachable"] = tcp if dns else None
    return Finding("facebook_messenger", "0.2.1", None, keys, rng.uniform(1, 6))


def signal(rng: random.Random, _: Probe) -> Finding:
    """The backend answers."""
    return _signal(rng, None)


def signal_blocked(rng: random.Random, _: Probe) -> Finding:
    """The backend cannot be reached."""
    return _signal(rng, "generic_timeout_error")


def _signal(rng: random.Random, failure: str | None) -> Finding:
    hosts = ("textsecure-service.example.org", "cdn.example.org", "storage.example.org")
    keys: dict[str, Any] = {
        "agent": "redirect",
        "failed_operation": None if failure is None else "http_round_trip",
        "failure": failure,
        "network_events": None,
        "queries": [_query(host, site_address(rng)) for host in hosts],
        "requests": [_request(f"https://{host}/", "GET", failure, 404) for host in hosts],
        "signal_backend_failure": failure,
        "signal_backend_status": "ok" if failure is None else "blocked",
        "tcp_connect": [_connect(rng, site_address(rng), 443, failure) for _ in hosts],
        "tls_handshakes": [],
    }
    return Finding("signal", "0.2.5", None, keys, rng.uniform(1, 10))


def _query(host: str, address: str) -> dict[str, Any]:
    return {
        "answers": [{"answer_type": "A", "ipv4": address, "ttl": None, "asn": 64999, "as_org_name": "Example Hosting"}],
        "engine": "getaddrinfo",
        "failure": None,
        "hostname": host,
        "query_type": "A",
        "resolver_address": "",
        "resolver_hostname": None,
        "resolver_port": None,
        "t": 0.05,
    }


def _connect(rng: random.Random, ip: str, port: int, failure: str | None) -> dict[str, Any]:
    status = {"blocked": failure is not None, "failure": failure, "success": failure is None}
    return {"ip": ip, "port": port, "status": status, "t": round(rng.uniform(0.02, 3), 6)}


def _request(url: str, method: str, failure: str | None, code: int) -> dict[str, Any]:
    response = {"body": "", "body_is_truncated": False, "code": code, "headers": {"Server": "example-httpd"}}
    return {
        "failure": failure,
        "request": {
            "body": "",
            "headers": {"User-Agent": "Mozilla/5.0 (example)"},
            "method": method,
            "tor": {"exit_ip": None, "exit_name": None, "is_tor": False},
            "url": url,
            "x_transport": "tcp",
        },
        "response": response if failure is None else {"body": "", "code": 0, "headers": {}},
        "t": 0.7,
    }
