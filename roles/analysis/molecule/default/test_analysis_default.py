"""What jobs promise together with their database."""

import pytest
from testinfra.host import Host


def psql(host: Host, query: str) -> str:
    """Return what a query gives the owner of the database."""
    return host.check_output(f'psql -XAtq -d ooni -U ooni -c "{query}"')


@pytest.mark.parametrize("job", ["ooni-update-counters", "ooni-ensure-partitions"])
def test_job_succeeds_within_its_sandbox_and_its_rights(host: Host, job: str) -> None:
    run = host.run(f"systemctl start {job}.service")
    assert run.rc == 0, host.check_output("journalctl --identifier analysis --no-pager -n 20")
    assert host.check_output(f"ls /var/lib/analysis/metrics/*{job.removeprefix('ooni-').replace('-', '*')}*")


def test_wrong_counter_is_corrected(host: Host) -> None:
    psql(
        host,
        "INSERT INTO fastpath (measurement_uid, report_id, probe_cc, probe_asn, test_name, measurement_start_time,"
        " scores, anomaly, confirmed, msm_failure)"
        " VALUES ('role-test', 'r', 'IT', 1, 'telegram', now() AT TIME ZONE 'UTC', '{}', false, false, false)"
        " ON CONFLICT DO NOTHING",
    )
    psql(host, "DELETE FROM counters_country")
    host.check_output("systemctl start ooni-update-counters.service")
    assert psql(host, "SELECT probe_cc, measurement_count FROM counters_country") == "IT|1"


def test_partition_of_a_coming_month_is_made_again(host: Host) -> None:
    name = psql(host, "SELECT 'fastpath_' || to_char(now() AT TIME ZONE 'UTC' + interval '3 months', 'YYYYMM')")
    psql(host, f"DROP TABLE {name}")
    host.check_output("systemctl start ooni-ensure-partitions.service")
    owner = f"SELECT relowner::regrole FROM pg_class WHERE oid = '{name}'::regclass"  # noqa: S608 a name of ours
    assert psql(host, owner) == "ooni"


def test_jobs_cannot_touch_measurements(host: Host) -> None:
    tried = host.run("runuser -u analysis -- psql -X -d ooni -U analysis -c 'DELETE FROM fastpath'")
    assert "permission denied" in tried.stderr
