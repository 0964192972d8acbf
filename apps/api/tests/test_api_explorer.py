"""What the web interface asks, page by page, and every field that it reads: there, of the kind it expects, never null.

The interface is on another origin, so every answer, errors included, has to allow that. Findings and feedback are in
test_api_explorer_findings, pages about accounts are not here. The sample has a normal, an anomalous, a confirmed and a
failed measurement of everything.
"""

import json
from datetime import datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import pytest
from api_sample import RECENT, TODAY, Sample, samples
from explorer_client import MONTH, ORIGIN, TIME, Explorer, check_row, chosen

NORMAL, ANOMALOUS, CONFIRMED, FAILED = RECENT
KINDS = [
    pytest.param(each, id=name)
    for each, name in zip(RECENT, ("normal", "anomalous", "confirmed", "failed"), strict=True)
]


@pytest.fixture(scope="module")
def explorer(sampled_api: Any) -> Explorer:
    return Explorer(sampled_api)


# / ----------------------------------------------------------------------------------------------------------------


def test_home_figures(explorer: Explorer) -> None:
    reply = explorer.get("/api/_/global_overview")
    assert type(reply["measurement_count"]) is int
    assert reply["measurement_count"] == len(samples())
    assert type(reply["network_count"]) is int
    assert reply["network_count"] == len({each.asn for each in samples()})
    assert type(reply["country_count"]) is int
    assert reply["country_count"] == len({each.cc for each in samples()})


@pytest.mark.parametrize("key", ["networks_by_month", "countries_by_month", "measurements_by_month"])
def test_home_by_month(explorer: Explorer, key: str) -> None:
    months = explorer.get("/api/_/global_overview_by_month")[key]
    days = [entry["date"].split("T")[0] for entry in months]
    assert days == sorted(days)
    assert all(day.endswith("-01") for day in days)
    assert all(type(entry["value"]) is int for entry in months)
    # It leaves out the month that is not over, and looks for the one before it by its date.
    assert days[-1] == str(TODAY.date().replace(day=1))
    assert str((TODAY.date().replace(day=1) - timedelta(days=1)).replace(day=1)) in days


# /search ----------------------------------------------------------------------------------------------------------

SEARCH = {**MONTH, "failure": "false", "limit": 50, "order": "desc"}


@pytest.mark.parametrize(
    ("filters", "found"),
    [
        ({}, {}),
        ({"probe_cc": "IT"}, {"cc": "IT"}),
        ({"domain": "www.example.org"}, {"domain": "www.example.org"}),
        ({"input": "https://blocked.example/"}, {"input": "https://blocked.example/"}),
        ({"category_code": "HUMR"}, {"input": "https://blocked.example/"}),
        ({"probe_asn": "AS3320"}, {"asn": 3320}),
        ({"test_name": "whatsapp"}, {"test": "whatsapp"}),
        ({"ooni_run_link_id": "10001"}, {"run_link": 10001}),
        ({"anomaly": "true"}, {"anomaly": True}),
        ({"confirmed": "true"}, {"confirmed": True}),
        ({"probe_cc": "IT", "test_name": "web_connectivity", "confirmed": "true"}, {"cc": "IT", "confirmed": True}),
    ],
    ids=str,
)
def test_search(explorer: Explorer, filters: dict[str, object], found: dict[str, object]) -> None:
    reply = explorer.get("/api/v1/measurements", **SEARCH, **filters)
    expected = chosen(MONTH["since"], MONTH["until"], failure=False, **found)
    assert expected
    if reply["metadata"]["next_url"] is None:
        assert {row["measurement_uid"] for row in reply["results"]} == {each.uid for each in expected}
    else:
        assert len(reply["results"]) == 50
    starts = [row["measurement_start_time"] for row in reply["results"]]
    assert starts == sorted(starts, reverse=True)
    for row in reply["results"]:
        check_row(row)


@pytest.mark.parametrize("sample", KINDS)
def test_search_shows_what_was_found(explorer: Explorer, sample: Sample) -> None:
    reply = explorer.get(
        "/api/v1/measurements", **MONTH, limit=50, order="desc", input=sample.input, probe_asn="AS30722"
    )
    (row,) = [row for row in reply["results"] if row["measurement_uid"] == sample.uid]
    check_row(row)
    assert (row["anomaly"], row["confirmed"], row["failure"]) == (sample.anomaly, sample.confirmed, sample.failure)
    assert row["scores"] == sample.scores
    if sample.anomaly:
        assert isinstance(row["scores"]["analysis"]["blocking_type"], str)


