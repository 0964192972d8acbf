"""The calls of each generation of probes, in their order, with replies decoded as strictly as those probes do.

A probe written in Go takes status 200 and nothing else, refuses `null`, and fails on a value of another type than its
own; it ignores fields that it does not know.
"""

import gzip
import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, TypeVar

import httpx
import msgspec
import psycopg
import pytest

T = TypeVar("T")

MAX_REPLY_BYTES = 16 * 1024 * 1024
AGENT = "ooniprobe-cli/3.24.0 ooniprobe-engine/3.24.0"


class Helper(msgspec.Struct):
    address: str
    type: str
    front: str = ""


class CheckInFlags(msgspec.Struct):
    features: dict[str, bool]
    test_helpers: dict[str, list[Helper]]


class Url(msgspec.Struct):
    category_code: str
    country_code: str
    url: str


class WebConnectivity(msgspec.Struct):
    report_id: str
    urls: list[Url]


class Planned(msgspec.Struct):
    web_connectivity: WebConnectivity


class CheckIn(msgspec.Struct):
    conf: CheckInFlags
    tests: Planned
    utc_time: datetime
    v: int
    probe_cc: str
    probe_asn: str
    probe_network_name: str | None


class Registered(msgspec.Struct):
    client_id: str


class LoggedIn(msgspec.Struct):
    expire: str
    token: str


class TorTarget(msgspec.Struct):
    address: str
    fingerprint: str
    protocol: str
    name: str = ""
    params: dict[str, list[str]] = {}
    source: str = ""


class OpenedReport(msgspec.Struct):
    report_id: str
    supported_formats: list[str]
    backend_version: str


class Submitted(msgspec.Struct):
    measurement_uid: str


class BouncerTest(msgspec.Struct, rename="kebab"):
    collector: str
    collector_alternate: list[Helper]
    name: str
    test_helpers: dict[str, str]
    test_helpers_alternate: dict[str, list[Helper]]
    version: str


class Bounced(msgspec.Struct, rename="kebab"):
    net_tests: list[BouncerTest]


class UrlList(msgspec.Struct):
    metadata: dict[str, Any]
    results: list[Url]


def taken(response: httpx.Response, wanted: type[T]) -> T:
    """Return a reply as a probe takes it; fails where the probe would."""
    assert response.status_code == 200, response.text
    assert not response.history, "a POST would have lost its body on the way"
    assert len(response.content) <= MAX_REPLY_BYTES
    assert response.headers["content-type"].startswith("application/json")
    assert response.content.strip() not in (b"", b"null")
    return msgspec.json.decode(response.content, type=wanted, strict=True)


class Probe:
    """A client with the habits that all generations share; it follows redirects and keeps cookies."""

    def __init__(self, url: str, **headers: str) -> None:
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        self.http = httpx.Client(base_url=url, follow_redirects=True, headers={"accept-encoding": "gzip", **named})

    def get(self, path: str, wanted: type[T], **headers: str) -> T:
        return taken(self.http.get(path, headers=headers), wanted)

    def post(self, path: str, value: object, wanted: type[T], *, content_type: str | None = "application/json") -> T:
        headers = {} if content_type is None else {"content-type": content_type}
        return taken(self.http.post(path, content=json.dumps(value).encode(), headers=headers), wanted)


@pytest.fixture(scope="module")
def api(start_api: Callable[..., Any], module_dsn: str) -> Any:
    """An API with a list of two URLs and the example configuration."""
    with psycopg.connect(module_dsn) as connection:
        connection.execute(
            "INSERT INTO citizenlab (domain, url, cc, category_code) VALUES "
            "('www.example.org', 'https://www.example.org/', 'ZZ', 'NEWS'), "
            "('www.example.net', 'https://www.example.net/', 'it', 'GOVT')"
        )
    return start_api(module_dsn, probe_config_directory="")


@pytest.fixture
def connect(api: Any) -> Iterator[Callable[..., Probe]]:
    """Return what makes a probe with given headers; its connection is closed at the end."""
    made: list[Probe] = []

    def new(**headers: str) -> Probe:
        made.append(Probe(api.url, **headers))
        return made[-1]

    yield new
    for probe in made:
        probe.http.close()


def check_helpers(helpers: dict[str, list[Helper]]) -> None:
    web = [helper for helper in helpers["web-connectivity"] if helper.type in {"https", "cloudfront"}]
    assert web
    assert web[-1].type == "cloudfront"
    assert all(helper.address.startswith("https://") for helper in web)
    assert all(helper.front for helper in web if helper.type == "cloudfront")
    assert helpers["tcp-echo"][0].type == "legacy"
    assert helpers["http-return-json-headers"][0].type == "legacy"


def metadata(**values: object) -> dict[str, object]:
    common = {"probe_asn": "AS30722", "probe_cc": "IT", "software_name": "ooniprobe-cli", "software_version": "3.24.0"}
    return {**common, **values}


