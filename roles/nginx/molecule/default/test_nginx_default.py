"""What only a host without virtual hosts promises."""

from testinfra.host import Host


def test_handshakes_for_unknown_names_are_refused(host: Host) -> None:
    tried = host.run("openssl s_client -connect 127.0.0.1:443 -servername unknown.example </dev/null")
    assert tried.rc != 0
    assert "unrecognized name" in tried.stderr
