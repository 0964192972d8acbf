"""The charts of the web interface, page by page: what each asks, and every field that it reads.

What charts count agrees with what is in the list.
"""

import re
from collections.abc import Iterator
from datetime import date
from typing import Any

import pytest
from api_sample import NETWORKS, TEST_LIST, TODAY, samples
from explorer_client import COUNTS, MONTH, ORIGIN, Explorer, check_counts, check_row, chosen


@pytest.fixture(scope="module")
def explorer(sampled_api: Any) -> Explorer:
    return Explorer(sampled_api)


# /chart/mat -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axis", ["measurement_start_day", "probe_cc", "probe_asn", "domain", "input", "category_code"])
def test_chart_of_one_axis(explorer: Explorer, axis: str) -> None:
    rows = explorer.counts(axis, test_name="web_connectivity", time_grain="day", **MONTH)
    values = [row[axis] for row in rows]
    assert values == sorted(set(values))
    if axis != "category_code":
        check_counts(rows, chosen(MONTH["since"], MONTH["until"], test="web_connectivity"))


@pytest.mark.parametrize("axis", ["probe_cc", "domain", "probe_asn", "test_name", "category_code", "input"])
def test_chart_of_two_axes(explorer: Explorer, axis: str) -> None:
    rows = explorer.counts("measurement_start_day", axis, test_name="web_connectivity", time_grain="day", **MONTH)
    assert rows
    if axis != "category_code":
        check_counts(rows, chosen(MONTH["since"], MONTH["until"], test="web_connectivity"))


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"probe_cc": "IT"}, {"cc": "IT"}),
        ({"probe_asn": "AS3320"}, {"asn": 3320}),
        ({"domain": "blocked.example"}, {"domain": "blocked.example"}),
        ({"input": "https://blocked.example/"}, {"input": "https://blocked.example/"}),
        ({"category_code": "HUMR"}, {"domain": "blocked.example"}),
        ({"probe_cc": "", "domain": "", "category_code": "", "axis_y": "", "data": "x", "loadTime": "1"}, {}),
    ],
    ids=str,
)
def test_chart_with_a_filter(explorer: Explorer, filters: dict[str, object], found: dict[str, object]) -> None:
    rows = explorer.counts("measurement_start_day", test_name="web_connectivity", time_grain="day", **MONTH, **filters)
    check_counts(rows, chosen(MONTH["since"], MONTH["until"], test="web_connectivity", **found))


def test_chart_as_a_table(explorer: Explorer) -> None:
    query = {"axis_x": "measurement_start_day", "test_name": "web_connectivity", "format": "CSV", **MONTH}
    response = explorer.api.http.get("/api/v1/aggregation", params=query, headers={"Origin": ORIGIN})
    assert response.status_code == 200
    assert response.headers["content-type"] == "text/csv"
    assert response.text.splitlines()[0] == ",".join(sorted([*COUNTS, "measurement_start_day"]))


@pytest.mark.parametrize("kind", ["observations?group_by=timestamp&group_by=failure", "analysis?axis_x=domain"])
def test_chart_of_data_that_is_not_kept(explorer: Explorer, kind: str) -> None:
    response = explorer.api.http.get(f"/api/v1/aggregation/{kind}", headers={"Origin": ORIGIN})
    assert response.status_code == 404
    assert isinstance(response.json()["error"], str)
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}


# /circumvention /social-media /news-media -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "params",
    [
        {"test_name": "psiphon,tor,torsf"},
        {"test_name": "whatsapp"},
        {"test_name": "web_connectivity", "domain": "www.example.org"},
    ],
    ids=str,
)
def test_theme_pages(explorer: Explorer, params: dict[str, object]) -> None:
    rows = explorer.counts(
        "measurement_start_day", "probe_cc", probe_cc="CN,IR,RU,IT", time_grain="day", **MONTH, **params
    )
    tests = str(params["test_name"]).split(",")
    expected = [each for each in chosen(MONTH["since"], MONTH["until"], cc="IT") if each.test in tests]
    if "domain" in params:
        expected = [each for each in expected if each.domain == params["domain"]]
    check_counts(rows, expected)


