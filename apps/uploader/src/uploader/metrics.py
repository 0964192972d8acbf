"""Every metric of the uploader.

A run is short, so its metrics go to a text file that the node exporter reads. Counters continue from the previous
file: each run adds to what the earlier ones counted.
"""

import os
from pathlib import Path

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from uploader.verify import KINDS, Result

STEPS = ("compare", "plan", "pack", "put", "commit", "remove")


class Metrics:
    """The metrics of one run, in a registry of their own."""

    def __init__(self) -> None:
        """Make all metrics, at zero."""
        self.registry = CollectorRegistry()
        self.measurements = self._counter("uploader_measurements", "Measurements archived.")
        self.postcans = self._counter("uploader_postcans", "Batches archived: one postcan and one jsonl object each.")
        self.bytes = self._counter("uploader_bytes", "Bytes of archives uploaded.")
        self.quarantined = self._counter("uploader_quarantined", "Damaged or oversize spool files set aside.")
        self.returned = self._counter(
            "uploader_returned", "Spool files that came back after they were archived, deleted again."
        )
        self.undecodable = self._counter("uploader_undecodable", "Bodies archived without a document.")
        self.failures = Counter(
            "uploader_failures",
            "Failures, by step; retries that helped count as well.",
            ["step"],
            registry=self.registry,
        )
        for step in STEPS:
            self.failures.labels(step)
        self.run_duration = self._gauge("uploader_run_duration_seconds", "Duration of the last run.")
        self.last_success = self._gauge(
            "uploader_last_success_timestamp_seconds", "When a run last ended without a failure, in Unix time."
        )
        self.backlog_files = self._gauge(
            "uploader_backlog_files", "Scored measurements still in the spool after the last run."
        )
        self.backlog_oldest = self._gauge(
            "uploader_backlog_oldest_seconds", "Age of the oldest of them at that time, 0 when there is none."
        )

    def _counter(self, name: str, text: str) -> Counter:
        return Counter(name, text, registry=self.registry)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def restore(self, path: Path) -> None:
        """Continue from the file of the previous run; an absent or unreadable one counts as zeros."""
        try:
            families = list(text_string_to_metric_families(path.read_text("utf-8")))
        except (OSError, ValueError):
            return
        values = {
            (sample.name, sample.labels.get("step")): sample.value for family in families for sample in family.samples
        }
        for counter in (
            self.measurements,
            self.postcans,
            self.bytes,
            self.quarantined,
            self.returned,
            self.undecodable,
        ):
            [family] = counter.describe()
            counter.inc(max(0.0, values.get((f"{family.name}_total", None), 0.0)))
        for step in STEPS:
            self.failures.labels(step).inc(max(0.0, values.get(("uploader_failures_total", step), 0.0)))
        self.last_success.set(values.get(("uploader_last_success_timestamp_seconds", None), 0.0))

    def write(self, path: Path) -> None:
        """Replace the text file in one step, readable for the node exporter.

        Raises:
            OSError: the directory cannot be written.
        """
        _write(self.registry, path)


class VerifyMetrics:
    """What the last `uploader verify` found, in a file of its own beside that of the runs."""

    def __init__(self) -> None:
        """Make all metrics, at zero."""
        self.registry = CollectorRegistry()
        self._left = Gauge(
            "uploader_verify_differences",
            "Differences between spool, manifest, rows and objects that the last `uploader verify` left, by kind.",
            ["kind"],
            registry=self.registry,
        )
        self._measurements = self._gauge("uploader_verify_measurements", "Archived measurements that it compared.")
        self._undecided = self._gauge(
            "uploader_verify_undecided_bodies", "Bodies that it did not find while a peer did not answer."
        )
        self._last_run = self._gauge(
            "uploader_verify_last_run_timestamp_seconds", "When it last came to its end, in Unix time."
        )
        for kind in KINDS:
            self._left.labels(kind)

    def _gauge(self, name: str, text: str) -> Gauge:
        return Gauge(name, text, registry=self.registry)

    def write(self, runs: Path, result: Result) -> None:
        """Write what a comparison found beside the file of the runs.

        Raises:
            OSError: the directory cannot be written.
        """
        for kind in KINDS:
            self._left.labels(kind).set(result.found[kind] - result.repaired[kind])
        self._measurements.set(result.measurements)
        self._undecided.set(result.undecided)
        self._last_run.set_to_current_time()
        _write(self.registry, runs.with_name(f"{runs.stem}_verify.prom"))


def text(registry: CollectorRegistry) -> bytes:
    """Return the exposition format, without the times of creation: these would be those of this run."""
    lines = generate_latest(registry).decode().splitlines(keepends=True)
    return "".join(line for line in lines if "_created" not in line).encode()


def _write(registry: CollectorRegistry, path: Path) -> None:
    temporary = path.with_name(f"{path.name}.{os.getpid()}")  # the collector reads only *.prom
    temporary.write_bytes(text(registry))
    temporary.chmod(0o644)
    temporary.rename(path)
