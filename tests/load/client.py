"""A small HTTP/1.1 client for load: one process, many kept-alive connections, little time per request.

General clients spend more time per request than the server under test, and both share the cores of one machine.
"""

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field

import msgspec

MAX_REPLY_HEADER = 65536


class LoadError(Exception):
    """The server answered something else than 200, or closed the connection."""


@dataclass(slots=True)
class Sent:
    """What happened to one submission; times are from `time.perf_counter` and `time.time`, in seconds."""

    uid: str
    latency_s: float
    sent_at: float


@dataclass(slots=True)
class Report:
    """All submissions of one run and how long it took, in seconds."""

    sent: list[Sent] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    elapsed_s: float = 0.0


class _Reply(msgspec.Struct):
    """What matters of a reply; only those to submissions have a uid."""

    measurement_uid: str = ""


class Connection:
    """One kept-alive connection."""

    def __init__(self, host: str, port: int) -> None:
        self._host, self._port = host, port
        self._reader: asyncio.StreamReader | None = None
        self._writer: asyncio.StreamWriter | None = None

    async def post(self, path: str, body: bytes) -> bytes:
        """Send one JSON body and return the reply's body.

        Raises:
            LoadError: any status but 200.
        """
        if self._writer is None or self._reader is None or self._writer.is_closing():
            self._reader, self._writer = await asyncio.open_connection(self._host, self._port)
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        )
        self._writer.write(head.encode() + body)
        await self._writer.drain()
        header = (await self._reader.readuntil(b"\r\n\r\n")).lower()
        length = int(header.split(b"content-length:", 1)[1].split(b"\r\n", 1)[0])
        reply = await self._reader.readexactly(length)
        if b"connection: close" in header:
            self.close()
        if not header.startswith(b"http/1.1 200"):
            raise LoadError(f"{header.split(b' ', 2)[1].decode()}: {reply[:200].decode(errors='replace').strip()}")
        return reply

    def close(self) -> None:
        """Close the connection."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


async def saturate(
    host: str, port: int, requests: Iterable[tuple[str, bytes]], clients: int, seconds: float = math.inf
) -> Report:
    """Send requests as fast as `clients` connections can, each waiting for its reply, for at most `seconds`."""
    waiting = iter(requests)
    end = time.perf_counter() + seconds

    async def work(connection: Connection, report: Report) -> None:
        for path, body in waiting:  # one iterator for all: each takes the next
            await _one(connection, path, body, report)
            if time.perf_counter() > end:
                return

    return await _run(host, port, clients, work)


async def at_rate(host: str, port: int, requests: Iterable[tuple[str, bytes]], per_second: float) -> Report:
    """Send requests on a fixed schedule, whether replies come or not (open loop), so that delays are not hidden.

    Latency counts from the moment at which a request was due.
    """
    connections = [Connection(host, port) for _ in range(64)]
    free: asyncio.Queue[Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)
    report = Report()
    start = time.perf_counter()

    async def one(due: float, path: str, body: bytes) -> None:
        connection = await free.get()
        try:
            await _one(connection, path, body, report, due)
        finally:
            free.put_nowait(connection)

    tasks = []
    for number, (path, body) in enumerate(requests):
        due = start + number / per_second
        delay = due - time.perf_counter()
        if delay > 0:
            await asyncio.sleep(delay)
        tasks.append(asyncio.create_task(one(due, path, body)))
    await asyncio.gather(*tasks)
    report.elapsed_s = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return report


async def _run(host: str, port: int, clients: int, work: Callable[[Connection, Report], Awaitable[None]]) -> Report:
    report = Report()
    connections = [Connection(host, port) for _ in range(clients)]
    start = time.perf_counter()
    await asyncio.gather(*(work(connection, report) for connection in connections))
    report.elapsed_s = time.perf_counter() - start
    for connection in connections:
        connection.close()
    return report


async def _one(connection: Connection, path: str, body: bytes, report: Report, due: float | None = None) -> None:
    start = time.perf_counter() if due is None else due
    sent_at = time.time()
    try:
        reply = await connection.post(path, body)
    except (LoadError, OSError, asyncio.IncompleteReadError) as error:
        report.errors.append(f"{type(error).__name__}: {error}")
        connection.close()
        return
    report.sent.append(
        Sent(msgspec.json.decode(reply, type=_Reply).measurement_uid, time.perf_counter() - start, sent_at)
    )
