"""The ranking of URLs against the rules of the contract, as a naive program does it."""

from hypothesis import given
from hypothesis import strategies as st

from api.priorities import Candidates, Rule, Rules, weight
from api.url_counts import Counts, UrlNumbers
from core.testlists import Entry

COUNTRIES = ("IT", "US", "ZZ")
CATEGORIES = ("NEWS", "MISC", "FILE")
DOMAINS = ("a.example", "b.example")

entries = st.lists(
    st.builds(
        Entry,
        st.sampled_from(DOMAINS),
        st.integers(0, 6).map(lambda number: f"https://a.example/{number}"),
        st.sampled_from(("it", "us", "ZZ")),
        st.sampled_from(CATEGORIES),
    ),
    max_size=20,
)
rules = st.lists(
    st.builds(
        Rule,
        st.sampled_from((*CATEGORIES, "*", "")),
        st.sampled_from((*COUNTRIES, "*", "")),
        st.sampled_from((*DOMAINS, "*", "")),
        st.sampled_from(("https://a.example/1", "https://a.example/2", "*", "")),
        st.integers(-200, 200),
    ),
    max_size=12,
)
counts = st.dictionaries(st.integers(0, 9).map(lambda number: f"https://a.example/{number}"), st.integers(0, 1000))


def arrange(listed: list[Entry], rules: list[Rule], cc: str, numbers: UrlNumbers) -> Candidates:
    arranged = Rules(rules)
    everywhere = Candidates([entry for entry in listed if entry.cc == "ZZ"], arranged, "ZZ", numbers)
    if cc == "ZZ":
        return everywhere
    return Candidates([entry for entry in listed if entry.cc.upper() == cc], arranged, cc, numbers, everywhere)


def counted(counts: dict[str, int], numbers: UrlNumbers) -> Counts:
    return Counts(dict(zip(numbers.of(counts), counts.values(), strict=True)))


def naive(candidates, rules, counts, cc, categories, limit):
    """The walk of the contract, step by step."""
    considered = [rule for rule in rules if rule.cc in (cc, "*", "")]
    ranked = []
    for entry in candidates:
        priority = 0
        for rule in considered:
            fields = (
                (rule.category_code, entry.category_code),
                (rule.domain, entry.domain),
                (rule.url, entry.url),
            )
            here = entry.cc == "ZZ" or rule.cc in ("*", "") or rule.cc.lower() == entry.cc.lower()
            if here and all(wanted in ("*", "", value) for wanted, value in fields):
                priority += rule.priority
        count = counts.get(entry.url, 0)
        ranked.append((priority / max(count, 0.1), entry, count, priority))
    ranked.sort(key=lambda item: -item[0])
    found = []
    for share, entry, count, priority in ranked:
        if len(found) == limit:
            break
        if (categories and entry.category_code not in categories) or priority <= 0:
            continue
        country = "XX" if entry.cc == "ZZ" else entry.cc.upper()
        found.append((entry.category_code, country, entry.url, count, priority, share))
    return found


@given(
    listed=entries,
    rules=rules,
    counts=counts,
    cc=st.sampled_from(COUNTRIES),
    categories=st.sets(st.sampled_from(CATEGORIES)),
    limit=st.integers(0, 25),
)
def test_the_order_is_that_of_the_contract(listed, rules, counts, cc, categories, limit):
    unique = list({(entry.url, entry.cc): entry for entry in listed}.values())
    numbers = UrlNumbers()
    candidates = arrange(unique, rules, cc, numbers)
    found = []
    for number in candidates.in_order(counted(counts, numbers)):
        url, priority = candidates.urls[number], candidates.priorities[number]
        count = counts.get(url.url, 0)
        if not categories or url.category_code in categories:
            found.append((url.category_code, url.country_code, url.url, count, priority, weight(priority, count)))
    assert found[:limit] == naive(candidates.entries, rules, counts, cc, categories, limit)


@given(
    first=st.dictionaries(st.integers(0, 300), st.sampled_from((0, 1, 255, 256, 70_000, 2**32, 2**63 - 1))),
    second=st.dictionaries(st.integers(0, 300), st.integers(0, 3)),
)
def test_counts_are_held_whatever_their_size(first, second):
    counts = Counts(first)
    assert dict(counts.items()) == {number: count for number, count in first.items() if count}
    assert counts.same(Counts(dict(reversed(first.items()))))
    total = counts.plus(Counts(second))
    assert total.same(counts) == (not any(second.values()))
    assert [total.of(number) for number in range(302)] == [
        first.get(number, 0) + second.get(number, 0) for number in range(302)
    ]


def test_the_worked_check_of_the_contract():
    rules = [Rule("MISC", "*", "*", "*", 20), Rule("MISC", "US", "*", "*", -200)]
    entry = Entry("example.org", "https://example.org/", "ZZ", "MISC")
    numbers = UrlNumbers()
    counts = counted({entry.url: 38}, numbers)
    candidates = arrange([entry], rules, "US", numbers)
    assert candidates.priorities == [-180]
    assert round(weight(-180, 38), 4) == -4.7368
    assert list(candidates.in_order(counts)) == []
    elsewhere = arrange([entry], rules, "IT", numbers)
    assert list(elsewhere.in_order(counts)) == [0]


def test_a_rule_for_a_country_counts_for_global_urls_there_and_nowhere_else():
    rules = Rules([Rule("*", "IT", "example.org", "*", 5), Rule("", "", "", "", 1)])
    entry = Entry("example.org", "https://example.org/", "ZZ", "NEWS")
    assert [rules.priority(entry, cc) for cc in ("IT", "US", "ZZ")] == [6, 1, 1]
    assert len(rules.considered("IT")) == 2
    assert len(rules.considered("US")) == 1
