"""What an API host promises together with its database."""

import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from testinfra.host import Host

LIST = "/api/v1/measurements?limit=1"
SCHEMA = "OONI_DSN='postgresql:///ooni?user=ooni' ooni-api-upgrade-schema"


def psql(host: Host, query: str) -> str:
    """Return what a query gives the owner of the database."""
    return host.check_output(f'psql -XAt -d ooni -U ooni -c "{query}"')


def test_schema_is_there_and_belongs_to_its_owner(host: Host) -> None:
    assert psql(host, "SELECT DISTINCT tableowner FROM pg_tables WHERE schemaname = 'public'") == "ooni"
    assert psql(host, "SELECT count(*) > 100 FROM pg_tables WHERE tablename LIKE 'fastpath_%'") == "t"


def test_schema_is_not_upgraded_twice(host: Host) -> None:
    assert host.check_output(f"{SCHEMA} --upgrade") == "the schema is up to date"
    assert host.run(f"{SCHEMA} --check").rc == 0


def test_release_that_is_older_than_the_schema_is_accepted(host: Host) -> None:
    psql(
        host,
        "INSERT INTO schema_migration (version, name, checksum, duration_ms) VALUES (9999, '9999_later.sql', 'x', 0)",
    )
    try:
        assert host.check_output(f"{SCHEMA} --upgrade") == "the schema is newer than this release, which runs on it"
    finally:
        psql(host, "DELETE FROM schema_migration WHERE version = 9999")


def test_answers_are_cached_and_served_stale_while_the_api_is_down(host: Host, fetch: Callable) -> None:
    path = f"{LIST}&probe_cc=ZA"
    first = fetch(host, path, name="api.internal", tls=False)
    assert (first.status, first.headers["x-cache-status"]) == (200, "MISS"), first.text
    assert fetch(host, path, name="api.internal", tls=False).headers["x-cache-status"] == "HIT"
    fresh = fetch(host, path, name="api.internal", tls=False, headers={"Authorization": "Bearer x"})
    assert fresh.headers["x-cache-status"] == "BYPASS"
    host.check_output("systemctl stop ooni-api")
    try:
        assert fetch(host, path, name="api.internal", tls=False).status == 200
        away = fetch(host, "/health", name="api.internal", tls=False)
        assert (away.status, away.headers["content-type"]) == (503, "application/json")
        assert 15 <= int(away.headers["retry-after"]) <= 30
    finally:
        host.check_output("systemctl start ooni-api")


def test_api_reads_the_database_and_writes_nothing_of_measurements(host: Host, fetch: Callable) -> None:
    listed = fetch(host, f"{LIST}&probe_cc=NA", name="api.internal", tls=False)
    assert json.loads(listed.text)["results"] == []
    tried = host.run("runuser -u ooniapi -- psql -X -d ooni -U ooniapi -c 'DELETE FROM jsonl'")
    assert "permission denied" in tried.stderr


def test_uploader_run_succeeds(host: Host) -> None:
    host.check_output("systemctl start ooni-api-uploader.service")
    assert host.check_output("systemctl show --value --property Result ooni-api-uploader.service") == "success"
    assert "uploader" in host.file("/var/lib/ooniapi/metrics/uploader.prom").content_string


@pytest.mark.parametrize("file", ["api", "uploader"])
def test_wrong_setting_never_reaches_the_host(host: Host, file: str) -> None:
    code = {
        "api": "ooni-api --check --config /run/wrong.toml",
        "uploader": "uploader --config /run/wrong.toml",
    }[file]
    host.check_output("echo 'no_such_setting = 1' > /run/wrong.toml")
    tried = host.run(code)
    assert tried.rc != 0
    assert "unknown key no_such_setting" in tried.stderr


def test_restart_keeps_the_api_answering_soon(host: Host, fetch: Callable) -> None:
    host.check_output("systemctl restart ooni-api")
    started = time.monotonic()
    while fetch(host, "/health", name="api.internal", tls=False).status != 200:
        assert time.monotonic() - started < 15
        time.sleep(0.2)


def post(host: Host, fetch: Callable, path: str, asked: object, **headers: str) -> Any:
    """Return the answer to a JSON question."""
    told = {"Content-Type": "application/json", **headers}
    return fetch(host, path, method="POST", body=json.dumps(asked), name="api.internal", tls=False, headers=told)


def test_first_admin_is_made_with_one_command_and_written_down(host: Host) -> None:
    host.check_output("echo somebody@example.org | ooni-api make-admin -")
    account = psql(host, "SELECT account_id FROM accounts WHERE role = 'admin'")
    assert re.fullmatch("[0-9a-f]{32}", account)
    assert psql(host, "SELECT subject FROM audit_log WHERE via = 'command' AND action = 'account.set_role'") == account
    key = host.file("/var/lib/ooni-api/account_id_key")
    assert (key.user, key.mode) == ("ooniapi", 0o600)


def test_api_adds_to_the_audit_log_and_can_change_nothing_in_it(host: Host) -> None:
    become = "runuser -u ooniapi -- psql -X -d ooni -U ooniapi -v ON_ERROR_STOP=1 -c %s"
    line = "INSERT INTO audit_log (account_id, role, via, action, subject) VALUES ('x', 'x', 'command', 'a.try', 'x')"
    assert host.run(become, line).rc == 0
    for statement in ("DELETE FROM audit_log", "UPDATE audit_log SET subject = 'y'", "TRUNCATE audit_log"):
        assert "permission denied" in host.run(become, statement).stderr


def test_nobody_logs_in_without_a_mail_server_and_no_address_is_logged(host: Host, fetch: Callable) -> None:
    asked = {"email_address": "nobody@example.org", "redirect_to": "https://explorer.example.org/"}
    reply = post(host, fetch, "/api/v1/user_register", asked)
    assert reply.status == 400, reply.text
    assert json.loads(reply.text)["error"]
    assert "nobody@example.org" not in host.check_output("journalctl --output json --no-pager")
