"""Where answers come from: counters, without a look at the rows, and the coarsest counters that have the dimensions."""

from datetime import date, datetime
from typing import Any

import psycopg
import pytest

from api.aggregation_question import Question
from api.aggregation_sql import TEST_INDEXED, statement
from api.aggregation_window import pieces

TIME = "measurement_start_day"
YEARS = {"since": datetime(2022, 5, 10), "until": datetime(2024, 7, 20)}  # noqa: DTZ001 UTC without a zone
TEST = {"test_names": ("web_connectivity",)}


@pytest.fixture(scope="module")
def connection(module_dsn: str) -> Any:
    with psycopg.connect(module_dsn, autocommit=True) as opened:
        opened.execute("SET plan_cache_mode = force_custom_plan")
        yield opened


def tables(connection: psycopg.Connection, question: Question) -> set[str]:
    """The tables that the database visits for a question."""
    asked = statement(question, most=1000)
    lines = asked.as_lines("JSON", most_bytes=1000)
    ((plan,),) = connection.execute(f"EXPLAIN (FORMAT JSON) {lines}".encode(), asked.values).fetchall()
    found: set[str] = set()

    def walk(node: dict[str, Any]) -> None:
        found.update({node["Relation Name"]} if "Relation Name" in node else ())
        for child in node.get("Plans", []):
            walk(child)

    walk(plan[0]["Plan"])
    return found


COUNTRY, NETWORK, DOMAIN, URL, INPUT = (f"counters_{name}" for name in ("country", "network", "domain", "url", "input"))
M_COUNTRY, M_NETWORK, M_URL, M_INPUT = (f"counters_month_{name}" for name in ("country", "network", "url", "input"))


def _told(value: object) -> str:
    """The name of a parameter, which must be the same in every process."""
    return ",".join(sorted(value)) if isinstance(value, set) else str(value)


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (Question(), {M_COUNTRY}),
        (Question(axes=("probe_cc", "test_name")), {M_COUNTRY}),
        (Question(axes=("probe_cc",), networks=(1,)), {M_NETWORK}),
        (Question(axes=("domain",)), {M_URL}),
        (Question(axes=("domain",), countries=("IT",)), {M_INPUT}),
        (Question(axes=("probe_asn", "domain")), {INPUT}),
        (Question(axes=("test_name",), **YEARS), {M_COUNTRY, COUNTRY}),
        (Question(axes=("domain",), countries=("IT",), **YEARS), {M_INPUT, DOMAIN}),
        (Question(axes=(TIME,), grain="day", **TEST, **YEARS), {COUNTRY}),
        (Question(axes=(TIME,), grain="week", **TEST, **YEARS), {COUNTRY}),
        (Question(axes=(TIME,), grain="month", **TEST, **YEARS), {M_COUNTRY, COUNTRY}),
        (Question(axes=(TIME,), grain="year", **TEST, **YEARS), {M_COUNTRY, COUNTRY}),
        (Question(axes=(TIME, "probe_asn"), grain="day", countries=("IT",), **YEARS), {NETWORK}),
        (Question(axes=(TIME, "domain"), grain="day", **YEARS), {URL}),
        (Question(axes=(TIME, "probe_cc"), grain="day", domains=("a.example",), **YEARS), {DOMAIN}),
        (Question(axes=(TIME,), grain="day", input="https://a.example/", **YEARS), {URL}),
        (Question(axes=(TIME, "domain"), grain="day", networks=(1,), **YEARS), {INPUT}),
        (Question(axes=(TIME, "probe_cc"), grain="day", input="https://a.example/", **YEARS), {INPUT}),
        (Question(axes=(TIME, "blocking_type"), grain="day", **YEARS), {"counters_blocking", COUNTRY}),
        (Question(axes=("blocking_type",), countries=("IT",)), {"counters_blocking", M_COUNTRY}),
        (Question(axes=(TIME,), grain="day", category="NEWS", **YEARS), {URL, "citizenlab"}),
        (Question(axes=(TIME,), grain="day", category="NEWS", countries=("IT",), **YEARS), {INPUT, "citizenlab"}),
        (Question(axes=("category_code",), countries=("IT",)), {M_INPUT, "citizenlab"}),
        (Question(axes=("category_code",)), {M_URL, M_INPUT, "citizenlab"}),
        (Question(axes=("category_code", TIME), grain="day", **YEARS), {URL, INPUT, "citizenlab"}),
    ],
    ids=_told,
)
def test_counters_answer_without_a_look_at_rows(
    connection: psycopg.Connection, question: Question, expected: set[str]
) -> None:
    assert tables(connection, question) == expected


