"""`fastpath --stdin`: measurements as JSON lines in, with `--stdout` one answer per line out, in the same order.

    {"measurement_uid": "2024…", "body": {"format": "json", "content": {…}}}       an envelope or a bare measurement
    {"measurement_uid": "2024…", "body_b64": "eyJmb3JtYXQ…"}                       the same as exact bytes, in base64

A line may also have `report_id`: the one that the measurement was submitted under. Every line gets an answer, a line
that makes no sense gets one with the outcome `rejected` and a reason. Memory stays constant, however many lines come:
a batch is written and answered when it is full, and whenever no further input is waiting, so that a program can hold a
conversation over two pipes. An answer with the outcome `row` appears after its row is committed.
"""

import json
import os
import random
import signal
import sys
import time
from collections import Counter
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import structlog

from fastpath.config import FastpathSettings
from fastpath.fingerprints import FingerprintError, FingerprintSet, from_rows, load_files
from fastpath.garbage import tune_garbage_collector
from fastpath.lines import BadLine, Interrupted, LineReader, Stop, TooLong, parse_line, stop_on_signals
from fastpath.matcher import Matcher
from fastpath.process import Outcome, process
from fastpath.row import Row, storable
from fastpath.store import Conflict, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

FingerprintMode = Literal["declared", "reference", "compare"]
FINGERPRINT_MODES: tuple[FingerprintMode, ...] = ("declared", "reference", "compare")
"""`compare` scores in both modes: answers are those of `declared`, with what `reference` says where it differs."""

ROW_REFUSED = "row_refused"
"""The reason of a measurement whose row the database does not take for what it contains."""

PENDING_BYTES = 1 << 23
"""Bodies of one batch, in bytes, beyond which it ends early."""

WRITE_PATIENCE_S = 60.0
"""Seconds for which a batch is written again while the database does not answer."""


class _Answered(msgspec.Struct):
    """One input line on its way to its answer."""

    uid: str | None
    outcome: Outcome
    other: Outcome | None = None
    """In the mode `compare`: the outcome of `reference`, where it differs."""


def run(settings: FastpathSettings, *, fingerprints: Path | None, mode: str, write_to_db: bool, answer: bool) -> int:
    """Score what comes on standard input until it ends; return the exit code.

    `fingerprints`: directory with the two JSON files; without it they come from the database, and with neither (no
    database is opened unless `write_to_db`) block pages are not recognised, which is logged. `mode`: one of
    FINGERPRINT_MODES. `answer`: write answers to standard output, which holds nothing else.

    Exit codes: 0 at the end of input, 1 failure (fingerprints, database), 141 the reader of standard output went away,
    143 and 130 on SIGTERM and SIGINT, after what was read is written and answered.
    """
    store = Store(settings.db_uri, statement_timeout_s=settings.statement_timeout_s) if write_to_db else None
    try:
        matcher, other = _matchers(_load(fingerprints, store, settings.fingerprints_minimum), mode)
        tune_garbage_collector()
        with stop_on_signals() as stop:
            return _Conversation(settings, matcher, other, store, stop, answer=answer).run()
    except (FingerprintError, Unavailable, Conflict, RowsRefused) as error:
        log.error("scoring stopped", error=str(error))
        return 1
    finally:
        if store is not None:
            store.close()


def encode_answer(uid: str | None, outcome: Outcome, *, compared: bool = False, other: Outcome | None = None) -> bytes:
    """Return one answer as a JSON line.

    `row` has the columns of table `fastpath`, times as `YYYY-MM-DD hh:mm:ss`. Without a row the flags are false and
    `scores` and `row` are null. With `compared` there is one more key, `reference`: null where both modes agree, else
    the outcome, scores and flags of that mode.
    """
    fields = {"measurement_uid": None if uid is None else storable(uid), **_verdict(outcome)}
    fields["row"] = None if outcome.row is None else _columns(outcome.row)
    if compared:
        fields["reference"] = None if other is None else _verdict(other)
    return msgspec.json.encode(fields) + b"\n"


def _verdict(outcome: Outcome) -> dict[str, Any]:
    row, flags = outcome.row, outcome.flags
    return {
        "outcome": outcome.kind,
        "reason": outcome.reason,
        "scores": None if row is None else msgspec.Raw(row.scores.encode()),
        "anomaly": flags is not None and flags.anomaly,
        "confirmed": flags is not None and flags.confirmed,
        "msm_failure": flags is not None and flags.msm_failure,
    }


def _columns(row: Row) -> dict[str, Any]:
    columns = row.as_dict()
    for key, value in columns.items():
        if type(value) is datetime:
            columns[key] = value.isoformat(" ")
    return columns


def differ(one: Outcome, other: Outcome) -> bool:
    """Tell whether two outcomes differ in anything but the order of the matches."""
    if (one.kind, one.reason, one.flags) != (other.kind, other.reason, other.flags):
        return True
    return one.row is not None and other.row is not None and _comparable(one.row) != _comparable(other.row)


def _comparable(row: Row) -> Any:
    scores = json.loads(row.scores)
    if "fingerprints" in scores:
        scores["fingerprints"].sort(key=lambda match: (match["name"], match["location_found"]))
    return scores


