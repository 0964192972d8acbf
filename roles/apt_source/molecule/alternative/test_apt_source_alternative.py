"""What hosts promise that take packages from a real archive."""

from testinfra.host import Host


def candidate(host: Host, package: str) -> str:
    """Return the version that apt would install."""
    said = host.check_output(f"apt-cache policy {package}")
    return next(line.split()[1] for line in said.splitlines() if "Candidate:" in line)


def test_all_versions_are_offered_from_the_signed_archive(host: Host) -> None:
    host.check_output("apt-get update -qq")
    offered = host.check_output("apt-cache madison ooni-api")
    assert "0.1~pr1-1 | http://archive.internal bookworm/main" in offered
    assert "0.1~pr1-2 | http://archive.internal bookworm/main" in offered


def test_higher_version_of_a_stranger_is_not_taken(host: Host) -> None:
    assert candidate(host, "ooni-api") == "0.1~pr1-2"


def test_named_version_is_installed_upgraded_and_taken_back(host: Host) -> None:
    for version in ("0.1~pr1-1", "0.1~pr1-2", "0.1~pr1-1"):
        host.check_output(
            f"DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --allow-downgrades ooni-api={version}"
        )
        assert host.file("/usr/share/toy/ooni-api").content_string.strip() == version


def test_list_that_was_tampered_with_is_refused(host: Host) -> None:
    signed = "/var/lib/apt-archive/public/dists/bookworm/InRelease"
    host.check_output(f"cp {signed} /run/InRelease; sed -i 's/^Label: .*/Label: forged/' {signed}")
    try:
        tried = host.run("apt-get update -o APT::Update::Error-Mode=any")
        assert tried.rc != 0
        assert "BADSIG" in tried.stdout + tried.stderr
    finally:
        host.check_output(f"cp /run/InRelease {signed}; apt-get update -qq")