def test_search_loads_more_from_the_link_as_it_is(explorer: Explorer) -> None:
    reply = explorer.get("/api/v1/measurements", **{**SEARCH, "limit": 7})
    uids = [row["measurement_uid"] for row in reply["results"]]
    while (link := reply["metadata"]["next_url"]) is not None:
        assert urlsplit(link).netloc == urlsplit(explorer.api.url).netloc
        reply = explorer.get(link)
        assert 0 < len(reply["results"]) <= 7
        uids += [row["measurement_uid"] for row in reply["results"]]
    assert sorted(uids) == sorted(each.uid for each in chosen(MONTH["since"], MONTH["until"], failure=False))


def test_search_without_an_input(explorer: Explorer) -> None:
    rows = explorer.get("/api/v1/measurements", **SEARCH, test_name="telegram")["results"]
    assert rows
    assert {row["input"] for row in rows} == {None}


# /m/<uid>, /measurement/<report id> -------------------------------------------------------------------------------


@pytest.mark.parametrize("sample", KINDS)
def test_measurement(explorer: Explorer, sample: Sample) -> None:
    reply = explorer.get("/api/v1/measurement_meta", measurement_uid=sample.uid, full="true")
    assert reply["measurement_uid"] == sample.uid
    assert reply["report_id"] == sample.report_id
    assert reply["test_name"] == sample.test
    assert reply["probe_cc"] == sample.cc
    assert type(reply["probe_asn"]) is int
    assert reply["probe_asn"] == sample.asn
    assert reply["input"] == sample.input
    assert datetime.fromisoformat(reply["measurement_start_time"]).replace(tzinfo=None) == sample.start
    assert TIME.fullmatch(reply["test_start_time"])
    assert (reply["anomaly"], reply["confirmed"], reply["failure"]) == (
        sample.anomaly,
        sample.confirmed,
        sample.failure,
    )
    assert isinstance(reply["scores"], str)
    assert json.loads(reply["scores"]) == sample.scores
    assert isinstance(reply["raw_measurement"], str), "the page parses it"
    assert json.loads(reply["raw_measurement"]) == sample.body()
    assert reply["category_code"] == "CULTR", "that of the list of the country"
    assert reply["verification_status"] in {"verified", "failed", "unverified", None}


def test_measurement_without_an_input(explorer: Explorer) -> None:
    (sample, *_) = chosen(test="telegram")
    reply = explorer.get("/api/v1/measurement_meta", measurement_uid=sample.uid, full="true")
    assert reply["input"] == "", "null would crash the page"


def test_measurement_that_is_not_there(explorer: Explorer) -> None:
    uid = f"{NORMAL.uid[:-4]}ffff"
    assert explorer.get("/api/v1/measurement_meta", measurement_uid=uid, full="true") == {"raw_measurement": ""}


@pytest.mark.parametrize("sample", KINDS)
def test_measurement_download(explorer: Explorer, sample: Sample) -> None:
    assert explorer.get("/api/v1/raw_measurement", measurement_uid=sample.uid) == sample.body()


@pytest.mark.parametrize("sample", KINDS)
def test_links_by_report(explorer: Explorer, sample: Sample) -> None:
    """The server of the interface turns them into links by uid."""
    reply = explorer.get("/api/v1/measurement_meta", report_id=sample.report_id, full="true", input=sample.input)
    assert reply["measurement_uid"] == sample.uid


def test_links_by_report_without_an_input(explorer: Explorer) -> None:
    (sample, *_) = chosen(test="telegram")
    reply = explorer.get("/api/v1/measurement_meta", report_id=sample.report_id, full="true")
    assert reply["measurement_uid"] == sample.uid


# All pages --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/api/v1/measurements", "/api/v1/aggregation", "/api/_/networks", "/api/_/nothing"])
def test_preflights(explorer: Explorer, path: str) -> None:
    headers = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "GET",
        "Access-Control-Request-Headers": "authorization",
    }
    response = explorer.api.http.options(path, headers=headers)
    assert response.status_code == 200
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}
    assert "authorization" in response.headers["access-control-allow-headers"].lower()
    assert "GET" in response.headers["access-control-allow-methods"]


@pytest.mark.parametrize(
    ("path", "status"),
    [("/api/v1/measurements?limit=x", 400), ("/api/_/nothing", 404), ("/api/_/country_overview", 400)],
)
def test_errors_can_be_read_from_the_page(explorer: Explorer, path: str, status: int) -> None:
    response = explorer.api.http.get(path, headers={"Origin": ORIGIN})
    assert response.status_code == status
    assert response.headers["access-control-allow-origin"] in {"*", ORIGIN}
    assert "error" in response.json()
