"""The client, against a small collector that speaks real HTTP and can be told to misbehave."""

import asyncio
import base64
import gzip
import hashlib
import json
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import zstandard

from core.ids import new_report_id, parse_report_id
from probesim.config import ReplaySettings
from probesim.corpus import CorpusError, read_corpus
from probesim.replay import corpus_conversations, replay, sample_conversations
from probesim.sample import Document, generate
from probesim.submissions import Submitted

NOW = datetime(2024, 5, 6, 7, 8, 9, tzinfo=UTC)


class Collector(ThreadingHTTPServer):
    """Accepts reports and measurements, and remembers every request."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.lock = threading.Lock()
        self.requests: list[tuple[str, dict[str, str], bytes]] = []
        self.troubles: list[int] = []
        """Statuses with which the next measurements are answered; 0 closes the connection without an answer."""
        self.at_once = self.most_at_once = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, prefix: str) -> list[tuple[str, bytes]]:
        """Paths and decompressed bodies of the requests whose path starts with `prefix`."""
        return [(path, _plain(headers, body)) for path, headers, body in self.requests if path.startswith(prefix)]


class _Handler(BaseHTTPRequestHandler):
    server: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with self.server.lock:
            self.server.requests.append((self.path, dict(self.headers.items()), body))
            self.server.at_once += 1
            self.server.most_at_once = max(self.server.most_at_once, self.server.at_once)
            is_measurement = self.path.startswith("/report/") or self.path.endswith("/submit_measurement")
            trouble = self.server.troubles.pop(0) if is_measurement and self.server.troubles else 200
        try:
            if trouble == 0:
                self.close_connection = True
                return
            self._reply(trouble, self._answer(body) if trouble == 200 else {"error": "trouble"})
        finally:
            with self.server.lock:
                self.server.at_once -= 1

    def _answer(self, body: bytes) -> dict[str, Any]:
        uid = f"uid-{hashlib.sha256(body).hexdigest()[:16]}"
        if self.path == "/report":
            asked = json.loads(body)
            asn = int(asked["probe_asn"].removeprefix("AS"))
            rid = new_report_id(NOW, asked["test_name"], asked["probe_cc"], asn, "1")
            return {"report_id": rid, "supported_formats": ["yaml", "json"], "backend_version": "1"}
        if self.path == "/api/v1/submit_measurement":
            return {"measurement_uid": uid, "verification_status": "unverified", "report_id": "by-the-server"}
        if self.path.endswith("/close"):
            return {}
        return {} if parse_report_id(self.path.split("/")[2]).cc == "ZZ" else {"measurement_uid": uid}

    def _reply(self, status: int, reply: dict[str, Any]) -> None:
        raw = json.dumps(reply).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


@pytest.fixture
def collector() -> Iterator[Collector]:
    with Collector() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def run(collector: Collector, conversations, **settings) -> tuple[list[Submitted], dict[str, Any]]:
    results: list[Submitted] = []
    chosen = ReplaySettings(url=collector.url, **settings)
    summary = asyncio.run(replay(conversations, chosen, results.append))
    return results, summary.as_dict()


def documents_of(generation: str, count: int = 200) -> list[Document]:
    return [document for document in generate(count, 1, NOW) if document.generation == generation]


def test_mobile_probes_open_one_report_per_task_and_send_the_documents_through_it(collector):
    documents = documents_of("mobile")
    results, summary = run(collector, sample_conversations(documents))
    assert summary["accepted"] == len(documents) == len(results)
    opened = [body for path, body in collector.bodies("/report") if path == "/report"]
    assert len(opened) == len({document.task for document in documents})
    sent = collector.bodies("/report/")
    assert len(sent) == len(documents)
    for path, body in sent:
        envelope = json.loads(body)
        assert list(envelope) == ["format", "content"]
        assert envelope["content"]["report_id"] == path.split("/")[2]
    by_uid = {result.uid: result for result in results}
    assert len(by_uid) == len(documents)
    for _, body in sent:
        content = body.removeprefix(b'{"format":"json","content":')[:-1]
        result = by_uid[_uid_of(collector, body)]
        assert result.sha256 == hashlib.sha256(content).hexdigest()
        assert result.bytes_sent == len(body)


def test_some_bodies_travel_compressed(collector):
    documents = documents_of("mobile")
    run(collector, sample_conversations(documents))
    encodings = [headers.get("Content-Encoding") for path, headers, _ in collector.requests if path != "/report"]
    assert encodings.count("zstd") == sum(document.encoding == "zstd" for document in documents) > 0
    assert None in encodings


def test_the_command_line_probe_sends_a_string_and_leaves_the_report_to_the_server(collector):
    documents = documents_of("cli")
    results, _ = run(collector, sample_conversations(documents))
    assert {path for path, _, _ in collector.requests} == {"/api/v1/submit_measurement"}
    contents = [json.loads(json.loads(body)["content"]) for _, body in collector.bodies("/api/")]
    assert sorted(map(json.dumps, contents)) == sorted(json.dumps(document.measurement) for document in documents)
    assert {result.report_id for result in results} == {"by-the-server"}


def test_old_probes_close_their_reports(collector):
    documents = documents_of("legacy")
    run(collector, sample_conversations(documents))
    closed = [path for path, _, _ in collector.requests if path.endswith("/close")]
    assert len(closed) == len({document.task for document in documents}) > 0


def test_user_agents_name_app_and_engine(collector):
    run(collector, sample_conversations(generate(40, 1, NOW)))
    for _, headers, _ in collector.requests:
        assert " ooniprobe-engine/" in headers["User-Agent"]


@pytest.mark.parametrize("trouble", [503, 502, 429, 0])
def test_what_may_work_later_is_tried_again(collector, trouble):
    collector.troubles = [trouble, trouble]
    _, summary = run(collector, sample_conversations(documents_of("mobile")[:1]))
    assert summary["accepted"] == 1


def test_a_refused_document_is_no_failure_and_not_repeated(collector):
    collector.troubles = [400]
    results, summary = run(collector, sample_conversations(documents_of("mobile")[:1]))
    assert (summary["refused"], summary["failed"]) == (1, 0)
    assert results[0].status == 400
    assert len(collector.bodies("/report/")) == 1


def test_patience_ends(collector):
    collector.troubles = [503] * 100
    results, summary = run(collector, sample_conversations(documents_of("cli")[:1]), patience_s=0.5)
    assert summary["failed"] == 1
    assert results[0].status == 503
    assert "503" in summary["complaints"][0]


def test_an_api_that_is_not_there_is_a_failure_of_every_document():
    results: list[Submitted] = []
    settings = ReplaySettings(url="http://127.0.0.1:1", patience_s=0.3)
    summary = asyncio.run(replay(sample_conversations(generate(5, 1, NOW)), settings, results.append))
    assert summary.outcomes == {"failed": 5}
    assert all(result.detail for result in results)


def test_concurrency_is_bounded(collector):
    run(collector, sample_conversations(generate(60, 1, NOW)), concurrency=3)
    assert collector.most_at_once <= 3


def test_the_rate_is_kept(collector):
    _, summary = run(collector, sample_conversations(documents_of("cli")[:11]), rate=20.0, concurrency=8)
    assert summary["seconds"] >= 0.5


def corpus_line(id_: str, measurement: Any = None, *, raw: bytes | None = None, origin: str = "real:own") -> str:
    line: dict[str, Any] = {
        "id": id_,
        "uid": "20240506070809.000001_IT_ndt_0123456789abcdef",
        "origin": origin,
        "note": "",
        "test_name": "ndt",
    }
    line |= {"post": measurement} if raw is None else {"raw_b64": base64.b64encode(raw).decode()}
    return json.dumps(line)


@pytest.fixture
def corpus(tmp_path: Path) -> Path:
    own = "20240506T070809Z_ndt_IT_64512_n1_0123456789abcdef"
    dropped = "20240506T070809Z_ndt_ZZ_64512_n1_0123456789abcdef"
    named = {"test_name": "ndt", "probe_cc": "TR", "probe_asn": "AS64516"}
    lines = [
        corpus_line("own", {"format": "json", "content": {"report_id": own, "x": "\ud800 é"}}),
        corpus_line("dropped", {"report_id": dropped}),
        corpus_line("without", {"format": "json", "content": named}),
        corpus_line("malformed", {"report_id": "20200101T000000Z_AS1_oldform", **named}),
        corpus_line("raw", raw=b'{"format":"json","content":{'),
        corpus_line("variant", {"report_id": own}, origin="variant"),
    ]
    with gzip.open(tmp_path / "measurements.jsonl.gz", "wt") as out:
        out.write("\n".join(lines) + "\n")
    return tmp_path


def test_a_corpus_is_replayed_byte_for_byte_under_its_own_report_ids(collector, corpus):
    results, summary = run(collector, corpus_conversations(read_corpus(corpus)), concurrency=1)
    assert [result.id for result in results] == ["own", "dropped", "without", "malformed", "raw"]
    assert (summary["accepted"], summary["dropped"]) == (4, 1)
    sent = collector.bodies("/report/")
    own = '{"format":"json","content":{"report_id":"20240506T070809Z_ndt_IT_64512_n1_0123456789abcdef","x":"\ud800 é"}}'
    assert sent[0] == (
        "/report/20240506T070809Z_ndt_IT_64512_n1_0123456789abcdef",
        own.encode("utf-8", "surrogatepass"),
    )
    assert sent[4][1] == b'{"format":"json","content":{'
    opened = [parse_report_id(path.split("/")[2]) for path, _ in sent[2:]]
    assert [(rid.cc, rid.asn) for rid in opened] == [("TR", 64516), ("TR", 64516), ("IT", 64496)]


def test_variants_are_replayed_on_request_only(corpus):
    assert "variant" not in {document.id for document in read_corpus(corpus)}
    assert "variant" in {document.id for document in read_corpus(corpus, everything=True)}


def test_a_directory_without_a_corpus_is_named(tmp_path):
    with pytest.raises(CorpusError, match=str(tmp_path)):
        list(read_corpus(tmp_path))
    (tmp_path / "measurements.jsonl").write_text('{"id": 1}\n')
    with pytest.raises(CorpusError, match="line 1"):
        list(read_corpus(tmp_path))


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "probesim", *arguments], capture_output=True, text=True, timeout=60, check=False
    )


def test_command_replays_a_sample_file_and_reports_json_lines(collector, tmp_path):
    file = str(tmp_path / "sample.jsonl")
    assert command("sample", "--count", "30", "--seed", "5", "--out", file).returncode == 0
    done = command("replay", "--url", collector.url, "--file", file, "--json")
    assert done.returncode == 0, done.stderr
    *documents, summary = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(documents) == summary["submitted"] == summary["accepted"] == 30
    assert all(document["event"] == "document" and document["uid"] for document in documents)


def test_command_prints_a_summary_for_people(collector):
    done = command("replay", "--url", collector.url, "--count", "10")
    assert done.returncode == 0
    assert "10 accepted, 0 dropped, 0 refused, 0 failed" in done.stdout
    assert "10/10" in done.stderr
    assert "\r" not in done.stderr


def test_command_fails_when_documents_get_no_answer():
    done = command("replay", "--url", "http://127.0.0.1:1", "--count", "2", "--patience", "0.2")
    assert done.returncode == 1
    assert "2 failed" in done.stdout
    assert "Is the API running?" in done.stdout or "no answer" in done.stdout


def test_command_names_a_missing_corpus(tmp_path):
    done = command("replay", "--corpus", str(tmp_path))
    assert done.returncode == 2
    assert "measurements.jsonl.gz" in done.stderr


def test_trickle_submits_until_it_is_told_to_stop(collector):
    process = subprocess.Popen(
        [sys.executable, "-m", "probesim", "trickle", "--url", collector.url, "--interval", "0.2"],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    with process:
        lines = [process.stdout.readline() for _ in range(3)]
        process.terminate()
        assert process.wait(10) == 0
    assert all(line.startswith("accepted ") for line in lines)


def _uid_of(collector: Collector, body: bytes) -> str:
    for path, headers, raw in collector.requests:
        if path.startswith("/report/") and _plain(headers, raw) == body:
            return f"uid-{hashlib.sha256(raw).hexdigest()[:16]}"
    raise AssertionError("no such request")


def _plain(headers: dict[str, str], body: bytes) -> bytes:
    return zstandard.ZstdDecompressor().decompress(body) if headers.get("Content-Encoding") == "zstd" else body


def test_only_the_named_certificate_is_believed(collector, tmp_path):
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    new_key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key]
    names = ["-subj", "/CN=localhost", "-addext", "subjectAltName=IP:127.0.0.1"]
    subprocess.run(["openssl", "req", "-x509", *new_key, *names, "-out", certificate], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    collector.socket = context.wrap_socket(collector.socket, server_side=True)
    address = f"https://127.0.0.1:{collector.server_port}"

    def submit(**settings) -> dict[str, Any]:
        chosen = ReplaySettings(url=address, **settings)
        documents = sample_conversations(generate(3, 1, NOW))
        return asyncio.run(replay(documents, chosen, lambda result: None)).as_dict()

    assert submit(ca_file=str(certificate))["accepted"] == 3
    assert submit(patience_s=0.1)["failed"] == 3
