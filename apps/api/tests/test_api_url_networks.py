"""The order of one network: fairness between two readings of the counters, and what is held in memory."""

from collections import Counter
from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.priorities import Rule
from api.url_counts import UrlNumbers
from api.url_lists import DEFAULT_PRIORITIES, TestLists
from api.url_networks import GIVEN_OUT_S, Network, counted_days
from api.url_queries import Contents
from core.testlists import Entry


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.at = 1000.0

    def __call__(self) -> float:
        return self.at


def entry(number: int, cc: str = "ZZ", category: str = "NEWS") -> Entry:
    return Entry("example.org", f"https://example.org/{number:05}", cc, category)


def lists_of(*entries: Entry, numbers: UrlNumbers | None = None) -> TestLists:
    rules = [Rule(c, "*", "*", "*", priority) for priority, codes in DEFAULT_PRIORITIES for c in codes.split()]
    return TestLists(Contents("", entries, tuple(rules)), "database", numbers)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def network(lists: TestLists, clock: Clock, counts: dict[str, int] | None = None) -> Network:
    made = Network("IT", 1, now=clock)
    made.read_counts(lambda since, until: counts or {} if until > datetime.now(UTC).date() else {}, lists.numbers)
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
    made.read_counts(lambda since, until: {}, lists.numbers)
    made.arrange(lists)
    second = {url.url for url in made.give_out((), 5)}
    made.arrange(lists_of(*(entry(number) for number in range(12)), numbers=lists.numbers))
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
    twins=st.sets(st.integers(0, 19)),
    asked=st.lists(st.tuples(st.integers(0, 19), st.sets(st.sampled_from(("NEWS", "GAME", "IGO")))), max_size=15),
)
def test_turns_are_what_counting_at_once_would_give(counts, twins, asked):
    """Against a program that counts each URL that it gives out and sorts everything anew each time.

    Some URLs are on the list of the country as well, in another category.
    """
    entries = [entry(n, category=("NEWS", "GAME", "IGO")[n % 3]) for n in range(20)]
    entries += [entry(n, "it", ("IGO", "NEWS", "GAME")[n % 3]) for n in sorted(twins)]
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


def test_what_a_network_costs_grows_with_what_is_known_of_it_and_was_given_out(clock):
    assert Network("IT", 1).cost() < 10_000
    lists = lists_of(*(entry(number) for number in range(10_000)))
    made = network(lists, clock, {entry(number).url: 1 for number in range(5000)})
    made.give_out((), 20)
    before = made.cost()
    assert 10_000 < before < 100_000
    made.give_out((), 1000)
    assert made.cost() > before + 1000 * 100
