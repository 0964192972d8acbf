"""Test lists over HTTP, from a real database, during its outages and after."""

import csv
import io
import json
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlencode

import httpx
import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from api.url_lists import DEFAULT_PRIORITIES, FILE_NAME

DEAD = "host=127.0.0.1 port=1 dbname=nowhere connect_timeout=1"
LIST = [
    ("example.org", "https://example.org/", "ZZ", "NEWS"),
    ("example.com", "https://example.com/", "ZZ", "MISC"),
    ("example.net", "https://example.net/", "ZZ", "GAME"),
    ("it.example.org", "https://it.example.org/", "it", "NEWS"),
    ("it.example.net", "https://it.example.net/", "it", "FILE"),
    ("us.example.org", "https://us.example.org/", "us", "NEWS"),
    ("igo.example.org", "https://igo.example.org/", "ZZ", "CULTR"),
]


def fill(dsn: str, entries=LIST) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute("DELETE FROM citizenlab")
        connection.cursor().executemany(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES (%s, %s, %s, %s)", entries
        )


def count(
    dsn: str, url: str, number: int, *, cc="IT", asn=1, day: date | None = None, test="web_connectivity", anomaly=0
) -> None:
    with psycopg.connect(dsn) as connection:
        connection.execute(
            "INSERT INTO counters_input (measurement_start_day, test_name, probe_cc, probe_asn, domain, input,"
            " ok_count, anomaly_count, measurement_count) VALUES (%s, %s, %s, %s, '', %s, %s, %s, %s)",
            [day or datetime.now(UTC).date(), test, cc, asn, url, number - anomaly, anomaly, number],
        )


@pytest.fixture(scope="module", autouse=True)
def filled(module_dsn):
    fill(module_dsn)
    count(module_dsn, "https://example.org/", 3)
    count(module_dsn, "https://example.org/", 5, asn=2)
    count(module_dsn, "https://it.example.org/", 40, anomaly=10)
    count(module_dsn, "https://it.example.org/", 100, test="ndt")
    count(module_dsn, "https://it.example.net/", 1000, day=datetime.now(UTC).date() - timedelta(days=15))
    count(module_dsn, "https://unlisted.example/", 7)
    count(module_dsn, "https://us.example.org/", 2, cc="US", anomaly=1)


def urls(reply: httpx.Response) -> list[str]:
    assert reply.status_code == 200, reply.text
    return [item["url"] for item in reply.json()["results"]]


def test_a_new_database_has_the_default_rules(api):
    reply = api.http.get("/api/_/url-priorities/list")
    assert reply.headers["Cache-Control"] == "max-age=1"
    rules = reply.json()["rules"]
    assert {rule["category_code"]: rule["priority"] for rule in rules} == {
        category: priority for priority, categories in DEFAULT_PRIORITIES for category in categories.split()
    }
    assert all(rule["cc"] == rule["domain"] == rule["url"] == "*" for rule in rules)
    assert [rule["category_code"] for rule in rules] == sorted(rule["category_code"] for rule in rules)


def test_the_list_of_a_country_has_its_urls_and_the_global_ones_by_weight(api):
    reply = api.http.get("/api/v1/test-list/urls", params={"country_code": "it"})
    assert reply.headers["Cache-Control"] == "max-age=1"
    assert reply.json()["metadata"] == {"count": 6, "current_page": -1, "limit": -1, "next_url": "", "pages": 1}
    assert urls(reply) == [
        "https://igo.example.org/",
        "https://it.example.net/",
        "https://example.com/",
        "https://example.net/",
        "https://example.org/",
        "https://it.example.org/",
    ]
    by_url = {item["url"]: item for item in reply.json()["results"]}
    assert by_url["https://example.org/"] == {
        "category_code": "NEWS",
        "country_code": "XX",
        "url": "https://example.org/",
    }
    assert by_url["https://it.example.org/"]["country_code"] == "IT"


def test_debug_adds_what_the_order_comes_from(api):
    reply = api.http.get("/api/v1/test-list/urls", params={"probe_cc": "IT", "debug": "1"})
    by_url = {item["url"]: item for item in reply.json()["results"]}
    assert by_url["https://example.org/"]["msmt_cnt"] == 8
    assert by_url["https://example.org/"]["weight"] == 100 / 8
    assert by_url["https://it.example.org/"]["msmt_cnt"] == 40
    assert by_url["https://it.example.net/"]["msmt_cnt"] == 0
    assert by_url["https://it.example.net/"]["priority"] == 40
    assert by_url["https://it.example.net/"]["weight"] == 400.0


