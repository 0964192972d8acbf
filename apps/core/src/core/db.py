"""PostgreSQL connections: one pool per process, sentences instead of tracebacks when the database is away.

    pool = open_pool(dsn, application_name="api")     # cheap: connects at first use, hence safe before a fork
    with pool.connection() as connection:             # commits at the end, rolls back on an exception
        rows = connection.execute("SELECT …", [value]).fetchall()

Sessions run in UTC with a statement timeout. `plan_cache_mode` is force_custom_plan: a generic plan of a query on the
partitioned table would lock every partition with all its indexes, whatever the values are. `jit` is off: compiling
costs more than it saves in queries that take less than a second.
"""

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import Connection
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import TupleRow
from psycopg_pool import ConnectionPool, PoolTimeout

CONNECT_TIMEOUT_S = 5
STATEMENT_TIMEOUT_MS = 30_000

RECONNECT_TIMEOUT_S = 2.0
"""How long the pool repeats a connection attempt that failed, in seconds; after it, whoever asks causes a new one.

It waits twice as long after each failure, and asks no server meanwhile: repeating for a minute would mean up to half a
minute of errors after an outage, although the server is back.
"""

# sqlstate classes of "the server is away or will not take us": connection exceptions, too many connections,
# shutdown, crash, starting up.
_AWAY_STATES = ("08", "53300", "57P01", "57P02", "57P03")


class DatabaseUnavailable(Exception):
    """The database cannot be reached, refuses connections, or went away during a transaction.

    Safe to try again later, provided that the transaction is idempotent: when the connection broke during COMMIT it is
    not known whether that took place.
    """


class Pool(ConnectionPool[Connection[TupleRow]]):
    """A psycopg pool that opens at first use and whose `connection()` raises DatabaseUnavailable."""

    _opened_by: int | None = None

    @contextmanager
    def connection(self, timeout: float | None = None) -> Iterator[Connection[TupleRow]]:
        """A checked connection in a transaction; returned to the pool at the end of the block.

        Raises DatabaseUnavailable when none can be had within `timeout` seconds (default: the pool's), or when the
        server goes away during the block; RuntimeError when the pool was first used before a fork.
        """
        self._open_here()
        try:
            with super().connection(timeout) as connection:
                yield connection
        except (PoolTimeout, psycopg.OperationalError) as error:
            if not is_unavailable(error):
                raise
            raise unavailable(str(self.conninfo), error) from error

    def getconn(self, timeout: float | None = None) -> Connection[TupleRow]:
        """Return a connection that works, within `timeout` seconds (default: the pool's); raises PoolTimeout.

        A restart of the server leaves all connections broken at once. The pool's own option `check` waits one second
        after the second broken one, two after the third, and then time is up although the server is there.
        """
        deadline = time.monotonic() + (self.timeout if timeout is None else timeout)
        for _ in range(self.max_size + 1):
            connection = super().getconn(max(0.0, deadline - time.monotonic()))
            try:
                self.check_connection(connection)
            except psycopg.OperationalError:
                self.putconn(connection)  # which replaces it
            except BaseException:
                self.putconn(connection)
                raise
            else:
                return connection
        raise PoolTimeout("every connection was broken, and those that were made instead as well")

    def _open_here(self) -> None:
        pid = os.getpid()
        if self._opened_by == pid:
            return
        if self._opened_by is not None:
            raise RuntimeError("The connection pool was used before the fork. Use it in the workers only.")
        self._opened_by = pid
        self.open(wait=False)


def open_pool(
    dsn: str,
    *,
    min_size: int = 1,
    max_size: int = 4,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    application_name: str = "",
    checkout_timeout_s: float = 5.0,
) -> Pool:
    """A pool of connections (autocommit off). It connects at first use: make it anywhere, use it after the fork.

    `checkout_timeout_s`: how long `connection()` waits before it raises DatabaseUnavailable. Close it with `.close()`.
    Raises DatabaseUnavailable when the DSN is not one.
    """
    return Pool(
        session_conninfo(dsn, statement_timeout_ms=statement_timeout_ms, application_name=application_name),
        connection_class=Connection[TupleRow],
        min_size=min_size,
        max_size=max_size,
        open=False,
        timeout=checkout_timeout_s,
        reconnect_timeout=RECONNECT_TIMEOUT_S,
        name=application_name or None,
    )


def connect(
    dsn: str,
    *,
    autocommit: bool = False,
    statement_timeout_ms: int = STATEMENT_TIMEOUT_MS,
    application_name: str = "",
) -> Connection[TupleRow]:
    """One connection with the same session settings, for commands and jobs. Raises DatabaseUnavailable."""
    conninfo = session_conninfo(dsn, statement_timeout_ms=statement_timeout_ms, application_name=application_name)
    try:
        return psycopg.connect(conninfo, autocommit=autocommit)
    except psycopg.OperationalError as error:
        raise unavailable(conninfo, error) from error


def session_conninfo(dsn: str, *, statement_timeout_ms: int, application_name: str) -> str:
    """`dsn` with the session settings of this module; what the DSN itself says wins. Raises DatabaseUnavailable."""
    try:
        given = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError as error:
        raise DatabaseUnavailable(
            f"The database address is not a PostgreSQL connection string ({str(error).strip()}). "
            "Write it like host=/run/postgresql dbname=ooni or postgresql://user@host/ooni."
        ) from error
    session = (
        f"-c timezone=UTC -c statement_timeout={statement_timeout_ms} -c plan_cache_mode=force_custom_plan -c jit=off"
    )
    settings: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        # A host that vanished is noticed within half a minute instead of hours.
        "keepalives_idle": 15,
        "keepalives_interval": 5,
        "keepalives_count": 3,
        "tcp_user_timeout": 30_000,
        "client_encoding": "utf8",
        **({"application_name": application_name} if application_name else {}),
        **given,
    }
    settings["options"] = f"{session} {given['options']}" if given.get("options") else session
    return make_conninfo(**settings)


def is_unavailable(error: BaseException) -> bool:
    """Whether `error` means that the server is away (as opposed to a refused statement, a timeout, a deadlock)."""
    if isinstance(error, DatabaseUnavailable | PoolTimeout):
        return True
    if not isinstance(error, psycopg.OperationalError):
        return False
    return error.sqlstate is None or error.sqlstate.startswith(_AWAY_STATES)


def unavailable(dsn: str, error: BaseException) -> DatabaseUnavailable:
    """The sentence for `error`, naming the server but never a password."""
    said = " ".join(str(error).split())
    return DatabaseUnavailable(
        f"The database {describe(dsn)} is not available: {said}. Check that it runs and that the address is right."
    )


def describe(dsn: str) -> str:
    """Host, port, database and user of `dsn`, e.g. `ooni at 10.0.0.1:5432 (user api)`; no password."""
    try:
        parts = conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        return "(unreadable address)"
    host = parts.get("host") or parts.get("hostaddr") or "the local socket"
    port = f":{parts['port']}" if parts.get("port") else ""
    user = f" (user {parts['user']})" if parts.get("user") else ""
    return f"{parts.get('dbname') or 'default'} at {host}{port}{user}"
