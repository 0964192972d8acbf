"""The client in docs/examples: what it returns from a real API, and every line of its README."""

import importlib.util
import json
import os
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pandas as pd
import pytest
from api_sample import EXAMPLE, RECENT, samples
from people import signed_in_headers

FOLDER = Path(__file__).parents[3] / "docs" / "examples"
MONTH = {"since": "2024-01-01", "until": "2024-02-01"}


@pytest.fixture(scope="module")
def client() -> ModuleType:
    spec = importlib.util.spec_from_file_location("measurements_example", FOLDER / "measurements.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def in_january(**wanted: object) -> list[Any]:
    found = [
        each
        for each in samples()
        if "2024-01-01" <= str(each.start) < "2024-02-01" and all(getattr(each, key) == wanted[key] for key in wanted)
    ]
    return sorted(found, key=lambda each: each.start, reverse=True)


def test_a_frame_has_a_row_per_measurement(client: ModuleType, sampled_api: Any) -> None:
    frame = client.measurements(sampled_api.url, probe_cc="IE", **MONTH)
    assert list(frame.measurement_uid) == [each.uid for each in in_january(cc="IE")]
    assert dict(frame.dtypes.astype(str)) == client.COLUMNS
    last = frame.iloc[-1]
    assert last.measurement_start_time == pd.Timestamp("2024-01-01T00:01:00Z")
    assert last.probe_asn == EXAMPLE.asn
    assert last.blocking_general == 0.0
    assert json.loads(last.scores) == EXAMPLE.scores
    assert last.measurement_url == f"{sampled_api.url}/api/v1/raw_measurement?measurement_uid={EXAMPLE.uid}"
    states = [(row.anomaly, row.confirmed, row.failure) for row in frame.itertuples()]
    assert states == [(each.anomaly, each.confirmed, each.failure) for each in in_january(cc="IE")]
    assert "dns" in set(frame.blocking_type.dropna())


@pytest.mark.parametrize("limit", [1, 2, 3, 100])
def test_every_page_is_followed(client: ModuleType, sampled_api: Any, limit: int) -> None:
    frame = client.measurements(sampled_api.url, limit=limit, **MONTH)
    assert list(frame.measurement_uid) == [each.uid for each in in_january()]


def test_it_stops_when_told_and_tells_how_far_it_is(client: ModuleType, sampled_api: Any) -> None:
    told: list[int] = []
    frame = client.measurements(
        sampled_api.url, most=4, limit=3, progress=lambda count, row: told.append(count), **MONTH
    )
    assert len(frame) == 4
    assert told == [1, 2, 3, 4]


def test_filters_may_be_lists_and_truths(client: ModuleType, sampled_api: Any) -> None:
    since = str(RECENT[0].start.date())
    frame = client.measurements(sampled_api.url, probe_cc=["IT", "DE"], anomaly=True, since=since, domain=None)
    assert set(frame.probe_cc) == {"IT"}
    assert bool(frame.anomaly.all())
    assert len(frame) == 2


def test_nothing_is_a_frame_too(client: ModuleType, sampled_api: Any) -> None:
    frame = client.measurements(sampled_api.url, probe_cc="AQ", **MONTH)
    assert len(frame) == 0
    assert dict(frame.dtypes.astype(str)) == client.COLUMNS
    assert len(client.aggregation(sampled_api.url, axis_x="probe_asn", probe_cc="AQ", **MONTH)) == 0


def test_counts_agree_with_the_list(client: ModuleType, sampled_api: Any) -> None:
    days = client.aggregation(sampled_api.url, axis_x="measurement_start_day", axis_y="probe_cc", **MONTH)
    listed = client.measurements(sampled_api.url, **MONTH)
    assert list(days.columns) == ["measurement_start_day", "probe_cc", *client.COUNTS]
    assert str(days.measurement_start_day.dtype).startswith("datetime64")
    by_day = listed.groupby([listed.measurement_start_time.dt.floor("D"), "probe_cc"]).size()
    counted = days.set_index(["measurement_start_day", "probe_cc"]).measurement_count
    assert counted.to_dict() == by_day.to_dict()
    (total,) = client.aggregation(sampled_api.url, **MONTH).itertuples()
    assert total.measurement_count == len(listed)
    assert total.failure_count == int(listed.failure.sum())


def test_a_body(client: ModuleType, sampled_api: Any) -> None:
    assert client.raw(sampled_api.url, EXAMPLE.uid) == EXAMPLE.body()
    with pytest.raises(LookupError, match="There is no measurement"):
        client.raw(sampled_api.url, EXAMPLE.uid.replace("0123", "fedc"))


def test_a_refusal_says_what_to_change(client: ModuleType, sampled_api: Any) -> None:
    with pytest.raises(client.ApiError, match="since") as caught:
        client.measurements(sampled_api.url, since="yesterday")
    assert caught.value.status == 400
    with pytest.raises(client.ApiError, match="cannot be the same"):
        client.aggregation(sampled_api.url, axis_x="probe_cc", axis_y="probe_cc")


@contextmanager
def server(*replies: tuple[int, dict[str, str], bytes]) -> Iterator[tuple[str, list[dict[str, str]]]]:
    """A server that gives these replies, then 200; and the headers of the requests that came."""
    queue, seen = list(replies), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen.append(dict(self.headers))
            default = (200, {}, b'{"metadata": {"next_url": null}, "results": []}')
            status, headers, body = queue.pop(0) if queue else default
            self.send_response(status)
            for name, value in {"Content-Length": str(len(body)), **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)
            self.close_connection = True

        def log_message(self, *_: object) -> None:
            pass

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=http.serve_forever)
    thread.start()
    try:
        yield f"http://127.0.0.1:{http.server_address[1]}", seen
    finally:
        http.shutdown()
        thread.join()
        http.server_close()


