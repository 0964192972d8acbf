"""What an operator can set, with the defaults of a host of our own."""

import re
from pathlib import Path

import msgspec

_COLLECTOR_ID = re.compile(r"[0-9A-Za-z-]{1,32}", re.ASCII)


class UploaderSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of the uploader.

    Each comes from `/etc/ooni/uploader.toml` or from the environment as `OONI_UPLOADER_<NAME>`; the environment wins.
    """

    collector_id: str
    """What tells this collector's objects from those of others: the API's setting of the same name. 1 to 32 letters,
    digits or `-`."""

    spool_directory: str = "/var/lib/ooniapi/measurements"
    """Root of the spool that the API, the fastpath and the uploader of this host share."""

    db_uri: str = "postgresql:///ooni"
    """Connection string of the PostgreSQL database."""

    store_url: str = "file:///var/lib/ooniapi/objects"
    """The object store: `file:///directory` or `s3://bucket[/prefix]`."""

    store_endpoint: str = ""
    """Address of an S3 service other than Amazon's, such as `https://s3.example.org`."""

    store_region: str = ""
    """Region of the S3 service; empty for AWS_REGION or the service's default."""

    store_access_key_id: str = ""
    """Access key of the S3 service; empty for AWS_ACCESS_KEY_ID or the instance's role."""

    store_secret_access_key: str = ""
    """Secret to that key; empty for AWS_SECRET_ACCESS_KEY or the instance's role."""

    read_back: bool = True
    """Read each object back after the upload and compare its checksum before anything is deleted; false compares sizes
    only, for stores where reading is dear."""

    peers: tuple[str, ...] = ()
    """Addresses of the spools of the other hosts, as in the API's settings; `verify` asks them for bodies."""

    hours_margin_s: float = 600.0
    """Seconds after the end of an hour before its measurements are packed; by then nearly all of them are in."""

    postcan_bytes: int = 20_000_000
    """A batch ends when its postcan passes this size, in bytes."""

    unpacked_bytes: int = 536_870_912
    """A batch also ends when its bodies add up to more than this, in bytes, so that an hour of highly compressible
    bodies does not end up in one huge object."""

    attempts: int = 5
    """How often a step is tried while the object store or the database is unavailable, before the run gives up."""

    retry_min_s: float = 1.0
    """Pause in seconds before the second attempt; it doubles with each one."""

    retry_max_s: float = 30.0
    """Longest pause in seconds between two attempts."""

    statement_timeout_s: float = 60.0
    """Seconds after which the database gives up on one statement."""

    metrics_textfile: str = ""
    """File for the metrics, in a directory that the node exporter's textfile collector reads; empty for none."""

    log_level: str = "INFO"
    """Least severe log level that is written: DEBUG, INFO, WARNING or ERROR."""

    @property
    def spool_root(self) -> Path:
        """The spool's root as a path."""
        return Path(self.spool_directory)

    def problem(self) -> str | None:
        """Return what is wrong with these settings, as a sentence; None when nothing is."""
        if not _COLLECTOR_ID.fullmatch(self.collector_id):
            return (
                f'The setting collector_id is "{self.collector_id}"; it must be 1 to 32 letters, digits or "-". Set it '
                "in /etc/ooni/uploader.toml or as OONI_UPLOADER_COLLECTOR_ID to the API's collector_id."
            )
        if self.attempts < 1:
            return f"The setting attempts is {self.attempts}; set it to 1 or more."
        return None
