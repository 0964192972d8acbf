"""Configuration of gunicorn, made from the settings; `ooni-api` passes it as `-c python:api.gunicorn_conf`."""

import os
import shutil
from pathlib import Path
from typing import Any

from api import APP, JOURNAL_IDENTIFIER, quota_store
from api.clock import SLOTS
from api.companions import Companions
from api.config import REQUEST_LINE_LIMIT, exported_path, listen_address, load
from api.cors import Origins
from api.quotas import Factors
from api.worker import QuietLogger, Worker
from core import log as core_log
from core.metrics import MULTIPROC_VARIABLE, forget

settings = load(exported_path())
core_log.setup(APP, settings.log_level, identifier=JOURNAL_IDENTIFIER)

wsgi_app = "api.app:create_app()"
bind = settings.bind
worker_class = Worker
workers = settings.workers
threads = settings.threads
worker_connections = max(1000, 4 * settings.threads)
graceful_timeout = settings.graceful_timeout_s
# A worker that does not even notify for this long is stuck; requests in threads do not hold it up.
timeout = 60
keepalive = 75
backlog = 1024
limit_request_line = REQUEST_LINE_LIMIT
limit_request_field_size = 8190
loglevel = settings.log_level.lower()
logger_class = QuietLogger
accesslog = None
control_socket_disable = True
preload_app = False
proc_name = "ooni-api"
# Where the heartbeat files of the workers live: rather not on a disk that may stall.
_IN_MEMORY = Path("/dev/shm")  # noqa: S108 gunicorn makes its files there safely
worker_tmp_dir = str(_IN_MEMORY) if _IN_MEMORY.is_dir() else None

Worker.request_timeout_s = settings.request_timeout_s
Worker.any_origin = Origins(settings.cors_origins).any

if settings.quotas_enabled:  # before the fork, so that all workers have the same
    _factors = Factors(settings.quota_prefix_factor, settings.quota_token_factor)
    quota_store.share(quota_store.QuotaTable(_factors, name=settings.bind))

_companions = Companions()
_slots: dict[int, int] = {}  # age of a worker (unique in the master) -> slot


def when_ready(server: Any) -> None:
    """Start the processes beside the workers: one for their metrics, one for other hosts that read the spool.

    The master looks after them whenever it looks after its workers; gunicorn has no hook for that moment.
    """
    if settings.metrics_port:
        _companions.add("metrics", "api.metrics_server", settings.metrics_host, str(settings.metrics_port))
    if settings.spool_listen:
        host, port = listen_address(settings.spool_listen)
        _companions.add("spool", "api.spool_server", host, str(port), settings.spool_directory)
    manage_workers = server.manage_workers

    def manage_all() -> None:
        _companions.tend()
        manage_workers()

    server.manage_workers = manage_all


def pre_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 gunicorn's signature
    """Give the new worker the lowest slot that no live worker has."""
    taken = set(_slots.values())
    worker.slot = next((slot for slot in range(SLOTS) if slot not in taken), worker.age % SLOTS)
    _slots[worker.age] = worker.slot


def post_fork(server: Any, worker: Any) -> None:  # noqa: ARG001 gunicorn's signature
    """Name the slot to the application factory, which runs in this process next."""
    worker.app.app_uri = f"api.app:create_app(slot={worker.slot})"


def pre_request(worker: Any, req: Any) -> None:
    """Log nothing: gunicorn's own hook writes paths at level DEBUG, with ids of probes and e-mail addresses in them."""


def child_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 gunicorn's signature
    """Free what a dead worker held: its slot and its gauges."""
    _slots.pop(worker.age, None)
    forget(worker.pid)


def worker_exit(server: Any, worker: Any) -> None:  # noqa: ARG001 gunicorn's signature
    """Finish the background work of a worker that ends."""
    app = worker.app.callable
    if app is not None:
        app.extensions[APP].close()


def on_exit(server: Any) -> None:  # noqa: ARG001 gunicorn's signature
    """Stop the processes beside the workers and remove the temporary directory of the metrics."""
    _companions.stop()
    directory = os.environ.get(MULTIPROC_VARIABLE)
    if directory and not settings.metrics_dir:
        shutil.rmtree(directory, ignore_errors=True)
