"""What a downloaded helper promises."""

import json
from collections.abc import Callable

from testinfra.host import Host


def test_arguments_and_environment_arrive_as_written(host: Host, fetch: Callable) -> None:
    seen = json.loads(fetch(host, "/status", name="th.example.org").text)
    assert seen["arguments"] == ["--listen", "127.0.0.1:8090", "two words"]
    assert seen["greeting"] == "hello there"


def test_only_the_checked_binary_is_there(host: Host) -> None:
    # prepare.yml tried to deploy another one before, which was refused.
    wanted = host.check_output("sha256sum /srv/downloads/helper.py").split()[0]
    assert host.check_output("cd /usr/local/lib/test-helper && ls helper-*") == f"helper-{wanted[:16]}"
