"""What every host with jobs promises."""

import pytest
from testinfra.host import Host

JOBS = ["ooni-update-counters", "ooni-ensure-partitions"]


def test_settings_are_closed_to_other_accounts(host: Host) -> None:
    found = host.file("/etc/ooni/analysis.toml")
    assert (found.user, found.group, found.mode) == ("root", "analysis", 0o640)


def test_metrics_can_be_read_by_the_node_exporter(host: Host) -> None:
    directory = host.file("/var/lib/analysis/metrics")
    assert (directory.user, directory.mode) == ("analysis", 0o755)


@pytest.mark.parametrize("job", JOBS)
def test_jobs_are_locked_in(host: Host, job: str) -> None:
    score = host.check_output(f"systemd-analyze security --no-pager {job}.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0


def test_counters_are_proved_every_hour(host: Host) -> None:
    timer = host.service("ooni-update-counters.timer")
    assert timer.is_enabled
    assert timer.is_running
