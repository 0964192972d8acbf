"""What probes are asked to measure: URLs of the test lists, those first that are wanted most and were measured least.

Requests work with what is in memory. One thread per worker looks now and then whether lists or rules changed; the
counters of a network are read when somebody of that network asks, about once a minute, by two threads in the
background, while requests go on with the counts before. Only for a network that nobody asked for lately, a request
waits, and at most `PATIENCE_S`; others that come meanwhile wait for the same reading.

When the database is away, lists, rules and counts stay as they were; after a restart the lists of the file on disk
serve, or those of the package (see `url_lists`), and no request waits for a database that is known to be away.
"""

import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Collection
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psycopg
import structlog

from api import url_lists
from api.metrics import (
    URL_COUNTS_READ,
    URL_LIST_ENTRIES,
    URL_LIST_FALLBACK,
    URL_LIST_READS,
    URL_LIST_SAVE_FAILURES,
)
from api.priorities import TestUrl
from api.url_lists import TestLists
from api.url_networks import Network
from api.url_queries import UrlQueries
from core.db import DatabaseUnavailable

__all__ = ["TestUrl", "UrlSelection"]

LISTS_REFRESH_S = 30.0
COUNTS_REFRESH_S = 60.0
COUNTS_USABLE_S = 3600.0
"""Older counts are read anew before they are used, if the database is there."""

PATIENCE_S = 2.0
"""Longest time that a request waits for the database."""

AWAY_REFRESH_S = 10.0
"""While the database is away, the one thread that reads lists tries it again after this time, and nobody else does."""

FIRST_LISTS_S = 4.0
"""Longest time that the first request waits for the first lists."""

_CLOSE_PATIENCE_S = 1.0
_PAUSE_FACTOR = 20
"""Reading the counters of a network takes at most this part of the time: large countries are read less often."""

_PAUSE_AFTER_ERROR_S = 300.0

_KEPT_NETWORKS = 512
_KEPT_COST = 400_000  # some 80 MB

log = structlog.get_logger(__name__)


