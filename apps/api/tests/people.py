"""People for tests: an account in the database, and the header of a session that has just begun.

headers = signed_in_headers(module_app, module_dsn, role="admin", email="admin@example.org")
client.get("/api/v1/audit_log", headers=headers)
"""

from pathlib import Path
from typing import Any

import psycopg
from flask import Flask

from api import account_ids, sessions
from api.account_ids import AccountIds
from api.key_file import KeyFile
from api.sessions import SessionTokens

SOMEBODY = "somebody@example.org"

_SET_ROLE = """INSERT INTO accounts (account_id, role) VALUES (%s, %s)
    ON CONFLICT (account_id) DO UPDATE SET role = excluded.role RETURNING session_generation"""


def signed_in_headers(where: Any, dsn: str, role: str = "user", email: str = SOMEBODY) -> dict[str, str]:
    """Give the account of an address a role, and return the header of a new session of it.

    `where` is the application (`module_app`) or a server (`start_api`) with the keys of its own that hosts make.
    """
    ids, tokens = _makers(where)
    account_id = ids.of(email)
    with psycopg.connect(dsn) as connection:
        row = connection.execute(_SET_ROLE, [account_id, role]).fetchone()
    assert row is not None
    return {"Authorization": f"Bearer {tokens.begin(account_id, email, role, row[0])}"}


def account_id_of(where: Any, email: str = SOMEBODY) -> str:
    """Return the account of an address at an application or a server."""
    return _makers(where)[0].of(email)


def login_token(where: Any, email: str = SOMEBODY, redirect_to: str = "https://explorer.example.org/") -> str:
    """Return the token of a login link that an application or a server could have mailed."""
    ids, tokens = _makers(where)
    return tokens.new_link(ids.of(email), email, redirect_to)


def _makers(where: Any) -> tuple[AccountIds, SessionTokens]:
    if isinstance(where, Flask):
        parts = where.extensions["api"]
        return parts.account_ids, parts.session_tokens
    state = Path(where.settings["state_directory"])
    keys = KeyFile(state / sessions.KEY_FILE, create=True)
    tokens = SessionTokens(keys, session_expiry_days=10, login_expiry_days=90)
    return AccountIds(state / account_ids.KEY_FILE, create=True), tokens
