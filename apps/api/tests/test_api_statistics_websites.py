"""Statistics of websites: against the rows, counted by hand."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psycopg
import pytest
from flask import Flask
from statistics_sample import INPUTS, NETWORKS, Asked, Measured, database_day, grouped, kinds, make, write

LONG = "https://www.example.org/" + "x" * 300
URLS = {"probe_cc": "IT", "probe_asn": "30722"}
STATS = {**URLS, "input": INPUTS[0]}


@pytest.fixture(scope="module")
def asked(module_app: Flask, module_dsn: str) -> Iterator[Asked]:
    today = database_day(module_dsn)
    rows = make(today, seed=3, tests=("web_connectivity", "web_connectivity", "ndt"), countries=("IT", "IT", "DE"))
    # Two inputs that do not differ where indexes look at them.
    rows += [replace(row, input=LONG + row.kind[:1]) for row in rows if row.input == INPUTS[0]]
    write(module_dsn, rows)
    return Asked(module_app, module_dsn, today, rows)


def measured(asked: Asked, cc: str = "IT") -> list[Measured]:
    return [row for row in asked.last_31_days() if row.test == "web_connectivity" and row.cc == cc]


def test_website_networks(asked: Asked) -> None:
    counts = {asn: len(rows) for asn, rows in grouped(measured(asked), lambda row: row.asn).items()}
    expected = sorted(({"count": n, "probe_asn": asn} for asn, n in counts.items()), key=lambda n: -n["count"])
    found = asked.json("website_networks", probe_cc="it", cache=0)["results"]
    assert sorted(found, key=lambda n: n["probe_asn"]) == sorted(expected, key=lambda n: n["probe_asn"])
    assert [n["count"] for n in found] == [n["count"] for n in expected]
    assert len(found) == len(NETWORKS)
    lines = [f"{n['count']},{n['probe_asn']}" for n in found]
    assert asked.csv("website_networks", probe_cc="IT") == "\r\n".join(["count,probe_asn", *lines, ""])


@pytest.mark.parametrize("url", [*INPUTS[:5], LONG + "o", LONG + "a"])
@pytest.mark.parametrize("asn", ["30722", "AS3269", "0"])
def test_website_stats(asked: Asked, url: str, asn: str) -> None:
    rows = [row for row in measured(asked) if row.input == url and row.asn == int(asn.removeprefix("AS"))]
    by_day = grouped(rows, lambda row: row.day)
    expected = [{"test_day": str(day), **kinds(of)} for day, of in by_day.items()]
    assert asked.json("website_stats", probe_cc="IT", probe_asn=asn, input=url, cache=0) == {"results": expected}


def test_the_sample_has_days_with_everything(asked: Asked) -> None:
    stats = [asked.json("website_stats", probe_cc="IT", probe_asn="30722", input=url) for url in INPUTS]
    results = [day for reply in stats for day in reply["results"]]
    for count in ("anomaly_count", "confirmed_count", "failure_count"):
        assert any(day[count] for day in results)


def urls(asked: Asked) -> list[dict[str, Any]]:
    rows = [row for row in measured(asked) if row.asn == 30722]
    found = [{"input": url, **kinds(of)} for url, of in grouped(rows, lambda row: row.input).items()]
    return sorted(found, key=lambda u: (-u["confirmed_count"], -u["total_count"], -u["anomaly_count"], u["input"]))


@pytest.mark.parametrize("query", [{}, {"limit": "0"}, {"limit": "-5"}, {"limit": "10"}, {"offset": "0"}])
def test_website_urls(asked: Asked, query: dict[str, str]) -> None:
    everything = urls(asked)
    assert len(everything) > 12
    found = asked.json("website_urls", **URLS, **query, cache=3600)
    assert found["results"] == everything[:10]
    following = "http://127.0.0.1:8000/api/_/website_urls?limit=10&offset=10&probe_asn=30722&probe_cc=IT"
    assert found["metadata"] == {
        "offset": 0,
        "limit": 10,
        "current_page": 1,
        "total_count": len(everything),
        "next_url": following,
    }


@pytest.mark.parametrize(
    ("limit", "offset", "number"), [(5, 5, 2), (5, 10, 3), (4, 6, 3), (1000, 0, 1), (3, 1000, 335)]
)
def test_other_pages(asked: Asked, limit: int, offset: int, number: int) -> None:
    everything = urls(asked)
    found = asked.json("website_urls", probe_cc="it", probe_asn="AS30722", limit=limit, offset=offset)
    assert found["results"] == everything[offset : offset + limit]
    assert found["metadata"]["total_count"] == len(everything)
    assert found["metadata"]["current_page"] == number
    assert (found["metadata"]["next_url"] is None) == (len(found["results"]) < limit)


def test_urls_as_csv(asked: Asked) -> None:
    header = "anomaly_count,confirmed_count,failure_count,input,total_count\r\n"
    assert asked.csv("website_urls", **URLS).startswith(header)
    assert asked.csv("website_urls", **URLS).count("\r\n") == 11
    assert asked.csv("website_urls", probe_cc="FR", probe_asn="1") == header


def test_nothing_was_measured(asked: Asked) -> None:
    assert asked.json("website_networks", probe_cc="FR") == {"results": []}
    assert asked.json("website_stats", **{**STATS, "input": "https://nowhere.example/"}) == {"results": []}
    assert asked.json("website_urls", probe_cc="FR", probe_asn="30722") == {
        "metadata": {"offset": 0, "limit": 10, "current_page": 1, "total_count": 0, "next_url": None},
        "results": [],
    }


@pytest.mark.parametrize(
    ("route", "query", "message"),
    [
        ("website_networks", {}, "missing or incorrect probe_cc"),
        ("website_networks", {"probe_cc": "ITA"}, "missing or incorrect probe_cc"),
        ("website_stats", {"probe_asn": "1", "input": "x"}, "missing or incorrect probe_cc"),
        ("website_stats", {"probe_cc": "IT", "input": "x"}, "missing or incorrect probe_asn"),
        ("website_stats", {"probe_cc": "IT", "probe_asn": "ASx", "input": "x"}, "missing or incorrect probe_asn"),
        ("website_stats", {"probe_cc": "IT", "probe_asn": "1"}, "missing or incorrect input"),
        (
            "website_stats",
            {"probe_cc": "IT", "probe_asn": "1", "input": "\x00"},
            "Invalid characters in parameter input",
        ),
        ("website_urls", {"probe_cc": "IT"}, "missing or incorrect probe_asn"),
        ("website_urls", {**URLS, "offset": "-1"}, "Invalid offset; give 0 or more."),
        ("website_urls", {**URLS, "limit": "ten"}, "Invalid integer in parameter limit; give a whole number."),
    ],
)
def test_refusals(asked: Asked, route: str, query: dict[str, str], message: str) -> None:
    assert asked.refused(route, **query).startswith(message)


def test_every_url_that_is_listed_can_be_asked_for(asked: Asked) -> None:
    odd = ["https://é.example/~user/@name;a=1,2*'\"<>`{|}^\\", "dot://one.example/?dns=", "x" * 3000, "' OR 1=1 --"]
    with psycopg.connect(asked.dsn) as connection:
        connection.execute(
            "INSERT INTO counters_input (measurement_start_day, test_name, probe_cc, probe_asn, domain, input,"
            " ok_count, measurement_count) SELECT current_date - 3, 'web_connectivity', 'SM', 7, '', url, 2, 2"
            " FROM unnest(%s::text[]) url",
            [odd],
        )
    listed = asked.json("website_urls", probe_cc="SM", probe_asn=7, limit=100)["results"]
    assert sorted(url["input"] for url in listed) == sorted(odd)
    for url in odd:
        (day,) = asked.json("website_stats", probe_cc="SM", probe_asn=7, input=url)["results"]
        assert day["total_count"] == 2


def test_counters_that_are_zero_are_no_urls(asked: Asked) -> None:
    before = asked.json("website_urls", **URLS), asked.json("website_stats", **STATS)
    with psycopg.connect(asked.dsn) as connection:
        connection.execute(
            "INSERT INTO counters_input SELECT current_date - n, 'web_connectivity', 'IT', 30722, 'gone.example', url"
            " FROM generate_series(1, 31) n, unnest(array['https://gone.example/', %s]) url ON CONFLICT DO NOTHING",
            [INPUTS[0]],
        )
        connection.execute("INSERT INTO counters_network SELECT current_date - 1, 'web_connectivity', 'FR', 30722")
    assert (asked.json("website_urls", **URLS), asked.json("website_stats", **STATS)) == before
    assert asked.json("website_networks", probe_cc="FR") == {"results": []}
