"""Where the fingerprints in use come from: the database, looked at every hour.

New ones are compiled on trial first, in a process of its own that ends afterwards; only then are they handed to the
scoring processes, each of which swaps them between two batches. A load that fails, or brings too few, changes nothing:
the former fingerprints stay in use. Before the first good load nothing is scored and measurements wait in the spool,
since a score without fingerprints would be wrong.
"""

import hashlib
import json
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import msgspec
import structlog

from fastpath import metrics
from fastpath.fingerprints import DNS_FILE, HTTP_FILE, FingerprintError, load_files
from fastpath.matcher import Mode
from fastpath.scoring_client import ProcessLost
from fastpath.scoring_protocol import Load, Loaded, encode
from fastpath.store import FINGERPRINT_COLUMNS, Conflict, Fingerprint, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

RETRY_S = 2.0
"""Seconds between two attempts while there are no fingerprints at all."""


class FingerprintUpdate(msgspec.Struct, frozen=True):
    """Fingerprints that compile, as the request that puts them to use; a higher generation is newer."""

    generation: int
    request: bytes


class FingerprintSource:
    """Holds the newest good fingerprints. `refresh` is called by one thread, `current` by any."""

    def __init__(
        self,
        store: Store,
        trial: Callable[[bytes], Loaded],
        *,
        refresh_s: float,
        minimum: int,
        mode: Mode = "declared",
    ) -> None:
        """Load from `store`, every `refresh_s` seconds; fewer than `minimum` of either kind count as a failure.

        `trial` compiles what an encoded `Load` holds, in a process of its own.
        """
        self._store = store
        self._trial = trial
        self._refresh_s = refresh_s
        self._minimum = minimum
        self._mode: Mode = mode
        self._current: FingerprintUpdate | None = None
        self._digest = ""

    @property
    def loaded(self) -> bool:
        """Whether there are fingerprints."""
        return self._current is not None

    @property
    def current(self) -> FingerprintUpdate | None:
        """The newest good fingerprints; None before the first."""
        return self._current

    def refresh(self) -> bool:
        """Load the fingerprints and put them to use; return whether that went well. Failures are logged."""
        try:
            started = time.perf_counter()
            dns, http = self._store.fingerprints()
            metrics.FINGERPRINTS_FETCH_SECONDS.set(time.perf_counter() - started)
            self._use(dns, http)
        except (Unavailable, Conflict, RowsRefused, FingerprintError, ProcessLost) as error:
            metrics.FINGERPRINTS_ERRORS.inc()
            log.error("fingerprints not loaded", error=str(error), former_in_use=self.loaded)
            return False
        metrics.FINGERPRINTS_LOADED.set(time.time())
        return True

    def run(self, stop: threading.Event) -> None:
        """Refresh until `stop` is set: soon again while there is no matcher, every hour afterwards."""
        complained = False
        while not stop.is_set():
            try:
                self.refresh()
            except Exception:
                metrics.UNHANDLED.labels("fingerprints").inc()
                log.exception("fingerprints not loaded")
            if not self.loaded and not complained:
                complained = True
                log.error("measurements wait in the spool until fingerprints are loaded")
            stop.wait(self._refresh_s if self.loaded else min(RETRY_S, self._refresh_s))
        self._store.close()

    def _use(self, dns: Sequence[Fingerprint], http: Sequence[Fingerprint]) -> None:
        for kind, rows in (("DNS", dns), ("HTTP", http)):
            if len(rows) < self._minimum:
                raise FingerprintError(
                    f"The database has {len(rows)} {kind} fingerprints; at least {self._minimum} are needed. "
                    "Import them with fastpath --import-fingerprints."
                )
        digest = hashlib.sha256(json.dumps([dns, http]).encode()).hexdigest()
        if self.loaded and digest == self._digest:
            return
        request = encode(Load(self._mode, list(map(dict, dns)), list(map(dict, http))))
        loaded = self._trial(request)
        if loaded.problem:
            raise FingerprintError(loaded.problem)
        for refusal in loaded.refused:
            log.warning("fingerprint not used", name=refusal.name, reason=refusal.message)
        generation = self._current.generation + 1 if self._current else 1
        self._current, self._digest = FingerprintUpdate(generation, request), digest
        metrics.FINGERPRINTS.labels("dns").set(loaded.dns)
        metrics.FINGERPRINTS.labels("http").set(loaded.http)
        metrics.FINGERPRINTS_PREPARE_SECONDS.set(loaded.seconds)
        log.info("fingerprints loaded", dns=loaded.dns, http=loaded.http, generation=generation)


def import_directory(store: Store, directory: Path) -> dict[str, int]:
    """Replace the fingerprints in the database by those of two JSON files in `directory`; return how many of each.

    Raises:
        FingerprintError: a file is missing or is not a list of fingerprints; the database is unchanged.
        Unavailable, Conflict, RowsRefused: the database did not take them and is unchanged.
    """
    for refusal in load_files(directory).refused:  # says in sentences what is wrong, before the database is touched
        log.warning("fingerprint will not be used", name=refusal.name, reason=refusal.message)
    dns, http = (_read(directory / name) for name in (DNS_FILE, HTTP_FILE))
    store.replace_fingerprints(dns, http)
    return {"dns": len(dns), "http": len(http)}


def _read(path: Path) -> list[Fingerprint]:
    rows: list[Fingerprint] = json.loads(path.read_bytes())
    for number, row in enumerate(rows):
        missing = [column for column in FINGERPRINT_COLUMNS if column not in row]
        if missing:
            raise FingerprintError(f"Fingerprint {number} in {path} has no {missing[0]}. Add it, then import again.")
    return rows
