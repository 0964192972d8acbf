"""Runs many submissions at once: bounded concurrency, an optional rate, one result per document."""

import asyncio
import ssl
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from time import monotonic
from typing import Any

import httpx

from probesim.client import FAILED, ProbeClient
from probesim.config import ReplaySettings
from probesim.corpus import CorpusDocument
from probesim.sample import Document
from probesim.submissions import Pace, Submitted, submit_corpus_document, submit_task

Conversation = Callable[[ProbeClient, Pace], AsyncIterator[Submitted]]
"""Something to submit: given a client it yields one result per document."""

_REQUEST_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Summary:
    """What a replay came to; `seconds` is its duration."""

    outcomes: Counter[str] = field(default_factory=Counter)
    bytes_sent: int = 0
    seconds: float = 0.0
    complaints: list[str] = field(default_factory=list)

    def add(self, result: Submitted) -> None:
        """Count one result, and keep the first few explanations of failures."""
        self.outcomes[result.outcome] += 1
        self.bytes_sent += result.bytes_sent
        if result.outcome == FAILED and len(self.complaints) < 3:
            self.complaints.append(f"{result.scenario or result.id}: {result.status} {result.detail}")

    @property
    def submitted(self) -> int:
        """Number of documents sent."""
        return self.outcomes.total()

    def as_dict(self) -> dict[str, Any]:
        """Return the figures, for a JSON line."""
        return {
            "submitted": self.submitted,
            **{name: self.outcomes[name] for name in ("accepted", "dropped", "refused", "failed")},
            "bytes_sent": self.bytes_sent,
            "seconds": round(self.seconds, 3),
            "complaints": self.complaints,
        }


def sample_conversations(documents: Iterable[Document]) -> Iterator[Conversation]:
    """Group documents by task: those of one task go through one report, in order."""
    for _, task in groupby(documents, key=lambda document: document.task):
        yield _task_conversation(list(task))


def corpus_conversations(documents: Iterable[CorpusDocument]) -> Iterator[Conversation]:
    """Make a conversation of each document of a corpus."""
    for document in documents:
        yield _corpus_conversation(document)


async def replay(
    conversations: Iterable[Conversation], settings: ReplaySettings, notify: Callable[[Submitted], None]
) -> Summary:
    """Submit everything; `notify` is called with each result as it comes."""
    summary, started = Summary(), monotonic()
    waiting = iter(conversations)
    pace = _Pacer(settings.rate).wait
    limits = httpx.Limits(max_connections=settings.concurrency, max_keepalive_connections=settings.concurrency)
    async with httpx.AsyncClient(
        base_url=settings.url,
        limits=limits,
        timeout=_REQUEST_TIMEOUT_S,
        trust_env=False,
        verify=ssl.create_default_context(cafile=settings.ca_file or None),
    ) as http:
        client = ProbeClient(http, settings.patience_s)

        async def work() -> None:
            for conversation in waiting:  # one iterator for all workers: each takes the next
                async for result in conversation(client, pace):
                    summary.add(result)
                    notify(result)

        async with asyncio.TaskGroup() as group:
            for _ in range(settings.concurrency):
                group.create_task(work())
    summary.seconds = monotonic() - started
    return summary


class _Pacer:
    """Spreads submissions evenly: at most `rate` per second, without bursts after a pause; 0 means no limit."""

    def __init__(self, rate: float) -> None:
        self._interval = 1 / rate if rate else 0.0
        self._next = 0.0

    async def wait(self) -> None:
        """Return when the next submission is due."""
        if not self._interval:
            return
        now = monotonic()
        due = max(now, self._next)
        self._next = due + self._interval
        await asyncio.sleep(due - now)


def _task_conversation(documents: Sequence[Document]) -> Conversation:
    return lambda client, pace: submit_task(client, pace, documents)


def _corpus_conversation(document: CorpusDocument) -> Conversation:
    return lambda client, pace: submit_corpus_document(client, pace, document)
