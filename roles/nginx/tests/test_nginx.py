"""What every web server promises."""

import re
from collections.abc import Callable

import pytest
from testinfra.host import Host


def test_web_server_runs_and_starts_with_the_host(host: Host) -> None:
    nginx = host.service("nginx")
    assert nginx.is_running
    assert nginx.is_enabled
    assert host.socket("tcp://0.0.0.0:80").is_listening
    assert host.socket("tcp://0.0.0.0:443").is_listening


def test_whole_configuration_is_valid(host: Host) -> None:
    tested = host.run("nginx -t")
    assert tested.rc == 0, tested.stderr
    assert "[warn]" not in tested.stderr


@pytest.mark.parametrize("old", ["-tls1", "-tls1_1"])
def test_old_versions_of_tls_are_refused(host: Host, old: str) -> None:
    # SECLEVEL=0: otherwise the client itself refuses to try.
    tried = host.run(
        f"openssl s_client {old} -cipher ALL:@SECLEVEL=0 -connect 127.0.0.1:443 -servername a.example </dev/null"
    )
    assert tried.rc != 0
    assert "Cipher is (NONE)" in tried.stdout


def test_nothing_tells_the_version_of_the_server(host: Host) -> None:
    assert "server_tokens off;" in host.check_output("nginx -T 2>/dev/null")


def test_a_broken_piece_of_configuration_is_refused_before_it_is_in_place(host: Host) -> None:
    broken = "printf 'server { listen 80; no_such_directive on; }' > /run/broken.conf"
    tried = host.run(
        f"{broken}; nginx-validate /etc/nginx/sites-enabled/broken.conf /run/broken.conf; code=$?;"
        " rm /run/broken.conf; exit $code"
    )
    assert tried.rc == 1
    assert 'unknown directive "no_such_directive" in /etc/nginx/sites-enabled/broken.conf' in tried.stderr
    assert host.run("nginx -t").rc == 0


def test_challenges_of_certificate_authorities_are_answered_for_any_name(host: Host, fetch: Callable) -> None:
    directory = "/var/lib/dehydrated/acme-challenges"
    host.check_output(f"echo key-authorization > {directory}/test-token")
    try:
        reply = fetch(host, "/.well-known/acme-challenge/test-token", name="any.example.org", tls=False)
        assert (reply.status, reply.text) == (200, "key-authorization\n")
    finally:
        host.check_output(f"rm {directory}/test-token")


def test_plain_requests_for_unknown_names_get_no_answer(host: Host) -> None:
    tried = host.run("python3 -c \"import urllib.request; urllib.request.urlopen('http://127.0.0.1/', timeout=5)\"")
    assert re.search("RemoteDisconnected|ConnectionResetError", tried.stderr)


def test_distribution_page_is_gone(host: Host) -> None:
    assert not host.file("/etc/nginx/sites-enabled/default").exists


def test_messages_of_errors_go_through_the_filter_and_access_logs_to_the_journal(host: Host) -> None:
    settings = host.check_output("nginx -T 2>/dev/null")
    assert host.service("nginx-errors.socket").is_running
    assert "/var/log" not in settings
    assert "$remote_addr" not in next(line for line in settings.splitlines() if "log_format" in line)


def test_filter_of_error_messages_is_locked_in(host: Host) -> None:
    score = host.check_output("systemd-analyze security --no-pager nginx-errors.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0
