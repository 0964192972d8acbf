"""What every host with a test helper promises."""

import json
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host


@pytest.fixture
def ask(host: Host, fetch: Callable) -> Callable:
    """Ask the helper through the web server, with or without TLS as the host has it."""
    site = host.file("/etc/nginx/sites-enabled/test-helper.conf").content_string
    name = next(line.split()[1].rstrip(";") for line in site.splitlines() if "server_name" in line)

    def _ask(**more: Any) -> dict[str, Any]:
        reply = fetch(
            host, "/", **{"name": name, "tls": "ssl_certificate " in site, "method": "POST", "body": "question", **more}
        )
        assert reply.status == 200, reply.text
        return json.loads(reply.text)

    return _ask


def test_helper_runs_and_starts_with_the_host(host: Host) -> None:
    helper = host.service("test-helper")
    assert helper.is_running
    assert helper.is_enabled


def test_helper_answers_through_the_web_server(ask: Callable) -> None:
    assert ask()["body"] == "question"


def test_helper_is_reachable_on_the_loopback_only(host: Host) -> None:
    site = host.file("/etc/nginx/sites-enabled/test-helper.conf").content_string
    address = next(line.split("http://")[1].rstrip(";") for line in site.splitlines() if "proxy_pass" in line)
    port = address.rpartition(":")[2]
    listening = [line.split()[3] for line in host.check_output("ss -ltnH").splitlines()]
    assert [found for found in listening if found.endswith(f":{port}")] == [f"127.0.0.1:{port}"]


def test_binary_is_the_one_that_was_checked_and_nobody_else_may_change_it(host: Host) -> None:
    path = host.check_output("systemctl cat test-helper | sed -n 's/^ExecStart=\\([^ ]*\\).*/\\1/p'")
    binary = host.file(path)
    assert binary.sha256sum.startswith(path.rpartition("-")[2])
    assert (binary.user, binary.mode) == ("root", 0o755)


def test_helper_is_locked_in(host: Host, ask: Callable) -> None:
    seen = ask()
    assert not seen["reads_shadow"]
    assert not seen["writes_etc"]
    assert seen["user"] > 60000
    score = host.check_output("systemd-analyze security --no-pager test-helper.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0


def test_helper_writes_nothing_about_who_asks_for_what(host: Host, ask: Callable) -> None:
    ask()
    said = host.check_output("journalctl --no-pager --output cat -u test-helper _TRANSPORT=stdout || true")
    assert "question" not in said
    assert "127.0.0.1" not in said


def test_address_that_a_client_claims_is_replaced(ask: Callable) -> None:
    assert ask(headers={"X-Real-IP": "203.0.113.7"})["client"] == "127.0.0.1"
