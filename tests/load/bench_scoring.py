"""Scoring against its floor: how fast documents become rows, compared with merely decoding the same bytes.

    python -m tests.load.bench_scoring              figures (a) to (d)
    python -m tests.load.bench_scoring --quick      fewer repetitions

Machines are noisy, so every figure is the best of many repetitions of short chunks, and the floor (msgspec decoding
into plain objects) is measured between them, in the same seconds. Only the ratios are worth comparing with another run.
"""

import argparse
import contextlib
import gc
import os
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TypeVar

import msgspec
from tests.load import documents
from tests.load.documents import Document, Documents

from fastpath.garbage import tune_garbage_collector
from fastpath.matcher import MODES, Matcher
from fastpath.process import process

CHUNK = 40
"""Documents in a chunk: a few milliseconds, so that some repetition of each is undisturbed."""

REFERENCE_ALL, REFERENCE_REAL = 3050, 410
"""Documents per second and core of the original system on the whole corpus and on its real documents."""

FLOOR = "decoding alone"
LANGUAGES = ("ascii", "cyrillic")
_decoder = msgspec.json.Decoder()

Item = TypeVar("Item")


def main() -> int:
    """Print the figures; always succeeds."""
    parser = argparse.ArgumentParser(description="Measure scoring against decoding the same bytes.")
    parser.add_argument("--quick", action="store_true", help="few repetitions: for a look, not for a record")
    arguments = parser.parse_args()
    run(quick=arguments.quick)
    return 0


def run(*, quick: bool = False) -> None:
    """Measure and print all figures of scoring."""
    loaded = documents.load()
    rounds = 7 if quick else 40
    print(
        f"scoring: documents of {loaded.name}; one core, best of {rounds} per {CHUNK} documents; load average "
        f"{os.getloadavg()[0]:.1f}",
        flush=True,
    )
    fingerprints = loaded.load_fingerprints()
    matchers: dict[str, Matcher] = {mode: Matcher(fingerprints, mode) for mode in MODES}
    with _quiet_collector():
        _documents("(a) all", loaded.everything, matchers, rounds, REFERENCE_ALL)
        _documents("(b) real", loaded.real, matchers, rounds, REFERENCE_REAL)
        _bodies(matchers, rounds)
        _memory(loaded, matchers["declared"], passes=3 if quick else 20)


def _documents(
    what: str, chosen: Sequence[Document], matchers: dict[str, Matcher], rounds: int, reference: int
) -> None:
    size = sum(len(body) for _, body in chosen)
    tasks: dict[str, Callable[[Sequence[Document]], None]] = {FLOOR: _decode}
    for mode, matcher in matchers.items():
        tasks[f"decode + score + row, {mode}"] = _scoring_with(matcher)
    best = _interleaved(tasks, [chosen[first : first + CHUNK] for first in range(0, len(chosen), CHUNK)], rounds)
    print(f"{what}: {len(chosen)} documents, mean {size / len(chosen):.0f} bytes", flush=True)
    for name, seconds in best.items():
        rate = len(chosen) / seconds
        ratios = "" if name == FLOOR else f", {best[FLOOR] / seconds:.2f} of the floor, {rate / reference:.1f} x"
        print(f"  {name}: {rate:,.0f} documents/s, {size / seconds / 1e6:.0f} MB/s{ratios}", flush=True)


def _decode(chunk: Sequence[Document]) -> None:
    for _, body in chunk:
        # A body that only the tolerant decoder takes costs the floor the time until it is found out.
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            _decoder.decode(body)


def _scoring_with(matcher: Matcher) -> Callable[[Sequence[Document]], None]:
    def score(chunk: Sequence[Document]) -> None:
        for uid, body in chunk:
            process(uid, body, matcher)

    return score


def _bodies(matchers: dict[str, Matcher], rounds: int) -> None:
    """Measure the search for fingerprints in pages without any, as nearly all pages are."""
    for kilobytes in (15, 150):
        for language in LANGUAGES:
            pages = [_page(kilobytes * 1000, language, seed) for seed in range(8)]
            size = sum(len(page.encode()) for page in pages)
            encoded = [msgspec.json.encode(page) for page in pages]
            tasks: dict[str, Callable[[Sequence[tuple[str, bytes]]], None]] = {FLOOR: _decode_pages}
            for mode, matcher in matchers.items():
                tasks[f"matching, {mode}"] = _matching_with(matcher)
            best = _interleaved(tasks, [list(zip(pages, encoded, strict=True))], rounds * 3)
            print(f"(c) bodies of {kilobytes} kB, {language}:", flush=True)
            for name, seconds in best.items():
                ratio = "" if name == FLOOR else f", {best[FLOOR] / seconds:.2f} of the floor"
                each = seconds / len(pages) * 1e6
                print(f"  {name}: {each:.1f} microseconds, {size / seconds / 1e6:,.0f} MB/s{ratio}", flush=True)


def _decode_pages(chunk: Sequence[tuple[str, bytes]]) -> None:
    for _, text in chunk:
        _decoder.decode(text)


def _matching_with(matcher: Matcher) -> Callable[[Sequence[tuple[str, bytes]]], None]:
    def match(chunk: Sequence[tuple[str, bytes]]) -> None:
        for page, _ in chunk:
            matcher.body(page)

    return match


def _page(length: int, language: str, seed: int) -> str:
    """Return HTML of `length` bytes with words of letters in a common order of frequency."""
    rng = random.Random(seed)
    letters = "etaoinshrdlu" if language == "ascii" else "оеаинтсрвлкм"
    parts = ["<!DOCTYPE html><html><head><title>", "</title></head><body>"]
    size = sum(map(len, parts))
    while size < length:
        words = ["".join(rng.choices(letters, k=rng.randint(2, 9))) for _ in range(rng.randint(3, 30))]
        part = f'<p class="text"><a href="/{seed}/{size}.html">{" ".join(words)}</a></p>\n'
        parts.append(part)
        size += len(part.encode())
    return "".join(parts)


def _memory(loaded: Documents, matcher: Matcher, passes: int) -> None:
    """Show that a process that scores does not grow: resident memory after the first passes and after many."""
    for uid, body in loaded.everything * 2:
        process(uid, body, matcher)
    gc.collect()
    before = resident_bytes()
    for _ in range(passes):
        for uid, body in loaded.everything:
            process(uid, body, matcher)
    gc.collect()
    after = resident_bytes()
    count = passes * len(loaded.everything)
    print(
        f"memory of the process: {before / 1e6:.1f} MB, after {count} more documents {after / 1e6:.1f} MB "
        f"({(after - before) / count:+.1f} bytes per document)",
        flush=True,
    )


def resident_bytes() -> int:
    """Return the resident memory of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def _interleaved(
    tasks: dict[str, Callable[[Sequence[Item]], None]], chunks: Sequence[Sequence[Item]], rounds: int
) -> dict[str, float]:
    """Return for each task the sum of its best times over the chunks, in seconds."""
    best = {name: [float("inf")] * len(chunks) for name in tasks}
    for _ in range(rounds):
        for number, chunk in enumerate(chunks):
            for name, task in tasks.items():
                start = time.perf_counter()
                task(chunk)
                best[name][number] = min(best[name][number], time.perf_counter() - start)
    return {name: sum(times) for name, times in best.items()}


@contextlib.contextmanager
def _quiet_collector() -> Iterator[None]:
    """Set the garbage collector as scoring processes do, for the floor too."""
    former = gc.get_threshold()
    tune_garbage_collector()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.set_threshold(*former)


if __name__ == "__main__":
    sys.exit(main())
