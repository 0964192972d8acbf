"""Probes of real services on a host that may ping: each module succeeds on what it is for, and on nothing else."""

import re
from collections.abc import Callable

import pytest
from testinfra.host import Host


@pytest.mark.parametrize(
    ("module", "target", "success"),
    [
        ("http_2xx", "https://localhost/page", 1),
        ("http_2xx", "https://localhost/broken", 0),
        ("http_2xx", "https://localhost:444/", 0),  # a certificate of nobody we trust
        ("http_json", "https://localhost/good.json", 1),
        ("http_json", "https://localhost/page", 0),
        (
            "http_404",
            "https://localhost/nothing",
            0,
        ),  # trusts the system's authorities only
        ("http_404", "http://localhost/nothing", 1),
        ("tls", "localhost:443", 1),
        ("tls", "localhost:444", 0),
        ("tls", "127.0.0.1:22", 0),
        ("ssh_banner", "127.0.0.1:22", 1),
        ("ssh_banner", "127.0.0.1:80", 0),
        ("icmp", "127.0.0.1", 1),
        ("icmp", "192.0.2.1", 0),
    ],
)
def test_probe(host: Host, fetch: Callable, module: str, target: str, success: int) -> None:
    page = fetch(host, f"/probe?module={module}&target={target}", port=9116, tls=False).text
    assert f"\nprobe_success {success}\n" in page, page


@pytest.mark.parametrize(("module", "target"), [("tls", "localhost:443"), ("http_2xx", "https://localhost/page")])
def test_expiry_of_certificates_is_exported(host: Host, fetch: Callable, module: str, target: str) -> None:
    page = fetch(host, f"/probe?module={module}&target={target}", port=9116, tls=False).text
    [expiry] = re.findall(r"^probe_ssl_earliest_cert_expiry (\S+)$", page, re.MULTILINE)
    days = (float(expiry) - float(host.check_output("date +%s"))) / 86400
    assert 89 < days <= 90
