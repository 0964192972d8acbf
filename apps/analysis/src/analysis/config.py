"""What an operator can set, with the defaults of a host of our own."""

from pathlib import Path

import msgspec

APP = "analysis"


class AnalysisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """The settings of all analysis jobs.

    Each comes from `/etc/ooni/analysis.toml` or from the environment as `OONI_ANALYSIS_<NAME>`; the environment wins.
    """

    db_uri: str = "postgresql:///ooni"
    """Connection string of the PostgreSQL database. Making partitions needs the role that owns the tables."""

    statement_timeout_s: float = 900.0
    """Seconds after which the database gives up on one statement; a statement reads one day of measurements at most."""

    lock_timeout_s: float = 4.0
    """Seconds that a statement waits for a lock, so that nobody queues behind it for longer."""

    attempts: int = 5
    """How often a transaction is tried that other transactions got in the way of."""

    counters_window_days: int = 8
    """`update-counters` compares this many days of measurement start each time: today and the days before it."""

    counters_sweep_days: int = 4
    """`update-counters` also compares this many days outside the window each time, going round all of them in turn; 0
    for none."""

    partitions_months_ahead: int = 12
    """`ensure-partitions` makes the monthly partitions up to this many months from now."""

    state_directory: str = "/var/lib/analysis"
    """Where jobs remember how far they got."""

    metrics_directory: str = ""
    """Directory that the node exporter's textfile collector reads; empty for no metrics."""

    log_level: str = "INFO"
    """Least severe log level that is written: DEBUG, INFO, WARNING or ERROR."""

    @property
    def state_root(self) -> Path:
        """The state directory as a path."""
        return Path(self.state_directory)

    def problem(self) -> str | None:
        """Return what is wrong with these settings, as a sentence; None when nothing is."""
        for name, least in (
            ("attempts", 1),
            ("counters_window_days", 1),
            ("counters_sweep_days", 0),
            ("partitions_months_ahead", 1),
        ):
            value = getattr(self, name)
            if value < least:
                return f"The setting {name} is {value}; set it to {least} or more."
        for name in ("statement_timeout_s", "lock_timeout_s"):
            if not getattr(self, name) > 0:
                return f"The setting {name} is {getattr(self, name)}; set it to a number of seconds above 0."
        return None
