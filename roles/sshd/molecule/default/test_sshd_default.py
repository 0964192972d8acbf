"""What only holds with the ports and keys of the defaults."""

from testinfra.host import Host


def test_server_listens_on_22_alone(host: Host) -> None:
    ports = [line for line in host.check_output("sshd -T").splitlines() if line.startswith("port ")]
    assert ports == ["port 22"]
    assert host.socket("tcp://0.0.0.0:22").is_listening
