"""Opening reports and submitting to them, over HTTP, down to the bytes in the spool."""

import contextlib
import gzip
import hashlib
import json
import re
import socket
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
import zstandard

BODY = json.dumps(
    {"format": "json", "content": {"probe_cc": "IE", "probe_asn": "AS34245", "test_name": "web_connectivity", "ö": 1}},
    indent=1,
    ensure_ascii=False,
).encode()
UID = re.compile(r"20\d{12}\.\d{6}_IE_webconnectivity_[0-9a-f]{16}")


def another(number: int) -> bytes:
    """Return the same measurement in other bytes, so that it is not taken for the one sent before."""
    return BODY + b" " * (number + 1)


def stored(api: Any, uid: str) -> Any:
    record = api.spool.read(uid)
    assert record is not None
    return record


def request_head(rid: str, *headers: str) -> bytes:
    return "\r\n".join([f"POST /report/{rid} HTTP/1.1", "Host: api", "Connection: close", *headers, "", ""]).encode()


# opening


def open_report(api: Any, content: bytes, **headers: str) -> Any:
    return api.http.post("/report", content=content, headers=headers)


def test_open_report(api: Any) -> None:
    asked = {
        "data_format_version": "0.2.0",
        "format": "json",
        "probe_asn": "AS34245",
        "probe_cc": "IE",
        "software_name": "miniooni",
        "test_name": "web_connectivity",
    }
    response = open_report(api, json.dumps(asked).encode())
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    reply = response.json()
    assert set(reply) == {"backend_version", "report_id", "supported_formats"}
    assert reply["backend_version"] == "1.3.5"
    assert reply["supported_formats"] == ["yaml", "json"]
    assert re.fullmatch(r"20\d{6}T\d{6}Z_webconnectivity_IE_34245_n1_[0-9A-Za-z]{16}", reply["report_id"])
    assert len(reply["report_id"]) == 61


@pytest.mark.parametrize(
    ("asked", "part"),
    [
        ({}, "__ZZ_0_n1_"),
        ({"probe_asn": "as123", "probe_cc": "it", "test_name": "NDT"}, "_ndt_IT_123_n1_"),
        ({"probe_asn": "123", "probe_cc": "I_T", "test_name": "x y"}, "_xy_IT_0_n1_"),
        ({"probe_asn": "AS", "probe_cc": "ITA"}, "__ZZ_0_n1_"),
        ({"probe_asn": "AS12345678901", "probe_cc": ""}, "__ZZ_0_n1_"),
        ({"probe_asn": "AS1x"}, "__ZZ_0_n1_"),
        ({"probe_asn": 12, "probe_cc": None, "test_name": ["a"]}, "__ZZ_0_n1_"),
        ({"test_name": "\x00\ud800é_/..\r\n"}, "__ZZ_0_n1_"),
        ({"probe_cc": "ÀÉ"}, "__ZZ_0_n1_"),
    ],
)
def test_open_report_normalises(api: Any, asked: dict[str, Any], part: str) -> None:
    response = open_report(api, json.dumps(asked).encode(), **{"content-type": "text/plain"})
    assert response.status_code == 200
    assert part in response.json()["report_id"]


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"x"', b"\xff\xfe", b"1"])
def test_open_report_needs_json(api: Any, body: bytes) -> None:
    response = open_report(api, body)
    assert response.status_code == 400
    assert response.json() == {"error": "JSON expected"}


def test_open_report_is_bounded(api: Any) -> None:
    assert open_report(api, b" " * 1_100_000 + b"{}").status_code == 413


@pytest.mark.parametrize("name", ["x", "..%2f..", "a" * 300, "%00"])
def test_close_accepts_anything(api: Any, name: str) -> None:
    response = api.http.post(f"/report/{name}/close")
    if "%2f" in name:  # another path then
        assert response.status_code == 404
        return
    assert (response.status_code, response.json()) == (200, {})
    assert response.headers["cache-control"] == "max-age=3600"


# submitting


