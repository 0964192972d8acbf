"""A probe's requests, for the acceptance tests."""

import json
import time
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx

JSON = {"Content-Type": "application/json"}
CC, ASN = "IT", 64512
VISIBLE_S = 60.0


@dataclass(frozen=True)
class Server:
    """What is tested; `run_dir` is None for a deployment that is not ours to disturb."""

    http: httpx.Client
    url: str
    ca: str
    run_dir: Path | None
    dsn: str = ""


def post(http: httpx.Client, path: str, value: Any, **headers: str) -> httpx.Response:
    """POST a JSON value."""
    return http.post(path, content=json.dumps(value).encode(), headers={**JSON, **headers})


def open_report(http: httpx.Client, *, cc: str = CC, asn: int = ASN, test_name: str = "telegram") -> str:
    """Open a report; return its id."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    asked = {"data_format_version": "0.2.0", "format": "json", "probe_asn": f"AS{asn}", "probe_cc": cc}
    asked |= {"software_name": "acceptance", "software_version": "1", "test_name": test_name}
    response = post(http, "/report", {**asked, "test_start_time": now, "test_version": "0.1"})
    assert response.status_code == 200, response.text
    opened = response.json()
    assert "json" in opened["supported_formats"]
    assert opened["backend_version"]
    return str(opened["report_id"])


def measurement(report_id: str, *, cc: str = CC, asn: int = ASN, test_name: str = "telegram") -> dict[str, Any]:
    """A measurement that no other equals, so that none counts as sent again."""
    now = datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S")
    keys = {"telegram_web_status": "ok", "tcp_connect": [{"status": {"success": True}}], "requests": []}
    return {
        "annotations": {"platform": "linux", "acceptance": uuid.uuid4().hex},
        "data_format_version": "0.2.0",
        "input": None,
        "measurement_start_time": now,
        "probe_asn": f"AS{asn}",
        "probe_cc": cc,
        "probe_ip": "127.0.0.1",
        "report_id": report_id,
        "software_name": "acceptance",
        "software_version": "1",
        "test_keys": keys,
        "test_name": test_name,
        "test_runtime": 0.5,
        "test_start_time": now,
        "test_version": "0.1",
    }


def envelope(content: dict[str, Any]) -> bytes:
    """Return the body of a submission."""
    return json.dumps({"format": "json", "content": content}).encode()


def submit(http: httpx.Client, report_id: str, body: bytes, **headers: str) -> dict[str, Any]:
    """Submit a body to a report; return the answer."""
    response = http.post(f"/report/{report_id}", content=body, headers={**JSON, **headers})
    assert response.status_code == 200, response.text
    return dict(response.json())


def meta(http: httpx.Client, uid: str, seconds: float = VISIBLE_S) -> dict[str, Any]:
    """The row of a measurement, once it is there."""
    deadline = time.monotonic() + seconds
    while True:
        # Each time another address: a cache in front keeps the answer that there is nothing, too.
        asked = {"measurement_uid": uid, "asked_at": time.monotonic_ns()}
        response = http.get("/api/v1/measurement_meta", params=asked)
        assert response.status_code == 200, response.text
        if response.json() or time.monotonic() > deadline:
            return dict(response.json())
        time.sleep(0.2)
