"""Whole sessions: complete with a backend that keeps the rules, and every rule noticed when it is broken.

The backend here is a small one that answers by the wire contract and can be told to break one rule at a time, which the
real one cannot. Sessions with the real one are in tests/pipeline and tests/acceptance.
"""

import asyncio
import gzip
import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from probesim.config import SessionSettings
from probesim.countries import BEHAVIOUR
from probesim.rules import MAX_REPLY_BYTES, RULES, Violation
from probesim.sessions import Listener, Tally, play
from probesim.submissions import Submitted

sys.path.insert(0, str(Path(__file__).parent))
from contract_backend import CHECK_IN, HELPERS, URLS, Backend, answer, changed, hang_up, raw, redirect


@pytest.fixture
def backend() -> Iterator[Backend]:
    with Backend() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class Played:
    """The end of some sessions."""

    def __init__(self, backend: Backend, *generations: str, **settings: Any) -> None:
        self.violations: list[Violation] = []
        self.documents: list[Submitted] = []
        self.progress: list[dict[str, Any]] = []
        listener = Listener(self.violations.append, self.documents.append, self.progress.append)
        chosen = SessionSettings(url=backend.url, generations=generations, **{"sessions": 1, **settings})
        self.tally: Tally = asyncio.run(play(chosen, listener))

    @property
    def broken(self) -> set[tuple[str, str]]:
        return {(found.call, found.rule) for found in self.violations}


@pytest.mark.parametrize("generation", ["cli", "mobile", "legacy"])
def test_a_session_is_whole_with_a_backend_that_keeps_the_rules(backend, generation):
    played = Played(backend, generation, sessions=4, seed=3)
    assert played.violations == []
    assert played.tally.whole == {generation: 4}
    assert len(played.documents) == played.tally.outcomes["accepted"] > 40
    assert not any(status for status, _, _ in backend.requests if "None" in status)


def test_the_cli_asks_in_its_order_and_never_opens_a_report(backend):
    Played(backend, "cli")
    order = list(dict.fromkeys(route for route, _, _ in backend.requests))
    first = ["GET /api/v1/test-helpers", "POST /api/v1/check-in", "GET /api/v1/manifest"]
    assert order[:4] == [*first, "POST /api/v1/submit_measurement"]
    logging_in = ["POST /api/v1/register", "POST /api/v1/login", "GET /api/v1/test-list/tor-targets"]
    start = order.index(logging_in[0])
    assert order[start : start + 3] == logging_in
    assert not any("/report" in route for route in order)
    (asked,) = backend.bodies("POST /api/v1/check-in")
    assert (asked["charging"], asked["on_wifi"]) == (True, True)
    assert asked["web_connectivity"]["category_codes"] is not None
    for submission in backend.bodies("POST /api/v1/submit_measurement"):
        assert submission["format"] == "json"
        assert "report_id" not in json.loads(submission["content"])
    for route in ("GET /api/v1/test-list/tor-targets", "GET /api/v1/test-list/psiphon-config"):
        assert [headers["Authorization"] for headers in backend.headers(route)] == ["Bearer d.e.f"]


def test_the_manifest_is_asked_for_once_per_test_run(backend):
    Played(backend, "cli")
    contents = [json.loads(body["content"]) for body in backend.bodies("POST /api/v1/submit_measurement")]
    runs = {(content["test_name"], content["test_start_time"]) for content in contents}
    assert len(backend.headers("GET /api/v1/manifest")) == len(runs) < len(contents)


def test_the_app_opens_a_report_per_test_run_and_closes_none(backend):
    Played(backend, "mobile")
    opened = backend.bodies("POST /report")
    sent = [body["content"] for body in backend.bodies("POST /report/submit")]
    assert len(opened) == len({content["report_id"] for content in sent})
    assert len({(body["test_name"], body["test_start_time"]) for body in opened}) == len(opened)
    assert backend.headers("POST /report/close") == []
    (asked,) = backend.bodies("POST /api/v1/check-in")
    assert (asked["charging"], asked["run_type"]) == (False, "timed")


def test_old_probes_close_reports_send_yaml_and_may_omit_the_content_type(backend):
    Played(backend, "legacy", sessions=8)
    sent = backend.bodies("POST /report/submit")
    assert {body["format"] for body in sent} == {"json", "yaml"}
    for body in sent:
        content = yaml.safe_load(body["content"]) if body["format"] == "yaml" else body["content"]
        assert content["report_id"].startswith("20")
        assert isinstance(content["measurement_start_time"], str)
    assert len(backend.headers("POST /report/close")) == len(backend.headers("POST /report"))
    assert {headers.get("Content-Type") for headers in backend.headers("POST /report")} == {None, "application/json"}
    discovered = {route for route, _, _ in backend.requests} & {"POST /bouncer/net-tests", "GET /api/v1/collectors"}
    assert len(discovered) == 2
    assert all(headers["User-Agent"].startswith("okhttp") for headers in backend.headers("GET /api/v1/measurements"))


