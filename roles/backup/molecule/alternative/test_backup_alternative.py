"""Encrypted backups elsewhere, and a check of our own on what was restored."""

import time

from testinfra.host import Host


def test_backups_are_unreadable_without_the_passphrase(host: Host) -> None:
    wait = "systemctl show --property=ActiveState --value backup@full.service backup-restore-test.service"
    deadline = time.monotonic() + 120
    while "activating" in host.check_output(wait) and time.monotonic() < deadline:
        time.sleep(1)
    assert host.check_output("systemctl show --property=Result --value backup-restore-test.service") == "success"
    assert host.file("/srv/backups/backup/main/latest").exists
    assert host.check_output("head --bytes=8 /srv/backups/backup/main/backup.info") == "Salted__"
    host.check_output("sed /cipher/d /etc/pgbackrest.conf > /srv/open.conf")
    host.check_output("install --directory --owner=postgres --mode=700 /srv/thief /srv/owner")
    restore = "runuser -u postgres -- pgbackrest --config={} --stanza=main --pg1-path={} restore"
    assert host.run(restore.format("/srv/open.conf", "/srv/thief")).rc != 0
    assert host.file("/srv/thief").listdir() == []
    host.check_output(restore.format("/etc/pgbackrest.conf", "/srv/owner"))


def test_restored_databases_must_answer_as_configured(host: Host) -> None:
    host.check_output('runuser -u postgres -- psql -qd proof -c "DELETE FROM proof WHERE n = 1"')
    host.check_output("runuser -u postgres -- pgbackrest --stanza=main check")
    assert host.run("systemctl start backup-restore-test.service").rc != 0
    log = host.check_output("journalctl --unit=backup-restore-test.service --lines=20 --output=cat")
    assert "The restored database proof answers 'f' to: SELECT count(*) = 1000 FROM proof" in log
