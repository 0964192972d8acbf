"""What other variables promise: TLS for any name, an object store with keys, a helper, badges, what probes are told."""

import json
import time
import tomllib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from testinfra.host import Host

NAME = "api.example.org"
DIRECTORY = "/etc/ooni/probe"
KEYS = [
    f"/var/lib/ooni-api/{name}"
    for name in ("probe_token_keys", "session_keys", "account_id_key", "mail_password", "test_lists_forge_token")
]


def test_every_name_gets_the_apis_certificate(host: Host, fetch: Callable) -> None:
    said = host.check_output(
        "openssl s_client -connect 127.0.0.1:443 -servername front.example.net </dev/null 2>/dev/null"
    )
    assert "CN = api.example.org" in said
    assert fetch(host, "/health", name="front.example.net").text == "UP"


def test_listener_for_tor_is_on_the_loopback(host: Host, fetch: Callable) -> None:
    assert fetch(host, "/health", name="anything", tls=False, port=8042).text == "UP"
    assert not host.socket("tcp://0.0.0.0:8042").is_listening


def test_keys_of_the_object_store_are_for_root_and_the_service(host: Host) -> None:
    keys = host.file("/etc/ooni/api.env")
    assert (keys.user, keys.mode) == ("root", 0o600)
    secret = tomllib.loads(host.file("/etc/ooni/uploader.toml").content_string)["store_secret_access_key"]
    assert len(secret) == 64
    assert secret not in host.check_output(
        "systemctl show ooni-api ooni-api-uploader; systemctl cat ooni-api ooni-api-uploader"
    )
    assert secret not in host.check_output("ps -e -o args")
    assert secret not in host.check_output("journalctl --no-pager")


def test_settings_without_a_variable_of_their_own_are_passed_on(host: Host) -> None:
    api = tomllib.loads(host.file("/etc/ooni/api.toml").content_string)
    assert (api["threads"], api["workers"], api["large_bodies_at_once"]) == (4, 1, 1)
    assert api["base_url"] == "https://api.example.org"
    assert tomllib.loads(host.file("/etc/ooni/uploader.toml").content_string)["attempts"] == 1


def test_spool_is_served_to_other_hosts_on_the_given_address_and_not_to_the_public(host: Host, fetch: Callable) -> None:
    api = tomllib.loads(host.file("/etc/ooni/api.toml").content_string)
    assert (api["peers"], api["repeats_from_database"]) == (["http://127.0.0.1:8476"], True)
    assert host.socket("tcp://127.0.0.1:8475").is_listening
    assert not host.socket("tcp://0.0.0.0:8475").is_listening
    directory, uid = "2024010100_IT_ndt", "20240101000102.123456_IT_ndt_0123456789abcdef"
    path = f"/measurement_spool/{directory}/{uid}.post"
    put = "import pathlib, sys; from core.spool import Spool; "
    put += "Spool(pathlib.Path(sys.argv[1])).put(sys.argv[2], b'{}', '')"
    python = "runuser -u ooniapi -- /usr/lib/ooni-api/bin/python3 -I -c %s %s %s"
    host.check_output(python, put, "/var/lib/ooniapi/measurements", uid)
    assert fetch(host, path, tls=False, port=8475).text == "{}"
    assert fetch(host, path, name="api.example.org").status == 404


def test_post_of_old_probes_goes_to_the_test_helper_alone(host: Host, fetch: Callable) -> None:
    program = (
        "import http.server as h\\n"
        "class H(h.BaseHTTPRequestHandler):\\n"
        "  def do_POST(self): self.send_response(200); self.end_headers(); self.wfile.write(b'helper')\\n"
        "h.HTTPServer(('127.0.0.1', 8899), H).serve_forever()\\n"
    )
    host.check_output(
        f'printf "{program}" > /run/helper.py; systemctl is-active helper'
        " || systemd-run --unit helper python3 /run/helper.py; sleep 1"
    )
    assert fetch(host, "/", method="POST", body="{}", name="api.example.org").text == "helper"
    assert fetch(host, "/", name="api.example.org").text != "helper"
    assert fetch(host, "/?x=1", method="POST", body="{}", name="api.example.org").text != "helper"


