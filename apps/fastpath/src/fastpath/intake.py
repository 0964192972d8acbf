"""The way in: a bounded queue of uids, and the HTTP callable that fills it.

The queue holds uids and no bodies: a measurement is in the spool before its uid is queued, so memory stays bounded and
nothing is lost when the process dies. Whatever does not fit into the queue is found by the next sweep of the spool.
"""

import asyncio
import json
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, MutableMapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any

import structlog

from core.ids import IdentifierError, parse_measurement_uid
from core.spool import INCOMING, STATES, Spool
from fastpath import metrics

log = structlog.get_logger(__name__)

JSON_TYPE = (b"content-type", b"application/json")


class IntakeQueue:
    """Uids that wait or are being scored, each once. Safe to share between threads."""

    def __init__(self, capacity: int) -> None:
        """Make a queue that holds at most `capacity` waiting uids."""
        self.capacity = capacity
        self._waiting: deque[str] = deque()
        self._known: set[str] = set()
        self._changed = threading.Condition()
        self._on_room: Callable[[], None] | None = None

    def __len__(self) -> int:
        """Return how many uids wait."""
        return len(self._waiting)

    def __contains__(self, uid: object) -> bool:
        """Return whether a uid waits or is being scored."""
        return uid in self._known

    def on_room(self, callback: Callable[[], None]) -> None:
        """Have `callback` called, from a worker's thread, whenever a full queue has room again."""
        self._on_room = callback

    def offer(self, uid: str, *, limit: int | None = None) -> bool:
        """Queue a uid unless it is known already; return False when `limit` (default: the capacity) is reached."""
        with self._changed:
            if uid in self._known:
                return True
            if len(self._waiting) >= (self.capacity if limit is None else limit):
                return False
            self._waiting.append(uid)
            self._known.add(uid)
            metrics.QUEUE_SIZE.set(len(self._waiting))
            self._changed.notify_all()
            return True

    def wait_below(self, limit: int, timeout_s: float) -> bool:
        """Wait at most `timeout_s` seconds until fewer than `limit` uids wait; return whether it is so."""
        with self._changed:
            return self._changed.wait_for(lambda: len(self._waiting) < limit, timeout_s)

    def take(self, limit: int, linger_s: float, timeout_s: float) -> list[str]:
        """Return up to `limit` uids in the order they came, which count as known until `done`.

        Waits `timeout_s` seconds for the first one and `linger_s` from then on for others to keep it company; returns
        an empty list when none came.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._waiting), timeout_s):
                return []
            self._changed.wait_for(lambda: len(self._waiting) >= limit, linger_s)
            was_full = len(self._waiting) >= self.capacity
            taken = [self._waiting.popleft() for _ in range(min(limit, len(self._waiting)))]
            metrics.QUEUE_SIZE.set(len(self._waiting))
            self._changed.notify_all()
        if was_full and self._on_room is not None:
            self._on_room()
        return taken

    def done(self, uids: Iterable[str]) -> None:
        """Forget uids that `take` gave out: they are finished, or left to the next sweep."""
        with self._changed:
            self._known.difference_update(uids)


@dataclass(frozen=True, slots=True)
class Reply:
    """An HTTP answer."""

    status: int
    body: bytes = b""
    headers: tuple[tuple[bytes, bytes], ...] = ()


def error_reply(status: int, sentence: str, *headers: tuple[bytes, bytes]) -> Reply:
    """Return an answer with a JSON object that holds one sentence under `error`."""
    return Reply(status, json.dumps({"error": sentence}).encode(), (JSON_TYPE, *headers))


class Refused(Exception):
    """A request that ends here with `reply`."""

    def __init__(self, reply: Reply) -> None:
        super().__init__(reply.status)
        self.reply = reply


class Disconnected(Exception):
    """The client went away before its request was complete."""


Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]


class Intake:
    """The ASGI callable of the daemon (the wire contract of the scorer's HTTP feeder, hardened).

    `POST /<uid>` is answered with 200 and an empty body once the measurement is in the spool, on disk, and queued.
    `GET /ready` says whether measurements become rows at the moment. Any other request is answered with an empty 200,
    which older monitoring uses as a sign of life.
    """

    def __init__(
        self,
        spool: Spool,
        queue: IntakeQueue,
        executor: Executor,
        not_ready: Callable[[], list[str]],
        *,
        queue_wait_s: float,
        body_limit: int,
        body_memory: int,
    ) -> None:
        """Put bodies into `spool` by the threads of `executor`; `not_ready` returns the reasons against readiness.

        `body_limit` bounds one body and `body_memory` all bodies in memory, in bytes.
        """
        self._spool = spool
        self._queue = queue
        self._executor = executor
        self._not_ready = not_ready
        self._queue_wait_s = queue_wait_s
        self._body_limit = body_limit
        self._body_memory = body_memory
        self._buffered = 0
        self._room: asyncio.Event | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            return
        try:
            reply = await self._answer(scope, receive)
        except Disconnected:
            return
        except Refused as refused:
            reply = refused.reply
        metrics.REQUESTS.labels(str(reply.status)).inc()
        headers = [*reply.headers, (b"content-length", str(len(reply.body)).encode())]
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        body = b"" if scope["method"] == "HEAD" else reply.body
        await send({"type": "http.response.body", "body": body})

    async def _answer(self, scope: Scope, receive: Receive) -> Reply:
        if scope["method"] == "POST":
            return await self._post(scope, receive)
        if scope["path"] == "/ready" and scope["method"] in ("GET", "HEAD"):
            reasons = self._not_ready()
            text = json.dumps({"ready": not reasons, "reasons": reasons}).encode()
            return Reply(503 if reasons else 200, text, (JSON_TYPE,))
        return Reply(200)

    async def _post(self, scope: Scope, receive: Receive) -> Reply:
        uid = scope["path"].removeprefix("/")
        try:
            parse_measurement_uid(uid)
        except IdentifierError as error:
            raise Refused(error_reply(400, f"{error} Post to /<measurement uid>.")) from None
        chunks: list[bytes] = []
        size = 0
        try:
            self._check_declared_length(scope)
            while True:
                message = await receive()
                if message["type"] == "http.disconnect":
                    raise Disconnected
                chunk = message.get("body", b"")
                size += len(chunk)
                self._buffered += len(chunk)
                self._check_size(size)
                chunks.append(chunk)
                if not message.get("more_body", False):
                    break
            unscored = await self._store(uid, b"".join(chunks))
        finally:
            self._buffered -= size
        if unscored:
            await self._enqueue(uid)
        return Reply(200)

    def _check_declared_length(self, scope: Scope) -> None:
        for name, value in scope["headers"]:
            if name == b"content-length":
                self._check_size(int(value))

    def _check_size(self, size: int) -> None:
        close = (b"connection", b"close")  # the rest of the body is not worth reading
        if size > self._body_limit:
            sentence = f"The body exceeds {self._body_limit} bytes. Send a smaller measurement."
            raise Refused(error_reply(413, sentence, close))
        if self._buffered > self._body_memory:
            raise Refused(_try_later("Too many bodies are being received. Send it again in a second.", close))

    async def _store(self, uid: str, body: bytes) -> bool:
        """Make sure that the spool has the measurement, on disk; return whether it waits to be scored."""
        loop = asyncio.get_running_loop()
        try:
            state = await loop.run_in_executor(self._executor, self._put_unless_known, uid, body)
        except OSError as error:  # SpoolFull among them
            log.error("measurement not stored", uid=uid, error=str(error))
            raise Refused(
                _try_later("The measurement could not be stored. Make room on the disk, then send it again.")
            ) from error
        if state is None:
            raise Refused(
                error_reply(404, f"The spool has no measurement {uid}. Post it with its body, or spool it first.")
            )
        return state == INCOMING

    def _put_unless_known(self, uid: str, body: bytes) -> str | None:
        """Return the state of a measurement, after storing it when it is new and has a body; None when it has none."""
        for state in STATES:
            if self._spool.path(state, uid).exists():
                return state
        if not body:
            return None
        self._spool.put(uid, body, "")
        return INCOMING

    async def _enqueue(self, uid: str) -> None:
        """Queue the uid, waiting a bounded time for room; the spool has it, so that refusing loses nothing."""
        if self._queue.offer(uid):
            return
        deadline = time.monotonic() + self._queue_wait_s
        while (remaining := deadline - time.monotonic()) > 0:
            room = self._room_event()
            if self._queue.offer(uid):
                return
            try:
                await asyncio.wait_for(room.wait(), remaining)
            except TimeoutError:
                break
        raise Refused(_try_later("The queue is full. The measurement is safe and is scored later; send on later."))

    def _room_event(self) -> asyncio.Event:
        """Return the event that the next room sets."""
        if self._room is None:
            loop = asyncio.get_running_loop()
            self._room = asyncio.Event()
            self._queue.on_room(lambda: _call_soon(loop, self._announce_room))
        elif self._room.is_set():
            self._room = asyncio.Event()
        return self._room

    def _announce_room(self) -> None:
        if self._room is not None:
            self._room.set()


def _call_soon(loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(callback)


def _try_later(sentence: str, *headers: tuple[bytes, bytes]) -> Reply:
    return error_reply(503, sentence, (b"retry-after", b"1"), *headers)
