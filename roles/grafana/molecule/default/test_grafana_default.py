"""Without a repository."""

from testinfra.host import Host


def test_without_a_repository_nothing_is_installed(host: Host) -> None:
    assert not host.package("grafana").is_installed
    assert not host.file("/etc/apt/sources.list.d/grafana.sources").exists