@pytest.mark.parametrize(
    ("question", "partitions"),
    [
        (
            Question(axes=("test_name",), since=datetime(2024, 1, 1, 5), until=datetime(2024, 5, 1, 23)),  # noqa: DTZ001
            {"fastpath_202401", "fastpath_202405"},
        ),
        (
            Question(axes=(TIME,), grain="hour", since=datetime(2024, 1, 30), until=datetime(2024, 2, 2)),  # noqa: DTZ001
            {"fastpath_202401", "fastpath_202402"},
        ),
        (
            Question(run_links=(1,), since=datetime(2024, 1, 1), until=datetime(2024, 2, 1)),  # noqa: DTZ001
            {"fastpath_202401"},
        ),
    ],
    ids=_told,
)
def test_rows_are_looked_at_in_the_months_in_question_only(
    connection: psycopg.Connection, question: Question, partitions: set[str]
) -> None:
    assert {table for table in tables(connection, question) if table.startswith("fastpath")} == partitions
    assert not statement(question, most=1).many_partitions


def test_which_counters_have_an_index_on_the_test(connection: psycopg.Connection) -> None:
    found = connection.execute(
        r"""SELECT DISTINCT tablename FROM pg_indexes
            WHERE tablename LIKE 'counters%' AND indexdef LIKE '%("left"(test\_name, 200)%'"""
    ).fetchall()
    assert {name for (name,) in found} == set(TEST_INDEXED)


@pytest.mark.parametrize(
    ("question", "many"),
    [
        (Question(run_links=(1,)), True),
        (Question(run_links=(1,), **YEARS), True),
        (Question(axes=("blocking_type", "domain"), since=YEARS["since"]), True),
        (Question(axes=("blocking_type", "probe_cc")), False),
        (Question(axes=("probe_asn", "domain")), False),
    ],
    ids=_told,
)
def test_what_visits_rows_of_years_is_known(question: Question, *, many: bool) -> None:
    assert statement(question, most=1).many_partitions == many


def test_a_url_with_other_categories_is_looked_up_once(connection: psycopg.Connection) -> None:
    urls, countries = 20, ("de", "fr", "it", "us")
    with connection.cursor() as cursor:
        cursor.executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES ('a.example', %s, %s, %s)",
            [
                (f"https://a.example/{number}", cc, category)
                for number in range(urls)
                for cc, category in (("ZZ", "NEWS"), *((country, "POLR") for country in countries))
            ],
        )
    asked = statement(Question(axes=("category_code",)), most=1000)
    lines = asked.as_lines("JSON", most_bytes=1000)
    ((plan,),) = connection.execute(f"EXPLAIN (ANALYZE, FORMAT JSON) {lines}".encode(), asked.values).fetchall()
    loops: list[int] = []

    def walk(node: dict[str, Any]) -> None:
        if node.get("Relation Name") == M_INPUT:
            loops.append(node["Actual Loops"])
        for child in node.get("Plans", []):
            walk(child)

    walk(plan[0]["Plan"])
    connection.execute("DELETE FROM citizenlab")
    assert loops == [urls]


def at(text: str | None) -> datetime | None:
    return None if text is None else datetime.fromisoformat(text)


def day(text: str | None) -> date | None:
    return None if text is None else date.fromisoformat(text)


@pytest.mark.parametrize(
    ("since", "until", "expected"),
    [
        (None, None, ["month .."]),
        ("2024-01-01", "2024-03-01", ["month 2024-01-01..2024-03-01"]),
        (
            "2024-01-15",
            "2024-03-10",
            [
                "month 2024-02-01..2024-03-01",
                "day 2024-01-15..2024-02-01",
                "day 2024-03-01..2024-03-10",
            ],
        ),
        ("2024-01-15", "2024-02-10", ["day 2024-01-15..2024-02-10"]),
        ("2024-01-15", None, ["month 2024-02-01..", "day 2024-01-15..2024-02-01"]),
        (None, "2024-01-15", ["month ..2024-01-01", "day 2024-01-01..2024-01-15"]),
        ("2024-01-15 06:00", "2024-01-15 18:00", ["rows 2024-01-15 06:00:00..2024-01-15 18:00:00"]),
        (
            "2024-01-15 06:00",
            "2024-01-16 18:00",
            [
                "day 2024-01-15..2024-01-17",
                "-rows 2024-01-15 00:00:00..2024-01-15 06:00:00",
                "-rows 2024-01-16 18:00:00..2024-01-17 00:00:00",
            ],
        ),
        (
            "2024-01-15 18:00",
            "2024-01-16 06:00",
            [
                "rows 2024-01-15 18:00:00..2024-01-16 00:00:00",
                "rows 2024-01-16 00:00:00..2024-01-16 06:00:00",
            ],
        ),
        (
            "9999-12-30 18:00",
            "9999-12-31 18:00",
            [
                "rows 9999-12-30 18:00:00..9999-12-31 00:00:00",
                "rows 9999-12-31 00:00:00..9999-12-31 18:00:00",
            ],
        ),
        ("9999-12-31 18:00", None, ["month 9999-12-31..", "-rows 9999-12-31 00:00:00..9999-12-31 18:00:00"]),
        ("0001-01-01", "0001-01-02", ["day 0001-01-01..0001-01-02"]),
    ],
)
def test_what_a_window_consists_of(since: str | None, until: str | None, expected: list[str]) -> None:
    found = pieces(at(since), at(until), months=True)
    assert [
        f"{'-' if piece.sign < 0 else ''}{piece.source} {piece.start or ''}..{piece.end or ''}" for piece in found
    ] == expected
