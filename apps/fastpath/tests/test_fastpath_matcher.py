"""The compiled matcher against the plain loops that define it."""

import re
import subprocess
import sys
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastpath.automaton import LiteralSet, PrefixSet, RegexpSet
from fastpath.expressions import literal_sequence, required_literal
from fastpath.fingerprints import FingerprintError, from_rows, load_files, parse_countries, parse_fingerprint
from fastpath.matcher import Matcher
from fastpath.shape import Base64Error, ShapeError


def row(**changes) -> dict:
    base = {
        "name": "example.one",
        "scope": "nat",
        "other_names": "",
        "location_found": "body",
        "pattern_type": "contains",
        "pattern": "blocked",
        "confidence_no_fp": 5,
        "expected_countries": "IT",
    }
    return base | changes


def matcher(*http, dns=(), mode="declared") -> Matcher:
    rows = [row(name=f"example.{number}", **changes) for number, changes in enumerate(http)]
    return Matcher(from_rows(dns, rows), mode)


def names(matches) -> list[str]:
    return [fingerprint.name for fingerprint in matches]


short_bytes = st.lists(st.sampled_from([b"a", b"b", b"ab", b"\0", b"\xff", b"\n", b"\xc3\xa9"]), max_size=4).map(
    b"".join
)


@given(st.lists(short_bytes.filter(bool), max_size=12, unique=True), short_bytes, short_bytes)
def test_literal_set_equals_the_loop(patterns, one, other) -> None:
    text = one + other
    expected = [number for number, pattern in enumerate(patterns) if pattern in text]
    assert LiteralSet(patterns).find(text) == expected
    assert LiteralSet(patterns, use_automaton=False).find(text) == expected


@given(st.lists(st.text("ab\ud800é", min_size=1, max_size=5), max_size=20), st.text("ab\ud800é", max_size=8))
def test_prefix_set_equals_the_loop(patterns, text) -> None:
    assert PrefixSet(patterns).find(text) == sorted({p for p in patterns if text.startswith(p)}, key=len)


@given(
    st.lists(
        st.sampled_from(["a.b", "a.*b", "^ab", "b$", "(a|b)b", "é", "[0-9]{2}", "a\\.b", "."]), min_size=1, unique=True
    ),
    st.text("ab.é1\n", max_size=12),
)
def test_regexp_set_equals_a_search_where_dot_is_any_character(patterns, text) -> None:
    expected = [
        i for i, pattern in enumerate(patterns) if re.search(pattern.replace("$", r"(?:\n?\Z)"), text, re.DOTALL)
    ]
    assert RegexpSet(patterns).find(text.encode(), is_utf8=True) == expected


fragments = st.sampled_from(
    [
        "a",
        "ab",
        "é",
        "\\.",
        ".",
        ".*",
        ".*",
        "[ab]",
        "[]a]",
        "(a|b)",
        "a+",
        "b?",
        "é*",
        "a{2}",
        "{",
        "a|b",
        "\\d",
        "\\x61",
    ]
)


@given(
    st.lists(st.lists(fragments, min_size=1, max_size=6).map("".join), min_size=1, max_size=4, unique=True),
    st.text("abé.1{ \n", max_size=10),
)
def test_searching_only_where_literals_occur_equals_searching_everywhere(patterns, text) -> None:
    rows = [row(name=pattern, pattern=pattern, pattern_type="regexp") for pattern in patterns]
    compiled = Matcher(from_rows([], rows))
    usable = [pattern for pattern in patterns if pattern not in {refusal.name for refusal in compiled.refused}]
    if usable:
        everywhere = RegexpSet(usable)
        for body in (text, text.encode(), text.encode() + b"\xff"):
            data, valid = (body.encode(), True) if isinstance(body, str) else (body, not body.endswith(b"\xff"))
            found = {usable[number] for number in everywhere.find(data, is_utf8=valid)} if body else set()
            assert set(names(compiled.body(body))) == found


