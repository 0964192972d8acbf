"""What virtual hosts and the other variables promise."""

import shlex
import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

CLIENT = "203.0.113.77"
UNFINISHED = """
import socket, sys
connection = socket.create_connection(("127.0.0.1", int(sys.argv[1])), timeout=60)
connection.sendall(sys.argv[2].encode())
try:
    print(connection.recv(100) or "cut")
except ConnectionResetError:
    print("cut")
"""


def journal(host: Host, word: str) -> str:
    """Return the lines of nginx in the journal once one of them has the word."""
    for _ in range(20):
        lines = host.check_output("journalctl --identifier nginx --output cat --no-pager")
        if word in lines:
            return lines
        time.sleep(0.5)
    raise AssertionError(f"no line with {word!r}")


@pytest.mark.parametrize("version", ["-tls1_2", "-tls1_3"])
def test_new_versions_of_tls_are_spoken_for_any_name(host: Host, version: str) -> None:
    said = host.check_output(
        f"openssl s_client {version} -connect 127.0.0.1:443 -servername anything.example </dev/null 2>/dev/null"
    )
    assert "CN = secure.example.org" in said
    assert "Cipher is (NONE)" not in said


def test_session_tickets_are_off(host: Host) -> None:
    said = host.check_output("openssl s_client -tls1_2 -connect 127.0.0.1:443 </dev/null 2>/dev/null")
    assert "TLS session ticket:" not in said


def test_browsers_are_told_to_stay_on_tls(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/hello", name="secure.example.org")
    assert reply.status == 200
    assert reply.headers["strict-transport-security"] == "max-age=31536000"
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.headers["x-frame-options"] == "DENY"
    assert reply.headers["server"] == "nginx"


def test_plain_requests_are_sent_to_tls(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/hello?a=1", name="secure.example.org", tls=False)
    assert (reply.status, reply.headers["location"]) == (301, "https://secure.example.org/hello?a=1")


def test_plain_submissions_keep_method_and_body_on_their_way_to_tls(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/hello", method="POST", body="{}", name="secure.example.org", tls=False)
    assert (reply.status, reply.headers["location"]) == (308, "https://secure.example.org/hello")


@pytest.mark.parametrize("port", [443, 8042])
def test_client_that_never_finishes_its_request_is_cut_off(host: Host, port: int) -> None:
    begun = "" if port == 443 else "POST /hello HTTP/1.1\r\nHost: a\r\n"
    said = host.check_output(f"python3 -c {shlex.quote(UNFINISHED)} {port} {shlex.quote(begun)}")
    assert said == "cut"


def test_further_listener_without_tls_answers_on_loopback_only(host: Host, fetch: Callable) -> None:
    assert fetch(host, "/hello", name="secure.example.org", tls=False, port=8042).status == 200
    assert host.socket("tcp://127.0.0.1:8042").is_listening
    assert not host.socket("tcp://0.0.0.0:8042").is_listening


def test_virtual_host_without_certificate_is_plain(host: Host, fetch: Callable) -> None:
    assert fetch(host, "/", name="plain.example.org", tls=False).text == "plain\n"


def test_address_from_a_trusted_proxy_counts(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/hello", name="secure.example.org", headers={"X-Forwarded-For": f"10.0.0.1, {CLIENT}"})
    assert reply.text == f"hello from {CLIENT}\n"


def test_no_address_of_a_client_reaches_the_journal(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/down?secret=1", name="secure.example.org", headers={"X-Forwarded-For": CLIENT})
    assert reply.status == 502
    errors = journal(host, "connect() failed")
    assert 'upstream: "http://127.0.0.1:9/' in errors
    assert "client: -" in errors
    lines = journal(host, "status=502")
    assert CLIENT not in lines
    assert "client=203.0.113.0/24" in lines
    assert "secret" not in lines
    assert CLIENT not in host.check_output("journalctl --output json --no-pager")


def test_ipv6_and_ports_are_removed_from_error_messages_and_times_are_not(host: Host) -> None:
    program = (
        "import runpy; f = runpy.run_path('/usr/local/lib/nginx-errors'); "
        "print(f['TOKEN'].sub(f['without_address'], input()))"
    )
    line = '2026/11/24 22:43:00 [error] 7#7: *1 x, client: 2001:db8::1, from [2001:db8::2]:443 10.1.2.3:55, upstream: "http://10.9.9.9:80/"'
    said = host.check_output(f"echo '{line}' | python3 -c \"{program}\"")
    assert said == '2026/11/24 22:43:00 [error] 7#7: *1 x, client: -, from - -, upstream: "http://10.9.9.9:80/"'


def test_status_page_is_for_this_host_only(host: Host, fetch: Callable) -> None:
    assert "Active connections" in fetch(host, "/nginx_status", tls=False, port=8099).text
    assert not host.socket("tcp://0.0.0.0:8099").is_listening


def test_virtual_host_that_is_no_longer_listed_goes_away(host: Host) -> None:
    assert host.check_output("ls /etc/nginx/sites-enabled") == "00-catch-all.conf\nsite-plain.conf\nsite-secure.conf"
