"""URL selection with a real database: fairness between counts, freshness, no query when warm, no stampede."""

import fcntl
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api import url_lists, url_queries
from api.priorities import Rule
from api.url_lists import DEFAULT_PRIORITIES, TestLists
from api.url_networks import GIVEN_OUT_S, Network, counted_days
from api.url_overview import KEPT_S, UrlOverview
from api.url_queries import Contents, UrlQueries
from api.url_selection import COUNTS_REFRESH_S, UrlSelection
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

    def contents(self, known):
        self.made["contents"] += 1
        return super().contents(known)

    def counts(self, *arguments):
        self.made["counts"] += 1
        time.sleep(self.slow_s)
        return super().counts(*arguments)


def entry(number: int, cc: str = "ZZ", category: str = "NEWS") -> Entry:
    return Entry("example.org", f"https://example.org/{number:05}", cc, category)


def lists_of(*entries: Entry) -> TestLists:
    rules = [Rule(c, "*", "*", "*", priority) for priority, codes in DEFAULT_PRIORITIES for c in codes.split()]
    return TestLists(Contents("", entries, tuple(rules)), "database")


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


# Between two readings of the counters --------------------------------------------------------------------------------


@pytest.fixture
def clock() -> Clock:
    return Clock()


def network(lists: TestLists, clock: Clock, counts: dict[str, int] | None = None) -> Network:
    made = Network("IT", 1, now=clock)
    made.read_counts(lambda since, until: counts or {} if until > datetime.now(UTC).date() else {})
    made.arrange(lists)
    return made


def test_probes_take_turns_through_a_list_that_nobody_measured_yet(clock):
    """Counters alone would give all of them the same twenty."""
    made = network(lists_of(*(entry(number) for number in range(1000))), clock)
    given = Counter(url.url for _ in range(500) for url in made.give_out((), 20))
    assert len(given) == 1000
    assert set(given.values()) == {10}


def test_the_first_answer_is_that_of_the_contract(clock):
    lists = lists_of(entry(1), entry(2, category="GAME"), entry(3), entry(4, "it"), entry(5, "us"))
    made = network(lists, clock, {entry(1).url: 300})
    assert [url.url[-1] for url in made.give_out((), 3)] == ["3", "4", "2"]
    assert [url.url[-1] for url in made.in_contract_order((), 9)] == ["3", "4", "2", "1"]
    assert [url.country_code for url in made.in_contract_order((), 9)] == ["XX", "IT", "XX", "XX"]


def test_what_is_given_out_counts_like_a_measurement(clock):
    lists = lists_of(entry(1), entry(2, category="GAME"))
    made = network(lists, clock)
    # 100/0.1, then 20/0.1 before 100/1; from then on five of the one for each of the other.
    given = [made.give_out((), 1)[0].category_code for _ in range(12)]
    assert given[:2] == ["NEWS", "GAME"]
    assert Counter(given) == {"NEWS": 10, "GAME": 2}


def test_inspection_does_not_show_what_was_given_out(clock):
    made = network(lists_of(entry(1), entry(2), entry(3)), clock, {entry(3).url: 4})
    before = made.explained((), 9), made.in_contract_order((), 9)
    for _ in range(10):
        made.give_out((), 1)
    assert (made.explained((), 9), made.in_contract_order((), 9)) == before
    assert [count for _, count, _, _ in made.explained((), 9)] == [0, 0, 4]


def test_a_url_that_no_measurement_comes_of_gets_another_turn(clock):
    lists = lists_of(entry(1), entry(2, category="GAME"))
    made = network(lists, clock)
    assert [made.give_out((), 1)[0].category_code for _ in range(2)] == ["NEWS", "GAME"]
    # First both still count as measured, then only the one that was given out again, then none.
    for passed, expected in ((GIVEN_OUT_S, "NEWS"), (GIVEN_OUT_S, "GAME"), (2 * GIVEN_OUT_S, "NEWS")):
        clock.at += passed
        made.arrange(lists)
        assert made.give_out((), 1)[0].category_code == expected
    assert made.give_out((), 1)[0].category_code == "GAME"