@pytest.mark.parametrize(
    ("pattern", "literal", "sequence"),
    [
        ("blocked page", "blocked page", ("blocked page",)),
        ("one.*three", "three", ("one", "three")),
        ("U\\.S\\..*Command", "Command", ("U.S.", "Command")),
        ("don.t have", "t have", None),
        ("https?://blocked", "://blocked", None),
        ("(one|two) letters", " letters", None),
        ("one|two", None, None),
        ("(?i)blocked", None, None),
        ("\\Qa.b\\E", None, None),
        ("\\x41bcdefgh", None, None),
        ("[|]", None, None),
        (".*", None, None),
    ],
)
def test_what_an_expression_must_contain(pattern, literal, sequence) -> None:
    assert required_literal(pattern) == literal
    assert literal_sequence(pattern) == sequence


@given(
    st.lists(st.text("ab\ud800\0", min_size=1, max_size=3), min_size=1, max_size=8), st.text("ab\ud800\0", max_size=9)
)
def test_reference_body_equals_substrings_of_the_text(patterns, body) -> None:
    rows = [
        row(name=str(number), pattern=pattern, pattern_type=("contains", "full", "regexp")[number % 3])
        for number, pattern in enumerate(patterns)
    ]
    found = names(Matcher(from_rows([], rows), "reference").body(body))
    assert sorted(found) == sorted(str(number) for number, pattern in enumerate(patterns) if pattern in body)


def test_the_pattern_types_of_bodies_in_both_modes() -> None:
    patterns = [
        {"pattern": "a.c", "pattern_type": "regexp"},
        {"pattern": "<p>", "pattern_type": "full"},
        {"pattern": "<p>", "pattern_type": "contains"},
    ]
    declared, reference = matcher(*patterns), matcher(*patterns, mode="reference")
    assert names(declared.body("x a\nc")) == ["example.0"]
    assert names(declared.body(b"a\xc3\xa9c")) == ["example.0"]  # one character
    assert names(declared.body(b"\xff a\xe9c")) == ["example.0"]  # no UTF-8: one byte
    assert names(declared.body("<p>")) == ["example.1", "example.2"]
    assert names(declared.body(b"<p>")) == ["example.1", "example.2"]
    assert names(declared.body(" <p>")) == ["example.2"]
    assert names(declared.body("\ud800<p> abc")) == ["example.2", "example.0"]
    assert names(reference.body("x abc")) == []
    assert sorted(names(reference.body("a.c <p>"))) == ["example.0", "example.1", "example.2"]


def test_the_pattern_types_of_headers_in_both_modes() -> None:
    patterns = [
        {"location_found": "header.location", "pattern": "http://x.example/", "pattern_type": "full"},
        {"location_found": "header.location", "pattern": "http://x", "pattern_type": "prefix"},
        {"location_found": "header.location", "pattern": "example", "pattern_type": "contains"},
        {"location_found": "header.location", "pattern": "x.[a-z]+/$", "pattern_type": "regexp"},
    ]
    headers = {"location": "ignored", "Location": "http://x.example/"}
    assert names(matcher(*patterns).headers(headers)) == [f"example.{number}" for number in range(4)]
    assert names(matcher(*patterns, mode="reference").headers(headers)) == ["example.0", "example.1"]
    binary = {"Location": {"format": "base64", "data": "aHR0cDovL3guZXhhbXBsZS8="}}
    assert names(matcher(*patterns).headers(binary)) == [f"example.{number}" for number in range(4)]
    assert names(matcher(*patterns, mode="reference").headers(binary)) == ["example.1"]
    assert matcher(*patterns).headers({"Location": ["http://x.example/"], "Server": "http://x.example/"}) == []
    with pytest.raises(Base64Error):
        matcher(*patterns).headers({"Location": {"format": "base64", "data": "QUJDR"}})
    with pytest.raises(ShapeError, match="headers"):
        matcher(*patterns).headers({"Location": {"format": "base64", "data": 5}})