def test_submit(api: Any, rid: str) -> None:
    before = api.metric("api_measurements_acknowledged_total", route="report")
    response = api.submit(BODY)
    assert response.status_code == 200
    assert response.headers["cache-control"] == "max-age=0, no-cache"
    assert response.headers["content-type"] == "application/json"
    reply = response.json()
    assert set(reply) == {"measurement_uid"}
    uid = reply["measurement_uid"]
    assert UID.fullmatch(uid)
    assert uid.endswith(hashlib.sha512(BODY).hexdigest()[:16])
    assert response.text.endswith("\n")
    record = stored(api, uid)
    assert (record.body, record.report_id) == (BODY, rid)
    assert api.metric("api_measurements_acknowledged_total", route="report") == before + 1


@pytest.mark.parametrize(
    ("encoding", "compress"),
    [("zstd", zstandard.ZstdCompressor().compress), ("gzip", gzip.compress), ("identity", bytes)],
)
def test_submit_compressed(api: Any, encoding: str, compress: Callable[[bytes], bytes]) -> None:
    response = api.submit(compress(BODY), content_encoding=encoding)
    uid = response.json()["measurement_uid"]
    assert uid.endswith(hashlib.sha512(BODY).hexdigest()[:16])
    assert stored(api, uid).body == BODY


def test_submit_chunked(api: Any, rid: str) -> None:
    response = api.http.post(f"/report/{rid}", content=iter([BODY[:10], BODY[10:]]))
    assert stored(api, response.json()["measurement_uid"]).body == BODY


@pytest.mark.parametrize(
    "body",
    [
        b'{"format":"json","content":{"a":NaN,"b":Infinity}}',
        b'{"format":"json","content":{"a":"\\ud800"}}',
        b'{"format":"json","content":{"a":"\x01\x1f"}}',
        b'{"format":"json","content":{"a":"\xed\xa0\x80"}}',
        b'{"format":"json","content":{"a":1,"a":2}}',
        b'{"format":"JSON","content":{}}',
        b'{"format":"yaml","content":"a: 1"}',
        b'{"report_id":"x","test_name":"ndt"}',
        b' {"content":{"x":1}} \n',
        b"{}",
        b'{"format":"json","content":{"n":' + b"9" * 5000 + b"}}",
    ],
)
def test_what_probes_send_is_accepted(api: Any, body: bytes) -> None:
    response = api.submit(body)
    assert response.status_code == 200, response.text
    assert stored(api, response.json()["measurement_uid"]).body == body


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" \n", b"{", b"nonsense", b"[1]", b'"text"', b"1", b"null", b"NaN", b"\x00", b"{}{}", b"{'a':1}"),
        *(b'{"format":"xml","content":{}}', b'{"format":1,"content":{}}', b'{"format":"json","content":[]}'),
        *(b'{"format":"json","content":"text"}', b'{"format":"yaml","content":{}}', b'{"format":"x","content":NaN}'),
        *(b"[" * 100_000, b'{"a":' * 100_000, b'{"content":{"a":"\xff"},"format":"json"}', b"\xff\xfe{\0}\0"),
    ],
)
def test_what_is_no_measurement_is_refused(api: Any, body: bytes) -> None:
    before = len(api.files())
    response = api.submit(body)
    assert response.status_code == 400
    assert isinstance(response.json()["error"], str)
    assert response.headers["access-control-allow-origin"] == "*"
    assert len(api.files()) == before


@pytest.mark.parametrize(
    "bad",
    [
        *("x", "a_b_c_d_e", "a_b_c_d_e_f_g", "20240101T000000Z_webconnectivity_IE_34245_n1_"),
        "20240101T000000Z_webconnectivity_IEX_34245_n1_abcdefghijklmnop",
        "20240101T000000Z_webconnectivity_%2e%2e_34245_n1_abcdefghijklmnop",
        "20240101T000000Z_w_IE_34245_n1_abcdefghijklmnop",
        "20240101T000000Z_web.connectivity_IE_34245_n1_abcdefghijklmnop",
        f"20240101T000000Z_{'x' * 30}_IE_34245_n1_abcdefghijklmnop",
        "20240101T000000Z_webconnectivity_IE_AS34245_n1_abcdefghijklmnop",
        "20240101T000000Z_webconnectivity_IE_-1_n1_abcdefghijklmnop",
        "20240101T000000Z_webconnectivity_IE_%D9%A1_n1_abcdefghijklmnop",
        "20240101T000000Z_webconnectivity_IE_34245_n1_abc%0Adef",
        "20240101T000000Z_webconnectivity_IE_34245_n1_%00",
        "20240101T000000Z_webconnectivity_IE_34245_n1_" + "x" * 4000,
    ],
)
def test_malformed_report_ids(api: Any, bad: str) -> None:
    before = len(api.files())
    response = api.http.post(f"/report/{bad}", content=BODY)
    assert response.status_code == 400
    assert response.json()["error"] == "Incorrect format"
    assert response.json()["hint"]
    assert len(api.files()) == before


