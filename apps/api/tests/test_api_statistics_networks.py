"""Statistics of networks and domains, and their names: against the rows, counted by hand."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from flask import Flask
from statistics_sample import NETWORKS, Asked, database_day, grouped, make, write

TWO_HOURS_S = 7200
KINDS = ("ok", "anomaly", "confirmed", "failure")

NAMES = [
    (30722, "2019-01-01", "Oldest Name"),
    (30722, "2023-05-01", 'Example ISP, "Ltd"'),
    (30722, "2021-01-01", "Older Name"),
    (3269, "2020-01-01", "Esempio Società"),
    (4294967295, "2020-01-01", "Had a Name"),
    (4294967295, "2021-01-01", ""),
    (65000, "2020-01-01", "Never Measured From"),
]
CURRENT = {30722: 'Example ISP, "Ltd"', 3269: "Esempio Società"}

TEST_LISTS = [
    ("www.example.org", "https://www.example.org/", "ZZ", "NEWS"),
    ("www.example.org", "https://www.example.org/a", "ZZ", "HUMR"),
    ("www.example.org", "http://www.example.org", "it", "CULTR"),
    ("example.org", "https://example.org/very/long/path", "ZZ", "GOVT"),
    ("news.example", "https://news.example/long", "it", "GMB"),
    ("news.example", "https://news.example/", "de", "MMED"),
    ("never.example", "https://never.example/", "ZZ", "REL"),
    ("only.example", "https://only.example/b", "ZZ", "IGO"),
    ("only.example", "https://only.example/a", "ZZ", "ENV"),
    ("www.local.example", "https://www.local.example/x", "fr", "XED"),
]


@pytest.fixture(scope="module")
def asked(module_app: Flask, module_dsn: str) -> Iterator[Asked]:
    today = database_day(module_dsn)
    rows = make(today, seed=2)
    write(module_dsn, rows)
    with psycopg.connect(module_dsn) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO asnmeta (asn, changed, org_name) VALUES (%s, %s, %s)", NAMES)
        cursor.executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)", TEST_LISTS
        )
    return Asked(module_app, module_dsn, today, rows)


def test_networks(asked: Asked) -> None:
    """Explorer turns names into lower case, so none may be null."""
    found = asked.json("networks", cache=TWO_HOURS_S)
    counts = {asn: len(rows) for asn, rows in grouped(asked.rows, lambda row: row.asn).items()}
    expected = [{"probe_asn": asn, "cnt": n, "org_name": CURRENT.get(asn, "")} for asn, n in counts.items()]
    assert found == {"v": 0, "results": expected}
    assert sorted(counts) == sorted(NETWORKS)


def test_networks_as_csv(asked: Asked) -> None:
    lines = asked.csv("networks").split("\r\n")
    assert lines[0] == "cnt,org_name,probe_asn"
    assert len(lines) == len(NETWORKS) + 2
    assert any(line.endswith(',"Example ISP, ""Ltd""",30722') for line in lines)
    assert any(line.endswith(",,0") for line in lines)


@pytest.mark.parametrize("asn", ["30722", "AS30722", "0030722"])
def test_the_name_of_a_network_is_the_latest(asked: Asked, asn: str) -> None:
    assert asked.json("asnmeta", asn=asn, cache=TWO_HOURS_S) == {"org_name": CURRENT[30722]}


@pytest.mark.parametrize(
    ("asn", "name"), [("1", "Unknown"), ("4294967295", "Unknown"), ("0", "Unknown"), ("65000", "Never Measured From")]
)
def test_names_of_other_networks(asked: Asked, asn: str, name: str) -> None:
    assert asked.json("asnmeta", asn=asn) == {"org_name": name}


@pytest.mark.parametrize("asn", [None, "", "x", "-1", "AS", "4294967296", "as1", "1.5", "٣"])
def test_what_is_no_network(asked: Asked, asn: str | None) -> None:
    assert asked.refused("asnmeta", **({} if asn is None else {"asn": asn})) == "missing or incorrect asn"


def network_stats(asked: Asked, cc: str) -> list[dict[str, Any]]:
    rows = [row for row in asked.last_31_days() if row.cc == cc]
    found = [
        {
            "probe_asn": asn,
            "org_name": CURRENT.get(asn, ""),
            "measurement_count": len(of),
            **{
                f"{kind}_count": sum(row.kind == kind for row in of)
                for kind in ("ok", "anomaly", "confirmed", "failure")
            },
            "last_tested": str(max(row.day for row in of)),
        }
        for asn, of in grouped(rows, lambda row: row.asn).items()
    ]
    return sorted(found, key=lambda network: (-network["measurement_count"], network["probe_asn"]))


