"""What a host with some of the jobs promises, and what it says when the database is away."""

import tomllib

from testinfra.host import Host


def test_job_that_is_not_listed_is_switched_off(host: Host) -> None:
    timer = host.service("ooni-ensure-partitions.timer")
    assert not timer.is_enabled
    assert not timer.is_running


def test_job_without_database_fails_loudly(host: Host) -> None:
    assert host.run("systemctl start ooni-update-counters.service").rc != 0
    assert "is not available" in host.check_output("journalctl --identifier analysis --no-pager")
    host.check_output("systemctl reset-failed")


def test_settings_without_a_variable_of_their_own_are_passed_on(host: Host) -> None:
    settings = tomllib.loads(host.file("/etc/ooni/analysis.toml").content_string)
    assert settings["counters_window_days"] == 3
    assert settings["db_uri"].partition("@")[2] == "127.0.0.1:5/ooni?sslmode=require"