def test_turns_are_kept_when_counters_are_read_and_lists_change(clock):
    lists = lists_of(*(entry(number) for number in range(10)))
    made = network(lists, clock)
    first = {url.url for url in made.give_out((), 5)}
    made.read_counts(lambda since, until: {})
    made.arrange(lists)
    second = {url.url for url in made.give_out((), 5)}
    made.arrange(lists_of(*(entry(number) for number in range(12))))
    assert not first & second
    assert {url.url for url in made.give_out((), 2)} == {entry(10).url, entry(11).url}


def test_categories_limits_and_rules_hold_for_turns_too(clock):
    lists = lists_of(*(entry(n, category=("NEWS", "GAME", "IGO")[n % 3]) for n in range(30)))
    made = network(lists, clock)
    assert {url.category_code for _ in range(9) for url in made.give_out({"GAME"}, 3)} == {"GAME"}
    assert len(made.give_out({"GAME"}, 25)) == 10
    assert len(made.give_out({"GAME", "NOSUCH"}, 9999)) == 10
    assert made.give_out((), 0) == made.give_out((), -1) == made.give_out({"NOSUCH"}, 5) == []
    assert len(made.give_out((), 9999)) == 30
    assert made.give_out({"MISC"}, 5) == []


@given(
    counts=st.dictionaries(st.integers(0, 19), st.integers(0, 50)),
    asked=st.lists(st.tuples(st.integers(0, 19), st.sets(st.sampled_from(("NEWS", "GAME", "IGO")))), max_size=15),
)
def test_turns_are_what_counting_at_once_would_give(counts, asked):
    """Against a program that counts each URL that it gives out and sorts everything anew each time."""
    entries = [entry(n, category=("NEWS", "GAME", "IGO")[n % 3]) for n in range(20)]
    now = {entries[number].url: count for number, count in counts.items()}
    made = network(lists_of(*entries), Clock(), now)
    priorities = {"NEWS": 100, "IGO": 40, "GAME": 20}
    now = Counter(now)
    for limit, categories in asked:
        ranked = sorted(entries, key=lambda e: -priorities[e.category_code] / max(now[e.url], 0.1))
        expected = [e.url for e in ranked if not categories or e.category_code in categories][:limit]
        assert [url.url for url in made.give_out(categories, limit)] == expected
        now.update(expected)


@pytest.mark.parametrize(
    ("today", "since", "until"),
    [
        ("2024-01-06", "2023-12-24", "2024-01-07"),  # a Saturday
        ("2024-01-07", "2023-12-31", "2024-01-14"),  # a Sunday
        ("2024-01-08", "2023-12-31", "2024-01-14"),
    ],
)
def test_the_weeks_that_count_begin_on_sundays(today, since, until):
    assert counted_days(date.fromisoformat(today)) == (date.fromisoformat(since), date.fromisoformat(until))


# With the database --------------------------------------------------------------------------------------------------


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


def test_a_changed_list_or_rule_is_seen_and_an_unchanged_one_is_not_read(filled, dsn, selection, queries):
    first = selection.lists()
    selection.refresh()
    assert selection.lists() is first
    with psycopg.connect(dsn) as connection:
        connection.execute("UPDATE url_priorities SET priority = -1 WHERE category_code = 'NEWS'")
    selection.refresh()
    assert selection.select("IT", 1, (), 10) == []
    fill(dsn, entry(7, category="GAME"))
    selection.refresh()
    assert [url.url for url in selection.select("IT", 1, (), 10)] == [entry(7).url]


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


def test_a_network_that_is_not_arranged_yet_costs_nothing():
    assert Network("IT", 1).cost() == 0


def test_networks_that_nobody_asks_for_any_more_are_forgotten(filled, selection):
    for asn in range(600):
        selection.select("IT", asn + 1, (), 5)
    settle(selection)
    assert len(selection._networks) == 512
    assert ("IT", 600) in selection._networks


def test_a_new_database_and_the_package_begin_with_the_same_rules(dsn):
    with psycopg.connect(dsn) as connection:
        found = connection.execute("SELECT category_code, cc, domain, url, priority FROM url_priorities").fetchall()
    assert sorted(found) == sorted(url_lists.sample().contents.rules)
