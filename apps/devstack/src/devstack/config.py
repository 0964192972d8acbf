"""Settings of the local stack: a few short environment variables, because they are typed after `make run`."""

import os
from collections.abc import Mapping
from pathlib import Path

import msgspec

from devstack.errors import StackError

DEFAULT_PORT = 8080
DEFAULT_COUNT = 240
DEFAULT_SESSIONS = 3
DEFAULT_TRICKLE_S = 5.0


class StackSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What can be chosen with `make run NAME=value`."""

    # PORT: the port of the API on 127.0.0.1; every other port is chosen free.
    port: int = DEFAULT_PORT
    # RUN_DIR: the directory of everything that the stack keeps.
    run_dir: Path = Path("run")
    # COUNT: number of documents to submit at the start; None leaves it to the stack (a sample into an empty database).
    count: int | None = None
    # SESSIONS: number of whole probe sessions to play at the start, of each generation in turn; None as for COUNT.
    sessions: int | None = None
    # CORPUS: directory with measurements.jsonl.gz, submitted instead of the repository's own sample.
    corpus: Path | None = None
    # TRICKLE: seconds between two submissions after the start; 0 for none.
    trickle_s: float = DEFAULT_TRICKLE_S


def load(environ: Mapping[str, str] = os.environ) -> StackSettings:
    """Read the settings; an empty variable counts as not set.

    Raises:
        StackError: naming the variable, its value and an example.
    """
    port, count = _whole(environ, "PORT", 8081), _whole(environ, "COUNT", 500)
    corpus = environ.get("CORPUS")
    settings = StackSettings(
        port=DEFAULT_PORT if port is None else port,
        run_dir=Path(environ.get("RUN_DIR") or "run").resolve(),
        count=count,
        sessions=_whole(environ, "SESSIONS", 6),
        corpus=Path(corpus).resolve() if corpus else None,
        trickle_s=_seconds(environ, "TRICKLE", DEFAULT_TRICKLE_S, 10),
    )
    if not 0 < settings.port < 65536:
        raise StackError(f"PORT is {settings.port}, which is no port. Give one up to 65535: make run PORT=8081")
    if settings.corpus is not None and not settings.corpus.is_dir():
        raise StackError(f"CORPUS is {settings.corpus}, which is no directory. Name one with measurements.jsonl.gz.")
    return settings


def _whole(environ: Mapping[str, str], name: str, example: int) -> int | None:
    text = environ.get(name)
    if not text:
        return None
    if not (text.isascii() and text.isdigit() and len(text) < 10):
        raise StackError(f"{name} is {text!r}, which is no number. Write it like this: make run {name}={example}")
    return int(text)


def _seconds(environ: Mapping[str, str], name: str, default: float, example: int) -> float:
    text = environ.get(name)
    if not text:
        return default
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= 86_400:
        raise StackError(f"{name} is {text!r}, which is no time in seconds. Write it like: make run {name}={example}")
    return value
