"""Statistics of everything, by month and by country: against the rows, counted by hand."""

from collections.abc import Iterator
from datetime import date, timedelta
from typing import Any

import psycopg
import pytest
from dateutil.relativedelta import relativedelta
from flask import Flask
from statistics_sample import Asked, Measured, database_day, grouped, make, window, write

from api.country_names import COUNTRY_NAMES
from api.statistics_coverage import TEST_GROUPS, TEST_NAMES
from core.testnames import KNOWN_TEST_NAMES

FIRST_DAY = date(2012, 12, 1)
DAY_S = 86400


@pytest.fixture(scope="module")
def asked(module_app: Flask, module_dsn: str) -> Iterator[Asked]:
    today = database_day(module_dsn)
    rows = make(today)
    write(module_dsn, rows)
    return Asked(module_app, module_dsn, today, rows)


def months(today: date) -> list[date]:
    return [today.replace(day=1) + relativedelta(months=-ago) for ago in range(23, -1, -1)]


def series(asked: Asked, value: Any) -> list[dict[str, Any]]:
    by_month = grouped(asked.rows, lambda row: row.month)
    return [
        {"date": f"{month:%Y-%m}-01T00:00:00+00:00", "value": value(by_month.get(month, []))}
        for month in months(asked.today)
    ]


def networks(rows: list[Measured]) -> int:
    return len({row.asn for row in rows})


def countries(rows: list[Measured]) -> int:
    return len({row.cc for row in rows})


def test_networks_by_month(asked: Asked) -> None:
    assert asked.json("asn_by_month", cache=DAY_S) == series(asked, networks)


def test_countries_by_month(asked: Asked) -> None:
    assert asked.json("countries_by_month", cache=DAY_S) == series(asked, countries)


def test_global_overview(asked: Asked) -> None:
    """Explorer's home reads each of the three."""
    overview = asked.json("global_overview", cache=DAY_S)
    assert overview["measurement_count"] == len(asked.rows)
    assert overview["network_count"] == networks(asked.rows)
    assert overview["country_count"] == countries(asked.rows)
    assert len(overview) == 3
    assert all(isinstance(value, int) for value in overview.values())


def test_global_overview_by_month(asked: Asked) -> None:
    """Explorer splits dates at T, drops the last month and looks for the one before it."""
    overview = asked.json("global_overview_by_month", cache=DAY_S)
    assert overview["networks_by_month"] == series(asked, networks)
    assert overview["countries_by_month"] == series(asked, countries)
    assert overview["measurements_by_month"] == series(asked, len)
    assert len(overview) == 3
    assert overview["measurements_by_month"][-1]["date"].split("T")[0] == str(asked.today.replace(day=1))
    assert all(isinstance(month["value"], int) for month in overview["measurements_by_month"])


def test_countries(asked: Asked) -> None:
    """XK and ZZ have no name."""
    counts = {cc: len(rows) for cc, rows in grouped(asked.rows, lambda row: row.cc).items()}
    names = {"BA": "Bosnia", "DE": "Germany", "IT": "Italy", "US": "US"}
    expected = [{"alpha_2": cc, "name": name, "count": counts[cc]} for cc, name in names.items()]
    assert asked.json("countries", cache=DAY_S) == {"countries": expected}
    lines = [f"{item['alpha_2']},{item['count']},{item['name']}" for item in expected]
    assert asked.csv("countries") == "\r\n".join(["alpha_2,count,name", *lines, ""])


def test_country_names() -> None:
    assert len(COUNTRY_NAMES) == 249
    assert list(COUNTRY_NAMES) == sorted(COUNTRY_NAMES)
    assert all(name and name == name.strip() for name in COUNTRY_NAMES.values())
    assert COUNTRY_NAMES["CI"] == "Côte d’Ivoire"


@pytest.mark.parametrize("cc", ["IT", "de", "ZZ", "XK"])
def test_country_overview(asked: Asked, cc: str) -> None:
    rows = [row for row in asked.rows if row.cc == cc.upper() and row.day >= FIRST_DAY]
    overview = asked.json("country_overview", probe_cc=cc, cache=DAY_S)
    assert overview["measurement_count"] == len(rows)
    assert overview["network_count"] == networks(rows)
    assert overview["first_bucket_date"] == str(min(row.day for row in rows)) == "2012-12-01"
    assert len(overview) == 3


