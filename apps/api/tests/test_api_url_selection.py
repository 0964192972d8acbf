"""URL selection with a real database: freshness, no query when warm, no stampede, bounds, outages."""

import contextlib
import fcntl
import gc
import threading
import time
import weakref
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest

from api import url_lists, url_queries, url_selection
from api.errors import ApiError
from api.kept import FAILURE_KEPT_S
from api.metrics import URL_LIST_FALLBACK
from api.url_networks import Network, counted_days
from api.url_overview import KEPT_S, UrlOverview
from api.url_queries import UrlQueries
from api.url_selection import COUNTS_REFRESH_S, MOST_READINGS, MOST_WAITING, PATIENCE_S, UrlSelection
from core.db import DatabaseUnavailable, open_pool
from core.testlists import Entry


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


class CountingQueries(UrlQueries):
    """The real queries, which also tell how often each was made."""

    def __init__(self, pool) -> None:
        super().__init__(pool)
        self.made = Counter()
        self.slow_s = 0.0
        self.free = threading.Event()
        self.free.set()

    def contents(self, known):
        self.made["contents"] += 1
        return super().contents(known)

    def counts(self, *arguments):
        self.made["counts"] += 1
        time.sleep(self.slow_s)
        assert self.free.wait(30)
        return super().counts(*arguments)

    def last_days(self, *arguments):
        self.made["last_days"] += 1
        return super().last_days(*arguments)


def entry(number: int, cc: str = "ZZ", category: str = "NEWS") -> Entry:
    return Entry("example.org", f"https://example.org/{number:05}", cc, category)


def fill(dsn: str, *entries: Entry) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM citizenlab")
        connection.cursor().executemany("INSERT INTO citizenlab VALUES (%s, %s, %s, %s)", entries)


def measured(dsn: str, url: str, number: int, *, asn: int = 1, day: date | None = None) -> None:
    """Count as the fastpath does."""
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO counters_input AS c (measurement_start_day, test_name, probe_cc, probe_asn, domain, input,"
            " measurement_count) VALUES (%s, 'web_connectivity', 'IT', %s, '', %s, %s) ON CONFLICT"
            " (measurement_start_day, key) DO UPDATE"
            " SET measurement_count = c.measurement_count + excluded.measurement_count",
            [day or datetime.now(UTC).date(), asn, url, number],
        )


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queries(dsn):
    pool = open_pool(dsn, checkout_timeout_s=3)
    yield CountingQueries(pool)
    pool.close()


@pytest.fixture
def selection(queries, tmp_path, clock):
    made = UrlSelection(queries, tmp_path, now=clock)
    made.refresh()
    yield made
    made.close()


@pytest.fixture
def filled(dsn):
    fill(dsn, *(entry(number) for number in range(50)), entry(50, "it"), entry(51, "us"))


def settle(selection: UrlSelection) -> None:
    """Wait until no counters are being read."""
    deadline = time.monotonic() + 30
    while selection._readings:
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_counters_of_the_network_decide_and_are_read_anew_without_anybody_waiting(filled, dsn, selection, clock):
    measured(dsn, entry(0).url, 5)
    measured(dsn, entry(1).url, 5, asn=2)
    measured(dsn, entry(2).url, 5, day=datetime.now(UTC).date() - timedelta(days=20))
    measured(dsn, entry(3).url, 5, day=counted_days(datetime.now(UTC).date())[0])
    assert {url.url for url in selection.select("IT", 1, (), 51)[-2:]} == {entry(0).url, entry(3).url}
    assert {url.url for url in selection.listing("IT", (), 51)[-3:]} == {entry(n).url for n in (0, 1, 3)}
    measured(dsn, entry(4).url, 100)
    assert selection.select("IT", 1, (), 51)[-1].url != entry(4).url
    clock.at += COUNTS_REFRESH_S + 1
    selection.select("IT", 1, (), 51)
    settle(selection)
    assert selection.select("IT", 1, (), 51)[-1].url == entry(4).url


def test_no_query_when_warm(filled, selection, queries):
    selection.select("IT", 1, (), 10)
    settle(selection)
    before = queries.made.copy()
    for _ in range(200):
        selection.select("IT", 1, {"NEWS"}, 10)
    assert queries.made == before


