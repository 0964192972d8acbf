"""What every host with certificates promises."""

import time

import pytest
from testinfra.host import Host

DIRECTORY = "/etc/ssl/services"
METRICS = "/var/lib/tls/metrics/tls.prom"


def names(host: Host) -> list[str]:
    """Return the names of the host's certificates."""
    lines = host.file("/etc/tls/certificates").content_string.splitlines()
    return [line.split()[1] for line in lines if not line.startswith("#")]


def test_every_certificate_is_there_with_its_key(host: Host) -> None:
    assert names(host)
    for name in names(host):
        base = f"{DIRECTORY}/{name}"
        assert host.check_output(f"openssl pkey -in {base}/privkey.pem -pubout") == host.check_output(
            f"openssl x509 -in {base}/fullchain.pem -noout -pubkey"
        )
        assert name in host.check_output(f"openssl x509 -in {base}/fullchain.pem -noout -ext subjectAltName")


def test_private_keys_are_for_root_and_the_group_of_services_only(host: Host) -> None:
    for name in names(host):
        for file in ("privkey.pem", "combined.pem"):
            found = host.file(f"{DIRECTORY}/{name}/{file}")
            assert (found.user, found.group, found.mode) == ("root", "ssl-cert", 0o640)


def test_certificates_last_longer_than_the_next_renewal(host: Host) -> None:
    for name in names(host):
        assert host.run(f"openssl x509 -in {DIRECTORY}/{name}/fullchain.pem -noout -checkend {7 * 86400}").rc == 0


def test_expiry_is_told_in_real_seconds(host: Host) -> None:
    lines = host.file(METRICS).content_string.splitlines()
    for name in names(host):
        told = next(
            line for line in lines if line.startswith(f'tls_certificate_expiry_timestamp_seconds{{name="{name}"')
        )
        end = host.check_output(f"openssl x509 -in {DIRECTORY}/{name}/fullchain.pem -noout -enddate").removeprefix(
            "notAfter="
        )
        assert float(told.split()[-1]) == float(host.check_output(f"date --date='{end}' +%s"))
    last_run = next(line for line in lines if line.startswith("tls_renewal_last_run_timestamp_seconds"))
    assert abs(float(last_run.split()[-1]) - time.time()) < 7 * 3600


def test_renewal_is_looked_after_every_day(host: Host) -> None:
    timer = host.service("tls-renew.timer")
    assert timer.is_enabled
    assert timer.is_running


def test_renewal_works_within_its_sandbox(host: Host) -> None:
    before = host.file(METRICS).mtime
    host.check_output("systemctl start tls-renew.service")
    assert host.check_output("systemctl show --value --property Result tls-renew.service") == "success"
    assert host.file(METRICS).mtime >= before


def test_renewal_is_locked_in(host: Host) -> None:
    score = host.check_output("systemd-analyze security --no-pager tls-renew.service | tail -1")
    assert float(score.split(": ")[1].split()[0]) <= 2.0


@pytest.mark.parametrize("change", ["-days 1", "-subj /CN=somebody.else"])
def test_key_of_another_certificate_is_refused(host: Host, change: str) -> None:
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes"
    host.check_output(f"{make} -subj /CN=x {change} -keyout /run/x.key -out /run/x.pem 2>/dev/null")
    host.check_output(f"{make} -subj /CN=x -keyout /run/y.key -out /run/y.pem 2>/dev/null")
    tried = host.run("tls-install test.invalid /run/y.key /run/x.pem")
    host.check_output("rm -rf /run/x.key /run/x.pem /run/y.key /run/y.pem /etc/ssl/services/test.invalid")
    assert tried.rc == 1
    assert "does not belong to its certificate" in tried.stderr
