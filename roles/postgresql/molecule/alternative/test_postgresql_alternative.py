"""What clients on other hosts are promised."""

import hashlib
from pathlib import Path

import pytest
from testinfra.host import Host

PASSWORD = hashlib.sha256(Path("/proc/sys/kernel/random/boot_id").read_text().strip().encode()).hexdigest()
OWN_ADDRESS = "$(hostname --ip-address)"


def connect(host: Host, options: str, *, user: str = "ooniapi", password: str = PASSWORD) -> tuple[int, str]:
    """Connect over the private network; return the exit code and what was said."""
    tried = host.run(
        f"PGPASSWORD={password} psql -XAt 'host='{OWN_ADDRESS}' dbname=ooni user={user} {options}'"  # noqa: S608 a command
        " -c 'SELECT ssl, version FROM pg_stat_ssl WHERE pid = pg_backend_pid()'"
    )
    return tried.rc, tried.stdout + tried.stderr


@pytest.mark.parametrize("user", ["ooni", "ooniapi", "fastpath", "uploader", "analysis"])
def test_role_connects_with_its_password_over_tls_that_the_password_proves(host: Host, user: str) -> None:
    # channel_binding: the server proves over this very connection that it knows the password: nobody can sit between.
    assert connect(host, "sslmode=require channel_binding=require", user=user) == (0, "t|TLSv1.3\n")


def test_connections_without_tls_are_refused(host: Host) -> None:
    code, said = connect(host, "sslmode=disable")
    assert code != 0
    assert "no pg_hba.conf entry" in said


def test_wrong_passwords_and_the_superuser_are_refused(host: Host) -> None:
    assert "password authentication failed" in connect(host, "sslmode=require", password="wrong")[1]  # noqa: S106 none at all
    assert "no pg_hba.conf entry" in connect(host, "sslmode=require", user="postgres")[1]


def test_it_listens_where_it_was_told_and_not_everywhere(host: Host) -> None:
    address = host.check_output("hostname --ip-address").split()[0]
    assert host.socket(f"tcp://{address}:5432").is_listening
    assert not host.socket("tcp://0.0.0.0:5432").is_listening


def test_memory_is_what_was_allowed(host: Host) -> None:
    said = host.check_output("runuser -u postgres -- psql -XAt -c 'SHOW shared_buffers' -c 'SHOW effective_cache_size'")
    assert said.split() == ["256MB", "768MB"]