def test_many_at_once_make_one_reading(filled, selection, queries):
    queries.slow_s = 0.2
    threads = [threading.Thread(target=selection.select, args=("IT", 1, (), 10)) for _ in range(30)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert queries.made["counts"] <= 2  # finished days and recent ones


def test_a_slow_database_occupies_few_threads_and_no_memory(filled, selection, queries):
    """Each request is of a network of its own; the counters do not answer before the end."""
    queries.free.clear()
    waited = []

    def ask(asn: int) -> None:
        began = time.monotonic()
        assert len(selection.select("IT", asn, (), 5)) == 5
        waited.append(time.monotonic() - began > PATIENCE_S / 2)

    try:
        with ThreadPoolExecutor(16) as threads:
            list(threads.map(ask, range(1, 301)))
        assert len(selection._readings) == MOST_READINGS
        # Without a bound all of the first 64 networks would have been waited for.
        assert MOST_WAITING <= sum(waited) <= MOST_READINGS // 2
    finally:
        queries.free.set()
    settle(selection)


def test_counts_of_a_network_that_was_forgotten_in_the_queue_are_not_read(filled, selection, queries):
    queries.free.clear()
    try:
        for asn in (1, 2):  # what the two threads read
            selection._read_counts(selection._networks.setdefault(("IT", asn), Network("IT", asn)))
        waiting = selection._networks.setdefault(("IT", 3), Network("IT", 3))
        reading = selection._read_counts(waiting)
        del selection._networks["IT", 3]
    finally:
        queries.free.set()
    reading.result(30)
    assert waiting.counted_at == float("-inf")
    settle(selection)
    assert selection._networks["IT", 1].counted_at > 0


def test_a_changed_list_or_rule_is_seen_and_an_unchanged_one_is_not_read(dsn, selection, queries):
    fill(dsn, *(entry(number) for number in range(5)), entry(5, category="IGO"))
    selection.refresh()
    first = selection.lists()
    selection.refresh()
    assert selection.lists() is first
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE url_priorities SET priority = -1 WHERE category_code = 'NEWS'")
    selection.refresh()
    assert [url.url for url in selection.select("IT", 1, (), 10)] == [entry(5).url]
    fill(dsn, entry(7, category="GAME"))
    selection.refresh()
    assert [url.url for url in selection.select("IT", 1, (), 10)] == [entry(7).url]


@pytest.mark.parametrize("change", ["DELETE FROM url_priorities", "UPDATE url_priorities SET priority = -priority"])
def test_rules_by_which_nobody_wants_any_url_count_as_missing(filled, dsn, selection, tmp_path, change):
    with psycopg.connect(dsn) as connection:
        connection.execute(change)
    selection.refresh()
    assert len(selection.select("IT", 1, (), 99)) == 51
    assert URL_LIST_FALLBACK._value.get() == 1
    assert len(url_lists.load(tmp_path).candidates("IT")) == 51
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM url_priorities")
        connection.execute("INSERT INTO url_priorities (category_code, cc, priority) VALUES ('NEWS', 'IT', 1)")
    selection.refresh()
    assert URL_LIST_FALLBACK._value.get() == 0
    assert len(selection.select("IT", 1, (), 99)) == 51
    assert selection.select("DE", 1, (), 99) == []


def test_an_emptied_table_does_not_empty_the_list(filled, dsn, selection):
    fill(dsn)
    selection.refresh()
    assert len(selection.select("IT", 1, (), 99)) == 51


def test_the_outage_of_the_database_costs_one_wait_and_no_list(filled, dsn, selection, queries, pg_cluster, clock):
    measured(dsn, entry(0).url, 5)
    before = selection.select("IT", 1, (), 51)
    pg_cluster.stop()
    try:
        selection.refresh()
        clock.at += 10 * COUNTS_REFRESH_S
        assert selection.select("IT", 1, (), 51) == before
        made = queries.made["counts"]
        for asn in range(2, 20):
            assert len(selection.select("IT", asn, (), 51)) == 51
        assert queries.made["counts"] == made
    finally:
        pg_cluster.start()


def test_the_last_good_list_is_written_by_one_and_read_after_a_restart(filled, selection, queries, tmp_path):
    path = tmp_path / url_lists.FILE_NAME
    written = path.stat()
    again = UrlSelection(queries, tmp_path)
    again.refresh()
    assert path.stat() == written
    loaded = url_lists.load(tmp_path)
    assert loaded is not None
    assert loaded.contents == selection.lists().contents
    again.close()


def test_while_one_worker_writes_the_file_the_others_try_again_later(filled, selection, queries, tmp_path, dsn):
    other = UrlSelection(queries, tmp_path)
    with open(tmp_path / f".{url_lists.FILE_NAME}.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        fill(dsn, entry(1))
        other.refresh()
        assert len(url_lists.load(tmp_path)) == 52
    other.refresh()
    assert len(url_lists.load(tmp_path)) == 1
    other.close()


def test_counters_of_a_network_are_found_by_an_index(dsn):
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            "INSERT INTO counters_input (measurement_start_day, test_name, probe_cc, probe_asn, domain, input)"
            " SELECT current_date - n % 10, 'web_connectivity', 'IT', n % 100, '', n::text"
            " FROM generate_series(1, 20000) n"
        )
        connection.execute("ANALYZE counters_input")
        days = {"since": datetime.now(UTC).date() - timedelta(days=9), "until": datetime.now(UTC).date()}
        plan = connection.execute(
            f"EXPLAIN {url_queries._COUNTS_OF_NETWORK}", {"cc": "IT", "asn": 7, **days}
        ).fetchall()
    assert any("counters_input_cc_asn_day" in line for (line,) in plan)


def test_the_overview_is_made_once_in_a_while_and_outlives_the_database(filled, queries, clock, pg_cluster):
    overview = UrlOverview(queries, now=clock)
    rows = overview.rows()
    assert len(rows) == 52
    assert overview.rows() is rows
    clock.at += KEPT_S + 1
    assert overview.rows() is not rows
    pg_cluster.stop()
    try:
        clock.at += KEPT_S + 1
        assert overview.rows() == rows
        with pytest.raises(DatabaseUnavailable):
            UrlOverview(queries, now=clock).rows()
    finally:
        pg_cluster.start()


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(url_queries, "STATEMENT_TIMEOUT_MS", 300)
    monkeypatch.setattr(url_queries, "RULES_TIMEOUT_MS", 300)


@contextlib.contextmanager
def locked(dsn: str, table: str) -> Iterator[None]:
    """Nobody else reads `table` meanwhile."""
    with psycopg.connect(dsn) as connection:
        connection.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield
        connection.rollback()


def test_an_overview_that_takes_too_long_fails_once_for_all_who_wait(filled, dsn, queries, clock, impatient):
    overview = UrlOverview(queries, now=clock)

    def ask(_number: int) -> type[Exception]:
        with pytest.raises((psycopg.errors.QueryCanceled, ApiError)) as caught:
            overview.rows()
        return type(caught.value)

    with locked(dsn, "counters_input"), ThreadPoolExecutor(8) as threads:
        assert Counter(threads.map(ask, range(8))) == {psycopg.errors.QueryCanceled: 1, ApiError: 7}
        assert queries.made["last_days"] == 1
    with pytest.raises(ApiError, match="Try again"):
        overview.rows()
    clock.at += FAILURE_KEPT_S
    rows = overview.rows()
    assert len(rows) == 52
    clock.at += KEPT_S
    with locked(dsn, "counters_input"):
        assert overview.rows() == overview.rows() == rows
    assert queries.made["last_days"] == 3


def test_reading_rules_has_a_limit(dsn, queries, impatient):
    with locked(dsn, "url_priorities"), pytest.raises(psycopg.errors.QueryCanceled):
        queries.rules()


def test_a_full_disk_costs_only_the_file(filled, queries, tmp_path):
    (tmp_path / "file").write_text("")
    made = UrlSelection(queries, tmp_path / "file" / "below")
    made.refresh()
    assert len(made.select("IT", 1, (), 99)) == 51
    made.close()


def test_networks_that_come_up_at_the_same_time_do_not_trip_over_each_other(filled, selection):
    def ask(first: int) -> set[int]:
        return {len(selection.select("IT", asn, (), 5)) for asn in range(first, first + 100)}

    with ThreadPoolExecutor(8) as threads:
        assert list(threads.map(ask, range(1, 400, 50))) == [{5}] * 8


def test_a_thousand_networks_that_ask_in_turn_are_all_remembered(filled, selection, queries):
    for asn in range(1, 1001):
        selection.select("IT", asn, (), 5)
    settle(selection)
    before = queries.made.copy()
    for _ in range(3):
        for asn in range(1, 1001):
            assert len(selection.select("IT", asn, (), 5)) == 5
    assert queries.made == before


@pytest.mark.parametrize(("bound", "value"), [("_KEPT_NETWORKS", 50), ("_KEPT_BYTES", 500_000)])
def test_networks_that_nobody_asks_for_any_more_are_forgotten(filled, selection, monkeypatch, bound, value):
    monkeypatch.setattr(url_selection, bound, value)
    for asn in range(200):
        selection.select("IT", asn + 1, (), 5)
    settle(selection)
    assert 40 < len(selection._networks) < 90
    assert ("IT", 200) in selection._networks
    assert selection._costs.keys() == selection._networks.keys()
    assert selection._kept_bytes == sum(selection._costs.values())


def test_nobody_keeps_lists_that_are_no_longer_in_use(filled, dsn, selection):
    for asn in range(1, 20):
        selection.select("IT", asn, (), 5)
    settle(selection)
    before = weakref.ref(selection.lists())
    fill(dsn, entry(1), entry(51, "it"))
    selection.refresh()
    gc.collect()
    assert before() is None
    assert len(selection.select("IT", 1, (), 9)) == 2


def test_a_new_database_and_the_package_begin_with_the_same_rules(dsn):
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT category_code, cc, domain, url, priority FROM url_priorities").fetchall()
    assert sorted(found) == sorted(url_lists.sample().contents.rules)
