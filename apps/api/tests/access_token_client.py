"""An application with routes for readers, writers and admins, and requests about access tokens."""

from pathlib import Path
from typing import Any

import psycopg
from flask import Flask, Response
from flask.testing import FlaskClient

from api.app import create_app
from api.config import ApiSettings
from api.responses import json_response
from api.signed_in import current_account, require_account, require_admin

PATH = "/api/v1/access_tokens"
Headers = dict[str, str]


def make_app(dsn: str, directory: Path) -> Flask:
    """Return the application with four routes of its own, and with places for many requests at once."""
    made = create_app(
        ApiSettings(
            db_uri=dsn,
            database_connections=24,
            threads=32,
            spool_directory=str(directory / "spool"),
            state_directory=str(directory / "state"),
            store_url=f"file://{directory}",
        )
    )

    @made.get("/test/read")
    def read() -> Response:
        account = require_account()
        return json_response({"account_id": account.account_id, "role": account.role, "via": account.via})

    @made.post("/test/write")
    def write() -> Response:
        return json_response({"account_id": require_account().account_id})

    @made.get("/test/admin")
    def admin() -> Response:
        return json_response({"account_id": require_admin().account_id})

    @made.get("/test/anybody")
    def anybody() -> Response:
        account = current_account()
        return json_response({"account_id": account and account.account_id})

    return made


def create(client: FlaskClient, headers: Headers, **body: Any) -> Any:
    """Make a token, and return what is answered."""
    response = client.post(PATH, json={"name": "thesis", **body}, headers=headers)
    assert response.status_code == 200, response.text
    return response.json


def bearer(token: str) -> Headers:
    return {"Authorization": f"Bearer {token}"}


def change(dsn: str, statement: str, *values: object) -> None:
    """Change at least one row."""
    with psycopg.connect(dsn) as connection:
        assert connection.execute(statement.encode(), values).rowcount > 0
