"""What an operator can set, with the defaults of a host of our own."""

import os
from pathlib import Path
from typing import Literal

import msgspec


class FastpathSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the fastpath daemon.

    Each comes from `/etc/ooni/fastpath.toml` or from the environment as `OONI_FASTPATH_<NAME>`; the environment wins.
    """

    http_host: str = "127.0.0.1"
    """Address that takes measurements. Loopback: the API of the same host is the only client that needs it."""

    http_port: int = 8472
    """TCP port that takes measurements."""

    metrics_host: str = "127.0.0.1"
    """Address of the `/metrics` endpoint."""

    metrics_port: int = 8473
    """TCP port of the `/metrics` endpoint, apart from the intake so that a saturated intake can still be observed; 0
    switches the endpoint off."""

    db_uri: str = "postgresql:///ooni"
    """Connection string of the PostgreSQL database."""

    spool_directory: str = "/var/lib/ooniapi/measurements"
    """Root of the spool that the API, the fastpath and the uploader of this host share."""

    spool_min_free_bytes: int = 256 * 1024 * 1024
    """A body that comes by HTTP is refused while the spool's disk has less than this free."""

    workers: int = 0
    """Processes that score; each has a database connection in the daemon, which writes its rows. 0: one for each
    processor that the daemon may use."""

    document_limit_s: float = 30.0
    """Seconds after which a measurement that is being scored ends its process."""

    worker_memory_bytes: int = 1024 * 1024 * 1024
    """Memory that a scoring process may take for data; a measurement that needs more gets a failed row. 0: no limit."""

    worker_recycle_bytes: int = 256 * 1024 * 1024
    """A scoring process that occupies more after a batch is replaced. 0: never."""

    queue_size: int = 10_000
    """Measurements that wait in memory at most (their uids only; the bodies stay in the spool)."""

    queue_wait_s: float = 2.0
    """Seconds that a request waits for room in the queue before it is answered with 503."""

    body_limit_bytes: int = 64 * 1024 * 1024
    """Longest request body taken."""

    body_memory_bytes: int = 256 * 1024 * 1024
    """Memory for all request bodies that are being received; beyond it requests are answered with 503."""

    batch_rows: int = 500
    """Most rows in one transaction."""

    batch_linger_s: float = 0.05
    """Seconds that the first measurement of a batch waits for others."""

    sweep_interval_s: float = 5.0
    """Seconds between two sweeps of the spool for measurements that nobody announced."""

    sweep_older_than_s: float = 5.0
    """Age in seconds below which a sweep leaves a measurement to whoever is about to announce it."""

    fingerprints_refresh_s: float = 3600.0
    """Seconds between two loads of the fingerprints."""

    fingerprints_minimum: int = 1
    """Fewest DNS, and fewest HTTP, fingerprints that a load may bring; fewer count as a failed load. With 0 the daemon
    also scores without any fingerprint."""

    fingerprints_mode: Literal["declared", "reference"] = "declared"
    """How patterns match: as their authors declared, or with the peculiarities of the reference system."""

    statement_timeout_s: float = 30.0
    """Seconds after which the database gives up on one statement."""

    retry_min_s: float = 0.1
    """First pause in seconds before a batch is written again after a database error."""

    retry_max_s: float = 10.0
    """Longest pause in seconds between two attempts to write a batch."""

    shutdown_s: float = 10.0
    """Seconds that the batches in hand get when the daemon is asked to stop."""

    write_to_db: bool = True
    """When false, measurements are scored and counted but neither written nor marked as scored."""

    store_url: str = "file:///var/lib/ooniapi/objects"
    """The object store that reruns read: `file:///directory` or `s3://bucket[/prefix]`."""

    store_endpoint: str = ""
    """Address of an S3 service other than Amazon's, such as `https://s3.example.org`."""

    store_region: str = ""
    """Region of the S3 service; empty for AWS_REGION or the service's default."""

    store_access_key_id: str = ""
    """Access key of the S3 service; empty for AWS_ACCESS_KEY_ID or the instance's role."""

    store_secret_access_key: str = ""
    """Secret to that key; empty for AWS_SECRET_ACCESS_KEY or the instance's role."""

    state_directory: str = "/var/lib/fastpath"
    """Where reruns keep what `--keep-s3-cache` downloads, and how far a rerun with `--no-write-to-db` came."""

    cache_bytes: int = 20_000_000_000
    """Most that `--keep-s3-cache` keeps, in bytes; what was unused for longest goes first."""

    rerun_metrics_port: int = 8474
    """TCP port of the `/metrics` endpoint of a rerun; 0 switches it off. Without the port a rerun goes on without."""

    log_level: str = "INFO"
    """Least severe log level that is written: DEBUG, INFO, WARNING or ERROR."""

    @property
    def worker_count(self) -> int:
        """Number of scoring processes."""
        return self.workers or len(os.sched_getaffinity(0))

    @property
    def spool_root(self) -> Path:
        """The spool's root as a path."""
        return Path(self.spool_directory)
