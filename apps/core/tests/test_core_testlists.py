"""Test lists as files: what is read, what is refused, and that a bad line costs no other."""

import contextlib
import tarfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.testlists import CATEGORIES, SAMPLE, Entry, ListError, Lists, checked_domain, read_list, read_lists

HEADER = "url,category_code,category_description,date_added,source,notes\n"
GOOD = "https://example.org/,NEWS,News Media,2024-01-01,somebody,\n"


def read(text: str | bytes, cc: str = "it") -> Lists:
    found = Lists()
    read_list(text.encode() if isinstance(text, str) else text, f"{cc}.csv", cc, found)
    return found


def test_the_sample_is_a_good_list_of_documentation_names():
    found = read_lists(SAMPLE)
    assert found.problems == []
    assert found.countries == {"ZZ", "it"}
    assert all(entry.domain.split(".")[-2] == "example" for entry in found.entries)


def test_a_line_becomes_an_entry():
    assert read(HEADER + GOOD).entries == [Entry("example.org", "https://example.org/", "it", "NEWS")]
    assert read("\ufeff" + (HEADER + GOOD).replace("\n", "\r\n")).entries == read(HEADER + GOOD).entries
    assert read("category_code,url\nNEWS,https://example.org/").entries == read(HEADER + GOOD).entries


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("https://example.com/,NOSUCH,,,,\n", "unknown category"),
        ("https://example.com/,news,,,,\n", "unknown category"),
        ("https://example.com/,NEWS\n", "2 columns instead of 6"),
        ("ftp://example.com/,NEWS,,,,\n", "http"),
        ("example.com,NEWS,,,,\n", "http"),
        ("https://,NEWS,,,,\n", "no valid host"),
        ("https://exa mple.com/,NEWS,,,,\n", "blanks"),
        ("https://example.com/\\,NEWS,,,,\n", "backslashes"),
        ("https://example.com/\x07,NEWS,,,,\n", "control"),
        ("https://[::1/,NEWS,,,,\n", "not a URL"),
        ("https://example.com:99999/,NEWS,,,,\n", "not a URL"),
        ("https://me@example.com/,NEWS,,,,\n", "no valid host"),
        (f"https://example.com/{'a' * 2000},NEWS,,,,\n", "longer than 2000"),
        ("https://example.org/,HUMR,,,,\n", "already in line 2"),
        ('https://example.com/,NEWS,"a"b,,,\n', "not CSV"),
        (f"https://example.com/,NEWS,{'a' * 200_000},,,\n", "not CSV"),
    ],
)
def test_a_bad_line_is_told_and_costs_no_other(line, reason):
    found = read(HEADER + GOOD + line + GOOD.replace("org", "net"))
    assert [entry.domain for entry in found.entries] == ["example.org", "example.net"]
    (problem,) = found.problems
    assert (problem.file, problem.line) == ("it.csv", 3)
    assert reason in problem.reason
    assert str(problem).startswith("it.csv:3: ")


def test_bytes_that_are_no_text_cost_their_line_alone():
    found = read(
        (HEADER + GOOD).encode() + b"https://example.com/\xff,NEWS,,,,\n" + GOOD.replace("org", "net").encode()
    )
    assert len(found.entries) == 2
    assert "no UTF-8" in found.problems[0].reason


def test_line_numbers_count_lines_of_the_file_also_after_a_field_of_several():
    found = read(HEADER + 'https://example.org/,NEWS,"two\nlines",,,\u2028x\nbroken\n')
    assert len(found.entries) == 1
    assert found.problems[0].line == 4


def test_a_file_without_the_columns_is_told():
    found = read("a,b\n1,2\n")
    assert found.entries == []
    assert "url, category_code" in found.problems[0].reason


def test_addresses_names_of_other_scripts_and_ports_are_hosts():
    for url, domain in (
        ("http://192.0.2.1/", "192.0.2.1"),
        ("http://[2001:db8::1]:8080/", "[2001:db8::1]:8080"),
        ("https://пример.example/", "пример.example"),
        ("https://a_b.example.org:8443/x?y#z", "a_b.example.org:8443"),
    ):
        assert checked_domain(url) == domain


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    lists = tmp_path / "repository" / "lists"
    lists.mkdir(parents=True)
    (lists / "global.csv").write_text(HEADER + GOOD)
    (lists / "it.csv").write_text(HEADER + GOOD)
    (lists / "00-LEGEND.csv").write_text("not,a,list\n")
    return lists.parent


def test_directories_and_archives_give_the_same(directory: Path, tmp_path: Path):
    expected = read_lists(directory)
    assert [entry.cc for entry in expected.entries] == ["ZZ", "it"]
    assert read_lists(directory / "lists").entries == expected.entries
    with tarfile.open(tmp_path / "lists.tar.gz", "w:gz") as archive:
        archive.add(directory, "test-lists-main")
    with zipfile.ZipFile(tmp_path / "lists.zip", "w") as archive:
        for path in directory.rglob("*.csv"):
            archive.write(path, Path("test-lists-main") / path.relative_to(directory))
    for name in ("lists.tar.gz", "lists.zip"):
        assert read_lists(tmp_path / name).entries == expected.entries
    whole = (tmp_path / "lists.tar.gz").read_bytes()
    (tmp_path / "half.tar.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ListError, match="no whole archive"):
        read_lists(tmp_path / "half.tar.gz")


def test_nothing_to_read_is_an_error(tmp_path: Path):
    with pytest.raises(ListError, match="holds no test list"):
        read_lists(tmp_path)
    with pytest.raises(OSError, match="nowhere"):
        read_lists(tmp_path / "nowhere")


@given(st.binary(max_size=300))
def test_any_bytes_give_entries_or_problems(data: bytes):
    found = read(HEADER.encode() + data)
    for entry in found.entries:
        assert entry.category_code in CATEGORIES


@given(st.text(max_size=60))
def test_any_text_is_a_url_or_a_value_error(text: str):
    for url in (text, f"https://{text}"):
        with contextlib.suppress(ValueError):
            assert checked_domain(url)
