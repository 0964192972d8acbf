"""The whole stack, from an empty directory to READY and on until it is asked to stop."""

import time
from importlib.resources import files
from pathlib import Path

from core import networks
from core.spool import Spool
from core.testlists import SAMPLE
from devstack import queries
from devstack.children import Child, Watchdog
from devstack.config import DEFAULT_COUNT, DEFAULT_SESSIONS, StackSettings
from devstack.database import Database
from devstack.places import Places
from devstack.report import show_report, show_sessions
from devstack.screen import Screen
from devstack.services import Wiring, answers, command
from devstack.submission import Submission, submit
from devstack.supervisor import Supervisor

FINGERPRINT_FILES = ("fingerprints_dns.json", "fingerprints_http.json")
UPLOAD_EVERY_S = 60.0
_SCORING_PATIENCE_S = 180.0


class Stack:
    """One running stack. `run` ends with Stopping or StackError; `stop` must follow in any case."""

    def __init__(self, settings: StackSettings, screen: Screen, supervisor: Supervisor, watchdog: Watchdog) -> None:
        """Describe the stack; nothing is started."""
        self._settings = settings
        self._screen = screen
        self._supervisor = supervisor
        self._watchdog = watchdog
        self._places = Places(settings.run_dir)
        self._database = Database(self._places, watchdog, screen.say)
        self._uploader: Child | None = None

    def run(self) -> None:
        """Start everything, submit what is to be submitted, report, and keep it running.

        Raises:
            StackError: a part cannot start.
            Stopping: somebody asked to stop.
        """
        began = time.monotonic()
        self._screen.say(f"Starting in {self._places.root}: PostgreSQL, API, fastpath, uploader and simulated probes.")
        self._database.start()
        self._screen.say(f"PostgreSQL is up after {time.monotonic() - began:.1f} s.")
        self._supervisor.guards.append(self._database.look_after)
        wiring = Wiring(self._settings, self._places, self._database.dsn)
        self._environ = wiring.environ()
        for name in wiring.overruled():
            self._screen.say(f"{name} is set in the environment; the stack uses its own value instead.")
        self._supervisor.run(self._child("schema", "database_upgrade_schema"))
        self._screen.machine_line(f"DSN {self._database.dsn}")
        self._import_fingerprints()
        self._import_test_lists()
        self._import_network_names()
        known = self._figures().rows
        self._start_services(wiring)
        self._screen.say(f"API and fastpath are up after {time.monotonic() - began:.1f} s.")
        sessions = self._play_sessions(wiring, known)
        submission = self._submit_documents(wiring, known)
        self._uploader = self._child("uploader", "uploader", "--now")
        if submission is not None or sessions is not None:
            self._wait_until_scored()
            self._upload(self._uploader)
        self._report(submission, sessions, wiring)
        self._screen.say(f"Everything is up after {time.monotonic() - began:.1f} s. Ctrl-C stops it.")
        self._screen.machine_line(f"READY {wiring.url}")
        if self._settings.trickle_s:
            self._supervisor.keep(self._probesim("trickle", wiring, "--interval", str(self._settings.trickle_s)))
        self._upload_periodically(self._uploader)

    def stop(self) -> None:
        """Stop everything in order: probes, API, fastpath, uploader, PostgreSQL."""
        self._supervisor.stop()
        if self._uploader is not None:
            self._uploader.stop()
        self._database.stop()

    def _import_fingerprints(self) -> None:
        """Load the fingerprints of the corpus, or the demonstration ones into a database that has none."""
        corpus = self._settings.corpus
        if corpus is not None and all((corpus / name).is_file() for name in FINGERPRINT_FILES):
            source = corpus
        else:
            with queries.open_connection(self._database.dsn) as connection:
                if queries.has_fingerprints(connection):
                    return
            source = Path(str(files("core") / "data"))
        self._supervisor.run(self._child("fingerprints", "fastpath", "--import-fingerprints", str(source)))

    def _import_test_lists(self) -> None:
        """Load the sample of the test lists into a database that has none, so that probes are told what to measure."""
        with queries.open_connection(self._database.dsn) as connection:
            if queries.has_test_lists(connection):
                return
        self._supervisor.run(self._child("test-lists", "analysis", "update-test-lists", "--from", str(SAMPLE)))

    def _import_network_names(self) -> None:
        """Load the made-up names of simulated networks into a database that has no names, so that pages show some."""
        with queries.open_connection(self._database.dsn) as connection:
            if not queries.has_network_names(connection):
                networks.load(connection, networks.read(networks.SAMPLE))

    def _start_services(self, wiring: Wiring) -> None:
        fastpath, api = self._child("fastpath", "fastpath"), self._child("api", "ooni-api")
        self._supervisor.start(
            [
                (fastpath, lambda: answers(f"{wiring.fastpath_url}/ready")),
                (api, lambda: answers(f"{wiring.url}/health")),
            ]
        )

    def _play_sessions(self, wiring: Wiring, known: int) -> Submission | None:
        """Play whole sessions of probes of every generation: with an empty database, or when SESSIONS asks for them."""
        count = self._settings.sessions
        if count is None:
            count = 0 if known or self._settings.count == 0 else DEFAULT_SESSIONS
        if not count:
            return None
        child = self._probesim("session", wiring, "--sessions", str(count), "--seed", str(known + 1))
        played = submit(child, self._supervisor, lambda _: None)
        for complaint in played.complaints:
            self._screen.say(f"broken rule: {complaint}")
        return played

    def _submit_documents(self, wiring: Wiring, known: int) -> Submission | None:
        """Submit the corpus or the sample: into an empty database, or when COUNT or CORPUS asks for it."""
        count, corpus = self._settings.count, self._settings.corpus
        if known:
            self._screen.say(f"Found {known} measurements of earlier runs in {self._places.root}.")
            if count is None and corpus is None:
                self._screen.say("Nothing is submitted again; COUNT=… or CORPUS=… would ask for it.")
                return None
        if count == 0:
            return None
        source = ["--corpus", str(corpus)] if corpus is not None else ["--seed", str(known + 1)]
        if count is not None or corpus is None:
            source += ["--count", str(DEFAULT_COUNT if count is None else count)]
        child = self._probesim("replay", wiring, *source)
        with self._screen.progress(None if corpus and count is None else count or DEFAULT_COUNT) as progress:
            return submit(child, self._supervisor, progress)

    def _wait_until_scored(self) -> None:
        """Wait until nothing in the spool waits for its score."""
        spool = Spool(self._places.spool)
        deadline = time.monotonic() + _SCORING_PATIENCE_S
        while waiting := spool.counts().incoming:
            if time.monotonic() > deadline:
                self._screen.say(f"{waiting} measurements are still not scored; see {self._places.logs}/fastpath.log.")
                return
            self._supervisor.sleep(0.1)

    def _report(self, submission: Submission | None, sessions: Submission | None, wiring: Wiring) -> None:
        with queries.open_connection(self._database.dsn) as connection:
            scored = None if submission is None else queries.scored(connection, submission.uids)
            played = None if sessions is None else queries.scored(connection, sessions.uids)
            found, chosen = queries.figures(connection), queries.example(connection)
        quarantined = Spool(self._places.spool).counts().quarantine
        summary = None if submission is None else submission.summary
        if sessions is not None:
            show_sessions(self._screen, sessions.summary, played or 0)
        show_report(self._screen, found, chosen, summary, scored, quarantined, wiring, self._places)

    def _upload_periodically(self, uploader: Child) -> None:
        """Run the uploader now and then, for ever."""
        while True:
            self._supervisor.sleep(UPLOAD_EVERY_S)
            self._upload(uploader)

    def _upload(self, uploader: Child) -> None:
        """Run the uploader once; a failure is told and not fatal, since the spool keeps what is not archived."""
        uploader.start()
        while uploader.pid is not None:
            self._supervisor.sleep(0.05)
        uploader.bound_log()
        if uploader.exit_status:
            self._screen.say(
                f"uploader ended with status {uploader.exit_status}; it is tried again every {UPLOAD_EVERY_S:.0f} s. "
                f"The end of {uploader.log_file}:\n{uploader.last_lines(3)}"
            )

    def _figures(self) -> queries.Figures:
        with queries.open_connection(self._database.dsn) as connection:
            return queries.figures(connection)

    def _child(self, name: str, program: str, *arguments: str) -> Child:
        return Child(name, [command(program), *arguments], self._environ, self._places.logs, self._watchdog)

    def _probesim(self, mode: str, wiring: Wiring, *arguments: str) -> Child:
        return self._child(mode, "probesim", mode, "--url", wiring.url, "--json", *arguments)
