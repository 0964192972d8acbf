"""The thread that finds what nobody announced, and keeps an eye on the spool and the database."""

import threading
import time

import structlog

from core.spool import INCOMING, Spool
from fastpath import metrics
from fastpath.config import FastpathSettings
from fastpath.health import DatabaseHealth
from fastpath.intake import IntakeQueue
from fastpath.store import Store, Unavailable

log = structlog.get_logger(__name__)

COUNT_INTERVAL_S = 10.0
"""Seconds between two counts of the spool's files, or twenty times as long as a count takes, whichever is longer."""

PRUNE_INTERVAL_S = 3600.0
"""Seconds between two removals of the spool's empty directories."""

SHARE = 0.75
"""Part of the queue that a sweep may fill; the rest is for measurements that come in at the moment."""


class Sweeper(threading.Thread):
    """Feeds the queue from the spool: everything at start, what was missed later on, the oldest first."""

    def __init__(
        self,
        spool: Spool,
        queue: IntakeQueue,
        store: Store,
        health: DatabaseHealth,
        stop: threading.Event,
        settings: FastpathSettings,
    ) -> None:
        """Prepare the thread; `store` is used to ask whether the database answers, the result goes to `health`."""
        super().__init__(name="sweeper", daemon=True)
        self._spool = spool
        self._queue = queue
        self._store = store
        self._health = health
        self._stop_event = stop
        self._settings = settings
        self._next_look = self._next_count = 0.0
        self._next_prune = time.monotonic() + PRUNE_INTERVAL_S

    def run(self) -> None:
        """Sweep until asked to stop."""
        older_than_s = 0.0
        while not self._stop_event.is_set():
            try:
                self.look_around()
                if self._settings.write_to_db or older_than_s == 0:  # a score-only run moves nothing: once is enough
                    self.sweep(older_than_s)
            except Exception:
                metrics.UNHANDLED.labels("sweeper").inc()
                log.exception("sweep failed, the next one tries again")
            older_than_s = self._settings.sweep_older_than_s
            self._stop_event.wait(self._settings.sweep_interval_s)
        self._store.close()

    def sweep(self, older_than_s: float) -> int:
        """Queue what waits in the spool and is not known, waiting for room; return how many were queued.

        The spool is listed one directory at a time, so memory stays bounded however long the backlog is.
        """
        limit = max(1, int(self._queue.capacity * SHARE))
        fed = 0
        for uid in self._spool.incoming(older_than_s):
            if uid in self._queue or not self._spool.path(INCOMING, uid).exists():
                continue
            while not self._queue.offer(uid, limit=limit):
                self._queue.wait_below(limit, 0.5)
                self.look_around()
                if self._stop_event.is_set():
                    return fed
            fed += 1
        if fed:
            log.info("sweep queued measurements", measurements=fed)
        return fed

    def look_around(self) -> None:
        """Refresh what is known of the database and the spool, each when it is due."""
        now = time.monotonic()
        if now >= self._next_look:
            self._next_look = now + self._settings.sweep_interval_s
            metrics.SPOOL_OLDEST.set(self._spool.oldest_incoming_s())
            self._ask_database()
        if now >= self._next_count:
            counts = self._spool.counts()
            for state in ("incoming", "scored", "quarantine"):
                metrics.SPOOL_FILES.labels(state).set(getattr(counts, state))
            metrics.QUARANTINE_FULL.set(counts.quarantine_full)
            self._next_count = now + max(COUNT_INTERVAL_S, 20 * (time.monotonic() - now))
        if now >= self._next_prune:
            self._next_prune = now + PRUNE_INTERVAL_S
            self._spool.prune()

    def _ask_database(self) -> None:
        if not self._settings.write_to_db:
            return
        try:
            self._store.ping()
        except Unavailable as error:
            self._health.failed(str(error))
        else:
            self._health.answered()