class UrlSelection:
    """The lists, rules and counts of one worker process."""

    def __init__(
        self,
        queries: UrlQueries,
        directory: Path,
        *,
        lists_refresh_s: float = LISTS_REFRESH_S,
        counts_refresh_s: float = COUNTS_REFRESH_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read from `queries`, keep the last good lists in `directory`. Nothing is read before `start`."""
        self._queries = queries
        self._directory = directory
        self._lists_refresh_s = lists_refresh_s
        self._counts_refresh_s = counts_refresh_s
        self._now = now
        self._lists: TestLists | None = None
        self._ready = threading.Event()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._networks: OrderedDict[tuple[str, int], Network] = OrderedDict()
        self._readings: dict[tuple[str, int], Future[None]] = {}
        self._readers = ThreadPoolExecutor(2, thread_name_prefix="url-counts")
        self._away = False
        self._unsaved = False
        self._thread = threading.Thread(target=self._keep_lists, name="url-lists", daemon=True)

    def start(self) -> None:
        """Begin to read the lists in the background."""
        self._thread.start()

    def close(self) -> None:
        """Stop reading."""
        self._stop.set()
        self._readers.shutdown(wait=False, cancel_futures=True)
        if self._thread.is_alive():
            self._thread.join(_CLOSE_PATIENCE_S)

    def select(self, cc: str, asn: int, categories: Collection[str], limit: int) -> list[TestUrl]:
        """Return the URLs that a probe shall measure now, and remember that they were given out.

        Args:
            cc: country in upper case; any other text has the global list alone.
            asn: number of the network, 0 when it is not known.
            categories: the wanted category codes, empty for all.
            limit: greatest number of URLs.

        Never raises because the database or the disk is away.
        """
        return self._network(cc, asn).give_out(categories, limit)

    def listing(self, cc: str, categories: Collection[str], limit: int) -> list[TestUrl]:
        """Return the URLs for a country by falling weight, the same for everybody. Never raises, as `select`."""
        return self._network(cc, 0).in_contract_order(categories, limit)

    def network(self, cc: str, asn: int) -> Network:
        """Return what `select` works with, for those who look into it."""
        return self._network(cc, asn)

    def lists(self) -> TestLists:
        """Return the lists and rules in use."""
        if not self._ready.wait(FIRST_LISTS_S) and self._lists is None:
            self._fall_back()
        lists = self._lists
        assert lists is not None
        return lists

    def refresh(self) -> None:
        """Look whether lists or rules changed, and take and save what is new. Falls back when nothing can be had."""
        known = self._lists.contents.digest if self._lists is not None and self._lists.source == "database" else None
        try:
            contents = self._queries.contents(known)
        except (DatabaseUnavailable, psycopg.Error) as error:
            if not self._stop.is_set():
                self._failed(error)
            URL_LIST_READS.labels("failed").inc()
            self._fall_back()
            return
        self._away = False
        URL_LIST_READS.labels("ok").inc()
        if contents is not None and not contents.entries:
            log.warning("the database holds no test list; load one with: analysis update-test-lists --from DIRECTORY")
            self._fall_back()
        elif contents is not None:
            lists = TestLists(contents, "database")
            with self._lock:
                self._use(lists)
            self._unsaved = True
        if self._unsaved:
            self._save()

    def _keep_lists(self) -> None:
        while not self._stop.is_set():
            try:
                self.refresh()
            except Exception:  # the thread must outlive a defect: without it no new list is ever seen
                log.exception("test lists not refreshed; the ones in use stay")
            self._stop.wait(AWAY_REFRESH_S if self._away else self._lists_refresh_s)

    def _fall_back(self) -> None:
        """Use the lists of the disk or of the package, unless there are better ones in use."""
        with self._lock:
            if self._lists is not None:
                return
            self._use(url_lists.load(self._directory) or url_lists.sample())

    def _use(self, lists: TestLists) -> None:
        self._lists = lists
        URL_LIST_ENTRIES.set(len(lists))
        URL_LIST_FALLBACK.set(lists.source != "database")
        log.info("test lists in use", source=lists.source, entries=len(lists), rules=len(lists.rules.rules))
        self._ready.set()

    def _save(self) -> None:
        assert self._lists is not None
        try:
            self._unsaved = not url_lists.save(self._directory, self._lists.contents)
        except OSError as error:
            URL_LIST_SAVE_FAILURES.inc()
            log.error("test lists not saved for the next outage; check state_directory", error=str(error))

    def _network(self, cc: str, asn: int) -> Network:
        """The network, with counts that are not too old and in the order of the lists in use."""
        lists = self.lists()
        key = (cc, asn)
        with self._lock:
            network = self._networks.get(key)
            new = network is None
            if network is None:
                network = self._networks[key] = Network(cc, asn, now=self._now)
            self._networks.move_to_end(key)
        if self._now() >= network.due_at:
            reading = self._read_counts(network)
            if reading is not None and self._now() - network.counted_at > COUNTS_USABLE_S:
                self._wait(reading)
        network.arrange(lists)
        if new:
            self._forget_some()
        return network

    def _read_counts(self, network: Network) -> "Future[None] | None":
        """Have the counters read, unless somebody does already; None when the database is away."""
        key = (network.cc, network.asn)
        with self._lock:
            running = self._readings.get(key)
            if running is not None or self._away or self._stop.is_set():
                return running
            reading = self._readings[key] = Future[None]()
        try:
            self._readers.submit(self._read, network, reading)
        except RuntimeError:  # closed in the meantime
            self._done(key, reading)
        return reading

    def _read(self, network: Network, reading: "Future[None]") -> None:
        began = time.monotonic()
        pause = self._counts_refresh_s
        try:
            if self._away:  # since this was put into the queue
                return
            network.read_counts(lambda since, until: self._queries.counts(network.cc, network.asn, since, until))
            network.arrange(self.lists())
            URL_COUNTS_READ.labels("ok").inc()
            pause = max(pause, _PAUSE_FACTOR * (time.monotonic() - began))
        except (DatabaseUnavailable, psycopg.Error) as error:
            URL_COUNTS_READ.labels("failed").inc()
            self._failed(error)
            if not self._away:
                pause = max(pause, _PAUSE_AFTER_ERROR_S)
        finally:
            network.due_at = self._now() + pause
            self._done((network.cc, network.asn), reading)

    def _done(self, key: tuple[str, int], reading: "Future[None]") -> None:
        with self._lock:
            self._readings.pop(key, None)
        reading.set_result(None)

    @staticmethod
    def _wait(reading: "Future[None]") -> None:
        try:
            reading.result(PATIENCE_S)
        except TimeoutError:
            log.warning("counters not read in time; URLs are chosen without them")

    def _failed(self, error: Exception) -> None:
        """Tell it, without what the server quotes of a query; leave a database alone that is away."""
        away = isinstance(error, DatabaseUnavailable)
        self._away = self._away or away
        text = str(error) if away else type(error).__name__
        log.error("URLs are chosen with what is known already; the database failed", error=text)

    def _forget_some(self) -> None:
        with self._lock:
            costs = {key: network.cost() for key, network in self._networks.items()}
            total = sum(costs.values())
            while len(self._networks) > 1 and (len(self._networks) > _KEPT_NETWORKS or total > _KEPT_COST):
                key, _ = self._networks.popitem(last=False)
                total -= costs[key]
