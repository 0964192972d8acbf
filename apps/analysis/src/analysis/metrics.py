"""Every metric of the analysis jobs.

A job is short, so its metrics go to a text file of its own that the node exporter reads. The time of the last success
outlives runs that fail.
"""

import os
import time
from pathlib import Path

from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

LAST_SUCCESS = "analysis_job_last_success_timestamp_seconds"


class Metrics:
    """The metrics of one run of one job, in a registry of their own."""

    def __init__(self, job: str) -> None:
        """Make the metrics that all jobs have, and those of `job`."""
        self.job = job
        self.registry = CollectorRegistry()
        self.last_success = self._of_job(LAST_SUCCESS, "When the job last ended without a failure, in Unix time.")
        self.last_run = self._of_job(
            "analysis_job_last_run_timestamp_seconds", "When the job last ended, in Unix time."
        )
        self.duration = self._of_job("analysis_job_duration_seconds", "Duration of the job's last run.")
        self.failed = self._of_job("analysis_job_failed", "1 when the job's last run failed, else 0.")
        if job == "update-counters":
            self.counters_checked_days = self._gauge(
                "analysis_counters_checked_days", "Days whose counters the last run compared with the rows."
            )
            self.counters_checked_months = self._gauge(
                "analysis_counters_checked_months",
                "Months whose counters the last run compared with those of their days.",
            )
            self.counters_different_rows = self._gauge(
                "analysis_counters_different_rows", "Counter rows that the last run found to be wrong."
            )
            self.counters_repaired_rows = self._gauge(
                "analysis_counters_repaired_rows", "Counter rows that the last run corrected."
            )
            self.counters_refused_days = self._gauge(
                "analysis_counters_refused_days", "Days, and months, left alone because they have counters but no rows."
            )
        if job == "update-test-lists":
            self.test_list_entries = self._gauge("analysis_test_list_entries", "Entries of all test lists.")
            self.test_list_added = self._gauge("analysis_test_list_added", "Entries that the last run added.")
            self.test_list_removed = self._gauge("analysis_test_list_removed", "Entries that the last run removed.")
            self.test_list_bad_lines = self._gauge(
                "analysis_test_list_bad_lines", "Lines of the lists that the last run could not use."
            )
        if job == "ensure-partitions":
            self.partitions_made = self._gauge("analysis_partitions_made", "Partitions that the last run made.")
            self.default_rows = self._gauge(
                "analysis_default_partition_rows", "Rows in the partition for months that have none of their own."
            )

    def _of_job(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, ["job"], registry=self.registry).labels(self.job)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def file(self, directory: Path) -> Path:
        """The text file of this job in the collector's directory."""
        return directory / f"analysis_{self.job.replace('-', '_')}.prom"

    def write(self, directory: Path, *, succeeded: bool, duration_s: float) -> None:
        """Replace the job's text file in one step, readable for the node exporter.

        Raises:
            OSError: the directory cannot be written.
        """
        target = self.file(directory)
        now = time.time()
        self.duration.set(duration_s)
        self.last_run.set(now)
        self.failed.set(0 if succeeded else 1)
        self.last_success.set(now if succeeded else _last_success(target))
        temporary = target.with_name(f"{target.name}.{os.getpid()}")  # the collector reads only *.prom
        try:
            temporary.write_bytes(generate_latest(self.registry))
            temporary.chmod(0o644)
            temporary.rename(target)
        finally:
            temporary.unlink(missing_ok=True)


def _last_success(path: Path) -> float:
    """The time of the last success in the previous text file; 0 when there is none or it cannot be read."""
    try:
        families = list(text_string_to_metric_families(path.read_text("utf-8")))
    except (OSError, ValueError):
        return 0.0
    return next((sample.value for family in families for sample in family.samples if sample.name == LAST_SUCCESS), 0.0)
