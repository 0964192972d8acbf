"""The command line: what it accepts, and that each refusal is one sentence that says what to do next."""

import fcntl
import os
import pty
import re
import select
import subprocess
import sys
import termios
import time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from fastpath.cli import parser, rerun_request, settings_from
from fastpath.config import FastpathSettings
from fastpath.countries import KNOWN_COUNTRIES
from fastpath.progress import Meter
from fastpath.rerun import default_workers
from fastpath.rerun_work import Tally

RANGE = ("--noapi", "--start-day", "2024-01-02", "--end-day", "2024-01-03")


def run(*arguments: str, **environment: str) -> "subprocess.CompletedProcess[str]":
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("OONI_")}
    return subprocess.run(
        [sys.executable, "-m", "fastpath", *arguments],
        env=inherited | {"OONI_FASTPATH_RERUN_METRICS_PORT": "0"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--noapi",), "A rerun needs a range of days. Add --start-day"),
        (("--update",), "--update is for reruns. Add --noapi --start-day"),
        (("--ccs", "IT"), "--ccs is for reruns"),
        (("--start-day", "2024-01-03", "--end-day", "2024-01-02"), "is not after the start 2024-01-03"),
        (("--start-day", "2024-01-03", "--end-day", "2024-01-03"), "for one day give the next day"),
        (("--start-day", "2999-01-01"), "is not before today"),
        (("--start-day", "2024-02-30"), "'2024-02-30' is no day; write it like 2024-01-31"),
        (("--start-day", "yesterday"), "'yesterday' is no day"),
        ((*RANGE, "--ccs", "XX"), "'XX' is no country code. Write two letters each, like --ccs IT,DE."),
        ((*RANGE, "--ccs", ","), "--ccs names nothing"),
        ((*RANGE, "--testnames", "webconnectivty"), "The nearest one is webconnectivity."),
        ((*RANGE, "--stop-after", "0"), "'0' is no number above zero"),
        ((*RANGE, "--workers", "-1"), "no number above zero"),
        ((*RANGE, "--update", "--no-write-to-db"), "Leave out one of them"),
        ((*RANGE, "--keep-s3-cache", "--no-write-msmt"), "which --no-write-msmt forbids"),
        ((*RANGE, "--stdin"), "A rerun reads the object store only"),
        ((*RANGE, "--fingerprint-mode", "compare"), "Use declared or reference"),
        ((*RANGE, "--nonsense"), "unrecognized arguments: --nonsense. See fastpath --help."),
        ((*RANGE, "--source", "tape"), "invalid choice"),
    ],
)
def test_wrong_usage_is_answered_with_a_sentence(arguments: tuple[str, ...], sentence: str, capfd: Any) -> None:
    from fastpath import cli

    former = sys.argv
    sys.argv = ["fastpath", *arguments]
    try:
        code = cli.main()
    except SystemExit as error:
        code = int(error.code or 0)
    finally:
        sys.argv = former
    said = capfd.readouterr()
    assert code == 2
    assert said.out == ""
    assert sentence in said.err
    assert re.fullmatch(r"fastpath: [^\n]+\n", said.err)


@pytest.mark.parametrize(
    ("arguments", "settings", "sentence"),
    [
        ((), {"DB_URI": "host=/nowhere dbname=x"}, "Check that it runs and that the address is right."),
        (("--no-write-to-db",), {"DB_URI": "host=/nowhere dbname=x"}, "Check that it runs"),
        (("--no-write-to-db", "--fingerprints", "nowhere"), {}, "nowhere"),
        (("--store-url", "ftp://x"), {}, "is not the address of an object store"),
    ],
)
def test_what_is_not_there_is_named(arguments: tuple[str, ...], settings: dict[str, str], sentence: str) -> None:
    done = run(*RANGE, "--no-write-msmt", *arguments, **{f"OONI_FASTPATH_{k}": v for k, v in settings.items()})
    assert done.returncode == 1
    assert sentence in done.stderr
    assert "Traceback" not in done.stderr


def parsed(*arguments: str) -> Any:
    found = parser().parse_args(list(arguments))
    return rerun_request(found, settings_from(found))