@pytest.fixture
def waits(client: ModuleType, monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """How long the client slept; it does not really."""
    found: list[float] = []
    monkeypatch.setattr(client.time, "sleep", found.append)
    return found


def test_it_waits_as_long_as_the_server_wants(client: ModuleType, waits: list[float]) -> None:
    soon = format_datetime(datetime.now(UTC) + timedelta(seconds=100), usegmt=True)
    refusals = [(429, {"Retry-After": "22"}, b"{}"), (503, {"Retry-After": soon}, b"{}"), (503, {}, b"{}")]
    with server(*refusals) as (url, seen):
        assert len(client.measurements(url)) == 0
    assert len(seen) == 4
    assert waits[0] == 22
    assert 0 < waits[1] <= 100
    assert 2 <= waits[2] <= 6, "the third wait of its own: four seconds, more or less"
    assert "measurements-example" in seen[0]["User-Agent"]


def test_it_does_not_wait_for_ever(client: ModuleType, waits: list[float]) -> None:
    refusal = (429, {"Retry-After": "86400"}, b'{"error": "Quota exceeded."}')
    with server(refusal) as (url, seen), pytest.raises(client.ApiError, match="Quota exceeded"):
        client.measurements(url)
    with server(*[(503, {}, b"{}")] * 20) as (url, seen), pytest.raises(client.ApiError):
        client.measurements(url)
    assert len(seen) == client.ATTEMPTS
    assert sum(waits) < 120


@pytest.mark.parametrize("status", [400, 403, 404, 500, 504])
def test_what_does_not_get_better_is_not_asked_again(client: ModuleType, waits: list[float], status: int) -> None:
    refusal = (status, {}, b'{"error": "Narrow it."}')
    with server(refusal) as (url, seen), pytest.raises(client.ApiError, match="Narrow it"):
        client.measurements(url)
    assert len(seen) == 1
    assert waits == []


def test_a_server_that_is_away_is_asked_again(client: ModuleType, waits: list[float]) -> None:
    with server() as (url, _):
        pass
    with pytest.raises(client.requests.ConnectionError):
        client.measurements(url)
    assert len(waits) == client.ATTEMPTS - 1


@pytest.mark.parametrize(
    "cut",
    [
        (200, {"Content-Length": "999"}, b'{"metadata": {"next_url": nu'),
        (200, {"Transfer-Encoding": "chunked"}, b'1c\r\n{"metadata": {"next_url": nu'),
    ],
)
def test_a_reply_that_is_cut_is_asked_for_again(client: ModuleType, waits: list[float], cut: Any) -> None:
    with server(cut, cut) as (url, seen):
        assert len(client.measurements(url)) == 0
    assert len(seen) == 3
    with server(*[cut] * 20) as (url, seen), pytest.raises(client.requests.exceptions.ChunkedEncodingError):
        client.measurements(url)
    assert len(seen) == client.ATTEMPTS


@pytest.mark.parametrize(
    "scores",
    [
        None,
        [],
        {"analysis": "no object"},
        {"analysis": [1], "accuracy": "high"},
        {"analysis": {"blocking_type": {"a": 1}}, "accuracy": {}, "blocking_general": None},
    ],
)
def test_odd_scores(client: ModuleType, sampled_api: Any, scores: Any) -> None:
    row = next(client.each_measurement(sampled_api.url, probe_cc="IE", **MONTH))
    page = {"metadata": {"next_url": None}, "results": [{**row, "scores": scores}, row]}
    with server((200, {}, json.dumps(page).encode())) as (url, _):
        frame = client.measurements(url)
    assert dict(frame.dtypes.astype(str)) == client.COLUMNS
    assert frame.loc[0, [*client.SCORES, "blocking_type"]].isna().all()
    assert json.loads(frame.scores[0]) == (scores if isinstance(scores, dict) else {})
    assert frame.blocking_general[1] == row["scores"]["blocking_general"]


def test_a_second_axis_needs_a_first(folder: Path) -> None:
    with server() as (url, seen):
        done = run(folder, url, "bash", "-c", "venv/bin/python measurements.py --axis-y probe_cc")
    assert done.returncode == 2
    assert "--axis-y needs --axis-x" in done.stderr
    assert seen == []


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", (FOLDER / "README.md").read_text(), re.DOTALL)


def run(directory: Path, api: str, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "MEASUREMENT_API": api, "PYTHONPATH": str(FOLDER)}
    return subprocess.run(
        command, cwd=directory, env=environment, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder as after the first lines of the README: the files, and venv/bin/python."""
    for name in ("measurements.py", "requirements.txt"):
        (tmp_path / name).write_bytes((FOLDER / name).read_bytes())
    python = tmp_path / "venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n')
    python.chmod(0o755)
    return tmp_path


def test_the_lines_of_the_readme(folder: Path, sampled_api: Any) -> None:
    setup, usage = blocks("sh")
    assert setup.splitlines()[:2] == ["python3 -m venv venv", "venv/bin/pip install -r requirements.txt"]
    lines = usage.splitlines()
    assert len(lines) == 4
    for line in lines:
        done = run(folder, sampled_api.url, "bash", "-c", line)
        assert done.returncode == 0, f"{line}\n{done.stderr}"
    italy = pd.read_csv(folder / "italy.csv")
    assert list(italy.columns)[:4] == ["measurement_uid", "report_id", "measurement_start_time", "probe_cc"]
    assert json.loads(done.stdout) == EXAMPLE.body()


def test_the_program_writes_what_the_function_returns(client: ModuleType, folder: Path, sampled_api: Any) -> None:
    line = "venv/bin/python measurements.py --probe-cc IE --since 2024-01-01 --until 2024-02-01 --csv out.csv"
    done = run(folder, sampled_api.url, "bash", "-c", line)
    assert done.returncode == 0, done.stderr
    written = pd.read_csv(folder / "out.csv").astype(client.COLUMNS)
    pd.testing.assert_frame_equal(written, client.measurements(sampled_api.url, probe_cc="IE", **MONTH))


def test_the_program_passes_on_what_is_wrong(folder: Path, sampled_api: Any) -> None:
    done = run(folder, sampled_api.url, "bash", "-c", "venv/bin/python measurements.py --since yesterday")
    assert done.returncode == 1
    assert "since" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_lines_for_a_notebook(folder: Path, sampled_api: Any) -> None:
    (block,) = blocks("python")
    done = run(folder, sampled_api.url, sys.executable, "-W", "error", "-c", block + "\nprint(len(frame), len(days))\n")
    assert done.returncode == 0, done.stderr
    count, days = map(int, done.stdout.split())
    assert count == len(in_january())
    assert days == len({(each.start.date(), each.cc) for each in in_january()})


def test_its_access_token_is_charged(
    client: ModuleType, sampled_api: Any, module_dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    person = signed_in_headers(sampled_api, module_dsn)
    made = sampled_api.http.post("/api/v1/access_tokens", json={"name": "thesis"}, headers=person).json()
    monkeypatch.setattr(client, "TOKEN", made["token"])
    assert len(client.measurements(sampled_api.url, probe_cc="IE", **MONTH)) == len(in_january(cc="IE"))
    (listed,) = sampled_api.http.get("/api/v1/access_tokens", headers=person).json()["access_tokens"]
    assert listed["last_used_on"] is not None


def test_it_needs_nothing_else() -> None:
    wanted = re.findall(r"^([a-z-]+)>=([0-9.]+)$", (FOLDER / "requirements.txt").read_text(), re.MULTILINE)
    assert [name for name, _ in wanted] == ["pandas", "requests"]
    for name, least in wanted:
        assert tuple(map(int, version(name).split(".")[:2])) >= tuple(map(int, least.split(".")))
    imported = set(re.findall(r"^(?:import|from) (\w+)", (FOLDER / "measurements.py").read_text(), re.MULTILINE))
    assert imported <= set(sys.stdlib_module_names) | {"pandas", "requests"}
