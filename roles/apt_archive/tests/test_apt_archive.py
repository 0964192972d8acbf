"""What the archive of packages promises."""

import time
from collections.abc import Callable

import pytest
from testinfra.host import Host

ROOT = "/var/lib/apt-archive"
PUBLIC = f"{ROOT}/public"
VERSION = f"0.0.1~pr0-{int(time.time())}"


def build(host: Host, name: str, version: str, content: str = "") -> str:
    """Make a package on the host; return its path."""
    path = f"/run/toy/{content or 'x'}/{name}_{version}_amd64.deb"
    host.check_output(
        f"rm -rf /run/deb && mkdir -p /run/deb/DEBIAN /run/deb/usr/share/toy $(dirname {path}) && chmod 755 /run/deb"
        f" && echo '{content}' > /run/deb/usr/share/toy/{name}"
        f" && printf '%b' 'Package: {name}\\nVersion: {version}\\nArchitecture: amd64\\n'"
        " 'Maintainer: t <t@example.org>\\nDescription: toy\\n'"
        f" > /run/deb/DEBIAN/control && dpkg-deb --root-owner-group --build /run/deb {path}"
    )
    return path


def fingerprint(host: Host) -> str:
    """Return a digest of everything that is published."""
    return host.check_output(f"find {PUBLIC} -type f -print0 | sort -z | xargs -0 sha256sum | sha256sum")


@pytest.fixture(scope="module")
def published(host: Host) -> str:
    """A package that was published."""
    path = build(host, "fastpath", VERSION)
    assert host.check_output(f"apt-archive-publish {path}") == f"published fastpath {VERSION}"
    return path


def test_secret_key_is_closed_to_everybody_else(host: Host) -> None:
    keys = host.file(f"{ROOT}/gnupg")
    assert (keys.user, keys.mode) == ("aptarchive", 0o700)
    assert "PRIVATE" not in host.check_output(f"cat {PUBLIC}/archive-key.asc")
    assert host.run(f"runuser -u www-data -- ls {ROOT}/gnupg").rc != 0


def test_archive_is_signed_with_its_key(host: Host, published: str) -> None:
    checked = host.run(
        f"gpg --dearmor < {PUBLIC}/archive-key.asc > /run/archive.gpg"
        f" && gpgv --keyring /run/archive.gpg {PUBLIC}/dists/bookworm/InRelease"
    )
    assert checked.rc == 0, checked.stderr
    assert "Good signature" in checked.stderr


def test_archive_is_served(host: Host, published: str, fetch: Callable) -> None:
    listed = fetch(host, "/dists/bookworm/main/binary-amd64/Packages", name="archive.internal", tls=False)
    assert listed.status == 200
    assert f"Version: {VERSION}" in listed.text
    assert listed.headers["cache-control"] == "no-cache"
    assert "BEGIN PGP PUBLIC KEY" in fetch(host, "/archive-key.asc", name="archive.internal", tls=False).text
    assert fetch(host, "/../gnupg/pubring.kbx", name="archive.internal", tls=False).status in (400, 404)


def test_publishing_the_same_file_again_changes_nothing(host: Host, published: str) -> None:
    before = fingerprint(host)
    assert host.check_output(f"apt-archive-publish {published}") == f"unchanged fastpath {VERSION}"
    assert fingerprint(host) == before


def test_version_is_never_replaced_and_half_a_release_is_not_published(host: Host, published: str) -> None:
    other = build(host, "fastpath", VERSION, "other")
    new = build(host, "analysis", VERSION)
    before = fingerprint(host)
    tried = host.run(f"apt-archive-publish {new} {other}")
    assert tried.rc == 3
    assert f"fastpath {VERSION} is in the archive with other content" in tried.stderr
    assert fingerprint(host) == before


def test_older_versions_stay(host: Host, published: str, fetch: Callable) -> None:
    host.check_output(f"apt-archive-publish {build(host, 'fastpath', VERSION + '0')}")
    listed = fetch(host, "/dists/bookworm/main/binary-amd64/Packages", name="archive.internal", tls=False).text
    assert f"Version: {VERSION}\n" in listed
    assert f"Version: {VERSION}0\n" in listed


def test_what_is_not_ours_is_refused(host: Host) -> None:
    tried = host.run(f"apt-archive-publish {build(host, 'openssl', '99')}")
    assert tried.rc == 2
    assert "openssl is none of ours" in tried.stderr
    tried = host.run("apt-archive-publish /etc/hostname")
    assert (tried.rc, "is no Debian package" in tried.stderr) == (2, True)


def test_only_root_may_publish(host: Host) -> None:
    tried = host.run("runuser -u www-data -- apt-archive-publish")
    assert tried.rc == 2
    assert "run it as root" in tried.stderr