def test_flags_of_check_in_switch_tests_off(backend):
    flags = {"torsf_enabled": False, "vanilla_tor_enabled": True, "telegram_enabled": False}
    backend.troubles["POST /api/v1/check-in"] = changed(
        "POST /api/v1/check-in", conf={"features": flags, "test_helpers": HELPERS}
    )
    ran = {document.test_name for document in Played(backend, "cli").documents}
    assert "vanilla_tor" in ran
    assert not ran & {"torsf", "telegram"}


def test_the_same_seed_makes_the_same_documents(backend):
    first, second, other = (Played(backend, "mobile", sessions=2, seed=seed, concurrency=1) for seed in (5, 5, 6))
    scenarios = [
        [(found.scenario, found.bytes_sent) for found in played.documents] for played in (first, second, other)
    ]
    assert scenarios[0] == scenarios[1] != scenarios[2]


def test_countries_behave_as_the_table_says(backend):
    open_country = Played(backend, "legacy", "mobile", sessions=6, countries=("DE",)).documents
    assert {found.scenario.split("/")[1] for found in open_country} == {"ok", "accessible"}
    closed_country = Played(backend, "legacy", "mobile", sessions=6, countries=("IR",)).documents
    assert {found.scenario for found in closed_country} & BEHAVIOUR["IR"].keys()
    assert {body["probe_cc"] for body in backend.bodies("POST /report")} == {"DE", "IR"}


def test_the_rate_of_sessions_is_kept(backend):
    played = Played(backend, "legacy", sessions=6, rate=5.0, concurrency=6)
    assert played.tally.so_far()["seconds"] >= 1.0


HELPERS_ROUTE, CHECK_IN_ROUTE, OPEN_ROUTE = "GET /api/v1/test-helpers", "POST /api/v1/check-in", "POST /report"
TOO_LONG = b" " * (MAX_REPLY_BYTES + 1)
NO_URLS = {"web_connectivity": {"report_id": "x", "urls": []}}

BROKEN_HELPERS = [
    ("not-null", answer(None)),
    ("helper-web-connectivity", answer({**HELPERS, "web-connectivity": []})),
    ("helper-legacy-first", answer({**HELPERS, "tcp-echo": []})),
    ("status-200", answer(HELPERS, 201)),
    ("answered", hang_up),
    ("few-redirects", redirect(302, "/api/v1/test-helpers")),
    ("at-most-16-mib", raw(TOO_LONG)),
    ("at-most-16-mib", raw(gzip.compress(TOO_LONG), Content_Encoding="gzip")),
    ("encoding-gzip", raw(b"{}", Content_Encoding="br")),
    ("encoding-gzip", raw(b"{}", Content_Encoding="gzip")),
    ("json", raw(b"<html>")),
]
BROKEN_CHECK_IN = [
    ("features-are-booleans", changed(CHECK_IN_ROUTE, conf={"features": {"a": "yes"}})),
    ("rfc-3339", changed(CHECK_IN_ROUTE, utc_time="2024-01-01 00:00:00")),
    ("shape", changed(CHECK_IN_ROUTE, v="1")),
    ("urls-not-empty", changed(CHECK_IN_ROUTE, tests=NO_URLS)),
    ("report-id", changed(CHECK_IN_ROUTE, tests={})),
    ("post-stays-post", redirect(301, "/elsewhere")),
]
BROKEN = [
    *(("mobile", HELPERS_ROUTE, trouble, "test-helpers", rule) for rule, trouble in BROKEN_HELPERS),
    *(("mobile", CHECK_IN_ROUTE, trouble, "check-in", rule) for rule, trouble in BROKEN_CHECK_IN),
    ("mobile", OPEN_ROUTE, changed(OPEN_ROUTE, report_id="x", supported_formats=[]), "open-report", "json-supported"),
    ("mobile", OPEN_ROUTE, changed(OPEN_ROUTE), "open-report", "report-id"),
    ("mobile", "POST /report/submit", answer({}), "submit-to-report", "measurement-uid"),
    ("cli", "GET /api/v1/manifest", answer({"manifest": {}}), "manifest", "manifest-is-404"),
    ("cli", "POST /api/v1/submit_measurement", answer({}), "submit-measurement", "measurement-uid"),
    ("cli", "POST /api/v1/register", answer({}), "register", "credentials"),
    ("cli", "POST /api/v1/login", answer({"token": "x", "expire": "never"}), "login", "rfc-3339"),
    ("cli", "GET /api/v1/test-list/tor-targets", answer({}), "tor-targets", "tor-targets"),
    ("cli", "GET /api/v1/test-list/psiphon-config", answer({}, 401), "psiphon-config", "status-200"),
    ("legacy", "POST /report/close", answer(None), "close-report", "closed"),
    ("legacy", "PUT /api/v1/update/a.b.c", answer({}, 405), "update", "status-200"),
    ("legacy", "GET /api/v1/test-list/urls", answer({}), "test-list-urls", "shape"),
    ("legacy", "GET /api/v1/measurements", answer({"results": []}), "okhttp-poll", "dummy-list"),
    ("legacy", "GET /api/v1/collectors", answer([]), "collectors", "collector"),
    ("legacy", "POST /bouncer/net-tests", answer({"net-tests": []}), "bouncer", "collector"),
]


