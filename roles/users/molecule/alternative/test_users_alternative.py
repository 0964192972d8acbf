"""People come, people go."""

import pytest
from testinfra.host import Host

ADA = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAdaAdaAdaAdaAdaAdaAdaAdaAdaAdaAdaAdaAdaAdaA ada@laptop"


def test_people_on_the_list_have_their_account_and_keys(host: Host) -> None:
    assert sorted(host.group("operators").members) == ["ada", "bob"]
    assert host.user("bob").shell == "/bin/sh"
    assert host.file("/home/ada/.ssh/authorized_keys").content_string.splitlines() == [ADA]


def test_only_those_with_sudo_become_root(host: Host) -> None:
    assert host.check_output("runuser -u ada -- sudo --non-interactive id -u") == "0"
    assert host.run("runuser -u bob -- sudo --non-interactive id -u").rc != 0


@pytest.mark.parametrize("name", ["carol", "pi"])
def test_who_left_has_no_account_and_no_key(host: Host, name: str) -> None:
    assert not host.user(name).exists
    assert host.file(f"/home/{name}").exists
    assert not host.file(f"/home/{name}/.ssh/authorized_keys").exists


def test_accounts_of_others_stay(host: Host) -> None:
    assert host.user("service").exists


def test_who_left_does_not_get_in_as_root_either(host: Host) -> None:
    assert host.file("/root/.ssh/authorized_keys").content_string.splitlines() == [ADA]
