"""The command line: `probesim sample`, `probesim replay`, `probesim trickle`, `probesim session`."""

import argparse
import asyncio
import contextlib
import itertools
import json
import signal
import sys
import time
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from probesim.config import DEFAULT_URL, ReplaySettings
from probesim.corpus import CorpusError, read_corpus
from probesim.measurement import TIME_FORMAT
from probesim.progress import Progress
from probesim.replay import Conversation, Summary, corpus_conversations, replay, sample_conversations
from probesim.sample import SampleFileError, generate, read_sample
from probesim.session_command import add_parser as add_session
from probesim.submissions import Submitted

DEFAULT_COUNT = 240


def main(arguments: list[str] | None = None) -> int:
    """Run the command line and return its exit status.

    0; 1 when documents got no answer or answers broke a rule; 2 for a wrong argument.
    """
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
    except (CorpusError, SampleFileError, OSError) as error:
        print(f"probesim: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    return status


def _sample(options: argparse.Namespace) -> int:
    documents = generate(options.count, options.seed, options.now)
    with contextlib.ExitStack() as stack:
        out = sys.stdout
        if options.out != "-":
            out = stack.enter_context(Path(options.out).open("w", encoding="utf-8"))
        for document in documents:
            out.write(document.to_json() + "\n")
    return 0


def _replay(options: argparse.Namespace) -> int:
    conversations, total = _conversations(options)
    notify: Callable[[Submitted], None] = _print_json if options.json else Progress(total)
    summary = asyncio.run(replay(conversations, _settings(options), notify))
    if isinstance(notify, Progress):
        notify.finish()
    _print_summary(summary, as_json=options.json)
    return 1 if summary.outcomes["failed"] else 0


def _trickle(options: argparse.Namespace) -> int:
    """Submit one document after the other until told to stop; an API that is away for a while does not matter."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    settings = ReplaySettings(url=options.url, concurrency=1, patience_s=options.interval, ca_file=options.ca)
    for seed in itertools.count(time.time_ns()):
        batch = sample_conversations(generate(1, seed, datetime.now(UTC), complete=False))
        summary = asyncio.run(replay(batch, settings, _print_json if options.json else _print_line))
        time.sleep(max(options.interval - summary.seconds, 0.0))
    raise AssertionError("the count of seeds has no end")


def _conversations(options: argparse.Namespace) -> tuple[Iterable[Conversation], int | None]:
    """Return what to submit and how many documents that is."""
    if options.corpus:
        found = list(itertools.islice(read_corpus(Path(options.corpus), everything=options.all), options.count))
        return corpus_conversations(found), len(found)
    if options.file:
        with Path(options.file).open(encoding="utf-8") as lines:
            documents = list(itertools.islice(read_sample(lines), options.count))
    else:
        documents = list(generate(options.count or DEFAULT_COUNT, options.seed, options.now))
    return sample_conversations(documents), len(documents)


def _settings(options: argparse.Namespace) -> ReplaySettings:
    return ReplaySettings(
        url=options.url,
        concurrency=options.concurrency,
        rate=options.rate,
        patience_s=options.patience,
        ca_file=options.ca,
    )


def _print_json(result: Submitted) -> None:
    _emit({"event": "document", **result.as_dict()})


def _emit(fields: dict[str, Any]) -> None:
    print(json.dumps(fields, separators=(",", ":")), flush=True)


def _print_line(result: Submitted) -> None:
    print(f"{result.outcome} {result.scenario} {result.uid or result.detail}", flush=True)


def _print_summary(summary: Summary, *, as_json: bool) -> None:
    if as_json:
        _emit({"event": "summary", **summary.as_dict()})
        return
    counts = ", ".join(f"{summary.outcomes[name]} {name}" for name in ("accepted", "dropped", "refused", "failed"))
    rate = summary.submitted / max(summary.seconds, 1e-3)
    print(
        f"{summary.submitted} documents ({summary.bytes_sent / 1e6:.1f} MB) in {summary.seconds:.1f} s "
        f"({rate:.0f}/s): {counts}"
    )
    for complaint in summary.complaints:
        print(f"  failed: {complaint}")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="probesim", description="Simulated probes for a measurement backend.")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    sample = commands.add_parser("sample", help="write measurement documents, one JSON line each")
    sample.add_argument("--count", type=_at_least(1), default=DEFAULT_COUNT, help="number of documents")
    sample.add_argument("--out", default="-", metavar="FILE", help="where to write them (default: standard output)")
    sample.set_defaults(run=_sample)

    send = commands.add_parser("replay", help="submit documents: a fresh sample, a file of them, or a corpus")
    source = send.add_mutually_exclusive_group()
    source.add_argument("--corpus", metavar="DIR", help="directory with measurements.jsonl.gz")
    source.add_argument("--file", metavar="FILE", help="file written by `probesim sample`")
    send.add_argument("--all", action="store_true", help="with --corpus: variants too, not only real documents")
    send.add_argument("--count", type=_at_least(1), help="most documents to submit")
    send.add_argument("--rate", type=float, default=0.0, metavar="N", help="most submissions per second")
    send.add_argument("--concurrency", type=_at_least(1), default=8, help="probes that submit at the same time")
    send.add_argument("--patience", type=float, default=60.0, metavar="S", help="seconds until a document has failed")
    send.set_defaults(run=_replay)

    trickle = commands.add_parser("trickle", help="submit one document every few seconds until told to stop")
    trickle.add_argument("--interval", type=float, default=5.0, metavar="S", help="seconds between two documents")
    trickle.set_defaults(run=_trickle)

    session = add_session(commands)

    for command in (sample, send):
        command.add_argument("--seed", type=int, default=1, help="the same seed gives the same documents")
        command.add_argument(
            "--now", type=_time, default=datetime.now(UTC), metavar="TIME", help="'YYYY-MM-DD hh:mm:ss', UTC"
        )
    for command in (send, trickle, session):
        command.add_argument(
            "--url", default=DEFAULT_URL, type=lambda text: text.rstrip("/"), help="address of the API"
        )
        command.add_argument(
            "--ca", default="", metavar="FILE", help="certificates to believe, instead of the usual ones"
        )
        command.add_argument("--json", action="store_true", help="print JSON lines: what happens, then a summary")
    return parser


def _time(text: str) -> datetime:
    return datetime.strptime(text, TIME_FORMAT).replace(tzinfo=UTC)


def _at_least(minimum: int) -> Callable[[str], int]:
    def parse(text: str) -> int:
        value = int(text)
        if value < minimum:
            raise argparse.ArgumentTypeError(f"{value} is less than {minimum}")
        return value

    return parse


if __name__ == "__main__":
    sys.exit(main())