@pytest.mark.parametrize(
    ("generation", "route", "trouble", "call", "rule"), BROKEN, ids=[f"{case[3]}-{case[4]}" for case in BROKEN]
)
def test_a_broken_rule_is_named(backend, generation, route, trouble, call, rule):
    backend.troubles[route] = trouble
    played = Played(backend, generation, sessions=6 if call in ("collectors", "bouncer") else 1)
    assert played.broken == {(call, rule)}
    assert played.tally.latencies.broken[rule] == len(played.violations)


def test_every_rule_is_broken_in_some_test():
    assert {case[4] for case in BROKEN} == RULES.keys()


def test_a_call_that_takes_too_long_is_not_answered(backend):
    over = threading.Event()
    backend.troubles["GET /api/v1/test-helpers"] = lambda handler: (over.wait(20), hang_up(handler))[1]
    played = Played(backend, "mobile", patience_s=0.2)
    over.set()
    assert played.broken == {("test-helpers", "answered")}


def test_a_redirected_post_is_repeated_whole_with_307(backend):
    backend.troubles["POST /api/v1/check-in"] = redirect(307, "/moved")
    backend.troubles["POST /moved"] = answer(CHECK_IN)
    assert Played(backend, "mobile").broken == set()
    assert backend.bodies("POST /moved") == backend.bodies("POST /api/v1/check-in") != []


def test_cookies_last_for_the_session_and_no_longer(backend):
    helpers = "GET /api/v1/test-helpers"
    backend.troubles[helpers] = lambda handler: handler.reply(200, HELPERS, Set_Cookie="a=1; Path=/")
    Played(backend, "mobile", sessions=2, concurrency=1)
    assert [headers.get("Cookie") for headers in backend.headers(helpers)] == [None, None]
    assert {headers.get("Cookie") for headers in backend.headers("POST /report")} == {"a=1"}


def test_a_refused_report_stops_its_test_and_nothing_else(backend):
    backend.troubles["POST /report"] = lambda handler: (
        handler.reply(500, {}) if b'"telegram"' in handler.body else handler.reply(200, handler._answer())
    )
    played = Played(backend, "mobile")
    assert played.broken == {("open-report", "status-200")}
    ran = {document.test_name for document in played.documents}
    assert "telegram" not in ran
    assert len(ran) > 8


def test_unwanted_categories_are_thrown_away(backend):
    only = [url for url in URLS if url["category_code"] == "HUMR"]
    backend.troubles["POST /api/v1/check-in"] = changed(
        "POST /api/v1/check-in", tests={"web_connectivity": {"report_id": "x", "urls": only}}
    )
    played = Played(backend, "cli", sessions=12)
    asked = [body["web_connectivity"]["category_codes"] for body in backend.bodies("POST /api/v1/check-in")]
    assert ["NEWS"] in asked
    assert [] in asked
    assert played.tally.latencies.broken == {"urls-not-empty": asked.count(["NEWS"])}


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "probesim", "session", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_command_reports_json_lines(backend):
    done = command("--url", backend.url, "--sessions", "3", "--json")
    assert done.returncode == 0, done.stdout
    *documents, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert {document["event"] for document in documents} == {"document"}
    assert summary["event"] == "summary"
    assert (summary["sessions"], summary["whole"]) == (3, 3)
    assert summary["submitted"] == summary["accepted"] == len(documents)
    assert summary["by_call"]["check-in"]["count"] == 2
    assert 0 < summary["p50_ms"] <= summary["p95_ms"] <= summary["p99_ms"]


def test_command_fails_and_names_what_was_broken(backend):
    backend.troubles["POST /report"] = answer({}, 500)
    done = command("--url", backend.url, "--generation", "mobile", "--sessions", "1", "--country", "it")
    assert done.returncode == 1
    assert "broken: status-200 in open-report (mobile, session 0): 500" in done.stdout
    assert "mobile       1 sessions, 0 of them without a broken rule" in done.stdout


def test_command_names_a_country_without_networks():
    done = command("--country", "AQ")
    assert done.returncode == 2
    assert "no network is simulated in AQ" in done.stderr