def test_downloads_of_old_are_sent_to_the_pages(host: Host, fetch: Callable) -> None:
    reply = fetch(host, "/files/download/old.json", name="api.example.org")
    assert (reply.status, reply.headers["location"]) == (301, "https://explorer.example.org/")


def test_badges_are_never_cached(host: Host, fetch: Callable) -> None:
    host.check_output("mkdir -p /var/www/package_badges && echo '<svg/>' > /var/www/package_badges/fastpath.svg")
    reply = fetch(host, "/package_badges/fastpath.svg", name="api.example.org")
    assert (reply.status, reply.text) == (200, "<svg/>\n")
    assert "no-store" in reply.headers["cache-control"]
    assert reply.headers["strict-transport-security"]


def main_pid(host: Host) -> str:
    """Return the process of the API, which another one replaces when the unit is restarted."""
    return host.check_output("systemctl show --value --property MainPID ooni-api")


def eventually(ask: Callable[[], Any], wanted: Any) -> None:
    """Wait until `ask` returns what is wanted."""
    for _ in range(60):
        if (found := ask()) == wanted:
            return
        time.sleep(0.5)
    assert found == wanted


def replace(host: Host, path: str, before: str, after: str) -> None:
    """Change a file as whoever deploys one does it: whole, under another name first. `unchanged` brings it back."""
    host.check_output(f"cp -p {path} /run/kept && echo {path} > /run/kept-of")
    host.check_output(f"cp -p {path} {path}.draft && sed 's#{before}#{after}#' /run/kept > {path}.draft")
    host.check_output(f"mv {path}.draft {path}")


@pytest.fixture
def unchanged(host: Host) -> Iterator[None]:
    """The API goes on with the same process, and the file that was replaced comes back."""
    before = main_pid(host)
    host.check_output("rm -f /run/kept")
    yield
    host.run("[ ! -e /run/kept ] || cp -p /run/kept $(cat /run/kept-of)")
    assert main_pid(host) == before


def post(host: Host, fetch: Callable, path: str, asked: object) -> Any:
    """Return the JSON answer to a JSON question."""
    headers = {"Content-Type": "application/json"}
    reply = fetch(host, path, method="POST", body=json.dumps(asked), name=NAME, headers=headers)
    assert reply.status == 200, reply.text
    return json.loads(reply.text)


def test_what_probes_are_told_and_keys_are_closed_to_other_accounts(host: Host) -> None:
    assert host.check_output(f"ooni-api check-probe-config {DIRECTORY}") == "ooni-api: the probe configuration is fine."
    directory = host.file(DIRECTORY)
    assert (directory.user, directory.group, directory.mode) == ("root", "ooniapi", 0o750)
    files = [f"{DIRECTORY}/{name}" for name in host.file(DIRECTORY).listdir()]
    assert len(files) == 7
    files += KEYS
    for name in files:
        found = host.file(name)
        assert (found.user, found.group, found.mode) == ("root", "ooniapi", 0o640), name
    assert not host.file(f"{DIRECTORY}.new").exists


def test_probe_that_logged_in_is_told_the_tor_targets_byte_for_byte(host: Host, fetch: Callable) -> None:
    registered = post(host, fetch, "/api/v1/register", {"password": "x"})
    token = post(host, fetch, "/api/v1/login", {"username": registered["client_id"], "password": "x"})["token"]
    path = "/api/v1/test-list/tor-targets"
    told = fetch(host, path, name=NAME, headers={"Authorization": f"Bearer {token}"})
    assert told.text.strip() == host.check_output(f"cat {DIRECTORY}/tor-targets.json")
    assert fetch(host, path, name=NAME).status == 401
    assert host.file("/var/lib/ooni-api").mode == 0o700


