"""What other variables promise: TLS for any name, an object store with keys, a helper, badges."""

import tomllib
from collections.abc import Callable

from testinfra.host import Host


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
