"""Logging in over the network, from another host, as probes of the promise."""

import pytest
import testinfra
from testinfra.host import Host

SSH = "runuser -u ada -- ssh -o StrictHostKeyChecking=no -o BatchMode=yes"


def client() -> Host:
    return testinfra.get_host("podman://mol-sshd-client")


def test_keys_get_in_on_every_port() -> None:
    for port in (22, 2222):
        assert client().check_output(f"{SSH} -p {port} ada@host id -un") == "ada"


def test_passwords_do_not_although_another_file_says_yes() -> None:
    attempt = client().run(
        "SSHPASS=secret sshpass -e ssh -o StrictHostKeyChecking=no -o PubkeyAuthentication=no"
        " -o PreferredAuthentications=password,keyboard-interactive ada@host id -un"
    )
    assert attempt.rc != 0
    assert "Permission denied (publickey)" in attempt.stderr


def test_root_does_not_get_in_even_with_a_known_key() -> None:
    attempt = client().run(f"{SSH} root@host id -un")
    assert attempt.rc != 0
    assert "Permission denied" in attempt.stderr


@pytest.mark.parametrize(
    "option",
    [
        "KexAlgorithms=diffie-hellman-group14-sha256",
        "Ciphers=aes128-ctr",
        "MACs=hmac-sha1 -o Ciphers=aes128-ctr",
        "HostKeyAlgorithms=ecdsa-sha2-nistp256",
    ],
)
def test_old_algorithms_are_refused(option: str) -> None:
    attempt = client().run(f"{SSH} -o {option} ada@host id -un")
    assert attempt.rc != 0
    assert "no matching" in attempt.stderr


def test_ports_are_not_forwarded() -> None:
    attempt = client().run(f"{SSH} -W 127.0.0.1:22 ada@host < /dev/null")
    assert "administratively prohibited" in attempt.stderr
