"""What probes are asked to measure: URLs of the test lists, those first that are wanted most and were measured least.

Requests work with what is in memory. One thread per worker looks now and then whether lists or rules changed; the
counters of a network are read when somebody of that network asks, about once a minute, by two threads in the
background, while requests go on with the counts before. Only for a network that nobody asked for lately, a request
waits, and at most `PATIENCE_S`; others that come meanwhile wait for the same reading. Readings are bounded, and so are
requests that wait at the same time: what comes above goes on without counts, so that a slow database costs no threads.

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
from api.url_counts import UrlNumbers
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

MOST_READINGS = 64
MOST_WAITING = 4
"""Requests of a worker that wait for counters at the same time, unless it is told otherwise."""

_KEPT_NETWORKS = 2048
_KEPT_BYTES = 200_000_000

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
        most_waiting: int = MOST_WAITING,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """Read from `queries`, keep the last good lists in `directory`. Nothing is read before `start`.

        `most_waiting` is the number of requests that may wait for counters at the same time: a part of the threads.
        """
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
        self._numbers = UrlNumbers()
        self._costs: dict[tuple[str, int], int] = {}
        self._kept_bytes = 0
        self._readings: dict[tuple[str, int], Future[None]] = {}
        self._waiting = threading.BoundedSemaphore(most_waiting)
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
            self._change(TestLists(contents, "database", self._numbers))
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

    def _change(self, lists: TestLists) -> None:
        """Go over to other lists. Nobody keeps the ones before: a network that is idle would for hours."""
        with self._lock:
            countries = {cc for cc, _ in self._networks}
        for cc in countries:  # here, so that no request has to
            assert lists.candidates(cc).unmeasured is not None
        with self._lock:
            self._use(lists)
            networks = list(self._networks.values())
        for network in networks:
            network.arrange(lists)

    def _fall_back(self) -> None:
        """Use the lists of the disk or of the package, unless there are better ones in use."""
        with self._lock:
            if self._lists is not None:
                return
            self._use(url_lists.load(self._directory, self._numbers) or url_lists.sample(self._numbers))

    def _use(self, lists: TestLists) -> None:
        self._lists = lists
        URL_LIST_ENTRIES.set(len(lists))
        URL_LIST_FALLBACK.set(lists.source != "database" or lists.rules_are_default)
        if lists.rules_are_default:
            log.error("no URL has a positive priority; default rules serve until the table url_priorities is put right")
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
        key = (cc, asn)
        with self._lock:
            network = self._networks.get(key)
            if network is None:
                network = self._networks[key] = Network(cc, asn, now=self._now)
            self._networks.move_to_end(key)
        network.arrange(self.lists())
        if self._now() >= network.due_at:
            reading = self._read_counts(network)
            if reading is not None and self._now() - network.counted_at > COUNTS_USABLE_S:
                self._wait(reading)
                network.arrange(self.lists())
        self._charge(network)
        return network

    def _read_counts(self, network: Network) -> "Future[None] | None":
        """Have the counters read, unless somebody does already; None when the database is away or has enough to do."""
        key = (network.cc, network.asn)
        with self._lock:
            running = self._readings.get(key)
            if running is not None or self._away or self._stop.is_set() or len(self._readings) >= MOST_READINGS:
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
            if self._away or self._forgotten(network):  # since this was put into the queue
                return
            network.read_counts(
                lambda since, until: self._queries.counts(network.cc, network.asn, since, until), self._numbers
            )
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

    def _forgotten(self, network: Network) -> bool:
        with self._lock:
            return self._networks.get((network.cc, network.asn)) is not network

    def _wait(self, reading: "Future[None]") -> None:
        if not self._waiting.acquire(blocking=False):
            return
        try:
            reading.result(PATIENCE_S)
        except TimeoutError:
            log.warning("counters not read in time; URLs are chosen without them")
        finally:
            self._waiting.release()

    def _failed(self, error: Exception) -> None:
        """Tell it, without what the server quotes of a query; leave a database alone that is away."""
        away = isinstance(error, DatabaseUnavailable)
        self._away = self._away or away
        text = str(error) if away else type(error).__name__
        log.error("URLs are chosen with what is known already; the database failed", error=text)

    def _charge(self, network: Network) -> None:
        """Note how much memory a network takes, and forget those that nobody asked for longest if it is too much."""
        key, cost = (network.cc, network.asn), network.cost()
        with self._lock:
            if self._networks.get(key) is not network:
                return
            self._kept_bytes += cost - self._costs.get(key, 0)
            self._costs[key] = cost
            while len(self._networks) > _KEPT_NETWORKS or (self._kept_bytes > _KEPT_BYTES and len(self._networks) > 1):
                oldest, _ = self._networks.popitem(last=False)
                self._kept_bytes -= self._costs.pop(oldest, 0)
