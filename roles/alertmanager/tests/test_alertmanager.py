"""What an Alertmanager of ours promises, whoever it writes to."""

import re

from testinfra.host import Host

UNIT = "prometheus-alertmanager"
CONFIGURATION = "/etc/prometheus/alertmanager.yml"


def test_it_runs_now_and_after_a_reboot(host: Host) -> None:
    service = host.service(UNIT)
    assert service.is_running
    assert service.is_enabled


def test_it_answers_on_loopback_alone_and_has_no_peers(host: Host) -> None:
    match = re.search(r"--web\.listen-address=127\.0\.0\.1:(\d+) ", host.file(f"/etc/default/{UNIT}").content_string)
    assert match
    ports = f"sport = :{match[1]} or sport = :9094"  # 9094 is where peers would knock
    sockets = host.check_output(f"ss --no-header --listening --tcp --udp --numeric '( {ports} )'").splitlines()
    assert [line.split()[4] for line in sockets] == [f"127.0.0.1:{match[1]}"]


def test_configuration_is_sound_and_its_secrets_are_not_for_all(host: Host) -> None:
    file = host.file(CONFIGURATION)
    assert (file.user, file.group, file.mode) == ("root", "prometheus", 0o640)
    assert host.run(f"amtool check-config {CONFIGURATION}").rc == 0


def test_alert_that_always_fires_wakes_nobody(host: Host) -> None:
    command = f"amtool config routes test --config.file={CONFIGURATION} alertname=Watchdog severity=info"
    assert host.check_output(command) in ("nobody", "watchdog")


def test_a_host_that_is_down_mutes_its_other_alerts(host: Host) -> None:
    text = host.file(CONFIGURATION).content_string
    assert text.count("source_matchers: ['alertname=\"InstanceDown\"', 'job=\"node\"']") == 2


def test_it_is_sandboxed(host: Host) -> None:
    verdict = host.check_output(f"systemd-analyze security --no-pager {UNIT} | tail -1")
    assert float(verdict.split(": ")[1].split()[0]) <= 2.0
