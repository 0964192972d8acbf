"""What a probe says to the API, route by route, and what it makes of the answers."""

import asyncio
import gzip
import json
from dataclasses import dataclass
from typing import Any

import httpx
import zstandard

from probesim.sample import GZIP, IDENTITY, ZSTD

ACCEPTED, DROPPED, REFUSED, FAILED = "accepted", "dropped", "refused", "failed"
OUTCOMES = (ACCEPTED, DROPPED, REFUSED, FAILED)
"""`accepted`: stored, with a uid. `dropped`: 200 without a uid (a country or network that is not published). `refused`:
a 4xx answer, the document is at fault. `failed`: no useful answer within the client's patience."""

_TRY_LATER = frozenset({429, 500, 502, 503, 504})
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.2, 3.0


class ReportRefused(Exception):
    """The API opened no report; the message carries its answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The API's answer to one submission. `status` is 0 when there was none; `uid` is empty unless accepted."""

    outcome: str
    status: int
    uid: str = ""
    report_id: str = ""
    detail: str = ""


class ProbeClient:
    """The probe's side of the wire protocol over one HTTP client.

    A probe repeats what got no answer or a "try later" one, with growing pauses, for at most `patience_s` seconds; so a
    document may be stored twice when only the answer was lost, as in real life.
    """

    def __init__(self, http: httpx.AsyncClient, patience_s: float = 60.0) -> None:
        """Talk through `http`, whose base address is the API's."""
        self._http = http
        self._patience_s = patience_s

    async def open_report(self, measurement: dict[str, Any], user_agent: str) -> str:
        """Open a report for measurements like this one and return its id.

        Raises:
            ReportRefused: the answer has no report id, or came too late.
        """
        request = {
            "data_format_version": measurement.get("data_format_version", "0.2.0"),
            "format": "json",
            "probe_asn": measurement.get("probe_asn", "AS0"),
            "probe_cc": measurement.get("probe_cc", "ZZ"),
            "software_name": measurement.get("software_name", ""),
            "software_version": measurement.get("software_version", ""),
            "test_name": measurement.get("test_name", ""),
            "test_start_time": measurement.get("test_start_time", ""),
            "test_version": measurement.get("test_version", ""),
        }
        response = await self._post("/report", encode_json(request), IDENTITY, user_agent)
        if response is None:
            raise ReportRefused(f"POST /report got no answer in {self._patience_s:.0f} s. Is the API running?")
        reply = _object(response)
        report_id = reply.get("report_id")
        if response.status_code != 200 or not isinstance(report_id, str):
            raise ReportRefused(f"POST /report was answered with {response.status_code}: {response.text[:200]}")
        if "json" not in reply.get("supported_formats", ()):
            raise ReportRefused("POST /report was answered without json in supported_formats; probes refuse that.")
        return report_id

    async def submit_to_report(self, report_id: str, body: bytes, encoding: str, user_agent: str) -> Answer:
        """Send a request body to a report, compressed as `encoding` says."""
        response = await self._post(f"/report/{report_id}", body, encoding, user_agent)
        answer = self._answer(response)
        return Answer(answer.outcome, answer.status, answer.uid, report_id, answer.detail)

    async def close_report(self, report_id: str, user_agent: str) -> None:
        """Close a report, which only old probes do; the answer does not matter to them."""
        await self._post(f"/report/{report_id}/close", b"", IDENTITY, user_agent)

    async def submit_measurement(self, document: str, user_agent: str) -> Answer:
        """Send one measurement without a report, as JSON text inside JSON; the server makes the report id."""
        request = {
            "format": "json",
            "content": document,
            "nym": None,
            "zkp_request": None,
            "manifest_version": None,
            "protocol_version": None,
        }
        response = await self._post("/api/v1/submit_measurement", encode_json(request), IDENTITY, user_agent)
        return self._answer(response)

    async def _post(self, path: str, body: bytes, encoding: str, user_agent: str) -> httpx.Response | None:
        """Send a request until it is answered with something other than "try later"; None when patience ends."""
        headers = {"Content-Type": "application/json", "User-Agent": user_agent, "Accept-Encoding": "gzip"}
        if encoding != IDENTITY:
            headers["Content-Encoding"] = encoding
        content = compress(body, encoding)
        loop = asyncio.get_running_loop()
        deadline, pause = loop.time() + self._patience_s, _FIRST_PAUSE_S
        response: httpx.Response | None = None
        while True:
            try:
                response = await self._http.post(path, content=content, headers=headers)
            except httpx.TransportError:
                response = None
            if response is not None and response.status_code not in _TRY_LATER:
                return response
            if loop.time() + pause > deadline:
                return response
            await asyncio.sleep(pause)
            pause = min(pause * 2, _LONGEST_PAUSE_S)

    def _answer(self, response: httpx.Response | None) -> Answer:
        if response is None:
            return Answer(FAILED, 0, detail=f"no answer in {self._patience_s:.0f} s")
        if response.status_code == 200:
            reply = _object(response)
            uid, report_id = reply.get("measurement_uid") or "", reply.get("report_id") or ""
            return Answer(ACCEPTED if uid else DROPPED, 200, str(uid), str(report_id))
        refused = 400 <= response.status_code < 500 and response.status_code not in _TRY_LATER
        return Answer(REFUSED if refused else FAILED, response.status_code, detail=response.text[:200])


def compress(body: bytes, encoding: str) -> bytes:
    """Return `body` in a content encoding of `probesim.sample.ENCODINGS`."""
    if encoding == ZSTD:
        return zstandard.ZstdCompressor().compress(body)
    if encoding == GZIP:
        return gzip.compress(body, mtime=0)
    return body


def encode_json(value: Any) -> bytes:
    """Return compact UTF-8 JSON; lone surrogates are kept as the bytes that a careless encoder makes of them."""
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return text.encode("utf-8", "surrogatepass")


def _object(response: httpx.Response) -> dict[str, Any]:
    try:
        found = response.json()
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