@pytest.mark.parametrize(
    ("query", "number"),
    [
        ("", 4),
        ("country_code=", 4),
        ("country_code=XX", 4),
        ("country_code=US", 5),
        ("country_code=IT&probe_cc=US", 6),
        ("country_code=IT&limit=2", 2),
        ("country_code=IT&limit=0", 0),
        ("country_code=IT&limit=-1", 6),
        ("country_code=IT&limit=1000000000000", 6),
        ("country_code=IT&category_codes=news", 2),
        ("country_code=IT&category_codes=NEWS,FILE", 3),
        ("country_code=IT&category_code=FILE", 1),
        ("country_code=IT&category_codes=NOSUCH", 0),
        ("country_code=IT&category_codes=", 6),
        ("country_code=IT&unknown=1", 6),
        ("country_code=IT&country_code=US", 6),
    ],
)
def test_parameters(api, query, number):
    assert len(urls(api.http.get(f"/api/v1/test-list/urls?{query}"))) == number


NO_COUNTRY = [
    "country_code=I",
    "country_code=ITA",
    "country_code=Italy",
    "country_code=A1",
    "country_code=%D0%98%D0%A2",
    "country_code=" + "I" * 7000,
    "probe_cc=1T",
]
MALFORMED = [
    "country_code=I%00",
    "country_code=%FF%FE",
    "limit=x",
    "limit=",
    "limit=1.5",
    "limit=-2",
    "limit=9" + "9" * 100,
    "limit=%D9%A1",
    "category_codes=N1",
    "category_codes=NEWS;DROP",
    "category_codes=" + ",".join(f"A{chr(65 + n % 26)}{chr(65 + n // 26)}" for n in range(300)),
    "category_codes=%F0%9F%92%A9",
]


@pytest.mark.parametrize("query", NO_COUNTRY)
def test_what_is_no_country_gets_the_global_list(api, query):
    everywhere = urls(api.http.get("/api/v1/test-list/urls"))
    assert len(everywhere) == 4
    assert urls(api.http.get(f"/api/v1/test-list/urls?{query}")) == everywhere


@pytest.mark.parametrize("query", MALFORMED)
def test_what_is_malformed_gets_an_empty_object_as_probes_expect(api, query):
    reply = api.http.get(f"/api/v1/test-list/urls?{query}")
    assert (reply.status_code, reply.text) == (200, "{}\n")
    assert reply.headers["Cache-Control"] == "max-age=0"


@pytest.mark.parametrize(
    "query", [*NO_COUNTRY, *MALFORMED, "probe_asn=ASX", "probe_asn=as1", "probe_asn=4294967296", "probe_asn=-1"]
)
def test_inspection_refuses_what_is_malformed_with_its_name(api, query):
    query = query.replace("country_code", "probe_cc")
    reply = api.http.get(f"/api/_/debug_prioritization?{query}")
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert query.partition("=")[0] in error or error == "Invalid characters"


@given(
    path=st.sampled_from(
        (
            "/api/v1/test-list/urls",
            "/api/_/debug_prioritization",
            "/api/_/show_countries_prioritization",
            "/api/_/url-priorities/list",
        )
    ),
    query=st.dictionaries(
        st.sampled_from(
            ("country_code", "probe_cc", "probe_asn", "category_codes", "category_code", "limit", "debug", "format")
        ),
        st.one_of(st.text(max_size=30), st.binary(max_size=30), st.integers().map(str), st.just("IT")),
    ),
)
def test_nothing_that_a_client_sends_is_an_internal_error(api, path, query):
    reply = api.http.get(f"{path}?{urlencode(query, errors='surrogatepass')}")
    assert reply.status_code in {200, 400}
    if reply.status_code == 400:
        assert reply.json()["error"]


def test_inspection_shows_candidates_and_rules(api):
    reply = api.http.get("/api/_/debug_prioritization", params={"probe_cc": "it", "probe_asn": "AS2"})
    assert reply.headers["Cache-Control"] == "max-age=0"
    found = reply.json()
    assert set(found) == {"test_items", "entries", "prio_rules"}
    assert len(found["test_items"]) == len(found["entries"]) == 6
    by_url = {entry["url"]: entry for entry in found["entries"]}
    assert by_url["https://example.org/"] == {
        "domain": "example.org",
        "url": "https://example.org/",
        "cc": "ZZ",
        "category_code": "NEWS",
        "msmt_cnt": 5,
    }
    assert by_url["https://it.example.org/"]["msmt_cnt"] == 0
    assert found["prio_rules"][0].keys() == {"category_code", "cc", "domain", "url", "priority"}
    few = api.http.get("/api/_/debug_prioritization?probe_cc=IT&limit=1&category_codes=NEWS").json()
    assert len(few["test_items"]) == 1
    assert len(few["entries"]) == 6


