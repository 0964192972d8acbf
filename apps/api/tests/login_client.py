"""What people do when they sign in, as a client of the application, and looks at what is kept of it."""

from typing import Any

import jwt
import psycopg
from flask import Flask
from flask.testing import FlaskClient
from mail_server import REDIRECT
from people import login_token

JANE, JOHN, ADMIN = "jane@example.org", "john@example.org", "admin@example.org"


def register(client: FlaskClient, address: str = JANE, redirect_to: str = REDIRECT) -> Any:
    """Ask for a link."""
    return client.post("/api/v1/user_register", json={"email_address": address, "redirect_to": redirect_to})


def log_in(client: FlaskClient, token: str) -> Any:
    """Follow a link."""
    return client.get("/api/v1/user_login", query_string={"k": token})


def bearer(token: str) -> dict[str, str]:
    """The header with a token."""
    return {"Authorization": f"Bearer {token}"}


def signed_in(client: FlaskClient, app: Flask, address: str = JANE) -> dict[str, str]:
    """The header of a session that a link began."""
    return bearer(log_in(client, login_token(app, address)).json["bearer"])


def metadata(client: FlaskClient, headers: dict[str, str]) -> tuple[int, Any]:
    """What the web interface is told about who is signed in."""
    response = client.get("/api/_/account_metadata", headers=headers)
    return response.status_code, response.json


def claims(token: str) -> dict[str, Any]:
    """What a token says."""
    return dict(jwt.decode(token, options={"verify_signature": False}))


def rows(dsn: str, statement: str, *values: object) -> list[Any]:
    """The rows of a query."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(statement.encode(), values).fetchall()


def change(dsn: str, statement: str) -> None:
    """Run a statement."""
    with psycopg.connect(dsn) as connection:
        connection.execute(statement.encode())


def audit(dsn: str) -> list[Any]:
    """The lines of the audit log, the oldest first."""
    return rows(dsn, "SELECT account_id, role, via, action, subject, detail FROM audit_log ORDER BY audit_id")


def forget_everybody(dsn: str) -> None:
    """As if nobody had ever signed in."""
    change(dsn, "TRUNCATE accounts, ended_sessions, used_login_links, login_mails, access_tokens, audit_log CASCADE")