def test_current_command_line_probe(connect: Callable[..., Probe]) -> None:
    probe = connect(user_agent=AGENT)
    check_helpers(probe.get("/api/v1/test-helpers", dict[str, list[Helper]]))

    asked = metadata(
        charging=True,
        on_wifi=True,
        platform="linux",
        run_type="manual",
        web_connectivity={"category_codes": []},
    )
    told = probe.post("/api/v1/check-in", asked, CheckIn)
    check_helpers(told.conf.test_helpers)
    assert told.v == 1
    assert sorted(url.url for url in told.tests.web_connectivity.urls) == [
        "https://www.example.net/",
        "https://www.example.org/",
    ]

    client = probe.post(
        "/api/v1/register", metadata(password="x" * 64, platform="miniooni", supported_tests=["tor"]), Registered
    )
    session = probe.post("/api/v1/login", {"username": client.client_id, "password": "x" * 64}, LoggedIn)
    bearer = {"authorization": f"Bearer {session.token}"}
    targets = probe.get("/api/v1/test-list/tor-targets?country_code=IT", dict[str, TorTarget], **bearer)
    assert {target.protocol for target in targets.values()} == {"or_port_dirauth", "dir_port", "obfs4"}
    assert probe.get("/api/v1/test-list/psiphon-config", dict[str, Any], **bearer)

    # What is not there must be a plain 404: the probe then submits without credentials and skips the VPN test.
    assert probe.http.get("/api/v1/manifest").status_code == 404
    assert probe.http.get("/api/v2/ooniprobe/vpn-config/riseupvpn?country_code=IT").status_code == 404

    measurement = metadata(test_name="web_connectivity", input="https://www.example.org/", test_keys={})
    sent = {"format": "json", "content": json.dumps(measurement)}
    assert probe.post("/api/v1/submit_measurement", sent, Submitted).measurement_uid


def test_mobile_library(connect: Callable[..., Probe]) -> None:
    probe = connect(user_agent="ooniprobe-android/5.0.0 ooniprobe-engine/3.24.0")
    check_helpers(probe.get("/api/v1/test-helpers", dict[str, list[Helper]]))
    asked = metadata(
        charging=False,
        on_wifi=False,
        platform="android",
        run_type="timed",
        web_connectivity={"category_codes": ["NEWS"]},
    )
    told = probe.post("/api/v1/check-in", asked, CheckIn)
    assert {url.category_code for url in told.tests.web_connectivity.urls} == {"NEWS"}
    opening = metadata(
        data_format_version="0.2.0",
        format="json",
        test_name="web_connectivity",
        test_start_time="2024-01-01 00:00:00",
        test_version="0.4.0",
    )
    opened = probe.post("/report", opening, OpenedReport)
    assert "json" in opened.supported_formats
    content = metadata(test_name="web_connectivity", report_id=opened.report_id, test_keys={})
    sent = {"format": "json", "content": content}
    assert probe.post(f"/report/{opened.report_id}", sent, Submitted).measurement_uid


def test_an_all_default_check_in_of_the_task_loader(connect: Callable[..., Probe]) -> None:
    asked = {
        "charging": False,
        "on_wifi": False,
        "platform": "",
        "probe_asn": "",
        "probe_cc": "",
        "run_type": "",
        "software_name": "",
        "software_version": "",
        "web_connectivity": {"category_codes": None},
    }
    told = connect().post("/api/v1/check-in", asked, CheckIn)
    assert [url.country_code for url in told.tests.web_connectivity.urls] == ["XX"]


@pytest.mark.parametrize("content_type", ["application/json", None, "text/plain"])
def test_legacy_probes(connect: Callable[..., Probe], content_type: str | None) -> None:
    probe = connect(user_agent="ooniprobe-legacy/2.3.0")
    asked = {
        "net-tests": [
            {"name": "web_connectivity", "version": "0.1.0", "input-hashes": [], "test-helpers": ["web-connectivity"]}
        ]
    }
    [bounced] = probe.post("/bouncer/net-tests", asked, Bounced, content_type=content_type).net_tests
    assert (bounced.name, bounced.version) == ("web_connectivity", "0.1.0")
    assert {"tcp-echo", "http-return-json-headers", "web-connectivity"} <= set(bounced.test_helpers)
    assert [helper.type for helper in bounced.collector_alternate] == ["https", "cloudfront"]
    assert probe.get("/api/v1/collectors", list[Helper])

    opening = metadata(data_format_version="0.2.0", format="json", test_name="web_connectivity")
    opened = probe.post("/report", opening, OpenedReport, content_type=content_type)
    sent = {"format": "json", "content": metadata(test_name="web_connectivity", report_id=opened.report_id)}
    assert probe.post(f"/report/{opened.report_id}", sent, Submitted, content_type=content_type).measurement_uid
    assert probe.post(f"/report/{opened.report_id}/close", {}, dict[str, str], content_type=content_type) == {}


def test_fronted_and_bridged_probes_come_with_other_host_names(connect: Callable[..., Probe]) -> None:
    probe = connect(host="distribution.example.net")
    check_helpers(probe.get("/api/v1/test-helpers", dict[str, list[Helper]]))
    assert probe.post("/api/v1/check-in", metadata(), CheckIn).tests.web_connectivity.urls


def test_compressed_requests(connect: Callable[..., Probe]) -> None:
    response = connect().http.post(
        "/api/v1/check-in",
        content=gzip.compress(json.dumps(metadata()).encode()),
        headers={"content-encoding": "gzip", "content-type": "application/json"},
    )
    assert taken(response, CheckIn).tests.web_connectivity.urls
