"""How long each reply may be kept, and what is asked again costs only a 304: one table of every GET route."""

from collections.abc import Callable
from typing import Any

import httpx
import pytest
from api_sample import TODAY
from flask import Flask
from http_routes import ROUTES

from api.openapi.schemas import REPORT_ID, UID

NO_CACHE = "max-age=0, no-cache"
NO_STORE = f"{NO_CACHE}, no-store"
RECENT = f"since={TODAY:%Y-%m-%d}"

MORE: list[tuple[str, int, str | None]] = [
    ("/api/v1/torsf_stats", 200, None),
    (f"/api/v1/torsf_stats?{RECENT}", 200, None),
    ("/api/v1/aggregation?axis_x=probe_cc&format=CSV", 200, None),
    ("/api/_/global_overview_by_month?format=CSV", 200, "max-age=86400"),
    # Not there yet: who asks too early must not be told so from a cache.
    ("/api/v1/measurement_meta?measurement_uid=20240101000102.999999_IE_ndt_0123456789abcdef", 200, NO_CACHE),
    ("/api/v1/raw_measurement?measurement_uid=20240101000102.999999_IE_ndt_0123456789abcdef", 200, NO_CACHE),
    # The page of another release asks for another version of a file than there is here.
    ("/apidocs/assets/apidocs.js?v=0123456789ab", 200, NO_CACHE),
    ("/apidocs/assets/apidocs.js", 200, NO_CACHE),
    ("/api/v1/test-list/urls?country_code=it&limit=x", 200, "max-age=0"),
    ("/api/v1/measurements?limit=x", 400, "no-cache"),
    ("/api/v1/measurements?probe_cc=ZZ", 403, "no-cache"),
    ("/no/such/path", 404, "no-cache"),
    ("/report", 405, "no-cache"),
]
"""Further replies of these routes, and of none."""

TAGGED = [
    path for path, status, cache in [*ROUTES.values(), *MORE] if status == 200 and cache not in (NO_CACHE, NO_STORE)
]
UNTAGGED = [path for path, status, cache in [*ROUTES.values(), *MORE] if status != 200 or cache in (NO_CACHE, NO_STORE)]
DRAWN = ["/api/v1/test-list/urls?country_code=IT", "/api/v1/test-helpers"]
"""Replies that differ each time: URLs of the same priority and helpers are drawn."""
STABLE = [path for path in TAGGED if path not in DRAWN]


@pytest.fixture(scope="module")
def http(sampled_api: Any) -> httpx.Client:
    client: httpx.Client = sampled_api.http
    return client


def test_the_table_has_every_route(module_app: Flask) -> None:
    rules = {rule.rule for rule in module_app.url_map.iter_rules() if "GET" in (rule.methods or ())}
    assert rules == set(ROUTES)


@pytest.mark.parametrize(("path", "status", "cache"), [*ROUTES.values(), *MORE])
def test_each_reply_says_how_long_it_may_be_kept(http: httpx.Client, path: str, status: int, cache: str | None) -> None:
    response = http.get(path)
    assert (response.status_code, response.headers.get("cache-control")) == (status, cache), response.text[:300]


@pytest.mark.parametrize("path", STABLE)
def test_the_same_reply_again_is_a_304(http: httpx.Client, path: str) -> None:
    first = http.get(path)
    tag = first.headers["etag"]
    again = http.get(path, headers={"If-None-Match": tag})
    assert (again.status_code, again.content) == (304, b"")
    kept = ("etag", "cache-control", "vary", "access-control-allow-origin", "access-control-expose-headers")
    assert [again.headers.get(name) for name in kept] == [first.headers.get(name) for name in kept]
    assert not {"content-type", "content-length", "content-encoding", "last-modified"} & set(again.headers)
    assert again.headers["date"]


