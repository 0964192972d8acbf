"""What a balancer with a certificate promises."""

from collections.abc import Callable

import pytest
from testinfra.host import Host


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_any_name_is_answered_with_the_certificate(host: Host, version: str) -> None:
    said = host.check_output(
        f"openssl s_client {version} -connect 127.0.0.1:443 -servername front.example.net </dev/null 2>/dev/null"
    )
    assert "CN = api.example.org" in said


@pytest.mark.parametrize("old", ["-tls1", "-tls1_1"])
def test_old_versions_of_tls_are_refused(host: Host, old: str) -> None:
    tried = host.run(f"openssl s_client {old} -cipher ALL:@SECLEVEL=0 -connect 127.0.0.1:443 </dev/null")
    assert "Cipher is (NONE)" in tried.stdout


def test_plain_requests_are_sent_to_tls(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/x?a=1", name="api.example.org", tls=False)
    assert (reply.status, reply.headers["location"]) == (301, "https://api.example.org/x?a=1")


def test_plain_submissions_keep_method_and_body_on_their_way_to_tls(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/report", method="POST", body="{}", name="api.example.org", tls=False)
    assert (reply.status, reply.headers["location"]) == (308, "https://api.example.org/report")


def test_failed_handshake_leaves_no_address_in_the_log(host: Host) -> None:
    address = host.check_output("hostname --ip-address").split()[0]
    host.run(f"openssl s_client -tls1 -cipher ALL:@SECLEVEL=0 -connect {address}:443 </dev/null")
    assert address not in host.check_output("journalctl --identifier haproxy --output json --no-pager")
