"""What a host with a database promises about its backups. Changes nothing; true also on real hosts."""

import json

import pytest
from testinfra.host import Host


def settings(host: Host) -> dict:
    return json.loads(host.file("/etc/postgresql-backup.json").content_string)


@pytest.mark.parametrize("timer", ["backup-full.timer", "backup-incremental.timer", "backup-restore-test.timer"])
def test_backups_and_their_proof_happen_by_themselves(host: Host, timer: str) -> None:
    assert host.service(timer).is_running
    assert host.service(timer).is_enabled
    assert host.check_output(f"systemctl show --property=NextElapseUSecRealtime --value {timer}")


def test_the_log_of_changes_is_archived(host: Host) -> None:
    query = "SELECT name || '=' || setting FROM pg_settings WHERE name IN ('archive_mode', 'archive_command')"
    values = host.check_output(f'cd / && runuser -u postgres -- psql -Atc "{query}"').splitlines()
    assert "archive_mode=on" in values
    assert f"pgbackrest --stanza={settings(host)['stanza']}" in "".join(values)


def test_secrets_and_backups_are_for_the_database_alone(host: Host) -> None:
    file = host.file("/etc/pgbackrest.conf")
    assert (file.user, file.group, file.mode) == ("root", "postgres", 0o640)
    lines = dict(line.split("=", 1) for line in file.content_string.splitlines() if "=" in line)
    directory = host.file(lines["repo1-path"])
    assert (directory.user, directory.mode) == ("postgres", 0o750)
    assert int(lines["repo1-retention-full"]) >= 1


def test_metrics_can_be_read_by_the_node_exporter(host: Host) -> None:
    state = settings(host)["state"]
    for path in (state, f"{state}/metrics"):
        assert host.file(path).mode == 0o755
    for name in host.file(f"{state}/metrics").listdir():
        assert host.file(f"{state}/metrics/{name}").mode == 0o644


@pytest.mark.parametrize("unit", ["backup@full.service", "backup-restore-test.service"])
def test_jobs_are_sandboxed_and_keep_the_shared_memory_of_the_database(host: Host, unit: str) -> None:
    verdict = host.check_output(f"systemd-analyze security --no-pager {unit} | tail -1")
    assert float(verdict.split(": ")[1].split()[0]) <= 2.0
    assert host.check_output(f"systemctl show --property=RemoveIPC --value {unit}") == "no"
