"""What a host promises that takes ClickHouse from an archive with a key of its own."""

from testinfra.host import Host


def test_packages_come_from_the_named_archive_in_the_named_version(host: Host) -> None:
    assert host.package("clickhouse-server").version == "99.1+publisher"
    source = host.file("/etc/apt/sources.list.d/clickhouse.sources").content_string
    assert "Signed-By: /etc/apt/keyrings/clickhouse.asc" in source


def test_list_that_was_tampered_with_is_refused(host: Host) -> None:
    host.check_output("cp /srv/publisher/InRelease /run/kept; sed -i 's/^Date: ./Date: X/' /srv/publisher/InRelease")
    tried = host.run("apt-get update -o APT::Update::Error-Mode=any")
    host.check_output("cp /run/kept /srv/publisher/InRelease; apt-get update -qq")
    assert tried.rc != 0
    assert "BADSIG" in tried.stdout + tried.stderr


def test_database_was_made(host: Host) -> None:
    assert host.file("/var/lib/clickhouse/metadata/measurements").exists
