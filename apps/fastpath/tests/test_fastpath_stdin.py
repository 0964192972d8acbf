"""`fastpath --stdin`: real processes, real pipes, and a real database where rows are written."""

import base64
import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from fastpath.lines import BadLine, parse_line
from fastpath.store import Store

GOLDEN = Path(__file__).parent / "golden" / "web_connectivity"
UID = "20240305101112.123456_IT_webconnectivity_00000000000000aa"


class Fastpath:
    """A process that scores what comes on its standard input."""

    def __init__(
        self, directory: Path | None, mode: str = "declared", write: str = "no", answer: str = "answer", **settings: Any
    ):
        environment = {**os.environ, **{f"OONI_FASTPATH_{key.upper()}": str(value) for key, value in settings.items()}}
        command = [sys.executable, "-m", "fastpath", "--stdin", "--fingerprint-mode", mode]
        command += ["--fingerprints", str(directory)] if directory else []
        command += ["--stdout"] if answer == "answer" else []
        command += [] if write == "write" else ["--no-write-to-db"]
        self.process = subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            bufsize=0,
        )
        self.stdin, self.stdout = self.process.stdin, self.process.stdout
        self._received = b""

    def finish(self, data: bytes = b"") -> tuple[list[dict[str, Any]], str, int]:
        out, errors = self.process.communicate(data, timeout=60)
        assert "Traceback" not in errors.decode(), errors.decode()
        return [json.loads(line) for line in out.splitlines()], errors.decode(), self.process.returncode

    def ask(self, line: bytes) -> dict[str, Any]:
        self.stdin.write(line)
        deadline = time.monotonic() + 30
        while b"\n" not in self._received:
            ready, _, _ = select.select([self.stdout], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, "no answer within 30 s, although nothing more was sent"
            self._received += os.read(self.stdout.fileno(), 65536)
        answer, _, self._received = self._received.partition(b"\n")
        return json.loads(answer)

    def end(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.communicate()


@pytest.fixture
def directory(tmp_path: Path, fingerprints: Any) -> Path:
    for kind, rows in zip(("dns", "http"), fingerprints, strict=True):
        (tmp_path / f"fingerprints_{kind}.json").write_text(json.dumps(rows))
    return tmp_path


@pytest.fixture
def start(directory: Path) -> Iterator[Any]:
    started = []

    def make(*arguments: str, fingerprints: Any = directory, **settings: Any) -> Fastpath:
        started.append(Fastpath(fingerprints, *arguments, **settings))
        return started[-1]

    yield make
    for running in started:
        running.end()


def line(uid: str, body: bytes, **more: Any) -> bytes:
    return json.dumps({"measurement_uid": uid, "body": json.loads(body), **more}).encode() + b"\n"


def test_every_line_is_answered_in_its_place(start, measurement) -> None:
    uid, body = measurement(1)
    lines = [
        (line(uid, body), uid, "row", None),
        (b"not json\n", None, "rejected", "line_not_json"),
        (b"\n", None, "rejected", "line_not_json"),
        (b"[]\n", None, "rejected", "line_not_an_object"),
        (b'{"body": {}}\n', None, "rejected", "no_measurement_uid"),
        (b'{"measurement_uid": "", "body": {}}\n', None, "rejected", "no_measurement_uid"),
        (b'{"measurement_uid": 5, "body": {}}\n', None, "rejected", "no_measurement_uid"),
        (b'{"measurement_uid": "x"}\n', "x", "rejected", "no_body"),
        (b'{"measurement_uid": "x", "body": {}, "body_b64": ""}\n', "x", "rejected", "two_bodies"),
        (b'{"measurement_uid": "x", "body_b64": "@"}\n', "x", "rejected", "bad_body_b64"),
        (b'{"measurement_uid": "x", "body_b64": 5}\n', "x", "rejected", "bad_body_b64"),
        (b'{"measurement_uid": "x", "body": {}, "report_id": 5}\n', "x", "rejected", "bad_report_id"),
        (b'{"measurement_uid": "\\ud800", "body": {}}\n', "�", "discarded", "no_report_id"),
        (b'{"measurement_uid": "x", "body": ' + b"[" * 5000 + b"}\n", None, "rejected", "line_too_deep"),
        (line(uid, b'{"probe_cc": "IT"}'), uid, "discarded", "no_report_id"),
        (b"\xff\xfe\n", None, "rejected", "line_not_json"),
        (line(uid, b'{"report_id": 5, "probe_cc": 5}'), uid, "rejected", "unidentifiable:probe_asn:"),
        (line(uid, body), uid, "row", None),
    ]
    answers, _, code = start().finish(b"".join(text for text, *_ in lines).removesuffix(b"\n"))
    assert code == 0
    assert len(answers) == len(lines)
    for (text, uid, outcome, reason), answer in zip(lines, answers, strict=True):
        assert (answer["measurement_uid"], answer["outcome"]) == (uid, outcome), text
        assert (answer["reason"] or "").startswith(reason or ""), text
        assert (answer["reason"] is None) == (reason is None), text
        assert all(type(answer[flag]) is bool for flag in ("anomaly", "confirmed", "msm_failure"))
        assert (answer["row"] is not None) == (answer["scores"] is not None) == (outcome == "row")
    assert set(answers[0]) == {
        "measurement_uid",
        "outcome",
        "reason",
        "scores",
        "anomaly",
        "confirmed",
        "msm_failure",
        "row",
    }
    row = answers[0]["row"]
    content = json.loads(body)["content"]
    assert row["measurement_start_time"] == content["measurement_start_time"]
    assert (row["input"], row["test_name"], row["probe_cc"]) == (content["input"], "web_connectivity", "IT")
    assert json.loads(row["scores"]) == answers[0]["scores"]


def test_bodies_are_scored_as_sent_also_where_json_cannot_hold_them(start, measurement) -> None:
    uid, body = measurement(1)
    lenient = body.replace(b'"test_runtime": 1.5', b'"test_runtime": NaN')
    assert lenient != body
    encoded = [base64.b64encode(part).decode() for part in (body, lenient, b"\xff", b"")]
    lines = [json.dumps({"measurement_uid": uid, "body_b64": text}).encode() + b"\n" for text in encoded]
    lines.append(line(uid, body))
    lines.append(b'{"measurement_uid": "' + uid.encode() + b'", "body": ' + lenient + b"}\n")
    answers, _, code = start().finish(b"".join(lines))
    assert code == 0
    assert answers[0] == answers[4]
    assert answers[1] == answers[5]
    assert answers[1]["row"]["test_runtime"] is None
    assert [answer["reason"] for answer in answers[2:4]] == [
        "unidentifiable:probe_asn:invalid_json",
        "unidentifiable:probe_asn:empty_body",
    ]


def test_a_report_id_beside_the_body_identifies_what_the_body_does_not(start) -> None:
    report_id = "20240305T100900Z_webconnectivity_IT_64500_n1_AbCdEfGhIjKlMnOp"
    answers, _, _ = start().finish(line(UID, b"[]", report_id=report_id))
    assert (answers[0]["outcome"], answers[0]["reason"], answers[0]["row"]["probe_asn"]) == (
        "row",
        "not_an_object",
        64500,
    )


def test_a_program_can_ask_line_by_line_and_sigterm_ends_the_wait(start, measurement) -> None:
    running = start()
    for number in range(3):
        uid, body = measurement(number)
        assert running.ask(line(uid, body))["measurement_uid"] == uid
    running.process.send_signal(signal.SIGTERM)
    _, errors, code = running.finish()
    assert code == 128 + signal.SIGTERM
    assert "stopped=true" in errors


def test_sigterm_ends_a_process_whose_answers_nobody_reads(start, measurement) -> None:
    running = start()
    uid, body = measurement(1)
    running.ask(line(uid, body))
    os.set_blocking(running.stdin.fileno(), False)
    stuck_since = None
    deadline = time.monotonic() + 30
    while stuck_since is None or time.monotonic() < stuck_since + 1:  # until neither pipe moves for a second
        assert time.monotonic() < deadline
        if running.stdin.write(line(uid, body)) is None:
            stuck_since = stuck_since or time.monotonic()
            time.sleep(0.05)
        else:
            stuck_since = None
    running.process.send_signal(signal.SIGTERM)
    assert running.process.wait(20) == 128 + signal.SIGTERM
    assert b"Traceback" not in running.process.stderr.read()


def test_a_reader_that_goes_away_ends_the_run_quietly(start, measurement) -> None:
    running = start()
    uid, body = measurement(1)
    running.ask(line(uid, body))
    running.stdout.close()
    running.stdin.write(line(uid, body))
    assert running.process.wait(20) == 128 + signal.SIGPIPE
    assert b"Traceback" not in running.process.stderr.read()


def test_a_line_beyond_the_limit_is_answered_and_costs_no_memory(start, measurement) -> None:
    uid, body = measurement(1)
    long = b'{"measurement_uid": "x", "body_b64": "' + b"A" * 40_000_000 + b'"}\n'
    program = start(body_limit_bytes=1_000_000)
    program.stdin.write(line(uid, body))
    assert program.ask(b"")["outcome"] == "row"
    before = resident_bytes(program.process.pid)
    view = memoryview(long)
    while view:
        view = view[program.stdin.write(view) :]
    answer = program.ask(line(uid, body))
    assert (answer["outcome"], answer["reason"]) == ("rejected", "line_too_long")
    assert program.ask(b"")["outcome"] == "row"
    grown = resident_bytes(program.process.pid) - before
    assert grown < 8_000_000
    long = memoryview(long)[:-1]
    answers, _, code = start(body_limit_bytes=1_000_000).finish(bytes(long))
    assert ([answer["reason"] for answer in answers], code) == (["line_too_long"], 0)


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_memory_stays_the_same_over_many_lines(start, measurement) -> None:
    running = start("declared", "no", "quiet")
    lines = b"".join(line(*measurement(number)) for number in range(500))

    def feed(times: int) -> int:
        for _ in range(times):
            view = memoryview(lines)
            while view:
                view = view[running.stdin.write(view) :]
        return resident_bytes(running.process.pid)

    before = feed(4)
    after = feed(20)
    assert after - before < 4_000_000
    answers, errors, code = running.finish()
    assert (answers, code) == ([], 0)
    assert "lines=12000" in errors


def test_both_modes_are_compared_document_by_document(start, directory, measurement, fingerprints) -> None:
    _, http = fingerprints
    searched = {**http[0], "name": "sample.regexp", "pattern_type": "regexp", "pattern": "blocked by [a-z]+"}
    (directory / "fingerprints_http.json").write_text(json.dumps([*http, searched]))
    keys = {"accessible": True, "blocking": False}
    pages = ["blocked by law", "nothing", http[0]["pattern"]]
    documents = [
        measurement(number, test_keys={**keys, "requests": [{"response": {"body": page}}]})
        for number, page in enumerate(pages)
    ]
    answers, errors, code = start("compare").finish(b"".join(line(*document) for document in documents))
    assert code == 0
    assert "differing=1" in errors
    assert [answer["confirmed"] for answer in answers] == [True, False, True]
    assert [answer["reference"] is not None for answer in answers] == [True, False, False]
    reference = answers[0]["reference"]
    assert (reference["outcome"], reference["confirmed"], reference["anomaly"]) == ("row", False, False)
    assert "fingerprints" not in reference["scores"]
    assert [match["name"] for match in answers[0]["scores"]["fingerprints"]] == ["sample.regexp"]


def test_wrong_fingerprints_or_mode_end_with_a_sentence(start, tmp_path) -> None:
    answers, errors, code = start(fingerprints=tmp_path / "nowhere").finish()
    assert (answers, code) == ([], 1)
    assert "Restore the file." in errors
    answers, errors, code = start("loose").finish()
    assert (answers, code) == ([], 2)
    assert "'declared', 'reference', 'compare'" in errors


def test_no_database_is_needed_without_fingerprints_either(start, measurement) -> None:
    uid, body = measurement(1)
    answers, errors, code = start(fingerprints=None, db_uri="host=127.0.0.1 port=1").finish(line(uid, body))
    assert ([answer["outcome"] for answer in answers], code) == (["row"], 0)
    assert "block pages are not recognised" in errors


def test_rows_are_committed_before_they_are_answered(start, fastpath_dsn, measurement) -> None:
    running = start("declared", "write", db_uri=fastpath_dsn)
    with psycopg.connect(fastpath_dsn, autocommit=True) as connection:
        for number in range(3):
            uid, body = measurement(number)
            assert running.ask(line(uid, body))["outcome"] == "row"
            found = connection.execute("SELECT count(*) FROM fastpath WHERE measurement_uid = %s", [uid]).fetchone()
            assert found == (1,)
    uid, body = measurement(3)
    answers, errors, code = running.finish(line(uid, body) * 2 + line(uid, b"{}"))
    assert ([answer["outcome"] for answer in answers], code) == (["row", "row", "discarded"], 0)
    assert "new_rows=4" in errors
    store = Store(fastpath_dsn)
    assert store.counters_difference() == []
    store.close()


def test_fingerprints_come_from_the_database_when_there_is_no_directory(
    start, fastpath_dsn, measurement, fingerprints
) -> None:
    dns, http = fingerprints
    keys = {"blocking": False, "requests": [{"response": {"body": http[0]["pattern"]}}]}
    document = measurement(1, test_keys=keys)
    answers, errors, code = start("declared", "write", fingerprints=None, db_uri=fastpath_dsn).finish(line(*document))
    assert (answers, code) == ([], 1)
    assert "--fingerprints DIR" in errors
    store = Store(fastpath_dsn)
    store.replace_fingerprints(dns, http)
    store.close()
    answers, _, code = start("declared", "write", fingerprints=None, db_uri=fastpath_dsn).finish(line(*document))
    assert ([answer["confirmed"] for answer in answers], code) == ([True], 0)


def test_a_database_that_does_not_answer_ends_the_run_without_an_answer(start, measurement) -> None:
    running = start("declared", "write", db_uri="host=127.0.0.1 port=1")
    running.stdin.write(line(*measurement(1)))
    for logged in running.process.stderr:  # until it tries again
        if b"batch not written, trying again" in logged:
            break
    running.process.send_signal(signal.SIGTERM)
    answers, errors, code = running.finish()
    assert (answers, code) == ([], 1)
    assert "scoring stopped" in errors


@pytest.mark.parametrize("text", [b"", b"null", b'"x"', b"{", b'{"measurement_uid": null}'])
def test_what_is_no_line_is_named(text) -> None:
    with pytest.raises(BadLine, match="Send an object"):
        parse_line(text)
