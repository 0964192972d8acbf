"""What every host promises, whatever it does. Runs against containers and, over ssh, against real hosts."""

import pytest
import yaml
from testinfra.host import Host


def is_container(host: Host) -> bool:
    """Tell a container from a machine: clock, kernel and host name are not the container's own."""
    return host.run("systemd-detect-virt --container --quiet").rc == 0


def test_time_is_utc_everywhere(host: Host) -> None:
    assert host.check_output("date +%Z") == "UTC"
    assert host.file("/etc/timezone").content_string == "Etc/UTC\n"


def test_clock_is_kept_by_chrony_which_answers_nobody(host: Host) -> None:
    chrony = host.service("chrony")
    assert chrony.is_enabled
    assert chrony.is_running or is_container(host)
    directives = host.check_output("chronyd -p -f /etc/chrony/chrony.conf").splitlines()
    assert {"port 0", "cmdport 0"} <= set(directives)
    assert not host.socket("udp://0.0.0.0:123").is_listening


def test_journal_survives_reboots_and_is_bounded(host: Host) -> None:
    settings = host.check_output("systemd-analyze cat-config systemd/journald.conf")
    assert "\nStorage=persistent\n" in settings
    assert "\nSystemMaxUse=" in settings
    assert "\nMaxRetentionSec=" in settings
    machine = host.file("/etc/machine-id").content_string.strip()
    assert host.file(f"/var/log/journal/{machine}/system.journal").exists


def test_security_updates_are_installed_every_night(host: Host) -> None:
    settings = host.check_output("apt-config dump")
    assert 'APT::Periodic::Unattended-Upgrade "1";' in settings
    assert host.package("unattended-upgrades").is_installed
    assert host.service("apt-daily-upgrade.timer").is_running
    assert "Allowed origins are:" in host.run("unattended-upgrade --dry-run --debug 2>&1 | head -20").stdout


@pytest.mark.parametrize("name", ["kernel.kptr_restrict", "net.ipv4.tcp_syncookies", "fs.suid_dumpable"])
def test_kernel_settings_are_kept_over_reboots(host: Host, name: str) -> None:
    lines = host.file("/etc/sysctl.d/60-base.conf").content_string.splitlines()
    settings = dict(line.split(" = ") for line in lines if " = " in line)
    assert name in settings
    if not is_container(host):
        assert host.check_output(f"sysctl -n {name}") == settings[name]


def test_locale_is_utf8_for_services_and_logins(host: Host) -> None:
    assert yaml.safe_load(host.file("/etc/default/locale").content_string.replace("=", ": "))["LANG"].endswith("UTF-8")
    assert host.run("LC_ALL=$(sed -n s/LANG=//p /etc/default/locale) locale 2>&1 | grep -i cannot").stdout == ""
