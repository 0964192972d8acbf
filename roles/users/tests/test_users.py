"""Who has an account on a host, and who has not."""

from testinfra.host import Host


def test_nobody_has_a_password(host: Host) -> None:
    shadow = [line.split(":") for line in host.check_output("getent shadow").splitlines()]
    assert [name for name, hashed, *_ in shadow if hashed not in ("*", "!", "!*")] == []


def test_only_accounts_made_here_are_in_the_group_and_have_keys(host: Host) -> None:
    for name in host.group("operators").members:
        keys = host.file(f"/home/{name}/.ssh/authorized_keys")
        assert keys.size > 0
        assert (keys.user, keys.mode) == (name, 0o600)


def test_sudoers_are_valid_and_private(host: Host) -> None:
    rules = host.file("/etc/sudoers.d/10-users")
    assert (rules.user, rules.group, rules.mode) == ("root", "root", 0o440)
    assert host.run("visudo -c").rc == 0
