"""Every metric that the daemon exports; the README lists them with the same names.

What the original system sent by StatsD (the wire contract, 14) is here under other names:

    full_run, score_measurement, score_…   fastpath_score_seconds{test_name}
    match_fingerprints                     fastpath_match_seconds
    prepare_fingerprints                   fastpath_fingerprints_prepare_seconds
    fetch_fingerprints                     fastpath_fingerprints_fetch_seconds
    clickhouse_upsert, …_summary           fastpath_write_seconds
    clickhouse_upsert_openvpn_obs          fastpath_openvpn_observations_total (in the same transaction)
    queue_size                             fastpath_queue_size
    num_workers                            fastpath_workers
    shut_down, joined                      fastpath_worker_exits_total{reason}
    worker_exception                       fastpath_unhandled_exceptions_total{part="worker"}
    discarded_measurement                  fastpath_measurements_total{outcome="discarded"}
    unhandled_exception                    fastpath_unhandled_exceptions_total{part="scorer"}

There is no offset of each body match (the automaton does not keep it), and no cache of this daemon to clean.
"""

from prometheus_client import Counter, Gauge, Histogram

SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SCORE_BUCKETS = (0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1, 1.0, 10.0)
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
SCORE_SECONDS = Histogram(
    "fastpath_score_seconds",
    "Time to read and score one measurement that got a row, by test (other: one without a rule).",
    ["test_name"],
    buckets=SCORE_BUCKETS,
)
SCORED_BYTES = Counter("fastpath_scored_bytes_total", "Bytes of the bodies that were scored.")
MATCH_SECONDS = Histogram(
    "fastpath_match_seconds",
    "Time that the search for fingerprints took in one measurement that has HTTP answers.",
    buckets=SCORE_BUCKETS,
)
WORKERS = Gauge("fastpath_workers", "Scoring processes that run.")
WORKER_EXITS = Counter(
    "fastpath_worker_exits_total",
    "Scoring processes that ended: died, stuck (killed, or ended itself over a measurement that took too long), "
    "recycled (it had grown), stopped (with the daemon).",
    ["reason"],
)
WORKER_RESIDENT = Gauge(
    "fastpath_worker_resident_bytes", "Memory of each scoring process after its last batch.", ["worker"]
)
SUSPECTS = Gauge("fastpath_suspects", "Measurements that ended a scoring process and wait to be scored alone.")
OPENVPN_OBSERVATIONS = Counter("fastpath_openvpn_observations_total", "Rows of obs_openvpn written.")
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
FINGERPRINTS_FETCH_SECONDS = Gauge(
    "fastpath_fingerprints_fetch_seconds", "Time that the last fetch of the fingerprints from the database took."
)
FINGERPRINTS_PREPARE_SECONDS = Gauge(
    "fastpath_fingerprints_prepare_seconds", "Time that the last compilation of the fingerprints took."
)
QUARANTINED = Counter(
    "fastpath_quarantined_total",
    "Measurements set aside: torn (damaged file), rejected (no row possible), refused (by the database), poison (it "
    "ended two scoring processes).",
    ["reason"],
)
SPOOL_FILES = Gauge("fastpath_spool_files", "Measurements in the spool, by state.", ["state"])
QUARANTINE_FULL = Gauge(
    "fastpath_quarantine_full",
    "1 when no more measurements can be set aside: they wait in their place.",
)
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
for _reason in ("torn", "rejected", "refused", "poison"):
    QUARANTINED.labels(_reason)
for _kind in ("dns", "http"):
    FINGERPRINTS.labels(_kind)
for _part in ("worker", "sweeper", "fingerprints", "scorer"):
    UNHANDLED.labels(_part)
for _reason in ("died", "stuck", "recycled", "stopped"):
    WORKER_EXITS.labels(_reason)

# Reruns run in a process of their own, with an endpoint of their own.
RERUN_MEASUREMENTS = Counter(
    "fastpath_rerun_measurements_total",
    "Measurements of a rerun, by outcome of scoring (row, discarded, rejected, internal_error) and of writing (new, "
    "existing, replaced; fallback and refused by the database).",
    ["outcome"],
)
RERUN_OBJECTS = Counter("fastpath_rerun_objects_total", "Objects that a rerun went through, by outcome.", ["outcome"])
RERUN_BYTES = Counter("fastpath_rerun_bytes_total", "Size of these objects in the store.")
RERUN_PROGRESS = Gauge("fastpath_rerun_progress_ratio", "How much of its range a rerun has done, on all hosts.")
RERUN_ETA = Gauge("fastpath_rerun_eta_timestamp_seconds", "When a rerun is expected to end; 0 when that is unknown.")
RERUN_RATE = Gauge("fastpath_rerun_measurements_per_second", "Speed of a rerun on this host since its start.")

for _outcome in ("row", "discarded", "rejected", "new", "existing", "replaced", "fallback", "refused"):
    RERUN_MEASUREMENTS.labels(_outcome)
for _outcome in ("done", "failed"):
    RERUN_OBJECTS.labels(_outcome)
