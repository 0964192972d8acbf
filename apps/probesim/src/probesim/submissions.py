"""Turns documents into conversations with the API: which route, which report id, which bytes."""

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from core.ids import IdentifierError, parse_report_id
from probesim.client import FAILED, Answer, ProbeClient, ReportRefused, encode_json
from probesim.corpus import CorpusDocument
from probesim.sample import IDENTITY, Document
from probesim.vocabulary import Probe

Pace = Callable[[], Awaitable[None]]
"""Waits until the next submission may be sent."""

_ENVELOPE = b'{"format":"json","content":%s}'
_CORPUS_USER_AGENT = "probesim/0 ooniprobe-engine/0"


@dataclass(frozen=True, slots=True)
class Submitted:
    """What became of one document. `bytes_sent` counts the request body before compression; `sha256` is that of the
    measurement's JSON as sent, or empty where the server builds it anew (or nothing usable was sent)."""

    id: str
    scenario: str
    test_name: str
    generation: str
    outcome: str
    status: int
    uid: str
    report_id: str
    bytes_sent: int
    sha256: str
    detail: str

    def as_dict(self) -> dict[str, Any]:
        """Return the fields, for a JSON line."""
        return asdict(self)


async def submit_task(client: ProbeClient, pace: Pace, documents: Sequence[Document]) -> AsyncIterator[Submitted]:
    """Submit the documents of one task (one test run of one probe) the way their probe does."""
    first = documents[0]
    agent = _user_agent(first.measurement)
    if first.generation == "cli":
        for document in documents:
            await pace()
            text = encode_json(document.measurement)
            answer = await client.submit_measurement(text.decode("utf-8", "surrogatepass"), agent)
            yield _submitted(document, answer, len(text), "")
        return
    try:
        report_id = await client.open_report(first.measurement, agent)
    except ReportRefused as error:
        for document in documents:
            yield _submitted(document, Answer(FAILED, 0, detail=str(error)), 0, "")
        return
    for document in documents:
        await pace()
        content = encode_json({**document.measurement, "report_id": report_id})
        body = _ENVELOPE % content
        answer = await client.submit_to_report(report_id, body, document.encoding, agent)
        yield _submitted(document, answer, len(body), hashlib.sha256(content).hexdigest())
    if first.generation == "legacy":
        await client.close_report(report_id, agent)


async def submit_corpus_document(client: ProbeClient, pace: Pace, document: CorpusDocument) -> AsyncIterator[Submitted]:
    """Submit a document of a corpus byte for byte, under its own report id when that is well-formed."""
    await pace()
    body, measurement = document.body(), document.measurement()
    report_id = measurement.get("report_id")
    try:
        if not isinstance(report_id, str):
            raise IdentifierError("The document has no report id.")
        parse_report_id(report_id)
    except IdentifierError:
        try:
            report_id = await client.open_report(document.report_request(), _CORPUS_USER_AGENT)
        except ReportRefused as error:
            answer = Answer(FAILED, 0, detail=str(error))
            yield _corpus_submitted(document, answer, len(body))
            return
    answer = await client.submit_to_report(report_id, body, IDENTITY, _CORPUS_USER_AGENT)
    yield _corpus_submitted(document, answer, len(body))


def user_agent(probe: Probe) -> str:
    """Return what a probe calls itself in ordinary calls."""
    software = probe.software
    return f"{software.name}/{software.version} ooniprobe-engine/{software.engine_version}"


def _user_agent(measurement: dict[str, Any]) -> str:
    engine = measurement.get("annotations", {}).get("engine_version", "0")
    name, version = measurement.get("software_name", "probesim"), measurement.get("software_version", "0")
    return f"{name}/{version} ooniprobe-engine/{engine}"


def _submitted(document: Document, answer: Answer, size: int, sha256: str) -> Submitted:
    return Submitted(
        id=f"task-{document.task}",
        scenario=document.scenario,
        test_name=str(document.measurement.get("test_name", "")),
        generation=document.generation,
        outcome=answer.outcome,
        status=answer.status,
        uid=answer.uid,
        report_id=answer.report_id,
        bytes_sent=size,
        sha256=sha256,
        detail=answer.detail,
    )


def _corpus_submitted(document: CorpusDocument, answer: Answer, size: int) -> Submitted:
    return Submitted(
        id=document.id,
        scenario=document.origin,
        test_name=document.test_name,
        generation="corpus",
        outcome=answer.outcome,
        status=answer.status,
        uid=answer.uid,
        report_id=answer.report_id,
        bytes_sent=size,
        sha256="",
        detail=answer.detail,
    )