def _load(directory: Path | None, store: Store | None, minimum: int) -> FingerprintSet:
    """Read the fingerprints from `directory`, else from the database. Raises as `run` catches."""
    if directory is not None:
        return load_files(directory)
    if store is None:
        log.warning("no fingerprints: block pages are not recognised. Give --fingerprints DIR.")
        return FingerprintSet((), ())
    dns, http = store.fingerprints()
    if min(len(dns), len(http)) < minimum:
        raise FingerprintError(
            f"The database has {len(dns)} DNS and {len(http)} HTTP fingerprints; at least {minimum} of each are "
            "needed. Import them with fastpath --import-fingerprints, or give --fingerprints DIR."
        )
    return from_rows(dns, http)


def _matchers(loaded: FingerprintSet, mode: str) -> tuple[Matcher, Matcher | None]:
    """Return the matcher of the answers and, for `compare`, the one of the mode `reference`."""
    if mode not in FINGERPRINT_MODES:
        raise FingerprintError(f"There is no fingerprint mode {mode!r}. Use one of {', '.join(FINGERPRINT_MODES)}.")
    matcher = Matcher(loaded, "reference" if mode == "reference" else "declared")
    for refusal in matcher.refused:
        log.warning("fingerprint not used", name=refusal.name, reason=refusal.message)
    return matcher, Matcher(loaded, "reference") if mode == "compare" else None


class _Conversation:
    """The loop: take a line, score it, and end the batch when it is full or nothing more is waiting."""

    def __init__(
        self,
        settings: FastpathSettings,
        matcher: Matcher,
        other: Matcher | None,
        store: Store | None,
        stop: Stop,
        *,
        answer: bool,
    ) -> None:
        self._settings = settings
        self._matcher, self._other, self._store, self._stop, self._answer = matcher, other, store, stop, answer
        # A body in base64 is a third longer than the body.
        self._lines = LineReader(sys.stdin.fileno(), settings.body_limit_bytes * 4 // 3 + 65536, stop)
        self._pending: list[_Answered] = []
        self._pending_bytes = 0
        self._counts: Counter[str] = Counter()

    def run(self) -> int:
        code = 0
        try:
            while (line := self._lines.next(self._end_batch)) is not None:
                self._take(line)
                if len(self._pending) >= self._settings.batch_rows or self._pending_bytes >= PENDING_BYTES:
                    self._end_batch()
            self._end_batch()
        except BrokenPipeError:
            code = 128 + signal.SIGPIPE
        except Interrupted:
            pass
        log.info("standard input scored", stopped=bool(self._stop.signal), **self._counts)
        return 128 + self._stop.signal if self._stop.signal else code

    def _take(self, line: bytes | TooLong) -> None:
        self._counts["lines"] += 1
        if isinstance(line, TooLong):
            self._pending.append(_Answered(None, Outcome("rejected", "line_too_long")))
            return
        self._pending_bytes += len(line)
        try:
            submission = parse_line(line)
        except BadLine as error:
            self._pending.append(_Answered(error.uid, Outcome("rejected", error.reason)))
            return
        uid, body, report_id = submission.uid, submission.body, submission.report_id
        answered = _Answered(uid, process(uid, body, self._matcher, report_id=report_id))
        self._pending.append(answered)
        if self._other is not None:
            other = process(uid, body, self._other, report_id=report_id)
            if differ(answered.outcome, other):
                self._counts["differing"] += 1
                answered.other = other

    def _end_batch(self) -> None:
        pending, self._pending, self._pending_bytes = self._pending, [], 0
        if self._store is not None and pending:
            self._write(pending)
        self._counts.update(answered.outcome.kind for answered in pending)
        if self._answer and pending:
            compared = self._other is not None
            answers = [encode_answer(a.uid, a.outcome, compared=compared, other=a.other) for a in pending]
            self._print(b"".join(answers))

    def _write(self, pending: Sequence[_Answered]) -> None:
        """Commit the rows of a batch; where the database refuses it, row by row, so that one costs no other."""
        # The same uid twice in a batch is one row: the first, as it would be in two batches.
        scored = [answered.outcome.row for answered in reversed(pending) if answered.outcome.row is not None]
        rows = {row.measurement_uid: row for row in scored}
        if not rows:
            return
        refused: set[str] = set()
        try:
            new = len(self._insert(list(rows.values())))
        except RowsRefused:
            new = 0
            for uid, row in rows.items():
                try:
                    new += len(self._insert([row]))
                except RowsRefused as error:
                    log.error("row refused by the database", uid=uid, error=str(error))
                    refused.add(uid)
        self._counts["new_rows"] += new
        for answered in pending:
            if answered.outcome.row is not None and answered.outcome.row.measurement_uid in refused:
                answered.outcome = Outcome("rejected", ROW_REFUSED)

    def _insert(self, rows: Sequence[Row]) -> set[str]:
        store, settings = self._store, self._settings
        assert store is not None
        deadline = time.monotonic() + WRITE_PATIENCE_S
        pause = settings.retry_min_s
        while True:
            try:
                return store.insert(rows)
            except (Unavailable, Conflict) as error:
                if time.monotonic() > deadline or self._stop.signal:
                    raise
                log.warning("batch not written, trying again", error=str(error), pause_s=pause)
            time.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 spreads retries, keeps no secret
            pause = min(pause * 2, settings.retry_max_s)

    def _print(self, answers: bytes) -> None:
        view = memoryview(answers)
        with self._stop.raising():
            while view:
                view = view[os.write(sys.stdout.fileno(), view) :]