# /countries, /country/XX ------------------------------------------------------------------------------------------


def test_countries(explorer: Explorer) -> None:
    countries = explorer.get("/api/_/countries")["countries"]
    counts = {}
    for entry in countries:
        assert re.fullmatch("[A-Z]{2}", entry["alpha_2"])
        assert type(entry["count"]) is int
        assert isinstance(entry["name"], str)
        counts[entry["alpha_2"]] = entry["count"]
    assert counts == {cc: len(chosen(cc=cc)) for cc in {each.cc for each in samples()}}


def test_country_figures(explorer: Explorer) -> None:
    reply = explorer.get("/api/_/country_overview", probe_cc="IT")
    assert reply["measurement_count"] == len(chosen(cc="IT"))
    assert reply["network_count"] == len({each.asn for each in chosen(cc="IT")})
    assert reply["first_bucket_date"] == str(min(each.start for each in chosen(cc="IT")).date())


def test_country_without_measurements(explorer: Explorer) -> None:
    reply = explorer.get("/api/_/country_overview", probe_cc="AQ")
    assert (reply["measurement_count"], reply["network_count"]) == (0, 0)
    assert date.fromisoformat(reply["first_bucket_date"]), "the page makes its menu of years from it"


def years(explorer: Explorer) -> Iterator[int]:
    first = date.fromisoformat(explorer.get("/api/_/country_overview", probe_cc="IT")["first_bucket_date"])
    yield from range(first.year, TODAY.year + 1)


def test_country_calendar(explorer: Explorer) -> None:
    """Without a grain: a year is by day."""
    for year in years(explorer):
        window = {"since": f"{year}-01-01", "until": f"{year + 1}-01-01"}
        rows = explorer.counts("measurement_start_day", probe_cc="IT", **window)
        expected = chosen(*window.values(), cc="IT")
        assert {row["measurement_start_day"] for row in rows} == {str(each.start.date()) for each in expected}
        if expected:
            check_counts(rows, expected)


def test_country_categories(explorer: Explorer) -> None:
    rows = explorer.counts("category_code", probe_cc="IT", **MONTH, test_name="web_connectivity")
    assert {row["category_code"] for row in rows} & {"NEWS", "CULTR"}


@pytest.mark.parametrize(
    ("axis", "tests"),
    [
        ("domain", "web_connectivity"),
        ("test_name", "whatsapp,facebook_messenger,telegram,signal"),
        ("test_name", "psiphon,tor,torsf"),
    ],
)
def test_country_charts(explorer: Explorer, axis: str, tests: str) -> None:
    rows = explorer.counts("measurement_start_day", axis, probe_cc="IT", test_name=tests, time_grain="day", **MONTH)
    check_counts(
        rows, [each for each in chosen(MONTH["since"], MONTH["until"], cc="IT") if each.test in tests.split(",")]
    )


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({"probe_cc": "IT"}, {"cc": "IT"}),
        ({"probe_asn": "AS30722"}, {"asn": 30722}),
        ({"domain": "www.example.org"}, {"domain": "www.example.org"}),
    ],
    ids=str,
)
def test_recent_measurements(explorer: Explorer, filters: dict[str, object], found: dict[str, object]) -> None:
    rows = explorer.get("/api/v1/measurements", limit=5, failure="false", **filters)["results"]
    assert len(rows) == min(5, len(chosen(MONTH["since"], MONTH["until"], failure=False, **found)))
    for row in rows:
        check_row(row)


@pytest.mark.parametrize("path", ["/api/v1/aggregation?axis_x=measurement_start_day", "/api/v1/measurements?limit=5"])
def test_first_renders_without_dates(explorer: Explorer, path: str) -> None:
    response = explorer.api.http.get(f"{path}&since=undefined&until=undefined", headers={"Origin": ORIGIN})
    assert response.status_code in {200, 400}
    assert isinstance(response.json()["error"], str)
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}


