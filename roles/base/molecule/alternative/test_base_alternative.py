"""What other variables change."""

from testinfra.host import Host


def test_locale_is_generated(host: Host) -> None:
    assert "en_US.utf8" in host.check_output("locale --all-locales").splitlines()
    assert host.file("/etc/default/locale").content_string == "LANG=en_US.UTF-8\n"


def test_history_of_etc_is_kept(host: Host) -> None:
    assert "apt/apt.conf.d/60base" in host.check_output("etckeeper vcs ls-files").splitlines()


def test_time_sources_are_those_named(host: Host) -> None:
    lines = host.check_output("chronyd -p -f /etc/chrony/chrony.conf").splitlines()
    sources = [line for line in lines if line.startswith(("server ", "pool "))]
    assert sources == ["server ntp1.example.org iburst", "server ntp2.example.org iburst"]


def test_journal_forgets_after_a_week(host: Host) -> None:
    assert "\nMaxRetentionSec=7day" in host.check_output("systemd-analyze cat-config systemd/journald.conf")


def test_reboots_for_updates_happen_at_night(host: Host) -> None:
    settings = host.check_output("apt-config dump")
    assert 'Unattended-Upgrade::Automatic-Reboot "true";' in settings
    assert 'Unattended-Upgrade::Automatic-Reboot-Time "04:30";' in settings