def test_dns_patterns_are_exact_and_may_be_shared() -> None:
    dns = [row(name=name, location_found="dns", pattern_type="full", pattern="203.0.113.1") for name in ("one", "two")]
    assert names(matcher(dns=dns).dns("203.0.113.1")) == ["one", "two"]
    assert matcher(dns=dns).dns("203.0.113.10") == ()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"location_found": "title"}, "'contains' at location 'title' is not implemented"),
        ({"location_found": "header."}, "is not implemented"),
        ({"location_found": "dns", "pattern_type": "full"}, "is not implemented in this list"),
        ({"pattern_type": "prefix"}, "'prefix' at location 'body' is not implemented"),
        ({"pattern": ""}, "the pattern is empty"),
        ({"pattern": None}, "column pattern is not text"),
        ({"confidence_no_fp": "5"}, "confidence_no_fp is not an integer"),
        ({"expected_countries": ["IT"]}, "column expected_countries is not text"),
    ],
)
def test_what_cannot_be_used_is_refused_by_name_and_costs_no_other(changes, sentence) -> None:
    loaded = from_rows([], [row(name="example.bad", **changes), row(name="example.good")])
    assert names(loaded.http) == ["example.good"]
    (refusal,) = loaded.refused
    assert refusal.name == "example.bad"
    assert refusal.message.startswith("Fingerprint example.bad: ")
    assert sentence in refusal.message


@pytest.mark.parametrize("pattern", ["(a)\\1", "(?=a)b", "(", "a\0b", "\ud800", "a*"])
def test_expressions_that_no_linear_engine_takes_are_refused(pattern) -> None:
    compiled = matcher({"pattern": pattern, "pattern_type": "regexp"}, {"pattern": "good", "pattern_type": "regexp"})
    assert names(compiled.body("so good")) == ["example.1"]
    (refusal,) = compiled.refused
    assert refusal.message.startswith("Fingerprint example.0: the regular expression is not used: ")


def test_a_fingerprint_without_a_name_says_so() -> None:
    with pytest.raises(FingerprintError, match="no name"):
        parse_fingerprint(row(name=""), ("body",))


@pytest.mark.parametrize("content", ["", "{}", "[1]"])
def test_unreadable_files_are_named(tmp_path, content) -> None:
    (tmp_path / "fingerprints_dns.json").write_text(content)
    with pytest.raises(FingerprintError, match=r"fingerprints_dns\.json"):
        load_files(tmp_path)


def test_countries_are_cleaned() -> None:
    assert parse_countries(" it,FR,,zz,IT ") == ("FR", "IT")
    assert parse_countries("") == ()


def test_one_matcher_serves_many_threads() -> None:
    shared = matcher(*[{"pattern": f"pattern-{number:03}"} for number in range(200)])
    wrong: list[object] = []

    def work(number: int) -> None:
        for turn in range(300):
            wanted = (number * 37 + turn) % 200
            found = names(shared.body("x" * 5000 + f"pattern-{wanted:03}"))
            if found != [f"example.{wanted}"]:
                wrong.append(found)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


def test_without_the_automaton_library_literals_work_and_expressions_are_refused() -> None:
    program = (
        "import sys; sys.modules['hyperscan'] = None\n"
        "from fastpath.fingerprints import from_rows\n"
        "from fastpath.matcher import Matcher\n"
        "base = dict(scope='nat', other_names='', location_found='body', confidence_no_fp=5, expected_countries='')\n"
        "m = Matcher(from_rows([], [dict(base, name='lit', pattern='é x', pattern_type='contains'),"
        " dict(base, name='reg', pattern='a.*b', pattern_type='regexp')]))\n"
        "assert [f.name for f in m.body('a é x b')] == ['lit'], m.body('a é x b')\n"
        "assert [r.name for r in m.refused] == ['reg'] and 'hyperscan' in m.refused[0].message\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
