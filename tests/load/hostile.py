"""Many mutated documents through scoring: none may raise, take long, or leave memory behind.

    python -m tests.load.hostile --count 100000 --seed 1

The property tests do this with a few thousand documents at each run of the tests; this is the long version, to be run
by hand after changes to decoding or scoring. The same seed and documents give the same mutations. Prints the slowest
documents and the growth of memory; exits 1 where a document met an error that nothing expected, and says which.
"""

import argparse
import copy
import gc
import json
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.load import documents
from tests.load.bench_scoring import resident_bytes

from fastpath.garbage import tune_garbage_collector
from fastpath.matcher import MODES, Matcher
from fastpath.process import Outcome, process

REPORT_ID = "20240305T100900Z_webconnectivity_IT_64500_n1_AbCdEfGhIjKlMnOp"
LONGEST = 100_000
"""Bytes of the longest document that is mutated; longer ones only cost time here."""

SCALARS: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 0.0, 1.5, 200, 2**31, 2**63, 2**64, -(2**70), 10**400, 1e308, float("nan")),
    *(float("inf"), "", "x", "ok", "blocked", "\0", "\ud800", "\udfff\ud800", "é", "AS0", "AS", "ZZ", "1" * 5000),
    *("unknown_failure x", "9999-12-31 23:59:59", "2024-03-05T10:00:00Z", "http://[", "http://℀/", "QUJDR", "3.8.3"),
)
_CONTENTS: tuple[Any, ...] = ({}, [], None, "x")
SHAPES: tuple[Any, ...] = (
    *([], {}, [[]], [None], [{}], {"": {}}, {"a": {"b": {}}}, {"format": "base64"}, {"ipv4": []}, [["Server", ["x"]]]),
    *({"format": "base64", "data": data} for data in ("QUJDR", "Q", "é", None, 5, "/+8A" * 1000, "\ud800")),
    *({"format": "json", "content": content} for content in _CONTENTS),
)
VERBATIM = ("NaN", "-Infinity", "1e999", "9" * 5000, '"\\ud83d"', '"\x07"', "00", "{", "", "[" * 900 + "]" * 900)
DEEP = ("[" * 5000 + "]" * 5000, '{"a":' * 3000 + "1" + "}" * 3000)


