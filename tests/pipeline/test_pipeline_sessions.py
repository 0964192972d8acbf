"""Probes of three generations complete whole sessions with the real stack, and all that is acknowledged is scored."""

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import psycopg
import pytest

from devstack.running import RunningStack, running_stack
from probesim.countries import BEHAVIOUR
from probesim.sample import SCENARIOS

PROBESIM = Path(sys.executable).parent / "probesim"
GENERATIONS = ("cli", "mobile", "legacy")


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningStack]:
    """A stack that played three sessions when it started."""
    with running_stack(tmp_path_factory.mktemp("sessions"), COUNT="0", SESSIONS="3", TRICKLE="0") as running:
        yield running


@pytest.fixture(scope="module")
def events(stack: RunningStack) -> list[dict[str, Any]]:
    """Two sessions of each generation in a country with interference, and one of each in a country without."""
    played = []
    for country, sessions, seed in (("IR", 6, 11), ("DE", 3, 12)):
        options = ["--json", "--country", country, "--sessions", str(sessions), "--seed", str(seed)]
        done = subprocess.run(
            [PROBESIM, "session", "--url", stack.url, *options],
            capture_output=True,
            text=True,
            timeout=150,
            check=False,
        )
        assert done.stdout, done.stderr
        played += [{**json.loads(line), "country": country} for line in done.stdout.splitlines()]
    return played


@pytest.fixture(scope="module")
def documents(events: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [event for event in events if event["event"] == "document"]


def test_the_sessions_at_the_start_were_whole(stack):
    for generation in GENERATIONS:
        assert f"{generation}: whole sessions" in stack.said
    assert "broken rule:" not in stack.said


def test_no_answer_breaks_a_rule_of_a_real_probe(events):
    assert [event for event in events if event["event"] == "violation"] == []


def test_every_session_is_whole(events):
    for summary in (event for event in events if event["event"] == "summary"):
        expected = summary["sessions"] // 3
        whole = {"ended": expected, "whole": expected}
        assert summary["generations"] == dict.fromkeys(sorted(GENERATIONS), whole)
        assert summary["submitted"] == summary["accepted"] > 30


def test_every_acknowledged_measurement_is_scored(stack, documents):
    uids = [document["uid"] for document in documents]
    assert len(set(uids)) == len(uids) > 100
    rows = wait_for_rows(stack, uids)
    assert rows.keys() == set(uids)
    for document in documents:
        row = rows[document["uid"]]
        assert (row["test_name"], row["probe_cc"]) == (document["test_name"], document["country"])
        assert row["report_id"] == document["report_id"]
        assert row["reason"] is None, document


def test_every_test_that_has_a_scorer_is_among_them_unless_the_server_switched_it_off(stack, documents):
    scorers = {path.name.removesuffix(".py") for path in (files("fastpath") / "score").iterdir()}
    scorers -= {"__init__", "common", "flags", "matching", "__pycache__"}
    assert len(scorers) > 20
    assert scorers <= {scenario.split("/")[0] for scenario in SCENARIOS}
    request = urllib.request.Request(f"{stack.url}/api/v1/check-in", b"{}", {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=20) as response:
        features = json.load(response)["conf"]["features"]
    off = {name.removesuffix("_enabled") for name, on in features.items() if name.endswith("_enabled") and not on}
    assert scorers - off <= {document["test_name"] for document in documents}


def test_interference_is_seen_where_it_is_and_nowhere_else(stack, documents):
    rows = wait_for_rows(stack, [document["uid"] for document in documents])
    anomalous = {(doc["country"], doc["scenario"]) for doc in documents if rows[doc["uid"]]["anomaly"]}
    assert {scenario for country, scenario in anomalous if country == "IR"} & BEHAVIOUR["IR"].keys()
    assert {scenario for country, scenario in anomalous if country == "DE"} == set()


def wait_for_rows(stack: RunningStack, uids: list[str], seconds: float = 60.0) -> dict[str, dict[str, Any]]:
    """Return the rows of measurements by their uids, once all are there or time is over."""
    deadline = time.monotonic() + seconds
    with psycopg.connect(stack.dsn, autocommit=True, row_factory=psycopg.rows.dict_row) as connection:
        while True:
            found = connection.execute(
                "SELECT measurement_uid, coalesce(test_name::text, test_name_other) AS test_name, probe_cc, report_id,"
                " anomaly, confirmed, reason FROM fastpath WHERE measurement_uid = ANY(%s)",
                [uids],
            ).fetchall()
            if len(found) == len(uids) or time.monotonic() > deadline:
                return {row["measurement_uid"]: row for row in found}
            time.sleep(0.2)
