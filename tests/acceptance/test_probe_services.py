"""What probes and their users meet, over HTTP alone: against a stack of its own, or any deployment (see README.md)."""

import gzip
import hashlib
import json
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import zstandard

from probesim.rules import demand_rfc_3339

sys.path.insert(0, str(Path(__file__).parent))
from service_client import ASN, CC, JSON, Server, envelope, measurement, meta, open_report, post, submit

PROBESIM = Path(sys.executable).parent / "probesim"
REPORT_ID = re.compile(r"\d{8}T\d{6}Z_([a-z0-9]+)_([A-Z]{2})_(\d+)_n[A-Za-z0-9]+_[A-Za-z0-9]{16}")
UID = re.compile(r"(\d{14}\.\d{6})_([A-Z]{2})_([a-z0-9]+)_([0-9a-f]{16})")
ORIGIN = "https://explorer.example.org"


class TestFlow:
    """From the helpers to the scored row (10.3, 1)."""

    def test_helpers_are_what_probes_demand(self, http: httpx.Client) -> None:
        response = http.get("/api/v1/test-helpers")
        assert response.status_code == 200
        helpers = response.json()
        assert helpers.keys() == {
            "dns", "http-return-json-headers", "ssl", "tcp-echo", "traceroute", "web-connectivity",
        }  # fmt: skip
        assert all(entry["address"] and entry["type"] for entries in helpers.values() for entry in entries)
        assert helpers["tcp-echo"][0]["type"] == helpers["http-return-json-headers"][0]["type"] == "legacy"
        assert {entry["type"] for entry in helpers["web-connectivity"]} <= {"https", "cloudfront"}
        assert helpers["web-connectivity"]
        assert "max-age=0" in response.headers["Cache-Control"]

    def test_check_in_gives_reports_flags_and_urls(self, http: httpx.Client) -> None:
        asked = {"probe_cc": CC, "probe_asn": f"AS{ASN}", "platform": "linux", "on_wifi": True, "charging": True}
        asked |= {"run_type": "timed", "software_name": "acceptance", "software_version": "1"}
        response = post(http, "/api/v1/check-in", {**asked, "web_connectivity": {"category_codes": []}})
        assert response.status_code == 200, response.text
        found = response.json()
        assert found["v"] == 1
        demand_rfc_3339(found["utc_time"], "utc_time")
        assert all(isinstance(flag, bool) for flag in found["conf"]["features"].values())
        assert found["conf"]["test_helpers"].keys() == http.get("/api/v1/test-helpers").json().keys()
        assert len(found["tests"]) == 21
        for name, test in found["tests"].items():
            report_id = REPORT_ID.fullmatch(test["report_id"])
            assert report_id is not None
            assert report_id.groups() == (name.replace("_", ""), CC, str(ASN))
        urls = found["tests"]["web_connectivity"]["urls"]
        assert 0 < len(urls) <= 100
        assert all(url.keys() == {"category_code", "country_code", "url"} for url in urls)
        assert all("urls" not in test for name, test in found["tests"].items() if name != "web_connectivity")
        assert "no-cache" in response.headers["Cache-Control"]

    def test_a_probe_on_battery_gets_fewer_urls(self, http: httpx.Client) -> None:
        found = post(http, "/api/v1/check-in", {"charging": False, "run_type": "timed"}).json()
        assert 0 < len(found["tests"]["web_connectivity"]["urls"]) <= 20

    @pytest.mark.parametrize(
        "nothing", [{"web_connectivity": None}, {"web_connectivity": {"category_codes": None}}, {}]
    )
    def test_nothing_in_the_place_of_categories_is_no_error(self, http: httpx.Client, nothing: dict[str, Any]) -> None:
        found = post(http, "/api/v1/check-in", nothing)
        assert found.status_code == 200, found.text
        assert found.json()["tests"]["web_connectivity"]["urls"]

    def test_a_measurement_gets_a_uid_made_of_its_bytes_and_is_served_and_scored(self, http: httpx.Client) -> None:
        report_id = open_report(http)
        content = measurement(report_id)
        body = envelope(content)
        before = datetime.now(UTC).replace(tzinfo=None)
        uid = submit(http, report_id, body)["measurement_uid"]
        parts = UID.fullmatch(uid)
        assert parts is not None, uid
        received = datetime.strptime(parts[1], "%Y%m%d%H%M%S.%f")  # noqa: DTZ007 uids are in UTC
        assert abs((received - before).total_seconds()) < 300
        assert parts.groups()[1:] == (CC, "telegram", hashlib.sha512(body).hexdigest()[:16])
        served = http.get("/api/v1/raw_measurement", params={"measurement_uid": uid})
        assert served.content == json.dumps(content).encode()
        row = meta(http, uid)
        assert (row["report_id"], row["test_name"], row["probe_cc"]) == (report_id, "telegram", CC)
        assert row["probe_asn"] == ASN

    def test_the_route_of_the_current_cli_makes_the_report_itself(self, http: httpx.Client) -> None:
        assert http.get("/api/v1/manifest").status_code == 404
        content = measurement("")
        del content["report_id"]
        asked = {"format": "json", "content": json.dumps(content), "nym": None, "zkp_request": None}
        response = post(http, "/api/v1/submit_measurement", asked)
        assert response.status_code == 200, response.text
        found = response.json()
        assert REPORT_ID.fullmatch(found["report_id"])
        assert found["verification_status"] == "unverified"
        assert meta(http, found["measurement_uid"])["report_id"] == found["report_id"]

    def test_a_report_is_closed_with_an_empty_object(self, http: httpx.Client) -> None:
        response = http.post(f"/report/{open_report(http)}/close")
        assert (response.status_code, response.json()) == (200, {})

    def test_probes_without_a_content_type_are_understood(self, http: httpx.Client) -> None:
        response = http.post("/report", content=b'{"probe_cc": "IT", "probe_asn": "AS64512", "test_name": "ndt"}')
        assert response.status_code == 200
        assert REPORT_ID.fullmatch(response.json()["report_id"])

    def test_answers_are_compressed_for_who_takes_it(self, http: httpx.Client) -> None:
        for path in ("/api/v1/test-helpers", "/api/v1/test-list/urls?country_code=IT"):
            for encoding in ("gzip", "identity"):
                response = http.get(path, headers={"Accept-Encoding": encoding})
                assert response.status_code == 200
                assert response.headers.get("Content-Encoding", "identity") in ("identity", encoding)
                assert response.json()

    @pytest.mark.parametrize("generation", ["cli", "mobile", "legacy"])
    def test_probes_of_each_generation_complete_whole_sessions(self, server: Server, generation: str) -> None:
        seed = str(time.time_ns() % 10**6)
        options = ["--sessions", "2", "--seed", seed, "--json", *(["--ca", server.ca] if server.ca else [])]
        done = subprocess.run(
            [PROBESIM, "session", "--url", server.url, "--generation", generation, *options],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        events = [json.loads(line) for line in done.stdout.splitlines()]
        violations = [event for event in events if event["event"] == "violation"]
        assert violations == [], json.dumps(violations, indent=1)
        assert done.returncode == 0, done.stderr
        assert events[-1]["generations"] == {generation: {"ended": 2, "whole": 2}}
        uids = [event["uid"] for event in events if event["event"] == "document"]
        assert all(uids)
        assert all(meta(server.http, uid) for uid in uids[-5:])


class TestScorerDown:
    """A measurement is taken while nobody can score it (10.3, 2)."""

    def test_it_is_acknowledged_readable_and_scored_later(self, server: Server) -> None:
        if server.run_dir is None:
            pytest.skip("a deployment is not disturbed; against a stack of our own the fastpath is stopped")
        scorers = _processes_of(server.run_dir, "fastpath")
        assert scorers
        for pid in scorers:
            os.kill(pid, signal.SIGSTOP)
        try:
            report_id = open_report(server.http)
            content = measurement(report_id)
            uid = submit(server.http, report_id, envelope(content))["measurement_uid"]
            assert server.http.get("/api/v1/raw_measurement", params={"measurement_uid": uid}).json() == content
            assert any((server.run_dir / "spool" / "incoming").rglob(f"{uid}.post"))
            assert meta(server.http, uid, seconds=1) == {}
        finally:
            for pid in scorers:
                os.kill(pid, signal.SIGCONT)
        assert meta(server.http, uid)["report_id"] == report_id


def _processes_of(run_dir: Path, program: str) -> list[int]:
    """Processes of a program that work for the stack in `run_dir`."""
    mark = f"OONI_FASTPATH_SPOOL_DIRECTORY={run_dir}/spool".encode()
    found = []
    for directory in Path("/proc").glob("[0-9]*"):
        try:
            command = (directory / "cmdline").read_bytes().split(b"\0")
            environ = (directory / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if mark in environ and any(part.endswith(f"/{program}".encode()) for part in command[:2]):
            found.append(int(directory.name))
    return found


class TestWhatIsNotStored:
    """Reports that say too little, ids that are none, and compressed bodies (10.3, 3)."""

    @pytest.mark.parametrize(("cc", "asn"), [("IT", 0), ("ZZ", ASN), ("zz", ASN)])
    def test_without_network_or_country_it_is_dropped_in_silence(self, http: httpx.Client, cc: str, asn: int) -> None:
        report_id = open_report(http, cc=cc, asn=asn).replace("_ZZ_", f"_{cc}_")
        assert submit(http, report_id, envelope(measurement(report_id, cc=cc, asn=asn))) == {}
        time.sleep(0.5)
        listed = http.get("/api/v1/measurements", params={"report_id": report_id})
        assert listed.status_code == 200, listed.text
        assert listed.json()["results"] == []

    @pytest.mark.parametrize(
        "report_id",
        [
            "bogus",
            "20240101T000000Z_telegram_IT_64512_n1",
            "20240101T000000Z_telegram_ITA_64512_n1_abcdefghijklmnop",
            "20240101T000000Z_t_IT_64512_n1_abcdefghijklmnop",
            "20240101T000000Z_telegram_IT_x_n1_abcdefghijklmnop",
        ],
    )
    def test_a_malformed_report_id_is_refused(self, http: httpx.Client, report_id: str) -> None:
        response = http.post(f"/report/{report_id}", content=envelope(measurement(report_id)), headers=JSON)
        assert response.status_code == 400
        assert "Incorrect format" in response.json()["error"]

    @pytest.mark.parametrize(("encoding", "compress"), [("zstd", zstandard.compress), ("gzip", gzip.compress)])
    def test_the_uid_of_a_compressed_body_is_that_of_its_content(
        self, http: httpx.Client, encoding: str, compress: Any
    ) -> None:
        report_id = open_report(http)
        content = measurement(report_id)
        body = envelope(content)
        uid = submit(http, report_id, compress(body), **{"Content-Encoding": encoding})["measurement_uid"]
        assert uid.endswith(f"_{hashlib.sha512(body).hexdigest()[:16]}")
        assert http.get("/api/v1/raw_measurement", params={"measurement_uid": uid}).json() == content

    def test_what_is_not_compressed_as_it_says_is_refused(self, http: httpx.Client) -> None:
        headers = {**JSON, "Content-Encoding": "zstd"}
        response = http.post(f"/report/{open_report(http)}", content=b"not zstd", headers=headers)
        assert response.status_code == 400
        assert response.json()["error"]

    @pytest.mark.parametrize("path", ["/report", "/api/v1/check-in", "/api/v1/login", "/bouncer/net-tests"])
    def test_no_json_is_an_error_of_the_sender(self, http: httpx.Client, path: str) -> None:
        for body in (b"", b"{", b"\xff\xfe", b"[" * 100_000):
            response = http.post(path, content=body, headers=JSON)
            assert response.status_code in {400, 413}, (path, body[:10], response.text)
            assert response.json()["error"]


class TestIdentity:
    """Registration, login and what a token opens (10.3, 4)."""

    def test_registration_gives_an_id_and_login_a_token_for_a_week(self, http: httpx.Client) -> None:
        registered = post(http, "/api/v1/register", {"password": "x" * 64, "platform": "linux"})
        assert registered.status_code == 200, registered.text
        asked = {"username": registered.json()["client_id"], "password": "x" * 64}
        logged_in = post(http, "/api/v1/login", asked)
        assert logged_in.status_code == 200, logged_in.text
        demand_rfc_3339(logged_in.json()["expire"], "expire")
        days = (datetime.fromisoformat(logged_in.json()["expire"]) - datetime.now(UTC)).total_seconds() / 86_400
        assert 6.9 < days < 7.01

    def test_a_token_opens_the_targets_and_the_configuration(self, http: httpx.Client, token: str) -> None:
        targets = http.get(
            "/api/v1/test-list/tor-targets?country_code=IT", headers={"Authorization": f"Bearer {token}"}
        )
        assert targets.status_code == 200, targets.text
        assert targets.json()
        for target in targets.json().values():
            assert target["address"]
            assert target["protocol"]
        psiphon = http.get("/api/v1/test-list/psiphon-config", headers={"Authorization": f"Bearer {token}"})
        assert psiphon.status_code == 200, psiphon.text
        assert isinstance(psiphon.json(), dict)

    def test_a_vpn_configuration_is_an_object_or_not_there(self, http: httpx.Client) -> None:
        response = http.get("/api/v2/ooniprobe/vpn-config/riseupvpn?country_code=IT")
        assert response.status_code in {200, 404}
        assert isinstance(response.json(), dict)

    @pytest.mark.parametrize("path", ["/api/v1/test-list/tor-targets", "/api/v1/test-list/psiphon-config"])
    def test_a_damaged_token_or_none_opens_nothing(self, http: httpx.Client, token: str, path: str) -> None:
        head, claims, signature = token.split(".")
        flipped = ("B" if signature[0] == "A" else "A") + signature[1:]
        for damaged in (f"{head}.{claims}.{flipped}", f"{head}.{claims}.", token[:-5], "nonsense"):
            response = http.get(path, headers={"Authorization": f"Bearer {damaged}"})
            assert response.status_code == 401, (damaged, response.text)
        assert http.get(path).status_code in {400, 401}
        assert http.get(path, headers={"Authorization": f"Basic {token}"}).status_code == 400

    def test_a_client_id_is_no_token(self, http: httpx.Client) -> None:
        client_id = post(http, "/api/v1/register", {"password": "x"}).json()["client_id"]
        response = http.get("/api/v1/test-list/tor-targets", headers={"Authorization": f"Bearer {client_id}"})
        assert response.status_code == 401

    def test_ids_of_the_past_may_log_in_and_forged_ones_may_not(self, http: httpx.Client) -> None:
        old = post(http, "/api/v1/login", {"username": "0123456789abcdef", "password": "x"})
        assert old.status_code == 200, old.text
        client_id = post(http, "/api/v1/register", {"password": "x"}).json()["client_id"]
        head, claims, signature = client_id.split(".")
        forged = f"{head}.{claims}.{'A' * len(signature)}"
        assert post(http, "/api/v1/login", {"username": forged, "password": "x"}).status_code == 401

    def test_a_device_may_tell_about_itself(self, http: httpx.Client) -> None:
        client_id = post(http, "/api/v1/register", {"password": "x"}).json()["client_id"]
        response = http.put(f"/api/v1/update/{client_id}", content=b'{"probe_cc": "IT"}', headers=JSON)
        assert (response.status_code, response.json()) == (200, {"status": "ok"})


class TestUrlList:
    """The list of URLs (10.3, 5)."""

    def listed(self, http: httpx.Client, **query: Any) -> dict[str, Any]:
        response = http.get("/api/v1/test-list/urls", params=query)
        assert response.status_code == 200, response.text
        return dict(response.json())

    def test_the_metadata_are_the_constants(self, http: httpx.Client) -> None:
        found = self.listed(http, country_code="IT")
        count = len(found["results"])
        assert count > 0
        expected = {"count": count, "current_page": -1, "limit": -1, "next_url": "", "pages": 1}
        assert found["metadata"] == expected

    def test_categories_limit_and_country_are_respected(self, http: httpx.Client) -> None:
        everything = self.listed(http, country_code="IT")["results"]
        codes = sorted({url["category_code"] for url in everything})[:2]
        some = self.listed(http, country_code="IT", category_codes=",".join(codes).lower())["results"]
        assert {url["category_code"] for url in some} == set(codes)
        assert len(some) < len(everything)
        assert len(self.listed(http, country_code="IT", limit=3)["results"]) == 3
        assert {url["country_code"] for url in everything} <= {"IT", "XX"}
        assert {url["country_code"] for url in everything} >= {"XX"}

    def test_the_older_parameter_is_understood(self, http: httpx.Client) -> None:
        assert self.listed(http, probe_cc="it")["metadata"] == self.listed(http, country_code="IT")["metadata"]

    def test_malformed_parameters_give_an_empty_object(self, http: httpx.Client) -> None:
        response = http.get("/api/v1/test-list/urls", params={"country_code": "IT", "limit": "many"})
        assert (response.status_code, response.json()) == (200, {})


class TestLimits:
    """Probes are never limited, since whole countries share an address (10.3, 11)."""

    def test_nothing_that_probes_call_has_a_quota(self, http: httpx.Client) -> None:
        for number in range(100):
            for response in (
                http.get("/health"),
                post(http, "/report", {"probe_cc": CC, "probe_asn": f"AS{ASN}", "test_name": f"t{number}"}),
                http.get("/api/v1/test-helpers"),
                post(http, "/api/v1/check-in", {}),
                http.get("/api/v1/test-list/urls", params={"country_code": "IT", "limit": "1"}),
            ):
                assert response.status_code == 200, response.text
                assert "X-RateLimit-Remaining" not in response.headers


class TestWeb:
    """What browsers, crawlers and old links need (10.3, 12)."""

    @pytest.mark.parametrize(
        ("path", "status"),
        [
            ("/api/v1/test-helpers", 200),
            ("/api/v1/measurements?limit=1", 200),
            ("/api/v1/raw_measurement?report_id=x", 400),
            ("/api/v1/test-list/tor-targets", 401),
            ("/no/such/path", 404),
        ],
    )
    def test_any_origin_may_read_answers_and_errors(self, http: httpx.Client, path: str, status: int) -> None:
        response = http.get(path, headers={"Origin": ORIGIN})
        assert response.status_code == status, response.text
        assert response.headers["Access-Control-Allow-Origin"] in {"*", ORIGIN}
        assert "Access-Control-Allow-Credentials" not in response.headers

    def test_a_preflight_is_answered(self, http: httpx.Client) -> None:
        headers = {
            "Origin": ORIGIN,
            "Access-Control-Request-Method": "GET",
            "Access-Control-Request-Headers": "authorization",
        }
        response = http.options("/api/v1/measurements", headers=headers)
        assert (response.status_code, response.content) == (200, b"")
        assert response.headers["Access-Control-Allow-Origin"] in {"*", ORIGIN}
        assert "authorization" in response.headers["Access-Control-Allow-Headers"].lower()
        assert "GET" in response.headers["Access-Control-Allow-Methods"]

    def test_crawlers_are_told_what_to_leave_alone(self, http: httpx.Client) -> None:
        response = http.get("/robots.txt")
        assert response.status_code == 200
        assert response.headers["Content-Type"].startswith("text/plain")
        for path in ("/api/_", "/api/v1/raw_measurement", "/api/v1/test-list/urls", "/files"):
            assert f"Disallow: {path}" in response.text

    @pytest.mark.parametrize("path", ["/2024-02-28", "/files/by_date/2024-02-28"])
    def test_old_links_to_a_day_lead_to_the_search(self, http: httpx.Client, path: str) -> None:
        response = http.get(path)
        assert response.status_code == 301
        assert response.headers["Location"].endswith("/search?until=2024-02-29&since=2024-02-28")

    def test_days_that_never_were_are_no_crash(self, http: httpx.Client) -> None:
        assert http.get("/2024-13-01").status_code == 404
        assert http.get("/files/by_date/2024-02-30").status_code == 400

    def test_the_landing_page_and_health(self, http: httpx.Client) -> None:
        page, health = http.get("/"), http.get("/health")
        assert (page.status_code, health.status_code, health.text) == (200, 200, "UP")
        assert "Welcome to" in page.text
        assert "json" not in page.headers["Content-Type"]

    def test_probes_that_come_through_a_content_network_are_answered(self, http: httpx.Client) -> None:
        """They name its host, not ours."""
        response = http.get("/api/v1/test-helpers", headers={"Host": "d0000000000000.cloudfront.example"})
        assert response.status_code == 200
        assert response.json()

    def test_any_name_in_the_handshake_gets_our_certificate(self, server: Server) -> None:
        """Probes behind censorship name an unrelated site there, and still demand our certificate."""
        address = urlsplit(server.url)
        if address.scheme != "https":
            pytest.skip("a stack of our own has no TLS; set ACCEPTANCE_URL to a deployment")
        assert address.hostname is not None
        context = ssl.create_default_context(cafile=server.ca or None)
        context.check_hostname = False
        with (
            socket.create_connection((address.hostname, address.port or 443), timeout=20) as plain,
            context.wrap_socket(plain, server_hostname="www.example.com") as tls,
        ):
            certificate = tls.getpeercert() or {}
            tls.sendall(f"GET /health HTTP/1.1\r\nHost: {address.hostname}\r\nConnection: close\r\n\r\n".encode())
            answered = tls.recv(100)
        assert ("DNS", address.hostname) in certificate["subjectAltName"]
        assert answered.startswith(b"HTTP/1.1 200")

    def test_the_routes_that_probes_post_to_never_redirect(self, http: httpx.Client) -> None:
        report_id = open_report(http)
        for path in ("/report", "/report/", f"/report/{report_id}", f"/report/{report_id}/close", "/api/v1/check-in"):
            assert post(http, path, {}).status_code not in {301, 302, 303}, path
