"""What a host promises whose database is away, and that takes bodies from APIs on other hosts."""

import json
import tomllib
from collections.abc import Callable

from testinfra.host import Host


def test_measurement_is_kept_while_the_database_is_away(host: Host, fetch: Callable) -> None:
    settings = tomllib.loads(host.file("/etc/ooni/fastpath.toml").content_string)
    uid = "20240101000000.000001_IT_telegram_0123456789abcdef"
    reply = fetch(
        host, f"/{uid}", method="POST", body="{}", tls=False, address=settings["http_host"], port=settings["http_port"]
    )
    assert reply.status == 200
    found = host.check_output(f"find {settings['spool_directory']} -name '{uid}*'")
    assert "/incoming/" in found
    assert host.file(found).group == "oonispool"


def test_it_says_why_it_does_not_score(host: Host, fetch: Callable) -> None:
    settings = tomllib.loads(host.file("/etc/ooni/fastpath.toml").content_string)
    reply = fetch(host, "/ready", tls=False, address=settings["http_host"], port=settings["http_port"])
    assert reply.status == 503
    assert "The database does not answer" in " ".join(json.loads(reply.text)["reasons"])


def test_settings_without_a_variable_of_their_own_are_passed_on(host: Host) -> None:
    settings = tomllib.loads(host.file("/etc/ooni/fastpath.toml").content_string)
    assert (settings["batch_rows"], settings["workers"]) == (100, 1)


def test_wrong_setting_stops_the_service_before_it_does_anything(host: Host) -> None:
    host.check_output("echo 'no_such_setting = 1' > /run/wrong.toml; chmod 644 /run/wrong.toml")
    tried = host.run("runuser -u fastpath -- fastpath --config /run/wrong.toml")
    assert tried.rc == 2
    assert "unknown key no_such_setting" in tried.stderr
