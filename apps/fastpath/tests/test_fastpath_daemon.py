"""The real daemon as a process of its own: HTTP, the command line, the README."""

import http.client
import json
import re
import signal
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from core.config import describe
from core.spool import INCOMING, SCORED
from fastpath.__main__ import parser
from fastpath.config import FastpathSettings
from fastpath.store import Store

Measure = Callable[..., tuple[str, bytes]]
UID = "20240101000000.000000_IT_webconnectivity_0123456789abcdef"


# HTTP ----------------------------------------------------------------------------------------------------------------


def test_every_kind_of_request_is_answered_as_agreed(daemon: Any, measurement: Measure) -> None:
    daemon.start(body_limit_bytes=10_000)
    uid, body = measurement(1)
    cases = [
        ("GET", "/", None, 200, b""),
        ("GET", f"/{uid}", None, 200, b""),
        ("PUT", "/anything", b"x", 200, b""),
        ("DELETE", "/", None, 200, b""),
        ("HEAD", "/", None, 200, b""),
        ("POST", f"/{uid}?query=ignored", body, 200, b""),
        ("POST", f"/{uid}", body, 200, b""),
        ("POST", f"/{uid}", None, 200, b""),
        ("POST", "/", body, 400, b"does not have the form"),
        ("POST", "/2", body, 400, b"does not have the form"),
        ("POST", f"/1{uid[1:]}", body, 400, b"does not have the form"),
        ("POST", f"/{uid}/more", body, 400, b"does not have the form"),
        ("POST", "/20241301000000.000000_IT_webconnectivity_0123456789abcdef", body, 400, b"impossible time"),
        ("POST", f"/../{uid}", body, 400, b"does not have the form"),
        ("POST", f"/{UID}", None, 404, b"The spool has no measurement"),
        ("POST", f"/{UID}", b"x" * 10_001, 413, b"exceeds 10000 bytes"),
    ]
    for method, path, sent, status, text in cases:
        got = daemon.request(method, path, sent)
        assert got[0] == status, (method, path, got)
        assert text in got[1] if text else got[1] == b"", (method, path, got)
        assert "server" not in got[2]
        if status >= 400:
            assert got[2]["content-type"] == "application/json"
            assert list(json.loads(got[1])) == ["error"]
    chunks = (b"x" * 6000 for _ in range(2))
    assert daemon.request("POST", f"/{UID}", chunks, encode_chunked=True)[0] == 413
    assert daemon.spool.read(UID) is None
    assert daemon.metrics()['fastpath_requests_total{code="413"}'] == 2


def test_a_posted_measurement_is_in_the_spool_and_becomes_a_row(daemon: Any, measurement: Measure) -> None:
    daemon.start()
    uid, body = measurement(1, probe_cc="BR")
    assert daemon.post(uid, body) == 200
    record = daemon.spool.read(uid)
    assert record is not None
    assert record.body == body
    daemon.wait_for(lambda: daemon.spool.path(SCORED, uid).exists())
    assert daemon.query("SELECT measurement_uid, probe_cc FROM fastpath") == [(uid, "BR")]
    got = daemon.metrics()
    assert got['fastpath_measurements_total{outcome="row"}'] == 1
    assert got["fastpath_submit_to_row_seconds_count"] == 1
    assert got["fastpath_database_up"] == 1
    assert got['fastpath_fingerprints{kind="http"}'] == 1


def test_a_spooled_measurement_needs_no_body(daemon: Any, measurement: Measure) -> None:
    daemon.start(sweep_interval_s=3600)
    uid, body = measurement(1)
    daemon.spool.put(uid, body, "")
    assert daemon.post(uid) == 200
    daemon.wait_for(lambda: daemon.rows() == {uid: 1})


def test_what_was_spooled_while_the_daemon_was_down_or_unannounced_is_found(daemon: Any, measurement: Measure) -> None:
    early, later = measurement(1), measurement(2)
    daemon.spool.put(*early, "")
    daemon.start()
    daemon.wait_for(lambda: daemon.rows() == {early[0]: 1})
    daemon.spool.put(*later, "")
    daemon.wait_for(lambda: len(daemon.rows()) == 2)


def test_a_full_disk_refuses_and_says_when_to_come_back(daemon: Any, measurement: Measure) -> None:
    daemon.start(spool_min_free_bytes=2**60)
    uid, body = measurement(1)
    status, text, headers = daemon.request("POST", f"/{uid}", body)
    assert (status, headers["retry-after"]) == (503, "1")
    assert b"could not be stored" in text
    assert daemon.spool.read(uid) is None


def test_bodies_beyond_the_memory_budget_are_put_off(daemon: Any, measurement: Measure) -> None:
    daemon.start(body_memory_bytes=100_000)
    slow = http.client.HTTPConnection("127.0.0.1", daemon.port, timeout=20)
    slow.putrequest("POST", f"/{UID}")
    slow.putheader("content-length", "90001")
    slow.endheaders()
    slow.send(b"x" * 90_000)
    uid, body = measurement(1, software_name="x" * 20_000)
    daemon.wait_for(lambda: daemon.post(uid, body) == 503)
    slow.close()  # the half request is forgotten
    daemon.wait_for(lambda: daemon.post(uid, body) == 200)
    assert daemon.spool.read(UID) is None