# /networks, /as/ASn -----------------------------------------------------------------------------------------------


def test_networks(explorer: Explorer) -> None:
    results = explorer.get("/api/_/networks")["results"]
    for entry in results:
        assert type(entry["probe_asn"]) is int
        assert type(entry["cnt"]) is int
        assert isinstance(entry["org_name"], str), "the page makes it lower-case"
    found = {entry["probe_asn"]: (entry["cnt"], entry["org_name"]) for entry in results}
    names = {asn: name for asn, _, name in sorted(NETWORKS, key=lambda entry: entry[1])}
    assert found == {each.asn: (len(chosen(asn=each.asn)), names.get(each.asn, "")) for each in samples()}


def test_network_name(explorer: Explorer) -> None:
    assert explorer.get("/api/_/asnmeta", asn="30722") == {"org_name": "Example ISP"}
    assert explorer.get("/api/_/asnmeta", asn="64500") == {"org_name": "Unknown"}


def test_network_countries_of_all_time(explorer: Explorer) -> None:
    rows = explorer.counts("probe_cc", probe_asn="AS30722")
    assert [row["probe_cc"] for row in rows] == ["IT"]
    check_counts(rows, chosen(asn=30722))


def test_network_calendar_of_twelve_years(explorer: Explorer) -> None:
    window = {"since": f"{TODAY.year - 11}-01-01", "until": MONTH["until"]}
    rows = explorer.counts("measurement_start_day", probe_asn="AS30722", time_grain="day", **window)
    assert all(row["measurement_start_day"] is not None for row in rows), "the page crashes without it"
    check_counts(rows, chosen(*window.values(), asn=30722))


@pytest.mark.parametrize(("axis", "tests"), [("domain", "web_connectivity"), ("test_name", "whatsapp,signal")])
def test_network_charts(explorer: Explorer, axis: str, tests: str) -> None:
    rows = explorer.counts(
        "measurement_start_day", axis, probe_asn="AS30722", test_name=tests, time_grain="day", **MONTH
    )
    check_counts(
        rows, [each for each in chosen(MONTH["since"], MONTH["until"], asn=30722) if each.test in tests.split(",")]
    )


# /domains, /domain/x ----------------------------------------------------------------------------------------------


def test_domains(explorer: Explorer) -> None:
    results = explorer.get("/api/_/domains")["results"]
    for entry in results:
        assert isinstance(entry["domain_name"], str)
        assert isinstance(entry["category_code"], str)
        assert type(entry["measurement_count"]) is int
    assert [entry["domain_name"] for entry in results] == sorted({domain for domain, *_ in TEST_LIST})
    found = {entry["domain_name"]: entry for entry in results}
    assert found["www.example.org"]["category_code"] == "NEWS", "that of the global list"
    for name, entry in found.items():
        assert entry["measurement_count"] == len(chosen(domain=name, test="web_connectivity"))


@pytest.mark.parametrize(
    ("domain", "category", "canonical"),
    [
        ("www.example.org", "NEWS", "www.example.org"),
        ("example.org", "NEWS", "www.example.org"),
        ("unlisted.example", "MISC", "unlisted.example"),
    ],
)
def test_domain_metadata(explorer: Explorer, domain: str, category: str, canonical: str) -> None:
    reply = explorer.get("/api/_/domain_metadata", domain=domain)
    assert reply == {"category_code": category, "canonical_domain": canonical}


def test_domain_chart(explorer: Explorer) -> None:
    rows = explorer.counts(
        "measurement_start_day",
        "probe_cc",
        domain="blocked.example",
        test_name="web_connectivity",
        time_grain="day",
        **MONTH,
    )
    check_counts(rows, chosen(MONTH["since"], MONTH["until"], domain="blocked.example"))
