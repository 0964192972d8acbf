"""What an API host promises together with its database."""

import json
import time
from collections.abc import Callable

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


def test_api_reads_the_database_and_cannot_write(host: Host, fetch: Callable) -> None:
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
