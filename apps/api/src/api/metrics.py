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
SPOOL_PUT_FAILURES = Counter("api_spool_put_failures", "Measurements refused because the spool failed.", ["reason"])
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
REQUESTS = Counter("api_requests", "Requests answered, by endpoint and class of status.", ["endpoint", "status"])
REQUEST_SECONDS = Histogram(
    "api_request_seconds",
    "Time to answer a request, by endpoint.",
    ["endpoint"],
    buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
)
CONNECTIONS_CUT = Counter("api_connections_cut", "Connections cut off because a request took too long.")
