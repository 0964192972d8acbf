"""What probes are told to use: collectors, test helpers, feature flags, Tor targets, Psiphon's configuration.

It lies in files of one directory, see `probe_files`. A file that changes is read again within seconds, in every worker,
without a restart; while one is broken, its last good content is handed out, see docs/adr/0009. Without the directory
there are examples.
"""

import os
import random
import tempfile
import threading
from pathlib import Path
from typing import Any, cast

import structlog

from api.errors import ApiError
from api.metrics import PROBE_CONFIG_EXAMPLES, PROBE_CONFIG_OK
from api.probe_files import PARSERS, Helpers, ProbeFileError, load, read
from api.probe_shapes import (
    BOUNCER,
    COLLECTORS,
    FEATURES,
    INPUTS,
    PSIPHON_CONFIG,
    TEST_HELPERS,
    TOR_TARGETS,
)
from api.watched_file import WatchedFile

EXAMPLES = Path(__file__).parent / "data" / "probe"
"""Directory of the files that ship with the package."""

COPIES = "probe-config"
"""Name of the directory in `state_directory` for the last good content of each file."""

REFRESH_S = 5.0
"""Time between two looks at files that nobody asks for, in seconds; it keeps the metrics true."""

log = structlog.get_logger(__name__)


class LastGood:
    """Copies of the files as they were when they could be used last, for a restart while one is broken."""

    def __init__(self, directory: Path) -> None:
        """Keep the copies in `directory`."""
        self._directory = directory

    def exist(self) -> bool:
        """Tell whether there is any copy."""
        return any(os.path.isfile(self._directory / name) for name in PARSERS)  # noqa: PTH113 never raises, unlike Path

    def read(self, name: str) -> Any:
        """Return what a copy says, None when there is none that can be used."""
        try:
            content = load(self._directory / name, name)
        except ProbeFileError:
            return None
        log.warning("an older probe configuration is used", file=name)
        return content

    def loading(self, path: Path) -> Any:
        """Return the content of a file, and make a copy of it. Raises ProbeFileError."""
        name = path.name
        raw = read(path, name)
        content = PARSERS[name](raw)
        try:
            self._keep(name, raw)
        except OSError as error:
            log.error("probe configuration not kept for a restart; check state_directory", error=str(error))
        return content

    def _keep(self, name: str, raw: bytes) -> None:
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        kept = self._directory / name
        if kept.is_file() and kept.read_bytes() == raw:
            return
        # All workers do this at the same time, so each has a draft of its own.
        with tempfile.TemporaryDirectory(prefix=".new-", dir=self._directory) as drafts:
            draft = Path(drafts) / name
            draft.write_bytes(raw)
            draft.rename(kept)


class ProbeConfig:
    """The current content of the files; may be used by all threads of a worker.

    Once there was a directory there are no examples any more, not even when it vanishes: made-up addresses would let
    probes record failures of helpers that do not exist as if they were censorship. A file that is broken is replaced by
    its last good content, from a copy after a restart; where there is none, methods raise ApiError 503.
    """

    def __init__(self, directory: str, copies: Path) -> None:
        """Read the files in `directory`; empty, or as long as there is none, use the examples.

        Args:
            directory: path of the directory; it may appear later.
            copies: directory for the last good content of each file; made when it is needed.
        """
        self._directory = Path(directory) if directory else None
        self._copies = LastGood(copies)
        self._examples = {name: load(EXAMPLES / name, name) for name in PARSERS}
        self._files: dict[str, WatchedFile[Any]] | None = None
        self._old: dict[str, Any] = {}
        self._stop = threading.Event()
        self._opening = threading.Lock()
        self._shuffle = random.SystemRandom().shuffle
        PROBE_CONFIG_EXAMPLES.set(1)
        for name in PARSERS:
            PROBE_CONFIG_OK.labels(name).set(1)
        self._look()
        if self._files is None:
            log.warning(
                "probes are told example addresses",
                directory=directory,
                next_step="put the files described in docs/probe-configuration.md there",
            )

    def start(self) -> None:
        """Look at the files from time to time, in a thread of this worker, until `close`."""
        if self._directory is not None:
            threading.Thread(target=self._run, name="probe-config", daemon=True).start()

    def close(self) -> None:
        """End the thread."""
        self._stop.set()

    def collectors(self) -> list[dict[str, str]]:
        """Return the collectors, each with `address`, `type` and, behind a content delivery network, `front`."""
        return cast("list[dict[str, str]]", self._content(COLLECTORS))

    def test_helpers(self) -> dict[str, list[dict[str, str]]]:
        """Return the helpers of each kind, those of web-connectivity in a new random order, the network's last.

        Probes try them in the order given, so the order is what spreads their load.
        """
        helpers = cast("Helpers", self._content(TEST_HELPERS))
        nearest = list(helpers.nearest)
        self._shuffle(nearest)
        return {**helpers.fixed, "web-connectivity": nearest + helpers.fallback}

    def features(self) -> dict[str, bool]:
        """Return the feature flags."""
        return cast("dict[str, bool]", self._content(FEATURES))

    def tor_targets(self) -> bytes:
        """Return the Tor targets, byte for byte as in the file."""
        return cast("bytes", self._content(TOR_TARGETS))

    def psiphon_config(self) -> bytes:
        """Return Psiphon's configuration, byte for byte as in the file."""
        return cast("bytes", self._content(PSIPHON_CONFIG))

    def bouncer(self) -> dict[str, Any]:
        """Return what the oldest probes are told, without the part that echoes their request."""
        return cast("dict[str, Any]", self._content(BOUNCER))

    def inputs(self) -> dict[str, list[str]]:
        """Return the addresses that tests other than web_connectivity measure, by name of the test."""
        return cast("dict[str, list[str]]", self._content(INPUTS))

    def _content(self, name: str) -> Any:
        if self._files is None:
            self._look()
        if self._files is None:
            return self._examples[name]
        content = self._files[name].current()
        if content is None:
            content = self._old.get(name)
        if content is None:
            raise ApiError(
                503,
                f"This server has no usable {name}. Try again later; its operator has to mend the file.",
                headers={"Retry-After": "60"},
            )
        return content

    def _look(self) -> None:
        """Take the directory into use when it is there, or was before a restart."""
        directory = self._directory
        if directory is None:
            return
        with self._opening:
            if self._files is None and (_is_there(directory) or self._copies.exist()):
                files = {
                    name: WatchedFile(directory / name, self._copies.loading, on_change=_report) for name in PARSERS
                }
                self._old = {name: self._copies.read(name) for name, file in files.items() if file.peek() is None}
                self._files = files
                PROBE_CONFIG_EXAMPLES.set(0)

    def _run(self) -> None:
        while not self._stop.wait(REFRESH_S):
            self._look()
            for file in (self._files or {}).values():
                file.refresh()


def _is_there(directory: Path) -> bool:
    try:
        return directory.is_dir()
    except OSError:  # it may not be looked at, which each of its files will tell
        return True


def _report(file: WatchedFile[Any]) -> None:
    PROBE_CONFIG_OK.labels(file.path.name).set(file.problem is None)