def test_secrets_of_probes_and_people_are_in_no_log(host: Host) -> None:
    secrets = json.loads(host.file(f"{DIRECTORY}/psiphon-config.json").content_string).values()
    logged = host.check_output("journalctl --output json --no-pager; ps -e -o args")
    for secret in [*secrets, *(line for path in KEYS for line in host.file(path).content_string.split())]:
        assert len(secret) == 64
        assert secret not in logged


@pytest.mark.usefixtures("unchanged")
def test_changed_file_is_taken_over_without_a_restart(host: Host, fetch: Callable) -> None:
    def told() -> str:
        # An argument of its own: the web server keeps the answer for an hour.
        reply = fetch(host, f"/api/v1/collectors?at={time.time_ns()}", name=NAME)
        return json.loads(reply.text)[0]["address"]

    eventually(told, "https://collector.example.org:4441")
    replace(host, f"{DIRECTORY}/collectors.json", ":4441", ":4442")
    eventually(told, "https://collector.example.org:4442")
    # A broken one is not taken, and the last good one goes on.
    host.check_output(f"echo '[' > {DIRECTORY}/collectors.json")
    eventually(lambda: "cannot be used" in host.check_output("journalctl -t gunicorn3 --no-pager"), wanted=True)
    assert told() == "https://collector.example.org:4442"


@pytest.mark.usefixtures("unchanged")
def test_new_database_of_geolocation_is_taken_over_without_a_restart(host: Host, fetch: Callable) -> None:
    def place() -> Any:
        return post(host, fetch, "/api/v1/geolookup", {"addresses": ["198.51.100.7"]})["geolocation"]["198.51.100.7"]

    eventually(place, {"cc": "IT", "asn": 64500, "as_name": "Example"})
    country = tomllib.loads(host.file("/etc/ooni/api.toml").content_string)["geo_country_db"]
    # B: a text of two letters.
    replace(host, country, "BIT", "BIR")
    eventually(place, {"cc": "IR", "asn": 64500, "as_name": "Example"})


def test_networks_of_proxies_are_passed_on(host: Host) -> None:
    api = tomllib.loads(host.file("/etc/ooni/api.toml").content_string)
    assert api["trusted_proxies"] == ["127.0.0.1", "10.0.0.0/24"]
    assert api["explorer_url"] == "https://explorer.example.org"


def test_settings_of_what_people_do_are_passed_on_without_secrets(host: Host) -> None:
    text = host.file("/etc/ooni/api.toml").content_string
    api = tomllib.loads(text)
    assert (api["mail_server"], api["mail_port"], api["mail_security"]) == ("mail.internal", 465, "tls")
    assert (api["mail_username"], api["mail_source_address"]) == ("api", "login@example.org")
    assert api["login_redirect_hosts"] == ["explorer.example.org", "test-lists.example.org"]
    assert (api["session_expiry_days"], api["login_expiry_days"]) == (3, 30)
    assert host.file(api["mail_password_file"]).content_string.strip() not in text
    assert api["test_lists_repository"] == "https://git.internal/test-lists"
    assert api["test_lists_author"] == "Editor <editor@example.org>"
    assert host.file(api["test_lists_forge_token"]).content_string.strip() not in text


def test_keys_of_people_are_the_configured_ones(host: Host) -> None:
    make = (
        "from pathlib import Path; from api.account_ids import AccountIds, read_key; "
        "from api.key_file import read_keys; state = Path('/var/lib/ooni-api'); "
        "print(len(read_keys(state / 'session_keys')), len(read_key(state / 'account_id_key')), "
        "len(AccountIds(state / 'account_id_key', create=False).of('somebody@example.org')))"
    )
    said = host.check_output("runuser -u ooniapi -- /usr/lib/ooni-api/bin/python3 -I -c %s", make)
    assert said == "2 64 32"
