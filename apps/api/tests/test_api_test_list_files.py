"""Lists as files, and changes to them: nothing else in a file moves, and orders of changes make no difference."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from list_maintainers import FRANCE, HEADER, ITALY

from api.errors import ApiError
from api.testlist_entries import CATEGORY_DESCRIPTIONS, ListEntry
from api.testlist_file import ListDamaged, ListFile
from api.testlist_plan import Change, apply, with_change
from core.testlists import CATEGORIES, Lists, read_list

NEW = ListEntry("https://new.example.org/", "NEWS", "2024-01-31", "me", 'a "quote", a comma')
NEW_LINE = 'https://new.example.org/,NEWS,News Media,2024-01-31,me,"a ""quote"", a comma"'


def test_every_category_is_described() -> None:
    assert set(CATEGORY_DESCRIPTIONS) == CATEGORIES


def test_no_change_is_no_change() -> None:
    for text in (ITALY, FRANCE, HEADER, HEADER.rstrip("\n")):
        assert ListFile(text.encode()).changed({}, []) == text.encode()


def test_lines_that_are_no_entries_stay() -> None:
    before = (
        b"\xef\xbb\xbf" + HEADER.encode() + b"\n"
        b"https://a.example/,NEWS,News Media,2020-01-01,\xff\xfe,\n"
        b"too,few\n"
        b'https://b.example/,NEWS,"broken"x,2020-01-01,,\n'
        b'https://c.example/,NEWS,News Media,2020-01-01,,"two\nlines"\r\n'
        b",,,,,\n"
        b"https://d.example/,NEWS,News Media,2020-01-01,,no end"
    )
    file = ListFile(before)
    assert [entry.url for entry in file.entries] == [f"https://{name}.example/" for name in "acd"]
    assert file.entries[0].source == "\ufffd\ufffd"
    assert file.entries[1].notes == "two\nlines"
    after = file.changed({1: file.entries[1]._replace(notes="one line")}, [NEW])
    expected = before.replace(b'"two\nlines"', b"one line") + f"\n{NEW_LINE}\n".encode()
    assert after == expected


def test_bytes_of_fields_that_do_not_change_stay() -> None:
    before = HEADER.encode() + b"https://a.example/,NEWS,News Media,2020-01-01,\xff,x\n"
    file = ListFile(before)
    after = file.changed({0: file.entries[0]._replace(notes="y")}, [])
    assert after == before.replace(b",x\n", b",y\n")


def test_columns_may_be_in_another_order_and_more() -> None:
    before = (
        "notes,url,extra,category_code,source,date_added,category_description\nn,https://a.example/,kept,NEWS,s,d,c\n"
    )
    file = ListFile(before.encode())
    after = file.changed({0: file.entries[0]._replace(category_code="HUMR")}, [NEW]).decode()
    assert after == (
        before.splitlines(keepends=True)[0]
        + "n,https://a.example/,kept,HUMR,s,d,Human Rights Issues\n"
        + '"a ""quote"", a comma",https://new.example.org/,,NEWS,me,2024-01-31,News Media\n'
    )


@pytest.mark.parametrize(
    "text", ["", "\n", "url,category_code\n", 'url,"category_code\n', "https://a.example/,NEWS,,2020-01-01,,\n"]
)
def test_files_without_the_columns_are_damaged(text: str) -> None:
    with pytest.raises(ListDamaged):
        ListFile(text.encode())


def test_a_quote_that_is_not_closed_swallows_no_change() -> None:
    file = ListFile((ITALY + 'https://a.example/,NEWS,"News Media,2020-01-01,,\n').encode())
    with pytest.raises(ListDamaged, match="quote"):
        file.changed({}, [NEW])


FIELD = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="\x00"), max_size=12)
RAW_LINE = st.binary(max_size=30).map(lambda data: data.replace(b"\x00", b""))


@given(
    rows=st.lists(st.tuples(FIELD, FIELD, FIELD, FIELD, FIELD), max_size=6),
    added=st.lists(st.tuples(FIELD, FIELD), max_size=2),
    ending=st.sampled_from(["\n", "\r\n"]),
    last=st.booleans(),
)
def test_whatever_is_in_a_list_only_the_changed_lines_differ(
    rows: list[tuple[str, ...]], added: list[tuple[str, str]], ending: str, *, last: bool
) -> None:
    lines = []
    for number, (code, description, date, source, notes) in enumerate(rows):
        text = io.StringIO()
        csv.writer(text, lineterminator=ending, quoting=csv.QUOTE_ALL).writerow(
            [f"https://{number}.example/", code, description, date, source, notes]
        )
        lines.append(text.getvalue())
    whole = HEADER.replace("\n", ending) + "".join(lines)
    before = whole.removesuffix(ending) if last and lines else whole
    file = ListFile(before.encode())
    assert len(file.entries) == len(rows)
    new = [NEW._replace(url=f"https://n{n}.example/", notes=a, source=b) for n, (a, b) in enumerate(added)]
    for position in range(len(rows)):
        after = file.changed({position: None}, new).decode()
        rest = [line for number, line in enumerate(lines) if number != position]
        kept = HEADER.replace("\n", ending) + "".join(rest)
        assert after.startswith(kept.removesuffix(ending))
        assert len(ListFile(after.encode()).entries) == len(rows) - 1 + len(new)


@given(st.lists(RAW_LINE, max_size=8))
def test_any_bytes_are_kept(lines: list[bytes]) -> None:
    data = HEADER.encode() + b"\n".join(lines)
    file = ListFile(data)
    assert file.changed({}, []) == data
    try:
        after = file.changed({}, [NEW])
    except ListDamaged:
        return
    assert after.startswith(data)
    assert ListFile(after).entries == (*file.entries, NEW)


def test_what_is_written_is_what_the_import_reads() -> None:
    """The lists come back through `analysis update-test-lists`."""
    file = ListFile(ITALY.encode())
    found = Lists()
    read_list(file.changed({0: None}, [NEW]), "it.csv", "it", found)
    assert found.problems == []
    assert [entry.url for entry in found.entries] == [
        "https://it.example.net/",
        "https://it.example.com/a",
        "https://new.example.org/",
    ]


URLS = st.integers(0, 5).map(lambda number: f"https://{number}.example/")
ENTRY = st.builds(ListEntry, URLS, st.sampled_from(["NEWS", "MISC"]), st.just("d"), st.just("s"), st.just(""))


def by_url(entries: list[ListEntry]) -> list[ListEntry]:
    return list({entry.url: entry for entry in entries}.values())


@given(
    base=st.lists(ENTRY, max_size=5).map(by_url),
    everywhere=st.lists(ENTRY, max_size=2).map(by_url),
    steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9), ENTRY), max_size=12),
)
def test_changes_one_after_the_other_are_what_they_come_to(
    base: list[ListEntry], everywhere: list[ListEntry], steps: list[tuple[bool, bool, int, ListEntry]]
) -> None:
    """The list with all changes is what somebody gets who edits a copy; it says the same of each that is refused."""
    lists = {"it": base, "global": everywhere}
    copy = list(base)
    changes: list[Change] = []
    for has_old, has_new, number, entry in steps:
        old = copy[number % len(copy)] if has_old and copy else None
        new = entry if has_new else None
        others = {each.url for each in copy if each != old} | {each.url for each in everywhere}
        same_url = old is not None and new is not None and old.url == new.url
        allowed = old != new and (new is None or same_url or new.url not in others)
        if allowed:
            changes = with_change(lists.__getitem__, changes, Change("it", old, new))
            if old is not None:
                position = copy.index(old)
                copy[position : position + 1] = [new] if new else []
            else:
                copy.append(new)
        else:
            with pytest.raises(ApiError):
                with_change(lists.__getitem__, changes, Change("it", old, new))
        applied = apply(lists.__getitem__, "it", changes)
        assert sorted(applied.entries) == sorted(copy)
        assert applied.stale == []
        assert len(applied.pending) == len(changes)
    if sorted(copy) == sorted(base):
        assert all(change.old != change.new for change in changes)


@given(
    base=st.lists(ENTRY, max_size=5).map(by_url),
    moved=st.lists(ENTRY, max_size=5).map(by_url),
    steps=st.lists(st.tuples(st.booleans(), st.booleans(), st.integers(0, 9), ENTRY), max_size=8),
)
def test_after_a_move_each_change_applies_is_done_or_is_stale_and_urls_stay_unique(
    base: list[ListEntry], moved: list[ListEntry], steps: list[tuple[bool, bool, int, ListEntry]]
) -> None:
    lists = {"it": base, "global": []}
    changes: list[Change] = []
    for has_old, has_new, number, entry in steps:
        entries = apply(lists.__getitem__, "it", changes).entries
        old = entries[number % len(entries)] if has_old and entries else None
        try:
            changes = with_change(lists.__getitem__, changes, Change("it", old, entry if has_new else None))
        except ApiError:
            continue
    lists["it"] = moved
    applied = apply(lists.__getitem__, "it", changes)
    urls = [entry.url for entry in applied.entries]
    assert len(urls) == len(set(urls))
    done = [change for change in changes if change not in applied.pending and change not in applied.stale]
    for change in done:
        assert change.new in moved if change.new else change.old.url not in {entry.url for entry in moved}
    for change in applied.stale:
        kept = with_change(lists.__getitem__, changes, Change("it", change.shown, None))
        assert change not in kept or change.shown in applied.entries
