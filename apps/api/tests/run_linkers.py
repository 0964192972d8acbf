"""People and programs that make run links, for the tests of the routes of both generations."""

from typing import Any

import psycopg
from flask import Flask
from people import account_id_of, signed_in_headers
from werkzeug.test import TestResponse

from api.access_tokens import hash_of, new_token

V1 = "/api/_/ooni_run"
V2 = "/api/v2/oonirun/links"

WRITTEN: dict[str, Any] = {
    "name": "Messengers",
    "name_intl": {"it": "Messaggistica", "pt-BR": "Mensageiros"},
    "short_description": "Whether messengers work.",
    "short_description_intl": {"it": "Se funzionano."},
    "description": "What it tests,\nin *markdown*.",
    "description_intl": {"it": "Cosa prova."},
    "icon": "FaBeer",
    "color": "#00ff7F",
    "nettests": [
        {
            "test_name": "web_connectivity",
            "inputs": ["https://www.example.org/", "https://example.com/ü"],
            "inputs_extra": [{"category_code": "NEWS"}, {"category_code": "HUMR"}],
            "options": {"HTTP3Enabled": True, "Depth": 2, "Ratio": 0.5},
            "is_background_run_enabled_default": False,
            "is_manual_run_enabled_default": True,
        },
        {"test_name": "signal"},
    ],
}
"""A run link as the newer routes take it."""

DESCRIPTOR: dict[str, Any] = {
    "name": "integ-test name in English",
    "name_intl": {"it": "integ-test nome in italiano"},
    "description": "integ-test description in English",
    "description_intl": {"es": "integ-test descripción en español"},
    "short_description": "integ-test short description in English",
    "icon": "myicon",
    "author": "integ-test author",
    "nettests": [
        {
            "backend_options": {},
            "inputs": ["https://example.com/", "https://ooni.example.org/"],
            "is_background_run_enabled": False,
            "is_manual_run_enabled": False,
            "options": {},
            "test_name": "web_connectivity",
        },
        {"backend_options": {}, "is_background_run_enabled": True, "options": {}, "test_name": "dnscheck"},
    ],
}
"""A run link as the older routes take it."""


class Linker:
    """Somebody, or a program, or nobody, who asks for run links and changes them."""

    def __init__(self, app: Flask, headers: dict[str, str], email: str = "") -> None:
        """Take the application and the header of the credential."""
        self.client = app.test_client()
        self.headers = headers
        self.email = email

    def get(self, path: str) -> TestResponse:
        """Ask for a path."""
        return self.client.get(path, headers=self.headers)

    def read(self, path: str) -> Any:
        """Return what there has to be at a path."""
        response = self.get(path)
        assert response.status_code == 200, response.text
        return response.json

    def post(self, path: str, body: object) -> TestResponse:
        """Send a body."""
        return self.client.post(path, json=body, headers=self.headers)

    def put(self, link_id: object, **changes: Any) -> TestResponse:
        """Edit a run link: what WRITTEN says, with changes; None leaves a member out."""
        return self.client.put(f"{V2}/{link_id}", json=changed(WRITTEN, changes), headers=self.headers)

    def make(self, **changes: Any) -> dict[str, Any]:
        """Make a run link that differs from WRITTEN; returns it."""
        response = self.post(V2, changed(WRITTEN, changes))
        assert response.status_code == 200, response.text
        link: dict[str, Any] = response.json
        return link

    def edit(self, link_id: object, **changes: Any) -> dict[str, Any]:
        """Edit a run link as `put`, which has to work; returns it."""
        response = self.put(link_id, **changes)
        assert response.status_code == 200, response.text
        link: dict[str, Any] = response.json
        return link

    def make_v1(self, link_id: object = None, **changes: Any) -> int:
        """Make or edit a run link of the older routes that differs from DESCRIPTOR; returns its number."""
        response = self.create_v1(link_id, **changes)
        assert response.status_code == 200, response.text
        assert response.json["v"] == 1
        return int(response.json["ooni_run_link_id"])

    def create_v1(self, link_id: object = None, **changes: Any) -> TestResponse:
        """Send the same, whatever the answer is."""
        query = "" if link_id is None else f"?ooni_run_link_id={link_id}"
        return self.post(f"{V1}/create{query}", changed(DESCRIPTOR, changes))


def changed(whole: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return a body with other members, and without those that are None."""
    return {name: value for name, value in {**whole, **changes}.items() if value is not None}


def linker(app: Flask, dsn: str, name: str, role: str = "user") -> Linker:
    """Return somebody in a session."""
    email = f"{name}@example.org"
    return Linker(app, signed_in_headers(app, dsn, role, email), email)


def program(app: Flask, dsn: str, email: str, scope: str) -> Linker:
    """Return a program with an access token of an account that there is."""
    token = new_token()
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """INSERT INTO access_tokens (account_id, token_hash, name, scope, expires_at)
            VALUES (%s, %s, 'test', %s, now() + interval '1 day')""",
            [account_id_of(app, email), hash_of(token), scope],
        )
    return Linker(app, {"Authorization": f"Bearer {token}"})


def audit_lines(dsn: str, subject: object) -> list[tuple[str, str, dict[str, Any]]]:
    """Return who did what to a run link: role, action, detail."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            """SELECT role, action, detail FROM audit_log
            WHERE subject = %s AND action LIKE 'run_link.%%' ORDER BY audit_id""",
            [str(subject)],
        ).fetchall()
