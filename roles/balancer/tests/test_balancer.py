"""What every balancer promises; two small servers stand behind it."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

SERVER = """
import http.server, pathlib, select, socketserver, sys
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        headers = self.headers
        text = f"{sys.argv[1]} {headers['X-Forwarded-For']} {headers['X-Real-IP']}"
        text = "UP" if self.path == "/health" else text
        if self.path == "/slow":
            poll = select.poll()
            poll.register(self.connection, select.POLLRDHUP)
            text = "left" if poll.poll(20_000) else "stayed"
            pathlib.Path("/run/slow").write_text(text)
        if self.path == "/heavy":
            with open("/run/heavy", "a") as asked:
                asked.write("x")
        self.send_response(504 if self.path == "/heavy" else 200)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())
    def log_message(self, *arguments): pass
class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    allow_reuse_address = True
Server(("127.0.0.1", int(sys.argv[2])), Handler).serve_forever()
"""

IMPATIENT = """
import socket, ssl, time
connection = socket.create_connection(("127.0.0.1", {port}))
if {port} == 443:
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    connection = context.wrap_socket(connection, server_hostname="api.example.org")
connection.sendall(b"GET /slow HTTP/1.1\\r\\nHost: api.example.org\\r\\n\\r\\n")
time.sleep(1)
"""
"""A client that leaves before it has its answer."""


def state(host: Host, name: str) -> str:
    """Return what the balancer says of a server."""
    return host.run(f"balancer-server {name} state").stdout


def wait_for(host: Host, name: str, wanted: str) -> None:
    """Wait until the balancer says `wanted` of a server."""
    for _ in range(100):
        if f" {wanted}" in state(host, name):
            return
        time.sleep(0.2)
    raise AssertionError(state(host, name))


@pytest.fixture(scope="module")
def servers(host: Host) -> Host:
    """The host, with both servers behind the balancer up."""
    host.check_output(f"cat > /run/server.py <<'EOF'\n{SERVER}\nEOF")
    for name, port in (("api1", 8101), ("api2", 8102)):
        host.check_output(
            f"systemctl is-active {name} || systemd-run --unit {name} python3 /run/server.py {name} {port}"
        )
        wait_for(host, name, "UP")
    return host


@pytest.fixture
def ask(host: Host, fetch: Callable) -> Callable:
    """Make a request to the balancer, with or without TLS as it has it."""
    tls = ":443 ssl" in host.file("/etc/haproxy/haproxy.cfg").content_string

    def _ask(path: str = "/x", **more: Any) -> Any:
        return fetch(host, path, **{"name": "api.example.org", "tls": tls, **more})

    return _ask


def test_balancer_starts_with_the_host(host: Host) -> None:
    for unit in ("haproxy", "balancer-challenges"):
        assert host.service(unit).is_running
        assert host.service(unit).is_enabled


def test_both_servers_are_used(servers: Host, ask: Callable) -> None:
    assert {ask().text.split()[0] for _ in range(12)} == {"api1", "api2"}


def test_no_question_fails_while_a_server_dies_and_comes_back(servers: Host, ask: Callable) -> None:
    servers.check_output("systemctl kill --signal KILL api1")
    try:
        assert [ask().status for _ in range(8)] == [200] * 8
        wait_for(servers, "api1", "DOWN")
    finally:
        servers.check_output(
            "systemctl reset-failed api1 || true; systemd-run --unit api1 python3 /run/server.py api1 8101"
        )
    wait_for(servers, "api1", "UP")


def test_question_that_took_the_database_too_long_is_not_asked_again(servers: Host, ask: Callable) -> None:
    servers.check_output("rm -f /run/heavy")
    assert ask("/heavy").status == 504
    assert servers.file("/run/heavy").content_string == "x"


def test_server_is_told_when_the_client_leaves(servers: Host) -> None:
    servers.check_output("rm -f /run/slow")
    tls = ":443 ssl" in servers.file("/etc/haproxy/haproxy.cfg").content_string
    servers.check_output(f"python3 - <<'EOF'\n{IMPATIENT.format(port=443 if tls else 80)}\nEOF")
    servers.check_output("timeout 15 sh -c 'until [ -s /run/slow ]; do sleep 0.1; done'")
    assert servers.file("/run/slow").content_string == "left"


def test_clients_are_told_when_to_come_back_while_no_server_is_there(servers: Host, ask: Callable) -> None:
    servers.check_output("systemctl kill --signal KILL api1 api2")
    try:
        for name in ("api1", "api2"):
            wait_for(servers, name, "DOWN")
        reply = ask(method="POST", body="{}")
    finally:
        for name, port in (("api1", 8101), ("api2", 8102)):
            servers.check_output(
                f"systemctl reset-failed {name} || true; systemd-run --unit {name} python3 /run/server.py {name} {port}"
            )
    assert (reply.status, reply.headers["content-type"]) == (503, "application/json")
    assert reply.headers["retry-after"] == "20"
    assert json.loads(reply.text)["error"]
    for name in ("api1", "api2"):
        wait_for(servers, name, "UP")


def test_server_is_drained_and_put_back(servers: Host, ask: Callable) -> None:
    servers.check_output("balancer-server api2 drain")
    try:
        assert {ask().text.split()[0] for _ in range(8)} == {"api1"}
    finally:
        assert " UP" in servers.check_output("balancer-server api2 ready")
    assert servers.run("balancer-server no-such-server drain").rc == 3


def test_address_that_a_client_claims_is_replaced(servers: Host, ask: Callable) -> None:
    said = ask(headers={"X-Forwarded-For": "203.0.113.7", "X-Real-IP": "203.0.113.8"}).text
    assert said.split()[1:] == ["127.0.0.1", "None"]


def test_no_address_of_a_client_is_logged_nor_that_of_a_person(servers: Host, ask: Callable) -> None:
    address = servers.check_output("hostname --ip-address").split()[0]
    ask("/logged-path", address=address)
    ask("/api/v1/get_account_role/person@example.org")
    ask("/api/v1/get_account_role/person%40example.org")
    ask("/api/v1/update/lifelong-id")
    # Something that is no request at all.
    servers.run(
        f"python3 -c \"import socket; s = socket.create_connection(('{address}', 80), 2);"
        " s.send(b'nonsense' + bytes([13, 10, 13, 10])); s.recv(100)\""
    )
    time.sleep(1)
    logged = servers.check_output("journalctl --identifier haproxy --output json --no-pager")
    assert "logged-path" in logged
    assert "/api/v1/get_account_role/-" in logged
    assert "/api/v1/update/-" in logged
    assert not re.search("person|lifelong", logged)
    assert address not in logged


def test_challenges_are_answered_without_tls(servers: Host, fetch: Callable) -> None:
    servers.check_output("echo key-authorization > /var/lib/dehydrated/acme-challenges/token")
    reply = fetch(servers, "/.well-known/acme-challenge/token", name="api.example.org", tls=False)
    servers.check_output("rm /var/lib/dehydrated/acme-challenges/token")
    assert (reply.status, reply.text) == (200, "key-authorization\n")


def test_metrics_are_for_this_host_only(servers: Host, fetch: Callable) -> None:
    assert "haproxy_server_status" in fetch(servers, "/metrics", tls=False, port=8405).text
    assert fetch(servers, "/", tls=False, port=8405).status == 404
    assert not servers.socket("tcp://0.0.0.0:8405").is_listening


def test_server_of_challenges_is_locked_in(host: Host) -> None:
    score = host.check_output("systemd-analyze security --no-pager balancer-challenges.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0
