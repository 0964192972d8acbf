"""Every metric that the fastpath exports; the README lists them with the same names."""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
LATENCY_SECONDS = (0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 3600.0, 86400.0)
ROWS = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1000)

MEASUREMENTS = Counter(
    "fastpath_measurements_total",
    "Measurements finished, by outcome: row (written), fallback (a minimal row, because the database refused the full "
    "one), duplicate (its row existed), discarded (no report id, country ZZ or network AS0: published, no row), "
    "quarantined (set aside), missing (no longer in the spool), not_written (scored with --no-write-to-db).",
    ["outcome"],
)
REQUESTS = Counter("fastpath_requests_total", "Requests answered by the intake, by HTTP status.", ["code"])
QUEUE_SIZE = Gauge("fastpath_queue_size", "Measurements waiting in memory to be scored.")
BATCH_ROWS = Histogram("fastpath_batch_rows", "Measurements in one batch.", buckets=ROWS)
BATCH_SECONDS = Histogram(
    "fastpath_batch_seconds", "Time from taking a batch to its last durable step.", buckets=SECONDS
)
SCORE_SECONDS = Histogram("fastpath_score_seconds", "Time to read and score one measurement.", buckets=SECONDS)
WRITE_SECONDS = Histogram("fastpath_write_seconds", "Time of one database transaction that succeeded.", buckets=SECONDS)
DATABASE_ERRORS = Counter(
    "fastpath_database_errors_total",
    "Failed transactions: unavailable (retried), conflict (deadlock or serialisation, retried), refused (the data).",
    ["kind"],
)
DATABASE_UP = Gauge("fastpath_database_up", "1 when the database answered the last time it was asked, else 0.")
FINGERPRINTS = Gauge("fastpath_fingerprints", "Fingerprints in use.", ["kind"])
FINGERPRINTS_LOADED = Gauge(
    "fastpath_fingerprints_loaded_timestamp_seconds", "When the fingerprints were last loaded from the database."
)
FINGERPRINTS_ERRORS = Counter(
    "fastpath_fingerprints_errors_total", "Loads of the fingerprints that failed; the former ones stayed in use."
)
QUARANTINED = Counter(
    "fastpath_quarantined_total",
    "Measurements set aside: torn (damaged file), rejected (no row possible), refused (by the database).",
    ["reason"],
)
SPOOL_FILES = Gauge("fastpath_spool_files", "Measurements in the spool, by state.", ["state"])
SPOOL_OLDEST = Gauge(
    "fastpath_spool_oldest_seconds", "Age of the oldest measurement that waits to be scored; 0 when none waits."
)
SUBMIT_TO_ROW = Histogram(
    "fastpath_submit_to_row_seconds",
    "Time from the receipt of a measurement (as its uid says) to its committed row.",
    buckets=LATENCY_SECONDS,
)
UNHANDLED = Counter(
    "fastpath_unhandled_exceptions_total", "Errors that nothing expected, by part; each is a defect.", ["part"]
)

# Series exist from the start, so that an alert on an increase sees the first one.
for _outcome in ("row", "fallback", "duplicate", "discarded", "quarantined", "missing", "not_written"):
    MEASUREMENTS.labels(_outcome)
for _kind in ("unavailable", "conflict", "refused"):
    DATABASE_ERRORS.labels(_kind)
for _reason in ("torn", "rejected", "refused"):
    QUARANTINED.labels(_reason)
for _kind in ("dns", "http"):
    FINGERPRINTS.labels(_kind)
for _part in ("worker", "sweeper", "fingerprints", "scorer"):
    UNHANDLED.labels(_part)