@pytest.mark.parametrize(
    ("network", "reason"), [("ZZ_1234", "cc_zz"), ("zz_1234", "cc_zz"), ("zZ_1", "cc_zz"), ("IE_0", "asn_0")]
)
def test_unknown_places_are_dropped_silently(api: Any, network: str, reason: str) -> None:
    before, files = api.metric("api_measurements_discarded_total", reason=reason), len(api.files())
    response = api.submit(b"not even json", rid=f"20240101T000000Z_webconnectivity_{network}_n1_abcdefghijklmnop")
    assert (response.status_code, response.json()) == (200, {})
    assert len(api.files()) == files
    assert api.metric("api_measurements_discarded_total", reason=reason) == before + 1


def test_asn_is_looked_at_before_the_country(api: Any) -> None:
    before = api.metric("api_measurements_discarded_total", reason="asn_0")
    api.submit(b"", rid="20240101T000000Z_webconnectivity_ZZ_0_n1_abcdefghijklmnop")
    assert api.metric("api_measurements_discarded_total", reason="asn_0") == before + 1


def test_refused_and_dropped_bodies_do_not_cost_the_connection(api: Any, rid: str) -> None:
    """Both requests go over one connection; the first leaves a large body that nobody wants."""
    large = b"x" * 3_000_000
    for path in ("/report/20240101T000000Z_ndt_ZZ_1_n1_abcdefghijklmnop", "/report/bad", "/nowhere", "/report"):
        first = f"POST {path} HTTP/1.1\r\nHost: api\r\nContent-Length: {len(large)}\r\n\r\n".encode() + large
        second = request_head(rid, f"Content-Length: {len(BODY)}") + BODY
        reply = api.raw(first + second)
        assert reply.count(b"HTTP/1.1 ") == 2, path
        assert b'"measurement_uid"' in reply


def test_broken_zstd_and_other_encodings(api: Any) -> None:
    response = api.submit(b"no frame", content_encoding="zstd")
    assert (response.status_code, response.json()["error"]) == (400, "Incorrect format")
    response = api.submit(b"x", content_encoding="br")
    assert response.status_code == 415
    assert response.headers["accept-encoding"] == "zstd, gzip, identity"


def test_a_truncated_upload_is_not_stored(api: Any, rid: str) -> None:
    before = len(api.files())
    reply = api.raw(request_head(rid, f"Content-Length: {len(BODY) + 5}") + BODY, half_close=True)
    assert b" 400 " in reply.splitlines()[0]
    reply = api.raw(request_head(rid, "Transfer-Encoding: chunked") + b"%x\r\n" % 500 + BODY[:50], half_close=True)
    assert b" 200 " not in reply
    reply = api.raw(request_head(rid, "Transfer-Encoding: chunked") + b"zz\r\n" + BODY)
    assert b" 400 " in reply.splitlines()[0]
    assert len(api.files()) == before


def test_a_body_without_length_is_empty(api: Any, rid: str) -> None:
    assert b" 400 " in api.raw(request_head(rid)).splitlines()[0]


# limits, disk, hand-over: servers of their own


@pytest.fixture(scope="module")
def small_api(start_api: Callable[..., Any], module_dsn: str) -> Any:
    return start_api(module_dsn, max_received_bytes=1000, max_inflated_bytes=5000, request_timeout_s=1.5, threads=4)


def test_size_limits(small_api: Any, rid: str) -> None:
    files = len(small_api.files())
    big = b'{"a":"' + b"x" * 994 + b'"}'
    assert small_api.submit(big).status_code == 413
    assert small_api.http.post(f"/report/{rid}", content=iter([big[:500], big[500:]])).status_code == 413
    bomb = zstandard.ZstdCompressor().compress(b'{"a":"' + b"x" * 5000 + b'"}')
    response = small_api.submit(bomb, content_encoding="zstd")
    assert response.status_code == 413
    assert "5000" in response.json()["error"]
    assert len(small_api.files()) == files
    fits = b'{"a":"' + b"x" * 4000 + b'"}'
    assert small_api.submit(gzip.compress(fits), content_encoding="gzip").status_code == 200


