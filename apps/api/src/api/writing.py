"""What people change: one transaction per request, with a line in the audit log.

    with writing(account) as work:
        work.connection.execute("UPDATE incidents …")
        work.record("incident.publish", str(number), title=title)

Either both are kept or neither is. A block that records nothing did not change anything: that is a mistake in the
program, and the transaction is rolled back. `work.nothing_to_record()` says that there was nothing to change.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from api.services import services
from api.signed_in import Account

CHECKOUT_S = 3.0
STATEMENT_TIMEOUT_MS = 10_000
LOCK_TIMEOUT_MS = 4_000

_RECORD = "INSERT INTO audit_log (account_id, role, via, action, subject, detail) VALUES (%s, %s, %s, %s, %s, %s)"


class Work:
    """A transaction of a person, and what is recorded of it."""

    def __init__(self, connection: Connection[TupleRow], account_id: str, role: str, via: str) -> None:
        """Take the connection, in a transaction, and who works on it."""
        self.connection = connection
        self.recorded = False
        self._who = (account_id, role, via)

    def record(self, action: str, subject: str, **detail: Any) -> None:
        """Write down that `action` (noun.verb) was done to `subject`.

        `detail` is what is worth knowing later, never an e-mail address or a secret; at most a few hundred bytes.
        """
        self.connection.execute(_RECORD, [*self._who, action, subject, Jsonb(detail)])
        self.recorded = True

    def nothing_to_record(self) -> None:
        """Say that there was nothing to change."""
        self.recorded = True


@contextmanager
def transaction() -> Iterator[Connection[TupleRow]]:
    """Yield a connection in a transaction with the bounds of a write; committed at the end, rolled back on exceptions.

    Raises:
        ApiError: 503 without a place among the readers, who share connections with it.
        DatabaseUnavailable: the database is away.
    """
    parts = services()
    with parts.read_slots.one(), parts.pool.connection(CHECKOUT_S) as connection:
        connection.execute(f"SET LOCAL statement_timeout = {STATEMENT_TIMEOUT_MS}")
        connection.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
        yield connection


@contextmanager
def writing(account: Account) -> Iterator[Work]:
    """Yield the transaction of what `account` does, see `transaction`."""
    with transaction() as connection:
        work = Work(connection, account.account_id, account.role, account.via)
        yield work
        if not work.recorded:
            raise RuntimeError("Something was changed, or not, without a line in the audit log.")