def test_the_overview_has_every_entry_once_as_json_and_csv(api):
    reply = api.http.get("/api/_/show_countries_prioritization")
    assert reply.headers["Cache-Control"] == "max-age=1"
    rows = reply.json()
    assert len(rows) == len(LIST)
    assert [(row["cc"], -row["priority"]) for row in rows] == sorted((row["cc"], -row["priority"]) for row in rows)
    by_url = {row["url"]: row for row in rows}
    assert by_url["https://it.example.org/"]["msmt_cnt"] == 140
    assert by_url["https://it.example.org/"]["anomaly_perc"] == 7
    assert by_url["https://us.example.org/"]["anomaly_perc"] == 50
    assert by_url["https://example.org/"]["msmt_cnt"] == 0
    as_csv = api.http.get("/api/_/show_countries_prioritization?format=CSV")
    assert as_csv.headers["Content-Type"].startswith("text/csv")
    read = list(csv.DictReader(io.StringIO(as_csv.text)))
    assert [row["url"] for row in read] == [row["url"] for row in rows]
    assert list(read[0]) == ["domain", "url", "cc", "category_code", "msmt_cnt", "anomaly_perc", "priority"]
    assert api.http.get("/api/_/show_countries_prioritization?format=xml").status_code == 400


def test_lists_survive_an_outage_and_a_restart_during_it(dsn, start_api, pg_cluster):
    fill(dsn)
    server = start_api(dsn)
    path = "/api/v1/test-list/urls?country_code=IT"
    before = urls(server.http.get(path))
    assert len(before) == 6
    saved = server.directory / "state" / FILE_NAME
    deadline = time.monotonic() + 30
    while not saved.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert len(json.loads(saved.read_text())["entries"]) == len(LIST)
    assert server.metric("api_url_list_fallback") == 0
    pg_cluster.stop()
    try:
        assert urls(server.http.get(path)) == before
        assert len(server.http.get("/api/_/url-priorities/list").json()["rules"]) == 31
        server.restart()
        assert sorted(urls(server.http.get(path))) == sorted(before)
        assert server.metric("api_url_list_fallback") == 1
        assert server.http.get("/api/_/debug_prioritization?probe_cc=IT&probe_asn=AS1").status_code == 200
        refused = server.http.get("/api/_/show_countries_prioritization")
        assert refused.status_code == 503
        assert "Try again" in refused.json()["error"]
    finally:
        pg_cluster.start()


def test_submissions_go_on_while_everybody_asks_for_an_overview_that_does_not_come(dsn, start_api, rid):
    """Twice as many ask at once as there are threads; the table of counters is locked."""
    server = start_api(dsn, threads=4)
    server.http.get("/api/v1/test-list/urls")
    path = "/api/_/show_countries_prioritization"
    with psycopg.connect(dsn) as lock:
        lock.execute("LOCK TABLE counters_input IN ACCESS EXCLUSIVE MODE")
        with ThreadPoolExecutor(8) as threads:
            asked = [threads.submit(httpx.get, server.url + path, timeout=60) for _ in range(8)]
            while not any(reply.done() for reply in asked):
                time.sleep(0.01)
            reply = server.submit(b'{"format": "json", "content": {"probe_cc": "IT"}}', rid)
            assert reply.status_code == 200
            assert not all(reply.done() for reply in asked)
            statuses = Counter(reply.result().status_code for reply in asked)
        assert statuses == {503: 7, 504: 1}
        assert httpx.get(server.url + path).status_code == 503
        lock.rollback()
        lock.execute("LOCK TABLE url_priorities IN ACCESS EXCLUSIVE MODE")
        assert len(server.http.get("/api/_/url-priorities/list").json()["rules"]) == 31


def test_without_database_and_without_file_the_sample_serves(start_api):
    server = start_api(DEAD)
    reply = server.http.get("/api/v1/test-list/urls")
    assert len(urls(reply)) == 12
    assert all("example." in url for url in urls(reply))


def test_a_database_without_lists_counts_as_none(dsn, start_api):
    server = start_api(dsn)
    assert len(urls(server.http.get("/api/v1/test-list/urls"))) == 12
    assert "analysis update-test-lists" in server.log()


def test_a_damaged_file_is_no_list(dsn, start_api, tmp_path):
    state = tmp_path / "state"
    state.mkdir()
    (state / FILE_NAME).write_text('{"digest": "x", "entries": [["a"')
    server = start_api(DEAD, state_directory=state)
    assert len(urls(server.http.get("/api/v1/test-list/urls"))) == 12
