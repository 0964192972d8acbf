"""Links in replies lead to the public address of the configuration, never to what a request or a socket names."""

import re
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from http_routes import ROUTES

BASE = "https://api.example.org"
EXPLORER = "https://explorer.example.org"
FORGED = {
    "Host": "evil.example",
    "X-Forwarded-Host": "evil.example",
    "X-Forwarded-Proto": "gopher",
    "X-Forwarded-Prefix": "/evil",
    "Forwarded": "host=evil.example",
    "Origin": "https://evil.example",
    "Referer": "https://evil.example/",
}
PAGES = {
    "/api/v1/measurements?since=2023-12-01&until=2024-02-01&limit=2": "metadata",
    "/api/_/website_urls?probe_cc=IT&probe_asn=30722&limit=1": "metadata",
}
"""Lists with a next page, and where its address is."""


@pytest.fixture(scope="module")
def http(sampled_api: Any, start_api: Callable[..., Any]) -> httpx.Client:
    """A server with the sample that listens elsewhere than readers see it."""
    client: httpx.Client = start_api(sampled_api.dsn, base_url=BASE, explorer_url=EXPLORER).http
    return client


@pytest.mark.parametrize("path", [*(path for path, _, _ in ROUTES.values()), *PAGES, "/apidocs", "/no/such/path"])
@pytest.mark.parametrize("headers", [FORGED, {}])
def test_no_reply_names_another_address_of_ours(http: httpx.Client, path: str, headers: dict[str, str]) -> None:
    response = http.get(path, headers=headers)
    said = response.text + "".join(f"{name}: {value}\n" for name, value in response.headers.items())
    assert not re.search(r"evil|gopher|127\.0\.0\.1:|localhost", said)
    location = response.headers.get("location", "/")
    assert location.startswith((f"{EXPLORER}", "/")), location
    assert not location.startswith("//")


def test_links_to_measurements_begin_with_the_public_address(http: httpx.Client) -> None:
    reply = http.get(next(iter(PAGES))).json()
    assert reply["results"]
    for item in reply["results"]:
        assert item["measurement_url"].startswith(f"{BASE}/api/v1/raw_measurement?measurement_uid=")


@pytest.mark.parametrize(("path", "where"), PAGES.items())
def test_the_next_page_begins_with_the_public_address(http: httpx.Client, path: str, where: str) -> None:
    following = http.get(path).json()[where]["next_url"]
    assert following.startswith(f"{BASE}{path.partition('?')[0]}?")
    response = http.get(following.removeprefix(BASE))
    assert response.status_code == 200, response.text


def test_the_description_names_the_public_address(http: httpx.Client) -> None:
    assert http.get("/openapi.json").json()["servers"] == [{"url": BASE}]