def test_a_start_day_alone_asks_for_a_rerun_up_to_today() -> None:
    request = parsed("--start-day", "2024-1-2")
    assert (request.start, request.end) == (date(2024, 1, 2), None)
    assert (request.write, request.write_to_disk, request.workers) == ("missing", True, default_workers())
    assert parsed("--debug") is None


def test_filters_take_any_spelling() -> None:
    request = parsed(*RANGE, "--ccs", "it, De", "--testnames", "web_connectivity,Signal")
    assert request.filters.ccs == {"IT", "DE"}
    assert request.filters.testnames == {"webconnectivity", "signal"}
    assert len(KNOWN_COUNTRIES) == 249 + 6


def test_the_range_ends_before_today() -> None:
    today = datetime.now(UTC).date()
    yesterday = f"{today - timedelta(days=1)}"
    assert parsed("--start-day", yesterday).start < today
    assert parsed("--start-day", yesterday, "--end-day", "2999-01-01").end == date(2999, 1, 1)


def test_devel_lives_below_the_current_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert settings_from(parser().parse_args(["--devel"])).state_directory == str(tmp_path / "var/lib/fastpath")
    (tmp_path / "etc/ooni").mkdir(parents=True)
    (tmp_path / "etc/ooni/fastpath.toml").write_text('store_url = "file:///x"\n')
    assert settings_from(parser().parse_args(["--devel"])).store_url == "file:///x"
    assert settings_from(parser().parse_args([])).store_url == FastpathSettings().store_url


# The progress ---------------------------------------------------------------------------------------------------------


def test_the_estimate_is_what_is_left_in_proportion(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    meter = Meter(4)
    assert (meter.left_s, meter.left_text()) == (None, "?")
    meter.reached(1.0)  # an earlier process did a day
    assert meter.left_s is None
    clock[0] += 3600
    meter.reached(2.0)
    assert meter.left_s == 7200
    assert meter.left_text() == "2:00:00"
    assert meter.fraction == 0.5
    meter.add(Tally())
    clock[0] += 10
    tally = Tally()
    tally.counts["measurements"] = 500
    meter.add(tally)
    assert meter.rate == 50


def on_a_terminal(command: list[str], environment: dict[str, str]) -> tuple[int, str]:
    """Run a command on a terminal of 120 columns; return its exit code and what it drew."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, b"\x28\x00\x78\x00\x00\x00\x00\x00")
    process = subprocess.Popen(command, env=environment, stdin=theirs, stdout=theirs, stderr=theirs)
    os.close(theirs)
    drawn = b""
    while True:
        ready, _, _ = select.select([ours], [], [], 60)
        assert ready, "it hangs"
        try:
            data = os.read(ours, 65536)
        except OSError:  # the other end was closed
            break
        if not data:
            break
        drawn += data
    os.close(ours)
    return process.wait(), drawn.decode()


def test_a_terminal_gets_a_bar_and_a_pipe_gets_lines(tmp_path: Path, fingerprints: Any) -> None:
    import json

    for name, rows in zip(("dns", "http"), fingerprints, strict=True):
        (tmp_path / f"fingerprints_{name}.json").write_text(json.dumps(rows))
    command = [sys.executable, "-m", "fastpath", *RANGE, "--no-write-msmt", "--no-write-to-db"]
    command += ["--fingerprints", str(tmp_path), "--store-url", f"file://{tmp_path}/objects", "--workers", "1"]
    environment = {**os.environ, "OONI_FASTPATH_RERUN_METRICS_PORT": "0", "TERM": "xterm"}
    code, drawn = on_a_terminal(command, environment)
    assert code == 0, drawn
    assert "ETA" in drawn
    assert "100.0 %" in drawn
    assert "rerun finished" in drawn
    piped = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=True)
    assert "ETA" not in piped.stderr
    assert piped.stdout == ""
    assert all(line.startswith("time=") for line in piped.stderr.splitlines())
    piped = subprocess.run([*command, "--stdout"], env=environment, capture_output=True, text=True, check=True)
    assert "rerun finished" in piped.stdout
    assert piped.stderr == ""