def test_network_stats(asked: Asked) -> None:
    expected = network_stats(asked, "DE")
    assert len(expected) == len(NETWORKS)
    assert asked.json("network_stats", probe_cc="DE", cache=86400) == {
        "metadata": {"current_page": 1, "limit": 10, "next_url": None, "offset": 0, "total_count": len(NETWORKS)},
        "results": expected,
    }


def test_network_stats_by_pages(asked: Asked) -> None:
    pages, query = [], {"probe_cc": "DE", "limit": "2"}
    while True:
        page = asked.json("network_stats", **query)
        pages.append(page)
        following = page["metadata"]["next_url"]
        if following is None:
            break
        assert following.startswith("http://127.0.0.1:8000/api/_/network_stats?")
        query = dict(pair.split("=") for pair in following.partition("?")[2].split("&"))
    assert [network for page in pages for network in page["results"]] == network_stats(asked, "DE")
    assert [page["metadata"]["current_page"] for page in pages] == [1, 2, 3]
    assert {page["metadata"]["total_count"] for page in pages} == {len(NETWORKS)}


def test_network_stats_of_a_country_without_measurements(asked: Asked) -> None:
    assert asked.json("network_stats", probe_cc="FR") == {
        "metadata": {"current_page": 1, "limit": 10, "next_url": None, "offset": 0, "total_count": 0},
        "results": [],
    }
    assert asked.csv("network_stats", probe_cc="FR") == (
        "anomaly_count,confirmed_count,failure_count,last_tested,measurement_count,ok_count,org_name,probe_asn\r\n"
    )


def test_domains(asked: Asked) -> None:
    """Every domain of the lists, measured or not; only web_connectivity counts."""
    counts = {domain: len(rows) for domain, rows in grouped(asked.rows, lambda row: row.domain).items()}
    expected = [
        ("example.org", "GOVT", 0),
        ("never.example", "REL", 0),
        ("news.example", "MMED", counts["news.example"]),
        ("only.example", "ENV", 0),
        ("www.example.org", "NEWS", counts["www.example.org"]),
        ("www.local.example", "XED", 0),
    ]
    keys = ("domain_name", "category_code", "measurement_count")
    assert asked.json("domains", cache=TWO_HOURS_S) == {
        "v": 0,
        "results": [dict(zip(keys, values, strict=True)) for values in expected],
    }
    lines = [f"{category},{domain},{count}" for domain, category, count in expected]
    assert asked.csv("domains") == "\r\n".join(["category_code,domain_name,measurement_count", *lines, ""])


@pytest.mark.parametrize(
    ("domain", "canonical", "category"),
    [
        ("www.example.org", "www.example.org", "NEWS"),
        ("example.org", "www.example.org", "NEWS"),
        ("WWW.Example.ORG", "www.example.org", "NEWS"),
        ("news.example", "news.example", "MMED"),
        ("www.news.example", "news.example", "MMED"),
        ("local.example", "www.local.example", "XED"),
        ("nowhere.example", "nowhere.example", "MISC"),
        ("www.nowhere.example", "nowhere.example", "MISC"),
        ("undefined", "undefined", "MISC"),
    ],
)
def test_domain_metadata(asked: Asked, domain: str, canonical: str, category: str) -> None:
    found = asked.json("domain_metadata", domain=domain, cache=TWO_HOURS_S)
    assert found == {"canonical_domain": canonical, "category_code": category}


@pytest.mark.parametrize("query", [{}, {"domain": ""}])
def test_no_domain(asked: Asked, query: dict[str, str]) -> None:
    assert asked.refused("domain_metadata", **query) == "missing or incorrect domain"


def test_counters_that_are_zero_are_no_networks(asked: Asked) -> None:
    before = asked.json("networks"), asked.json("network_stats", probe_cc="FR")
    with psycopg.connect(asked.dsn) as connection:
        day = asked.today - timedelta(days=2)
        connection.execute("INSERT INTO counters_month_network VALUES (date_trunc('month', %s), 'ndt', 'FR', 9)", [day])
        connection.execute("INSERT INTO counters_network VALUES (%s, 'ndt', 'FR', 9)", [day])
    assert (asked.json("networks"), asked.json("network_stats", probe_cc="FR")) == before
