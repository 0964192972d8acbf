"""The stack's private PostgreSQL: started where its user can reach it, and started again when it dies."""

import signal
import time
from collections.abc import Callable
from urllib.parse import quote

from devstack.children import Watchdog
from devstack.errors import StackError
from devstack.places import Places
from devstack.postgres import PORT, SUPERUSER, DataDirectoryUnreachable, PostgresCluster, PostgresError

DATABASE = "ooni"
_PAUSE_S = 5.0


class Database:
    """One PostgreSQL server with the database `ooni`."""

    def __init__(self, places: Places, watchdog: Watchdog, say: Callable[[str], None]) -> None:
        """Choose the place of the data; `start` starts the server."""
        self._places = places
        self._watchdog = watchdog
        self._say = say
        self._cluster = PostgresCluster(places.remembered_postgres())
        self._watched: int | None = None
        self._next_try = 0.0

    @property
    def dsn(self) -> str:
        """The address of the database, as psql and every library takes it."""
        return f"postgresql://{SUPERUSER}@/{DATABASE}?host={quote(str(self._cluster.socket_dir))}&port={PORT}"

    def start(self) -> None:
        """Start the server and make the database.

        Raises:
            StackError: in the words of the server.
        """
        try:
            try:
                self._start_here()
            except DataDirectoryUnreachable:
                place = self._places.postgres_elsewhere()
                self._say(
                    f"The user that runs PostgreSQL cannot enter {self._places.root}, so its data is in {place} "
                    "(make clean-run deletes that too)."
                )
                self._cluster = PostgresCluster(place)
                self._start_here()
            self._cluster.ensure_database(DATABASE)
        except PostgresError as error:
            raise StackError(str(error)) from error

    def look_after(self) -> None:
        """Start the server again when it died; call this often."""
        if self._cluster.pid is not None or time.monotonic() < self._next_try:
            return
        self._next_try = time.monotonic() + _PAUSE_S
        self._say(f"PostgreSQL ended; starting it again (its log: {self._cluster.log_file})")
        self._unwatch()
        try:
            self._cluster.start()
        except PostgresError as error:
            self._say(str(error))
        else:
            self._watch()

    def stop(self) -> None:
        """Stop the server, after everything was written out."""
        self._cluster.stop()
        self._unwatch()

    def _start_here(self) -> None:
        if self._cluster.stop_leftover():
            self._say("PostgreSQL was still running from an earlier stack; it was stopped.")
        self._cluster.start()
        self._watch()

    def _watch(self) -> None:
        self._watched = self._cluster.pid
        if self._watched is not None:
            self._watchdog.add(self._watched, signal.SIGINT)  # the server's "fast shutdown"

    def _unwatch(self) -> None:
        if self._watched is not None:
            self._watchdog.remove(self._watched)
            self._watched = None
