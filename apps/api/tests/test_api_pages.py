"""Pages, redirects of earlier years, and what crawlers are told."""

from collections.abc import Callable
from typing import Any

import pytest

EXPLORER = "https://explorer.example.org"
UNREACHABLE = "postgresql://nobody@127.0.0.1:1/none?connect_timeout=1"


@pytest.fixture(scope="module")
def pages(start_api: Callable[..., Any]) -> Any:
    """An API whose web interface has an address of its own; none of its pages needs a database."""
    return start_api(UNREACHABLE, explorer_url=EXPLORER)


def test_landing_page(pages: Any) -> None:
    response = pages.http.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "cache-control" not in response.headers
    assert "Welcome to" in response.text
    assert "/apidocs/" in response.text
    assert pages.http.get("/apidocs/").status_code == 200
    assert EXPLORER in response.text


def test_robots(pages: Any) -> None:
    response = pages.http.get("/robots.txt")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/plain")
    assert response.headers["cache-control"] == "max-age=86400"
    lines = response.text.splitlines()
    assert lines[0] == "User-agent: *"
    assert {line.removeprefix("Disallow: ") for line in lines if line.startswith("Disallow")} == {
        *("/api/_", "/api/v1/aggregation", "/api/v1/measurement_meta", "/api/v1/raw_measurement"),
        *("/api/v1/test-list/urls", "/api/v1/torsf_stats", "/files", "/stats", "/201", "/202"),
    }
    assert lines[-1] == "Crawl-delay: 300"


@pytest.mark.parametrize(
    ("path", "status", "target"),
    [
        ("/stats", 301, EXPLORER),
        ("/files", 301, f"{EXPLORER}/search"),
        ("/files/", 301, f"{EXPLORER}/search"),
        ("/files/by_date", 301, f"{EXPLORER}/search"),
        ("/files/by_country", 301, f"{EXPLORER}/search"),
        ("/files/by_date/2020-02-28", 301, f"{EXPLORER}/search?until=2020-02-29&since=2020-02-28"),
        ("/files/by_date/2020-12-31", 301, f"{EXPLORER}/search?until=2021-01-01&since=2020-12-31"),
        ("/files/by_country/it", 301, f"{EXPLORER}/search?probe_cc=IT"),
        ("/files/by_country/IT", 301, f"{EXPLORER}/search?probe_cc=IT"),
        ("/2020-12-31", 301, f"{EXPLORER}/search?until=2021-01-01&since=2020-12-31"),
        ("/2020-12-31/20201231T000000Z-IT-AS1-ndt.json", 302, "/files/download/20201231T000000Z-IT-AS1-ndt.json"),
        ("/2020-12-31/a%0d%0aX-Y:%20b.json", 302, "/files/download/a%0D%0AX-Y%3A%20b.json"),
        ("/2020-12-31/%2f%2fexample.org.json", 302, None),
        ("/files/download/a.json", 301, f"{EXPLORER}/search"),
    ],
)
def test_redirects(pages: Any, path: str, status: int, target: str | None) -> None:
    response = pages.http.get(path)
    if target is None:  # a slash in the name, encoded or not, makes another path, never a foreign host
        assert response.status_code == 404
        return
    assert (response.status_code, response.headers["location"]) == (status, target)
    assert "cache-control" not in response.headers


@pytest.mark.parametrize(
    "path",
    [
        *("/2020-13-01", "/2020-02-30", "/2019-02-29", "/2020-00-10", "/0000-01-01", "/9999-12-31", "/2020-1-1"),
        *("/20200101", "/2020-01-01x", "/x2020-01-01", "/%D9%A2%D9%A0%D9%A2%D9%A0-01-01", "/2020-01-01%00", "/nothing"),
        *("/2020-01-01/x.txt", "/2020-01-01/x.json/y", "/2020-13-01/x.json", "/x/y.json", "/%ff%fe", "/" + "9" * 5000),
    ],
)
def test_paths_that_are_none_are_404_in_json(pages: Any, path: str) -> None:
    response = pages.http.get(path)
    assert response.status_code == 404
    assert "error" in response.json()


@pytest.mark.parametrize(
    "day", ["x", "2020-13-01", "2020-02-30", "9999-12-31", "0000-01-01", "2020-1-1", "%ff", "a" * 3000]
)
def test_bad_day(pages: Any, day: str) -> None:
    response = pages.http.get(f"/files/by_date/{day}")
    assert response.status_code == 400
    assert "Invalid date format" in response.text
    assert "date" in response.json()["hint"]


@pytest.mark.parametrize("cc", ["i", "ita", "%C3%9F%C3%9F", "1t", "%00%00", "%D0%98%D0%A2", "a" * 3000])
def test_bad_country(pages: Any, cc: str) -> None:
    response = pages.http.get(f"/files/by_country/{cc}")
    assert response.status_code == 400
    assert "Country code must be two characters" in response.text


def test_unknown_paths_stay_404_whatever_the_method(pages: Any) -> None:
    assert pages.http.post("/nothing").status_code == 404
    assert pages.http.post("/2020-01-01").status_code == 405