def test_without_fingerprints_measurements_wait(daemon: Any, measurement: Measure, fingerprints: Any) -> None:
    store = Store(daemon.dsn)
    store.replace_fingerprints([], [])
    daemon.start()
    status, text, _ = daemon.request("GET", "/ready")
    assert status == 503
    assert "fingerprints" in json.loads(text)["reasons"][0]
    uid, body = measurement(1)
    assert daemon.post(uid, body) == 200
    store.replace_fingerprints(*fingerprints)
    store.close()
    daemon.wait_for(lambda: daemon.rows() == {uid: 1})
    daemon.wait_until_ready()


# The command line ----------------------------------------------------------------------------------------------------


def run(daemon: Any, *arguments: str, **settings: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*daemon.command, *arguments],
        env=daemon.environment(**settings),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "settings", "text"),
    [
        (("--nonsense",), {}, "unrecognized arguments: --nonsense"),
        (("--std",), {}, "unrecognized arguments: --std"),
        (("--config", "/nonexistent.toml"), {}, "/nonexistent.toml does not exist"),
        ((), {"qeue_size": 3}, "OONI_FASTPATH_QUEUE_SIZE"),
        ((), {"queue_size": "many"}, "must be a whole number"),
        ((), {"log_level": "LOUD"}, "log_level must be one of"),
    ],
)
def test_wrong_usage_is_refused_with_a_sentence(
    daemon: Any, arguments: tuple[str, ...], settings: dict[str, Any], text: str
) -> None:
    done = run(daemon, *arguments, **settings)
    assert done.returncode == 2
    assert text in done.stderr


def test_a_port_in_use_is_refused_with_a_sentence(daemon: Any) -> None:
    with socket.create_server(("127.0.0.1", daemon.port)):
        done = run(daemon)
    assert done.returncode == 1
    assert f"The port 127.0.0.1:{daemon.port} cannot be opened" in done.stderr
    assert "Traceback" not in done.stderr


def test_fingerprints_are_imported_by_a_command(daemon: Any, tmp_path: Path, fingerprints: Any) -> None:
    dns, http_rows = fingerprints
    (tmp_path / "fingerprints_dns.json").write_text(json.dumps([*dns, {**dns[0], "name": "sample.second"}]))
    failed = run(daemon, "--import-fingerprints", str(tmp_path))
    assert failed.returncode == 1
    assert "fingerprints_http.json" in failed.stderr
    (tmp_path / "fingerprints_http.json").write_text(json.dumps(http_rows))
    assert run(daemon, "--import-fingerprints", str(tmp_path)).returncode == 0
    assert daemon.query("SELECT name FROM fingerprints_dns ORDER BY 1") == [("sample.dns",), ("sample.second",)]


def test_score_only_writes_nothing(daemon: Any, measurement: Measure) -> None:
    uid, body = measurement(1)
    daemon.start("--no-write-to-db", "--stdout", "--debug")
    assert daemon.post(uid, body) == 200
    daemon.wait_for(lambda: daemon.metrics()['fastpath_measurements_total{outcome="not_written"}'] == 1)
    assert daemon.rows() == {}
    assert daemon.spool.path(INCOMING, uid).exists()


def test_the_log_knows_no_client(daemon: Any, measurement: Measure) -> None:
    daemon.start("--debug")
    uid, body = measurement(1)
    daemon.post(uid, body)
    daemon.request("POST", "/bad", body)
    daemon.request("GET", "/", None, headers={"x-forwarded-for": "198.51.100.7"})
    daemon.wait_for(lambda: daemon.rows() == {uid: 1})
    assert daemon.signal(signal.SIGTERM) == 0
    log = daemon.log.read_text()
    assert "198.51.100.7" not in log
    assert "GET /" not in log
    assert log.count("127.0.0.1") == 1  # the line that says where it listens


# The README ----------------------------------------------------------------------------------------------------------

README = Path(__file__).parents[1] / "README.md"


def test_the_readme_lists_every_metric_and_no_other() -> None:
    from fastpath import metrics

    exported = {
        name if name.endswith("_total") or type(metric).__name__ != "Counter" else f"{name}_total"
        for metric in vars(metrics).values()
        for name in [getattr(metric, "_name", None)]
        if isinstance(name, str)
    }
    listed = re.findall(r"^\| `(fastpath_[a-z_]+)`", README.read_text(), re.MULTILINE)
    assert len(exported) > 15
    assert sorted(listed) == sorted(exported)
    assert all(name.startswith("fastpath_") for name in exported)


def test_the_readme_lists_every_setting_with_its_default() -> None:
    assert describe(FastpathSettings, "fastpath") in README.read_text()


def test_the_readme_lists_every_option() -> None:
    options = [option for action in parser()._actions for option in action.option_strings if option[:2] == "--"]
    for option in options:
        assert option == "--help" or f"`{option}" in README.read_text(), option
