"""Where the fingerprints in use come from: the database, looked at every hour.

A load that fails, or brings too few, changes nothing: the former fingerprints stay in use. Before the first good load
there is no matcher at all, and measurements wait in the spool, since a score without fingerprints would be wrong.
"""

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import structlog

from fastpath import metrics
from fastpath.fingerprints import DNS_FILE, HTTP_FILE, FingerprintError, from_rows, load_files
from fastpath.matcher import Matcher, Mode
from fastpath.store import FINGERPRINT_COLUMNS, Conflict, Fingerprint, RowsRefused, Store, Unavailable

log = structlog.get_logger(__name__)

RETRY_S = 2.0
"""Seconds between two attempts while there are no fingerprints at all."""


class NotLoaded(RuntimeError):
    """There are no fingerprints yet; nothing may be scored."""


class FingerprintSource:
    """Holds the newest good matcher. `refresh` is called by one thread, `matcher` by any."""

    def __init__(self, store: Store, *, refresh_s: float, minimum: int, mode: Mode = "declared") -> None:
        """Load from `store`, every `refresh_s` seconds; fewer than `minimum` of either kind count as a failure."""
        self._store = store
        self._refresh_s = refresh_s
        self._minimum = minimum
        self._mode: Mode = mode
        self._matcher: Matcher | None = None
        self._digest = ""

    @property
    def loaded(self) -> bool:
        """Whether there is a matcher."""
        return self._matcher is not None

    @property
    def matcher(self) -> Matcher:
        """The newest good matcher. Raises NotLoaded."""
        if self._matcher is None:
            raise NotLoaded("The fingerprints are not loaded. Import them with fastpath --import-fingerprints.")
        return self._matcher

    def refresh(self) -> bool:
        """Load the fingerprints and put them to use; return whether that went well. Failures are logged."""
        try:
            dns, http = self._store.fingerprints()
            self._use(dns, http)
        except (Unavailable, Conflict, RowsRefused, FingerprintError) as error:
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
        fingerprints = from_rows(dns, http)
        matcher = Matcher(fingerprints, self._mode)
        for refusal in (*fingerprints.refused, *matcher.refused):
            log.warning("fingerprint not used", name=refusal.name, reason=refusal.message)
        self._matcher, self._digest = matcher, digest
        metrics.FINGERPRINTS.labels("dns").set(len(fingerprints.dns))
        metrics.FINGERPRINTS.labels("http").set(len(fingerprints.http))
        log.info("fingerprints loaded", dns=len(fingerprints.dns), http=len(fingerprints.http))


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
