"""Every Prometheus metric of the API. Labels are bounded: endpoint names, reasons and states known in advance."""

from prometheus_client import Counter, Gauge, Histogram

MEASUREMENTS_RECEIVED = Counter(
    "api_measurements_received", "Submissions whose path or metadata was understood.", ["route"]
)
MEASUREMENTS_ACKNOWLEDGED = Counter(
    "api_measurements_acknowledged", "Submissions stored durably and answered with a measurement uid.", ["route"]
)
MEASUREMENTS_DISCARDED = Counter(
    "api_measurements_discarded", "Submissions that were not stored, by reason.", ["route", "reason"]
)
MEASUREMENTS_REPEATED = Counter(
    "api_measurements_repeated",
    "Submissions known already and answered with the uid they have, by who had taken them: this_host, another_host.",
    ["route", "taken_by"],
)
RECEIVED_BYTES = Counter("api_received_bytes", "Bytes of submission bodies as received, compressed or not.")
INFLATED_BYTES = Counter("api_inflated_bytes", "Bytes of submission bodies after decompression.")
SPOOL_PUT_SECONDS = Histogram(
    "api_spool_put_seconds",
    "Time until a measurement was durably in the spool.",
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
)
SPOOL_PUT_FAILURES = Counter(
    "api_spool_put_failures",
    "Measurements refused because the spool failed or the clock is wrong: full, disk_error, clock.",
    ["reason"],
)
REPORTS_OPENED = Counter("api_reports_opened", "Report ids handed out.")
HANDOVER = Counter("api_handover", "Hand-overs to the fastpath, by result: ok, failed, dropped.", ["result"])
HANDOVER_QUEUE = Gauge(
    "api_handover_queue", "Hand-overs that wait in the workers' queues.", multiprocess_mode="livesum"
)
BODY_SOURCE = Counter(
    "api_body_source",
    "Measurement bodies looked up, by where they lay: spool, peer, store, none, error.",
    ["source"],
)
PEER_READS = Counter("api_peer_reads", "Bodies asked of other API hosts, by result: found, absent, failed.", ["result"])
SPOOL_SERVED = Counter(
    "api_spool_served",
    "Bodies that other API hosts asked of this one, by result: found, absent, refused, failed.",
    ["result"],
)
DATABASE_FAILURES = Counter("api_database_failures", "Requests that failed in the database, by kind.", ["kind"])
QUERIES_CANCELLED = Counter("api_queries_cancelled", "Queries ended because the client that asked had left.")
REQUESTS = Counter("api_requests", "Requests answered, by endpoint and class of status.", ["endpoint", "status"])
REQUEST_SECONDS = Histogram(
    "api_request_seconds",
    "Time to answer a request, by endpoint.",
    ["endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
PROBE_CONFIG_OK = Gauge(
    "api_probe_config_ok",
    "Whether a file of the probe configuration can be used as it lies there now: 1, or 0 when it is broken.",
    ["file"],
    multiprocess_mode="livemin",
)
PROBE_CONFIG_EXAMPLES = Gauge(
    "api_probe_config_examples",
    "Whether probes are told the package's example addresses: 1 when there is no probe configuration.",
    multiprocess_mode="livemax",
)
CHECK_IN_URLS = Histogram(
    "api_check_in_urls",
    "URLs handed out in one check-in.",
    buckets=(0, 1, 5, 10, 20, 50, 100, 500, 1000, 2000, 5000, 10000),
)
QUOTA_REFUSALS = Counter(
    "api_quota_refusals",
    "Requests refused with 429, by the bucket that was empty: address_day, address_week, address_month, prefix_day, "
    "prefix_week, prefix_month, account_day, account_week, account_month.",
    ["bucket"],
)
QUOTA_EVICTIONS = Counter(
    "api_quota_evictions", "Addresses, prefixes or accounts forgotten before their quota was full: the table was full."
)
QUOTA_UNKNOWN_ADDRESSES = Counter(
    "api_quota_unknown_addresses", "Requests let through without a quota because their client's address is not known."
)
QUOTA_TRACKED = Gauge(
    "api_quota_tracked_addresses",
    "Addresses whose quota is not full at the moment.",
    multiprocess_mode="mostrecent",
)
GEO_LOOKUPS = Counter(
    "api_geo_lookups",
    "Addresses looked up, by database (country, asn) and result: found, not_found, failed.",
    ["database", "result"],
)
GEO_DATABASE_OK = Gauge(
    "api_geo_database_ok",
    "Whether a configured geolocation database is in use as it lies on the disk: 1, or 0 when it is missing or broken.",
    ["database"],
    multiprocess_mode="livemin",
)
GEO_DATABASE_BUILT = Gauge(
    "api_geo_database_build_timestamp_seconds",
    "Time when the geolocation database in use was made, in Unix seconds.",
    ["database"],
    multiprocess_mode="livemin",
)
PROBE_LOGINS = Counter("api_probe_logins", "Logins of probes, by result: ok, legacy, refused.", ["result"])
LOGIN_MAILS = Counter(
    "api_login_mails",
    "Login links asked for, by what became of the mail: sent, held_back (too many to one account), too_many (to all "
    "together), busy, failed.",
    ["result"],
)
for _result in ("sent", "held_back", "too_many", "busy", "failed"):  # so that the first failure is an increase
    LOGIN_MAILS.labels(_result)
LOGINS = Counter("api_logins", "Login links followed, by result: ok, refused.", ["result"])
PROBE_PLACE = Counter(
    "api_probe_place",
    "Submissions, by whether the client's address is where they say: match, cc_differs, asn_differs, both_differ, "
    "unknown.",
    ["result"],
)
CONNECTIONS_CUT = Counter("api_connections_cut", "Connections cut off because a request took too long.")
COMPANION_RESTARTS = Counter(
    "api_companion_restarts",
    "Processes beside the workers that ended and were started again, by process: metrics, spool.",
    ["process"],
)
URL_LIST_ENTRIES = Gauge(
    "api_url_list_entries", "Entries of the test lists in use; the least of all workers.", multiprocess_mode="livemin"
)
URL_LIST_FALLBACK = Gauge(
    "api_url_list_fallback",
    "1 while a worker uses test lists of the disk or of the package, or default rules, instead of the database's.",
    multiprocess_mode="livemax",
)
URL_LIST_READS = Counter("api_url_list_reads", "Looks at the test lists in the database, by result.", ["result"])
URL_LIST_SAVE_FAILURES = Counter("api_url_list_save_failures", "Test lists that could not be written to disk.")
URL_COUNTS_READ = Counter("api_url_counts_read", "Readings of the counters of a network, by result.", ["result"])
TEST_LIST_URLS = Histogram(
    "api_test_list_urls",
    "URLs handed out in one reply of test-list/urls.",
    buckets=(0, 1, 5, 10, 20, 50, 100, 500, 1000, 2000, 5000, 10000),
)
TEST_LIST_FETCHES = Counter(
    "api_test_list_fetches", "Refreshes of the clone of the test lists, by result: ok, failed.", ["result"]
)
TEST_LIST_SUBMISSIONS = Counter(
    "api_test_list_submissions",
    "Submissions of changes to the test lists, by result: opened, conflict, failed.",
    ["result"],
)