def test_clients_that_stall_do_not_hold_threads(small_api: Any, rid: str) -> None:
    stalled = []
    for _ in range(4):
        connection = socket.create_connection(("127.0.0.1", small_api.port), timeout=20)
        connection.sendall(request_head(rid, "Content-Length: 100") + b'{"a"')
        stalled.append(connection)
    started = time.monotonic()
    assert small_api.submit(b"{}").status_code == 200
    assert time.monotonic() - started < 8
    for connection in stalled:
        assert b" 400 " in connection.recv(65536).splitlines()[0]
        connection.close()


def test_a_full_disk_refuses_and_leaves_nothing(start_api: Callable[..., Any], module_dsn: str) -> None:
    api = start_api(module_dsn, spool_min_free_bytes=10**18)
    response = api.submit(BODY)
    assert response.status_code == 503
    assert int(response.headers["retry-after"]) > 0
    assert "error" in response.json()
    assert [path for path in api.files() if "received" not in path.parts] == []
    assert api.metric("api_spool_put_failures_total", reason="full") == 1


class Scorer:
    """An HTTP server in the place of the fastpath that notes what it is sent."""

    def __init__(self, port: int, delay_s: float = 0.0) -> None:
        self.seen: list[tuple[str, bytes, int]] = []
        self.connections: list[socket.socket] = []
        scorer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self) -> None:
                scorer.connections.append(self.request)
                super().setup()

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                time.sleep(delay_s)
                scorer.seen.append((self.path, body, self.client_address[1]))
                self.send_response(200)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)
        self.thread.start()

    def wait_for(self, count: int) -> None:
        deadline = time.monotonic() + 10
        while len(self.seen) < count and time.monotonic() < deadline:
            time.sleep(0.02)
        assert len(self.seen) >= count

    def close(self) -> None:
        self.server.shutdown()
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.server.server_close()


def test_hand_over_over_one_connection(start_api: Callable[..., Any], module_dsn: str) -> None:
    api = start_api(module_dsn)
    scorer = Scorer(api.fastpath_port)
    try:
        uids = [api.submit(another(number)).json()["measurement_uid"] for number in range(5)]
        scorer.wait_for(5)
    finally:
        scorer.close()
    assert [path for path, _, _ in scorer.seen] == [f"/{uid}" for uid in uids]
    assert {body for _, body, _ in scorer.seen} == {b""}
    assert len({port for _, _, port in scorer.seen}) == 1
    assert api.metric("api_handover_total", result="ok") == 5
    # The scorer is gone now: nothing changes for probes, and it is found again when it is back.
    assert "measurement_uid" in api.submit(another(5)).json()
    time.sleep(1.2)
    scorer = Scorer(api.fastpath_port)
    try:
        uid = api.submit(another(6)).json()["measurement_uid"]
        scorer.wait_for(1)
    finally:
        scorer.close()
    assert scorer.seen[-1][0] == f"/{uid}"
    assert api.metric("api_handover_total", result="failed") == 1


def test_hand_over_with_the_body(start_api: Callable[..., Any], module_dsn: str) -> None:
    api = start_api(module_dsn, fastpath_shares_spool=False)
    scorer = Scorer(api.fastpath_port)
    try:
        api.submit(gzip.compress(BODY), content_encoding="gzip")
        scorer.wait_for(1)
    finally:
        scorer.close()
    assert scorer.seen[0][1] == BODY


def test_a_slow_scorer_delays_nobody(start_api: Callable[..., Any], module_dsn: str) -> None:
    api = start_api(module_dsn, fastpath_queue=2, fastpath_timeout_s=2.0)
    scorer = Scorer(api.fastpath_port, delay_s=1.0)
    try:
        started = time.monotonic()
        replies = [api.submit(another(number)).json() for number in range(10)]
        assert time.monotonic() - started < 5  # one after the other the ten would take 10 s
        assert all("measurement_uid" in reply for reply in replies)
        assert api.metric("api_handover_total", result="dropped") >= 6
    finally:
        scorer.close()
