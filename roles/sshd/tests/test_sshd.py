"""Who may log in, and how: read from the settings in force, all files considered."""

import pytest
from testinfra.host import Host


def effective(host: Host) -> dict[str, str]:
    """Return the settings of the running server's configuration, names in lower case."""
    with_sudo = host.check_output("sshd -T" if host.user().name == "root" else "sudo sshd -T")
    return dict(line.split(" ", 1) for line in with_sudo.splitlines() if " " in line)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("authenticationmethods", "publickey"),
        ("passwordauthentication", "no"),
        ("kbdinteractiveauthentication", "no"),
        ("permitemptypasswords", "no"),
        ("permituserenvironment", "no"),
        ("x11forwarding", "no"),
        ("allowagentforwarding", "no"),
        ("permittunnel", "no"),
    ],
)
def test_only_keys_get_in(host: Host, setting: str, value: str) -> None:
    assert effective(host)[setting] == value


def test_root_never_uses_a_password(host: Host) -> None:
    assert effective(host)["permitrootlogin"] in ("without-password", "prohibit-password", "no")


@pytest.mark.parametrize(
    "setting", ["kexalgorithms", "ciphers", "macs", "hostkeyalgorithms", "pubkeyacceptedalgorithms"]
)
def test_no_algorithm_with_a_known_weakness_is_offered(host: Host, setting: str) -> None:
    weak = ("sha1", "md5", "cbc", "ctr", "3des", "arcfour", "nistp", "diffie-hellman", "ssh-rsa", "ssh-dss", "umac-64")
    offered = effective(host)[setting].split(",")
    assert [name for name in offered if any(word in name for word in weak)] == []


def test_server_runs_with_the_configuration_on_disk(host: Host) -> None:
    service = host.service("ssh")
    assert service.is_running
    assert service.is_enabled
    assert host.run("sshd -t").rc == 0
    assert host.socket("tcp://22").is_listening
