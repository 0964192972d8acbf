"""A configured repository, tried with a stand-in: Grafana's own package cannot be had where these tests run."""

import configparser

from testinfra.host import Host


def test_package_not_tested_but_one_of_its_name_comes_from_the_configured_signed_repository(host: Host) -> None:
    assert host.package("grafana").version == "99.0-standin"
    policy = host.check_output("apt-cache policy grafana")
    assert "file:/srv/grafana stable/main" in policy
    assert "NO_PUBKEY" not in host.check_output("apt-get update 2>&1")


def test_grafana_not_tested_but_its_user_can_read_all_that_was_deployed(host: Host) -> None:
    service = host.service("grafana-server")
    assert service.is_running
    assert service.is_enabled


def test_password_is_in_one_file_for_grafana_alone(host: Host) -> None:
    file = host.file("/etc/grafana/admin-password")
    assert (file.user, file.group, file.mode) == ("root", "grafana", 0o640)
    assert file.content_string == "only-in-this-test"
    assert host.run("grep -r only-in-this-test /etc --exclude=admin-password").rc == 1


def test_cookies_only_travel_over_tls(host: Host) -> None:
    ini = configparser.ConfigParser(interpolation=None)
    ini.read_string(host.file("/etc/grafana/grafana.ini").content_string)
    assert ini["server"]["root_url"] == "https://grafana.example.org/"
    assert ini["security"]["cookie_secure"] == "true"


def test_dashboards_are_those_of_the_repository_and_no_other(host: Host) -> None:
    assert host.file("/etc/grafana/dashboards").listdir() == ["sample.json"]
