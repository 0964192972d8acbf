"""One call of a probe, with the strictness of a probe's HTTP client: a wrong answer is a broken rule by name."""

import asyncio
import time
from dataclasses import dataclass
from typing import Any, TypeVar

import httpx

from probesim.client import compress, encode_json
from probesim.latencies import Latencies
from probesim.rules import MAX_REDIRECTS, MAX_REPLY_BYTES, Broken, decode, demand
from probesim.sample import IDENTITY

_T = TypeVar("_T")

_CHANGES_POST = frozenset({301, 302, 303})
_UNDERSTOOD_ENCODINGS = frozenset({"", "identity", "gzip"})


@dataclass(frozen=True, slots=True)
class Answered:
    """The end of a call: final status and body after decompression."""

    status: int
    body: bytes


class StrictClient:
    """The HTTP client of one probe. Cookies live as long as it does."""

    def __init__(self, http: httpx.AsyncClient, latencies: Latencies, user_agent: str, patience_s: float) -> None:
        """Talk through `http`, whose base address is the API's; a call may take `patience_s` seconds."""
        self._http = http
        self._latencies = latencies
        self._user_agent = user_agent
        self._patience_s = patience_s

    async def get(self, call: str, path: str, shape: type[_T], *, token: str = "", user_agent: str = "") -> _T:
        """GET what must be answered with 200 and JSON of this shape. Raises Broken."""
        answered = await self.send(call, "GET", path, token=token, user_agent=user_agent)
        return _understood(answered, shape)

    async def post(
        self,
        call: str,
        path: str,
        value: Any,
        shape: type[_T],
        *,
        method: str = "POST",
        token: str = "",
        json_type: bool = True,
    ) -> _T:
        """POST (or PUT) a JSON value, to be answered with 200 and JSON of this shape. Raises Broken."""
        return await self.post_bytes(
            call, path, encode_json(value), shape, method=method, token=token, json_type=json_type
        )

    async def post_bytes(
        self,
        call: str,
        path: str,
        body: bytes,
        shape: type[_T],
        *,
        method: str = "POST",
        token: str = "",
        json_type: bool = True,
        encoding: str = IDENTITY,
    ) -> _T:
        """POST a body, in one of `probesim.sample.ENCODINGS`. Without `json_type` it has no content type."""
        answered = await self.send(
            call, method, path, body=compress(body, encoding), token=token, json_type=json_type, encoding=encoding
        )
        return _understood(answered, shape)

    async def send(
        self,
        call: str,
        method: str,
        path: str,
        *,
        body: bytes = b"",
        token: str = "",
        user_agent: str = "",
        json_type: bool = True,
        encoding: str = IDENTITY,
    ) -> Answered:
        """Send a request and follow its redirects; return the answer, whatever its status.

        Raises:
            Broken: `answered`, `few-redirects`, `post-stays-post`, `encoding-gzip` or `at-most-16-mib`.
        """
        headers = {"User-Agent": user_agent or self._user_agent, "Accept-Encoding": "gzip"}
        if body and json_type:
            headers["Content-Type"] = "application/json"
        if encoding != IDENTITY:
            headers["Content-Encoding"] = encoding
        if token:
            headers["Authorization"] = f"Bearer {token}"
        request = self._http.build_request(method, path, content=body or None, headers=headers)
        started = time.perf_counter()
        try:
            async with asyncio.timeout(self._patience_s):
                answered = await self._follow(request)
        except TimeoutError:
            raise Broken("answered", f"no answer in {self._patience_s:.0f} s") from None
        except httpx.TransportError as error:
            raise Broken("answered", f"{type(error).__name__}: {error}") from None
        self._latencies.add(call, time.perf_counter() - started)
        return answered

    async def _follow(self, request: httpx.Request) -> Answered:
        for _ in range(MAX_REDIRECTS + 1):
            response = await self._http.send(request, stream=True, follow_redirects=False)
            try:
                following = response.next_request
                if following is None:
                    return Answered(response.status_code, await _read(response))
                demand(
                    request.method == "GET" or response.status_code not in _CHANGES_POST,
                    "post-stays-post",
                    f"{request.method} was redirected with {response.status_code} to {following.url}",
                )
                request = following
            finally:
                await response.aclose()
        raise Broken("few-redirects", f"more than {MAX_REDIRECTS}, the last to {request.url}")


async def _read(response: httpx.Response) -> bytes:
    encoding = response.headers.get("Content-Encoding", "").lower()
    demand(encoding in _UNDERSTOOD_ENCODINGS, "encoding-gzip", f"Content-Encoding is {encoding[:40]!r}")
    read = bytearray()
    try:
        async for piece in response.aiter_bytes():
            read += piece
            demand(len(read) <= MAX_REPLY_BYTES, "at-most-16-mib", f"{len(read)} bytes and more")
    except httpx.DecodingError as error:
        raise Broken("encoding-gzip", str(error)) from None
    return bytes(read)


def _understood(answered: Answered, shape: type[_T]) -> _T:
    text = answered.body[:200].decode("utf-8", "replace").strip()
    demand(answered.status == 200, "status-200", f"{answered.status}: {text}")
    return decode(answered.body, shape)