@pytest.mark.parametrize("path", STABLE)
def test_head_says_what_get_says(http: httpx.Client, path: str) -> None:
    got, head = http.get(path), http.head(path)
    assert (head.status_code, head.content) == (200, b"")
    names = ("etag", "cache-control", "content-type")
    assert [head.headers.get(name) for name in names] == [got.headers.get(name) for name in names]
    assert http.head(path, headers={"If-None-Match": got.headers["etag"]}).status_code == 304


@pytest.mark.parametrize("path", UNTAGGED)
def test_what_nobody_may_keep_has_no_tag(http: httpx.Client, path: str) -> None:
    response = http.get(path, headers={"If-None-Match": "*"})
    assert response.status_code != 304
    assert "etag" not in response.headers


@pytest.mark.parametrize("path", DRAWN)
def test_what_is_drawn_anew_is_sent_anew(http: httpx.Client, path: str) -> None:
    assert http.get(path, headers={"If-None-Match": 'W/"another"'}).status_code == 200


LIST = ROUTES["/api/v1/measurements"][0]
COUNTS = ROUTES["/api/v1/aggregation"][0]
BODY = ROUTES["/api/v1/raw_measurement"][0]


@pytest.mark.parametrize(
    ("named", "status"),
    [
        ("{}", 304),
        ("*", 304),
        ('"other", {}', 304),
        ('W/"other",{}', 304),
        ('"other"', 200),
        ("", 200),
        ("nonsense", 200),
        ('"unfinished', 200),
        (",,,", 200),
    ],
)
@pytest.mark.parametrize("path", [LIST, BODY])
def test_tags_are_compared_as_if_none_match_wants(http: httpx.Client, path: str, named: str, status: int) -> None:
    tag = http.get(path).headers["etag"]
    assert http.get(path, headers={"If-None-Match": named.format(tag)}).status_code == status
    weak = tag if tag.startswith("W/") else f"W/{tag}"  # as the proxy makes it when it compresses
    assert http.get(path, headers={"If-None-Match": named.format(weak)}).status_code == status


def test_the_duration_of_a_query_is_not_in_the_tag(http: httpx.Client) -> None:
    lists = [http.get(LIST) for _ in range(20)]
    assert len({reply.json()["metadata"]["query_time"] for reply in lists}) > 1, "nothing was tried"
    assert len({reply.headers["etag"] for reply in lists}) == 1
    counts = [http.get(COUNTS) for _ in range(20)]
    assert len({reply.json()["db_stats"]["elapsed_seconds"] for reply in counts}) > 1, "nothing was tried"
    assert len({reply.headers["etag"] for reply in counts}) == 1


def test_other_content_has_another_tag(http: httpx.Client) -> None:
    tags = [http.get(path).headers["etag"] for path in (LIST, f"{LIST}&limit=1", f"{LIST}&order=asc", COUNTS, BODY)]
    assert len(set(tags)) == len(tags)


def test_a_body_is_known_by_its_uid(http: httpx.Client) -> None:
    """What was acknowledged never changes, so its tag is a strong one."""
    paths = (BODY, f"/api/v1/raw_measurement?report_id={REPORT_ID}&input=https://www.example.org/")
    tags = {http.get(path).headers["etag"] for path in (*paths, ROUTES["/api/v1/measurement/<uid>"][0])}
    assert tags == {f'"{UID}"'}


def test_all_hosts_give_the_same_tags(
    http: httpx.Client, sampled_api: Any, start_api: Callable[..., Any], module_dsn: str
) -> None:
    """Behind a balancer the next host answers 304 as well."""
    other = start_api(module_dsn, base_url=sampled_api.settings["base_url"])
    for path in (LIST, COUNTS, "/openapi.json", "/"):
        tag = http.get(path).headers["etag"]
        assert other.http.get(path, headers={"If-None-Match": tag}).status_code == 304, path


def test_a_submission_has_no_tag(http: httpx.Client) -> None:
    reply = http.post("/report", json={"probe_cc": "IT", "test_name": "ndt"}, headers={"If-None-Match": "*"})
    assert reply.status_code == 200
    assert "etag" not in reply.headers
