"""What every ClickHouse host promises, with the server of Debian; the publisher's own, newer one cannot be had here."""

import hashlib
import shlex
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from testinfra.host import Host

PASSWORD = hashlib.sha256(Path("/proc/sys/kernel/random/boot_id").read_text().strip().encode()).hexdigest()


@pytest.fixture
def settings(host: Host) -> ET.Element:
    """The settings of the server on this host."""
    return ET.fromstring(host.file("/etc/clickhouse-server/config.d/10-role.xml").content_string)


def query(host: Host, port: str, user: str, text: str, password: str = PASSWORD) -> tuple[int, str]:
    """Run a statement over HTTP on the loopback; return the exit code and what was said."""
    program = (
        "import sys, urllib.request as u, urllib.error as e\n"
        "port, user, key, text = sys.argv[1:]\n"
        "request = u.Request(f'http://127.0.0.1:{port}/', text.encode(), {'X-ClickHouse-User': user, "
        "'X-ClickHouse-Key': key})\n"
        "try: print(u.urlopen(request).read().decode().strip())\n"
        "except e.HTTPError as x: print(x.read().decode()); sys.exit(1)\n"
    )
    arguments = " ".join(shlex.quote(argument) for argument in (program, port, user, password, text))
    done = host.run(f"python3 -c {arguments}")
    return done.rc, done.stdout


def test_server_from_debian_stands_for_the_publishers_that_is_not_tested_here(host: Host) -> None:
    assert host.service("clickhouse-server").is_running
    assert host.service("clickhouse-server").is_enabled


def test_it_listens_where_it_was_told_and_nowhere_else(host: Host, settings: ET.Element) -> None:
    addresses = [element.text for element in settings.findall("listen_host")]
    ports = {settings.findtext("tcp_port"), settings.findtext("http_port")}
    # ssh is every host's; nothing else runs here.
    addresses_in_use = [line.split()[3] for line in host.check_output("ss -ltnH").splitlines()]
    listening = {address for address in addresses_in_use if not address.endswith(":22")}
    assert listening == {f"{address}:{port}" for address in addresses for port in ports}


def test_settings_with_passwords_are_closed_to_other_accounts(host: Host) -> None:
    users = host.file("/etc/clickhouse-server/users.d/10-role.xml")
    assert (users.user, users.group, users.mode) == ("root", "clickhouse", 0o640)
    assert PASSWORD not in users.content_string


def test_nobody_gets_in_without_a_password(host: Host, settings: ET.Element) -> None:
    port = settings.findtext("http_port")
    assert query(host, port, "default", "SELECT 1", "")[0] != 0
    assert query(host, port, "api", "SELECT 1", "wrong")[0] != 0
    assert query(host, port, "api", "SELECT 1") == (0, "1\n")


def test_readers_cannot_write(host: Host, settings: ET.Element) -> None:
    code, said = query(host, settings.findtext("http_port"), "api", "CREATE DATABASE mine")
    assert code != 0
    assert "readonly" in said


def test_questions_are_not_logged(host: Host, settings: ET.Element) -> None:
    port = settings.findtext("http_port")
    assert "query_log" not in query(host, port, "api", "SHOW TABLES FROM system")[1]
