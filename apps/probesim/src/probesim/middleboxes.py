"""Measurements that show a proxy between the probe and its helper."""

import json
import random
from typing import Any

from probesim.finding import Finding
from probesim.vocabulary import Probe


def http_invalid_request_line(rng: random.Random, _: Probe) -> Finding:
    """What the echo helper received is what was sent."""
    sent = [f"{rng.getrandbits(32):08x} / HTTP/1.1\n\r", f"GET {rng.getrandbits(64):x} HTTP/1.1\n\r"]
    keys: dict[str, Any] = {
        "failure_list": [None] * len(sent),
        "received": list(sent),
        "sent": sent,
        "tampering": False,
        "tampering_list": [False] * len(sent),
    }
    return Finding("http_invalid_request_line", "0.2.0", None, keys, rng.uniform(1, 6), _helper("tcp-echo"))


def http_invalid_request_line_answered(rng: random.Random, probe: Probe) -> Finding:
    """A proxy in between answered for the helper."""
    finding = http_invalid_request_line(rng, probe)
    finding.test_keys |= {
        "received": ["HTTP/1.1 400 Bad Request\r\n"],
        "tampering": True,
        "tampering_list": [True, False],
    }
    return finding


def http_header_field_manipulation(rng: random.Random, _: Probe) -> Finding:
    """The helper received the headers that were sent."""
    return _header_fields(rng, changed=False)


def http_header_field_changed(rng: random.Random, _: Probe) -> Finding:
    """A proxy in between normalised the headers' letter case."""
    return _header_fields(rng, changed=True)


def _header_fields(rng: random.Random, *, changed: bool) -> Finding:
    sent = {"aCCePT": "*/*", "ACCEPT-lANGUAGE": "en-US,en;q=0.8", "uSER-aGENT": "Mozilla/5.0 (example)"}
    received = {name.title() if changed else name: [value] for name, value in sent.items()}
    body = json.dumps({"headers_dict": received, "request_headers": [], "request_line": "GET / HTTP/1.1"})
    keys: dict[str, Any] = {
        "agent": "agent",
        "requests": [
            {
                "failure": None,
                "request": {"body": "", "headers": sent, "method": "gET", "url": "http://198.51.100.9:80"},
                "response": {"body": body, "code": 200, "headers": {}},
                "t": 0.4,
            }
        ],
        "socksproxy": None,
        "tampering": {"header_field_name": changed, "request_line_capitalization": False, "total": False},
    }
    return Finding(
        "http_header_field_manipulation", "0.2.2", None, keys, rng.uniform(0.5, 4), _helper("http-return-json-headers")
    )


def _helper(kind: str) -> dict[str, Any]:
    return {"backend": {"address": "198.51.100.9", "type": kind}}
