"""The command `probesim session`: its arguments, and how it tells what happens."""

import argparse
import asyncio
import json
import sys
from typing import Any

from probesim.config import SessionSettings
from probesim.countries import unknown_countries
from probesim.rules import RULES, Violation
from probesim.sessions import Listener, Tally, play
from probesim.submissions import Submitted
from probesim.vocabulary import GENERATIONS, NETWORKS_PER_COUNTRY

_ALL = "all"
_DEFAULTS = SessionSettings()


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> argparse.ArgumentParser:
    """Add the command to the command line."""
    parser = commands.add_parser("session", help="play whole sessions and hold every answer to what real probes demand")
    parser.add_argument("--generation", choices=(*GENERATIONS, _ALL), default=_ALL, help="default: all in turn")
    parser.add_argument(
        "--country", type=_country, action="append", default=[], metavar="CC", help="of the probes; may be repeated"
    )
    parser.add_argument("--sessions", type=_positive, default=_DEFAULTS.sessions, metavar="N", help="how many")
    parser.add_argument("--rate", type=float, default=0.0, metavar="R", help="sessions that start per second")
    parser.add_argument("--concurrency", type=_positive, default=_DEFAULTS.concurrency, help="most at the same time")
    parser.add_argument("--seed", type=int, default=_DEFAULTS.seed, help="the same seed makes the same probes")
    parser.add_argument(
        "--patience", type=float, default=_DEFAULTS.patience_s, metavar="S", help="seconds until a call has failed"
    )
    parser.set_defaults(run=run)
    return parser


def run(options: argparse.Namespace) -> int:
    """Play the sessions; return 0, or 1 when an answer broke a rule."""
    settings = SessionSettings(
        url=options.url,
        generations=_DEFAULTS.generations if options.generation == _ALL else (options.generation,),
        countries=tuple(options.country),
        sessions=options.sessions,
        rate=options.rate,
        seed=options.seed,
        concurrency=options.concurrency,
        patience_s=options.patience,
        ca_file=options.ca,
    )
    tally = asyncio.run(play(settings, _JSON if options.json else _PEOPLE))
    if options.json:
        _emit("summary", tally.as_dict())
    else:
        _print_summary(tally)
    return 1 if tally.latencies.broken else 0


def _emit(event: str, fields: dict[str, Any]) -> None:
    print(json.dumps({"event": event, **fields}, separators=(",", ":")), flush=True)


_JSON = Listener(
    violation=lambda found: _emit("violation", found.as_dict()),
    document=lambda found: _emit("document", found.as_dict()),
    progress=lambda figures: _emit("progress", figures),
)


def _print_violation(found: Violation) -> None:
    print(f"broken: {found.rule} in {found.call} ({found.generation}, session {found.session}): {found.detail}")
    print(f"  {RULES[found.rule]}", flush=True)


def _ignore(_: Submitted) -> None:
    """People are told of what is wrong, and of figures."""


def _print_progress(figures: dict[str, Any]) -> None:
    sys.stderr.write(f"{_figures(figures)}\n")
    sys.stderr.flush()


_PEOPLE = Listener(violation=_print_violation, document=_ignore, progress=_print_progress)


def _figures(figures: dict[str, Any]) -> str:
    seconds = max(figures["seconds"], 1e-3)
    broken = ", ".join(f"{count} {rule}" for rule, count in figures["broken"].items()) or "none"
    return (
        f"{figures['seconds']:.0f} s  {figures['sessions']} sessions  {figures['calls']} calls "
        f"({figures['calls'] / seconds:.0f}/s)  {_quantiles(figures)}  broken rules: {broken}"
    )


def _quantiles(figures: dict[str, Any]) -> str:
    return "  ".join(f"{name.removesuffix('_ms')} {figures[name]} ms" for name in ("p50_ms", "p95_ms", "p99_ms"))


def _print_summary(tally: Tally) -> None:
    found = tally.as_dict()
    for name, call in found["by_call"].items():
        print(f"{name:>20}  {call['count']:6} calls  {_quantiles(call)}  {call['broken']} broken")
    for name, count in found["generations"].items():
        print(f"{name:>20}  {count['ended']:6} sessions, {count['whole']} of them without a broken rule")
    print(_figures(found))
    counts = ", ".join(f"{found[name]} {name}" for name in ("accepted", "dropped", "failed"))
    print(f"{found['submitted']} measurements: {counts}")


def _country(text: str) -> str:
    code = text.upper()
    if unknown_countries([code]):
        raise argparse.ArgumentTypeError(
            f"no network is simulated in {code}; choose of {' '.join(NETWORKS_PER_COUNTRY)}"
        )
    return code


def _positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{value} is less than 1")
    return value
