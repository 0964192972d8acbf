"""The README says what there is: settings, metrics, exit codes. Metrics survive from run to run."""

import re
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from core.config import describe
from uploader import __main__ as command
from uploader.config import UploaderSettings
from uploader.metrics import STEPS, Metrics, VerifyMetrics, text

README = (Path(__file__).parents[1] / "README.md").read_text()


def test_the_readme_has_the_settings() -> None:
    assert describe(UploaderSettings, "uploader") in README


def test_the_readme_lists_each_metric() -> None:
    listed = set(re.findall(r"^\| `(uploader_[a-z_]+)(?:\{\w+\})?` \|", README, re.MULTILINE))
    samples = {
        sample.name
        for metrics in (Metrics(), VerifyMetrics())
        for family in text_string_to_metric_families(text(metrics.registry).decode())
        for sample in family.samples
    }
    assert listed == samples


def test_the_readme_lists_each_step_and_exit_code() -> None:
    for step in STEPS:
        assert f"`{step}`" in README
    listed = set(re.findall(r"^\| (\d+) \|", README, re.MULTILINE))
    codes = [getattr(command, name) for name in dir(command) if name.startswith("EXIT_")]
    assert listed == {"0", *map(str, codes)}


def test_steps_counted_in_the_program_are_declared() -> None:
    source = "".join(path.read_text() for path in Path(command.__file__).parent.glob("*.py"))
    used = set(re.findall(r'(?:_step = |failures\.labels\()"(\w+)"', source))
    assert used == set(STEPS)


def test_counters_continue_from_run_to_run(host) -> None:
    host.receive_many(2)
    host.succeed()
    first = host.metric("uploader_bytes_total")
    assert first > 0
    host.receive_many(3, cc="BR")
    host.succeed()
    assert host.metric("uploader_measurements_total") == 5
    assert host.metric("uploader_postcans_total") == 2
    assert host.metric("uploader_bytes_total") > first
    assert host.metric("uploader_run_duration_seconds") > 0
    assert host.metric("uploader_backlog_files") == 0
    assert host.metric("uploader_backlog_oldest_seconds") == 0
    assert "_created" not in host.textfile.read_text()
    assert host.textfile.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in host.root.glob("uploader.prom*")] == ["uploader.prom"]


def test_a_damaged_textfile_starts_from_zero(host) -> None:
    host.textfile.write_bytes(b"\xff{{{ nonsense")
    host.receive_many(2)
    host.succeed()
    assert host.metric("uploader_measurements_total") == 2


def test_a_textfile_that_cannot_be_written_fails_the_run_but_archives(host) -> None:
    host.receive_many(2)
    done = host.run(OONI_UPLOADER_METRICS_TEXTFILE=str(host.root / "absent" / "x.prom"))
    assert done.returncode == 1
    assert "metrics_textfile" in done.stderr
    assert len(host.rows()) == 2


def test_the_previous_success_is_kept_when_a_run_fails(host) -> None:
    host.receive_many(1)
    host.succeed()
    success = host.metric("uploader_last_success_timestamp_seconds")
    host.receive_many(1, cc="BR")
    assert host.run(OONI_UPLOADER_DB_URI="host=127.0.0.1 port=1 dbname=x").returncode == 1
    assert host.metric("uploader_last_success_timestamp_seconds") == success
