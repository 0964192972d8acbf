"""A small backend that answers as the wire contract says, and can be told to break one rule at a time."""

import json
from collections.abc import Callable
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import zstandard

from core.ids import new_report_id

HELPERS = {
    "web-connectivity": [{"address": "https://helper.example.net", "type": "https"}],
    "tcp-echo": [{"address": "192.0.2.7", "type": "legacy"}],
    "http-return-json-headers": [{"address": "http://192.0.2.7:80", "type": "legacy", "front": None}],
}
URLS = [
    {"category_code": category, "country_code": "XX", "url": f"https://{category.lower()}{number}.example.org/"}
    for category in ("NEWS", "HUMR")
    for number in range(3)
]
CHECK_IN = {
    "v": 1,
    "probe_cc": "ZZ",
    "probe_asn": "AS0",
    "probe_network_name": None,
    "utc_time": "2024-01-01T00:00:00Z",
    "conf": {"features": {"torsf_enabled": True, "vanilla_tor_enabled": False}, "test_helpers": HELPERS},
    "tests": {"web_connectivity": {"report_id": "20240101T000000Z_webconnectivity_IT_1_n1_x", "urls": URLS}},
}
TARGET = {"address": "192.0.2.9:443", "fingerprint": "AA", "protocol": "obfs4", "params": {"cert": ["x"]}, "new": 1}
DISCOVERY = {
    "name": "web_connectivity",
    "version": "0.0.1",
    "input-hashes": None,
    "collector": "httpo://example.onion",
    "collector-alternate": [{"address": "https://collector.example.net", "type": "https"}],
    "test-helpers": {"tcp-echo": "192.0.2.7"},
    "test-helpers-alternate": {"web-connectivity": HELPERS["web-connectivity"]},
}
ANSWERS: dict[str, Any] = {
    "GET /api/v1/test-helpers": HELPERS,
    "POST /api/v1/check-in": CHECK_IN,
    "POST /api/v1/register": {"client_id": "a.b.c"},
    "POST /api/v1/login": {"token": "d.e.f", "expire": "2024-01-08T00:00:00Z"},
    "PUT /api/v1/update/a.b.c": {"status": "ok"},
    "GET /api/v1/test-list/tor-targets": {"192.0.2.9:443": TARGET},
    "GET /api/v1/test-list/psiphon-config": {"opaque": [1]},
    "GET /api/v1/test-list/urls": {"metadata": {"count": 6}, "results": URLS},
    "GET /api/v1/collectors": [{"address": "https://collector.example.net", "type": "https"}],
    "POST /bouncer/net-tests": {"net-tests": [DISCOVERY]},
    "GET /api/v1/measurements": {"metadata": {}, "results": [{"measurement_url": ""}]},
    "POST /api/v1/submit_measurement": {"measurement_uid": "uid-cli", "report_id": "by-the-server"},
    "POST /report/close": {},
    "POST /report/submit": {"measurement_uid": "uid"},
    "POST /report": {"report_id": "", "supported_formats": ["yaml", "json"], "backend_version": "1.3.5"},
}

Trouble = Callable[["Handler"], None]


class Backend(ThreadingHTTPServer):
    """Answers by the contract, but for the routes in `troubles`."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.troubles: dict[str, Trouble] = {}
        self.requests: list[tuple[str, dict[str, str], bytes]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def bodies(self, route: str) -> list[Any]:
        """Decoded JSON bodies of the requests of a route."""
        found = []
        for name, headers, body in self.requests:
            if name == route:
                plain = zstandard.decompress(body) if headers.get("Content-Encoding") == "zstd" else body
                found.append(json.loads(plain))
        return found

    def headers(self, route: str) -> list[dict[str, str]]:
        return [headers for name, headers, _ in self.requests if name == route]


class Handler(BaseHTTPRequestHandler):
    server: Backend
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.route = self._route()
        self.server.requests.append((self.route, dict(self.headers.items()), self.body))
        trouble = self.server.troubles.get(self.route)
        if trouble is not None:
            trouble(self)
        elif self.route in ANSWERS:
            self.reply(200, self._answer())
        else:
            self.reply(404, {"error": "Not found"})

    do_GET = do_PUT = do_POST  # noqa: N815 the names are the library's

    def _route(self) -> str:
        path = self.path.split("?")[0]
        if path.startswith("/report/"):
            path = "/report/close" if path.endswith("/close") else "/report/submit"
        return f"{self.command} {path}"

    def _answer(self) -> Any:
        if self.route == "POST /report":
            asked = json.loads(self.body)
            asn = int(asked["probe_asn"].removeprefix("AS"))
            rid = new_report_id(datetime.now(UTC), asked["test_name"], asked["probe_cc"], asn, "1")
            return {**ANSWERS[self.route], "report_id": rid}
        return ANSWERS[self.route]

    def reply(self, status: int, value: Any, raw: bytes | None = None, **headers: str) -> None:
        raw = json.dumps(value).encode() if raw is None else raw
        self.send_response(status)
        for name, text in {"Content-Length": str(len(raw)), **headers}.items():
            self.send_header(name.replace("_", "-"), text)
        self.end_headers()
        self.wfile.write(raw)

    def log_message(self, *_: object) -> None:
        """Stay silent."""


def answer(value: Any, status: int = 200) -> Trouble:
    """Answer with this JSON value."""
    return lambda handler: handler.reply(status, value)


def raw(data: bytes, **headers: str) -> Trouble:
    """Answer with these bytes."""
    return lambda handler: handler.reply(200, None, data, **headers)


def redirect(status: int, location: str) -> Trouble:
    """Send elsewhere."""
    return lambda handler: handler.reply(status, {}, Location=location)


def changed(route: str, **fields: Any) -> Trouble:
    """Answer as always, but for some fields."""
    return answer({**ANSWERS[route], **fields})


def hang_up(handler: Handler) -> None:
    """Close the connection without an answer."""
    handler.close_connection = True
