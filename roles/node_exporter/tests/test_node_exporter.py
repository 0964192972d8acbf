"""What the node exporter promises on every host."""

import re
from collections.abc import Callable

import pytest
from testinfra.host import Host

UNIT = "prometheus-node-exporter"


def listen(host: Host) -> str:
    """Return the configured address and port."""
    arguments = host.file(f"/etc/default/{UNIT}").content_string
    match = re.search(r"--web\.listen-address=(\S+)", arguments)
    assert match
    return match[1]


@pytest.fixture
def page(host: Host, fetch: Callable) -> str:
    """What a scrape gets."""
    address, port = listen(host).rsplit(":", 1)
    return fetch(host, "/metrics", address=address, port=int(port), tls=False).text


def test_it_runs_now_and_after_a_reboot(host: Host) -> None:
    service = host.service(UNIT)
    assert service.is_running
    assert service.is_enabled


def test_it_answers_on_the_configured_address_alone(host: Host) -> None:
    port = listen(host).rsplit(":", 1)[1]
    sockets = host.check_output(f"ss --no-header --listening --tcp --numeric 'sport = :{port}'").splitlines()
    assert [line.split()[3] for line in sockets] == [listen(host)]


def test_states_of_units_are_exported(page: str) -> None:
    assert re.search(
        r'^node_systemd_unit_state\{name="ssh\.service",state="active",type="[a-z]+"\} [01]$', page, re.MULTILINE
    )


def test_state_of_the_clock_is_exported(page: str) -> None:
    assert re.search(r"^node_timex_sync_status [01]$", page, re.MULTILINE)
    assert re.search(r"^node_timex_offset_seconds \S+$", page, re.MULTILINE)


def test_no_file_of_a_job_is_unreadable(page: str) -> None:
    assert "\nnode_textfile_scrape_error 0\n" in page


def test_directory_for_files_of_hand_made_jobs_is_in_the_pattern(host: Host) -> None:
    directory = host.file("/var/lib/node_exporter/metrics")
    assert directory.is_directory
    assert (directory.user, directory.mode) == ("root", 0o755)


def test_it_has_no_privilege_to_lose(host: Host) -> None:
    pid = host.check_output(f"systemctl show --property=MainPID --value {UNIT}")
    status = dict(line.split(":\t", 1) for line in host.file(f"/proc/{pid}/status").content_string.splitlines())
    assert host.process.get(pid=int(pid)).user == "prometheus"
    assert {name: status[name] for name in ("NoNewPrivs", "CapBnd", "CapEff", "Seccomp")} == {
        "NoNewPrivs": "1",
        "CapBnd": "0" * 16,
        "CapEff": "0" * 16,
        "Seccomp": "2",
    }
