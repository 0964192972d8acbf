"""Real disasters, on a database that a test may destroy. The tests are one story and run in this order."""

import json
import re
import time

from testinfra.host import Host

DATA = "/var/lib/postgresql/15/main"
CLUSTER = "postgresql@15-main"


def psql(host: Host, query: str) -> str:
    return host.check_output(f'runuser -u postgres -- psql -Atq -d proof -c "{query}"')


def metric(host: Host, file: str, name: str) -> float:
    text = host.file(f"/var/lib/backup/metrics/{file}.prom").content_string
    match = re.search(rf"^{name} (\S+)$", text, re.MULTILINE)
    assert match, text
    return float(match[1])


def wait_for_jobs(host: Host) -> None:
    """Wait until the jobs that the deployment started are done, at most two minutes."""
    command = "systemctl show --property=ActiveState --value backup@full.service backup-restore-test.service"
    deadline = time.monotonic() + 120
    while "activating" in host.check_output(command) and time.monotonic() < deadline:
        time.sleep(1)
    assert "activating" not in host.check_output(command)


def test_first_backup_was_made_and_proved_by_the_deployment(host: Host) -> None:
    wait_for_jobs(host)
    info = json.loads(host.check_output("runuser -u postgres -- pgbackrest --stanza=main --output=json info"))
    assert [backup["type"] for backup in info[0]["backup"]] == ["full"]
    assert metric(host, "backup", "backup_failed") == 0
    assert metric(host, "backup", "backup_last_success_timestamp_seconds") > time.time() - 3600
    assert metric(host, "backup_restore_test", "backup_restore_test_failed") == 0
    assert metric(host, "backup_restore_test", "backup_restore_test_databases") == 3  # postgres, template1, proof


def test_a_lost_cluster_is_restored_with_what_was_written_after_the_backup(host: Host) -> None:
    psql(host, "INSERT INTO proof VALUES (1001, 'after the backup')")
    host.check_output("runuser -u postgres -- pgbackrest --stanza=main check")  # archives the log so far
    host.check_output(f"systemctl stop {CLUSTER}")
    host.check_output(f"rm -rf {DATA}/*")
    host.check_output("runuser -u postgres -- pgbackrest --stanza=main restore")
    host.check_output(f"systemctl start {CLUSTER}")
    host.check_output("timeout 60 sh -c 'until runuser -u postgres -- pg_isready -q; do sleep 1; done'")
    assert psql(host, "SELECT count(*) FROM proof") == "1001"
    assert psql(host, "SELECT written FROM proof WHERE n = 1001") == "after the backup"


def test_a_restored_cluster_is_backed_up_again(host: Host) -> None:
    query = "SELECT 1 / (NOT pg_is_in_recovery())::int"
    host.check_output(f"timeout 60 sh -c 'until runuser -u postgres -- psql -qc \"{query}\"; do sleep 1; done'")
    before = metric(host, "backup", "backup_last_success_timestamp_seconds")
    host.check_output("systemctl start backup@incr.service")
    assert metric(host, "backup", "backup_last_success_timestamp_seconds") > before
    host.check_output("systemctl start backup-restore-test.service")


def test_restore_test_leaves_nothing_behind_and_the_real_cluster_alone(host: Host) -> None:
    assert not host.file("/var/lib/backup/scratch").exists
    assert psql(host, "SELECT count(*) FROM proof") == "1001"
    assert psql(host, "SELECT failed_count FROM pg_stat_archiver") == "0"


def test_a_damaged_backup_is_found_and_the_last_success_stays_known(host: Host) -> None:
    proved = metric(host, "backup_restore_test", "backup_restore_test_last_success_timestamp_seconds")
    newest = host.check_output("readlink -f /var/lib/pgbackrest/backup/main/latest")
    full = host.check_output("ls -d /var/lib/pgbackrest/backup/main/*F")
    host.check_output(f"find {newest}/ {full}/ -path '*/bundle/*' -type f | xargs truncate --size=-100")
    assert host.run("systemctl start backup-restore-test.service").rc != 0
    assert metric(host, "backup_restore_test", "backup_restore_test_failed") == 1
    assert metric(host, "backup_restore_test", "backup_restore_test_last_success_timestamp_seconds") == proved
    assert not host.file("/var/lib/backup/scratch").exists
    assert psql(host, "SELECT count(*) FROM proof") == "1001"


def test_a_new_full_backup_mends_that(host: Host) -> None:
    host.check_output("systemctl start backup@full.service")
    host.check_output("systemctl start backup-restore-test.service")
    assert metric(host, "backup_restore_test", "backup_restore_test_failed") == 0
