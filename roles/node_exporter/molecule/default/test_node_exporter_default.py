"""Text files of jobs, tried with files that a test may leave only in a container."""

from collections.abc import Callable

import pytest
from testinfra.host import Host

JOB = "/var/lib/some-job/metrics"


@pytest.fixture
def metrics(host: Host, fetch: Callable) -> Callable[[], str]:
    return lambda: fetch(host, "/metrics", port=9100, tls=False).text


def test_a_job_of_another_user_publishes_by_leaving_a_file(host: Host, metrics: Callable[[], str]) -> None:
    host.check_output(f"install -d -m 0755 {JOB} && chown nobody {JOB}")
    text = "# TYPE some_job_last_success_timestamp_seconds gauge\nsome_job_last_success_timestamp_seconds 1700000000\n"
    host.check_output(f"runuser -u nobody -- sh -c 'printf \"{text}\" > {JOB}/some.prom && chmod 644 {JOB}/some.prom'")
    page = metrics()
    assert "\nsome_job_last_success_timestamp_seconds 1.7e+09\n" in page
    assert f'node_textfile_mtime_seconds{{file="{JOB}/some.prom"}}' in page
    assert "\nnode_textfile_scrape_error 0\n" in page


def test_a_damaged_file_is_reported_and_hides_nothing_else(host: Host, metrics: Callable[[], str]) -> None:
    host.check_output(f"install -d -m 0755 {JOB} && printf 'half_a_line{{' > {JOB}/damaged.prom")
    page = metrics()
    assert "\nnode_textfile_scrape_error 1\n" in page
    assert "\nnode_load1 " in page
    host.check_output(f"rm {JOB}/damaged.prom")
    assert "\nnode_textfile_scrape_error 0\n" in metrics()


def test_a_failed_unit_is_visible(host: Host, metrics: Callable[[], str]) -> None:
    host.run("systemd-run --unit=doomed --property=Type=exec false; sleep 1")
    assert 'node_systemd_unit_state{name="doomed.service",state="failed",type="exec"} 1' in metrics()
    host.check_output("systemctl reset-failed doomed")
    assert 'name="doomed.service"' not in metrics()
