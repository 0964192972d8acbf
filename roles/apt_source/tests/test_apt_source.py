"""What every host promises about where our packages come from."""

from testinfra.host import Host


def test_package_lists_can_be_fetched_without_a_warning(host: Host) -> None:
    fetched = host.run("apt-get update -qq -o APT::Update::Error-Mode=any")
    assert fetched.rc == 0, fetched.stderr


def test_no_archive_is_trusted_beyond_its_own_key(host: Host) -> None:
    assert host.check_output("ls /etc/apt/trusted.gpg 2>/dev/null || echo none") == "none"
    for file in host.check_output("ls /etc/apt/sources.list.d/*.sources 2>/dev/null || true").split():
        if "backend" in file:
            assert "Signed-By: /etc/apt/keyrings/backend.asc" in host.file(file).content_string
