"""Has the simulated probes submit documents or play sessions, as a program of its own that reports in JSON lines."""

import json
import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from subprocess import PIPE, Popen
from typing import Any

from devstack.children import Child
from devstack.errors import StackError
from devstack.supervisor import TICK_S, Supervisor


@dataclass(slots=True)
class Submission:
    """What became of the documents: the uids of the accepted ones, and the simulator's own summary.

    `complaints` are sentences about answers that real probes would not take.
    """

    uids: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)


def submit(child: Child, supervisor: Supervisor, progress: Callable[[str], None]) -> Submission:
    """Run the simulator to its end and look after the services meanwhile; `progress` is called with each outcome.

    Raises:
        StackError: the simulator ended without a summary; with the end of its log.
    """
    process = child.start(stdout=PIPE)
    lines: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(process, lines), name="probesim", daemon=True).start()
    result = Submission()
    try:
        while (line := _next_line(lines, supervisor)) is not None:
            _take(json.loads(line), result, progress)
    finally:
        child.stop()
    if not result.summary:
        raise StackError(
            f"{child.name} ended before its work was done. The end of {child.log_file}:\n{child.last_lines()}"
        )
    return result


def _take(event: dict[str, Any], result: Submission, progress: Callable[[str], None]) -> None:
    match event["event"]:
        case "summary":
            result.summary = event
        case "violation":
            result.complaints.append(f"{event['rule']} in {event['call']} ({event['generation']}): {event['detail']}")
        case "document":
            if event["uid"]:
                result.uids.append(event["uid"])
            progress(event["outcome"])


def _next_line(lines: "queue.SimpleQueue[bytes | None]", supervisor: Supervisor) -> bytes | None:
    while True:
        supervisor.tick()
        try:
            return lines.get(timeout=TICK_S)
        except queue.Empty:
            continue


def _read(process: "Popen[bytes]", lines: "queue.SimpleQueue[bytes | None]") -> None:
    assert process.stdout is not None
    for line in process.stdout:
        lines.put(line)
    lines.put(None)