def test_a_country_without_measurements(asked: Asked) -> None:
    """Explorer's page breaks without the date, and makes its year the first one of a menu."""
    overview = asked.json("country_overview", probe_cc="FR")
    assert overview == {"first_bucket_date": str(asked.today), "measurement_count": 0, "network_count": 0}


@pytest.mark.parametrize("cc", [None, "", "I", "ITA", "İT", "%_", " IT", "undefined"])
@pytest.mark.parametrize("route", ["country_overview", "test_coverage"])
def test_what_is_no_country(asked: Asked, route: str, cc: str | None) -> None:
    assert asked.refused(route, **({} if cc is None else {"probe_cc": cc})) == "missing or incorrect probe_cc"


def test_counters_that_are_zero_do_not_count(asked: Asked, module_dsn: str) -> None:
    """They stay behind when measurements are taken out."""
    before = [asked.json(route) for route in ("global_overview", "countries", "asn_by_month", "countries_by_month")]
    with psycopg.connect(module_dsn) as connection:
        for table in ("counters_month_network", "counters_network"):
            column = "measurement_start_month" if "month" in table else "measurement_start_day"
            connection.execute(
                f"INSERT INTO {table} ({column}, test_name, probe_cc, probe_asn)"
                " VALUES (date_trunc('month', current_date), 'ndt', 'FR', 777)".encode()
            )
        for table in ("counters_month_country", "counters_country"):
            column = "measurement_start_month" if "month" in table else "measurement_start_day"
            connection.execute(
                f"INSERT INTO {table} ({column}, test_name, probe_cc)"
                " VALUES (date_trunc('month', current_date), 'ndt', 'FR')".encode()
            )
    after = [asked.json(route) for route in ("global_overview", "countries", "asn_by_month", "countries_by_month")]
    assert after == before
    test_a_country_without_measurements(asked)


def test_test_names(asked: Asked) -> None:
    found = asked.json("test_names", cache=3600)["test_names"]
    assert len(found) == 24
    assert [item["id"] for item in found] == sorted(item["id"] for item in found)
    assert {item["id"] for item in found} <= set(KNOWN_TEST_NAMES)
    assert {"id": "torsf", "name": "Tor Snowflake"} in found
    assert asked.csv("test_names").startswith("id,name\r\nbridge_reachability,Bridge Reachability\r\n")


def test_the_groups_hold_every_named_test_once() -> None:
    assert sorted(test for tests in TEST_GROUPS.values() for test in tests) == sorted(TEST_NAMES)
    assert list(TEST_GROUPS) == sorted(TEST_GROUPS)


@pytest.mark.parametrize("groups", [None, "", "im", "websites,im", "performance,,middlebox"])
def test_test_coverage(asked: Asked, groups: str | None) -> None:
    """Both lists cover the same thirty days, and have every one of them."""
    since, until = asked.today - timedelta(days=31), asked.today - timedelta(days=1)
    days = [since + timedelta(days=n) for n in range(30)]
    rows = [row for row in window(asked.rows, since, until) if row.cc == "IT"]
    chosen = [test for group in (groups or "").split(",") for test in TEST_GROUPS.get(group, ())]
    of_networks = [row for row in rows if not groups or row.test in chosen]
    expected = [{"test_day": str(d), "count": networks([r for r in of_networks if r.day == d])} for d in days]
    found = asked.json(
        "test_coverage", probe_cc="IT", cache=3600, **({} if groups is None else {"test_groups": groups})
    )
    assert found["network_coverage"] == expected
    assert found["test_coverage"] == [
        {"test_day": str(day), "test_group": group, "count": sum(r.day == day and r.test in tests for r in rows)}
        for group, tests in TEST_GROUPS.items()
        for day in days
    ]
    assert len(found) == 2
    assert any(item["count"] for item in found["test_coverage"])


def test_a_group_that_there_is_not(asked: Asked) -> None:
    assert "test_groups" in asked.refused("test_coverage", probe_cc="IT", test_groups="im,nosuch")


@pytest.mark.parametrize("route", ["asn_by_month", "countries_by_month"])
def test_months_as_csv(asked: Asked, route: str) -> None:
    lines = asked.csv(route).split("\r\n")
    assert lines[0] == "date,value"
    assert lines[1:-1] == [f"{item['date']},{item['value']}" for item in asked.json(route)]
    assert lines[-1] == ""


@pytest.mark.parametrize("route", ["asn_by_month", "countries", "test_names"])
def test_a_format_that_there_is_not(asked: Asked, route: str) -> None:
    assert "format" in asked.refused(route, format="xml")