def main() -> int:
    """Run the command; return 1 where something unexpected happened."""
    parser = argparse.ArgumentParser(description="Score mutated documents.")
    parser.add_argument("--count", type=int, default=100_000, help="documents to score (default 100000)")
    parser.add_argument("--seed", type=int, default=1, help="start of the random numbers (default 1)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="write the bodies of what went wrong there")
    arguments = parser.parse_args()
    loaded = documents.load()
    fingerprints = loaded.load_fingerprints()
    matchers = [Matcher(fingerprints, mode) for mode in MODES]
    bases = _bases(loaded)
    print(f"{arguments.count} mutations of {len(bases)} documents of {loaded.name}, seed {arguments.seed}", flush=True)
    tune_garbage_collector()
    rng = random.Random(arguments.seed)
    kinds: Counter[str] = Counter()
    slowest: list[tuple[float, int, int, str]] = []
    wrong = total = 0
    longest_s = 0.0
    memory = resident_bytes()
    for number in range(arguments.count):
        if number == arguments.count // 10:  # what is allocated once has been by now
            gc.collect()
            memory = resident_bytes()
        uid, base = rng.choice(bases)
        body = mutate(base, rng)
        total += len(body)
        started = time.thread_time()
        outcome, problem = _score(uid, body, rng.choice(matchers), rng.choice((None, REPORT_ID)))
        elapsed = time.thread_time() - started
        kinds["unexpected" if outcome is None else _kind(outcome)] += 1
        if elapsed > longest_s or problem:
            slowest.append((elapsed, number, len(body), problem or _kind(outcome)))
            longest_s = max(longest_s, elapsed)
        if problem:
            wrong += 1
            print(f"document {number}, {uid}: {problem}", flush=True)
            if arguments.keep:
                (arguments.keep / f"{number}.body").write_bytes(body)
    gc.collect()
    grown = resident_bytes() - memory
    print(f"outcomes: {dict(kinds.most_common())}; {total / 1e6:.0f} MB")
    for elapsed, number, size, what in sorted(slowest, reverse=True)[:5]:
        print(f"slow: document {number}, {size} bytes, {elapsed * 1000:.1f} ms of processor time, {what}")
    print(f"memory: {resident_bytes() / 1e6:.1f} MB, {grown / 1e6:+.1f} MB over the last nine tenths; wrong: {wrong}")
    return 1 if wrong else 0


def _bases(loaded: documents.Documents) -> list[tuple[str, Any]]:
    bases = []
    for uid, body in loaded.everything:
        if len(body) <= LONGEST:
            try:
                bases.append((uid, json.loads(body)))
            except ValueError:
                continue
    return bases


def _score(uid: str, body: bytes, matcher: Matcher, report_id: str | None) -> tuple[Outcome | None, str]:
    """Return the outcome and what is wrong with it, if anything."""
    try:
        outcome = process(uid, body, matcher, report_id=report_id)
    except Exception as error:  # noqa: BLE001 this is what is being looked for
        return None, f"raised {type(error).__name__}: {error}"
    if (outcome.reason or "").startswith("internal_error"):
        return outcome, str(outcome.reason)
    if (outcome.row is None) == (outcome.kind == "row"):
        return outcome, f"a row does not go with {outcome.kind}"
    if outcome.row is not None:
        row = outcome.row
        json.loads(row.scores)
        texts = [value for value in row.as_dict().values() if type(value) is str]
        if any("\0" in text or "\ud800" <= max(text, default="") <= "\udfff" for text in texts):
            return outcome, "text that the database does not take"
        if row.reason is not None and (row.anomaly or row.confirmed or not row.msm_failure):
            return outcome, "a document without scores has a verdict"
    return outcome, ""


def _kind(outcome: Outcome | None) -> str:
    if outcome is None:
        return "unexpected"
    return outcome.kind if outcome.kind != "row" or outcome.reason is None else "failed row"


def mutate(base: Any, rng: random.Random) -> bytes:
    """Return the JSON text of a copy of `base` with one to four changes, or of the text itself."""
    document = copy.deepcopy(base)
    verbatim: list[str] = []
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        container, key = _place(document, rng)
        if container is None:
            break
        rng.choice(_CHANGES)(container, key, rng, verbatim)
    text = json.dumps(document)
    for number, replacement in enumerate(verbatim):
        text = text.replace(f'"@@{number}@@"', replacement, 1)
    body = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.05:
        position = rng.randrange(len(body) + 1)
        body = body[:position] + rng.randbytes(rng.randrange(4)) + body[position + rng.randrange(4) :]
    return body


def _place(document: Any, rng: random.Random) -> tuple[Any, Any]:
    """Return a container inside the document and one of its keys; deeper ones are as likely as shallow ones."""
    container, key = None, None
    value = document
    depth = rng.randint(2, 9)
    while depth and isinstance(value, dict | list) and value:
        container = value
        key = rng.choice(list(value)) if isinstance(value, dict) else rng.randrange(len(value))
        value = value[key]
        depth -= 1
    return container, key


def _drop(container: Any, key: Any, _rng: random.Random, _verbatim: list[str]) -> None:
    del container[key]


def _replace(container: Any, key: Any, rng: random.Random, _verbatim: list[str]) -> None:
    container[key] = copy.deepcopy(rng.choice(SHAPES if rng.random() < 0.3 else SCALARS))


def _retype(container: Any, key: Any, rng: random.Random, _verbatim: list[str]) -> None:
    value = container[key]
    container[key] = rng.choice(
        ([value], {"x": value}, {"format": "base64", "data": value}, str(value)[:1000], [[value]])
    )


def _repeat(container: Any, key: Any, rng: random.Random, _verbatim: list[str]) -> None:
    value = container[key]
    if isinstance(value, str | list) and len(json.dumps(value)) < 10_000:
        container[key] = value * rng.choice((2, 100))


def _spell(container: Any, key: Any, rng: random.Random, verbatim: list[str]) -> None:
    container[key] = f"@@{len(verbatim)}@@"
    verbatim.append(rng.choice(DEEP if rng.random() < 0.05 else VERBATIM))


_CHANGES: tuple[Callable[[Any, Any, random.Random, list[str]], None], ...] = (_drop, _replace, _retype, _repeat, _spell)

if __name__ == "__main__":
    sys.exit(main())
