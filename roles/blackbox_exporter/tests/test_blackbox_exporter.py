"""What the blackbox exporter promises on every host that has it."""

import re
from collections.abc import Callable

from testinfra.host import Host

UNIT = "prometheus-blackbox-exporter"


def listen(host: Host) -> tuple[str, int]:
    """Return the configured address and port."""
    match = re.search(r"--web\.listen-address=(\S+):(\d+)", host.file(f"/etc/default/{UNIT}").content_string)
    assert match
    return match[1], int(match[2])


def may_ping(host: Host) -> bool:
    """Whether the system has CAP_NET_RAW to give; containers often do not."""
    return int(host.check_output("sed -n s/^CapBnd:.//p /proc/1/status"), 16) >> 13 & 1 == 1


def test_it_runs_now_and_after_a_reboot(host: Host) -> None:
    service = host.service(UNIT)
    assert service.is_running
    assert service.is_enabled


def test_only_the_host_itself_can_ask_for_probes(host: Host) -> None:
    port = listen(host)[1]
    sockets = host.check_output(f"ss --no-header --listening --tcp --numeric 'sport = :{port}'").splitlines()
    assert [line.split()[3] for line in sockets] == [f"127.0.0.1:{port}"]


def test_configuration_is_sound(host: Host) -> None:
    assert host.run(f"{UNIT} --config.check --config.file=/etc/prometheus/blackbox.yml").rc == 0


def test_ssh_of_the_host_itself_is_found_alive(host: Host, fetch: Callable) -> None:
    address, port = listen(host)
    page = fetch(host, "/probe?module=ssh_banner&target=127.0.0.1:22", address=address, port=port, tls=False).text
    assert "\nprobe_success 1\n" in page


def test_a_port_that_nobody_listens_on_is_found_dead(host: Host, fetch: Callable) -> None:
    address, port = listen(host)
    page = fetch(host, "/probe?module=http_2xx&target=http://127.0.0.1:1/", address=address, port=port, tls=False).text
    assert "\nprobe_success 0\n" in page


def test_it_has_the_one_privilege_that_pings_need(host: Host) -> None:
    pid = host.check_output(f"systemctl show --property=MainPID --value {UNIT}")
    bounding = host.check_output(f"sed -n s/^CapBnd:.//p /proc/{pid}/status")
    assert int(bounding, 16) == (1 << 13 if may_ping(host) else 0)
    verdict = host.check_output(f"systemd-analyze security --no-pager {UNIT} | tail -1")
    assert float(verdict.split(": ")[1].split()[0]) <= 2.5
