"""People who write findings, for tests: each with a session, or an access token, or nothing."""

from typing import Any

import psycopg
from flask import Flask
from people import signed_in_headers
from werkzeug.test import TestResponse

from api.access_tokens import hash_of, new_token

FINDING: dict[str, Any] = {
    "title": "Messaging blocked",
    "short_description": "Two messengers in one country.",
    "text": "What happened, in *markdown*.",
    "event_type": "incident",
    "reported_by": "Example Observatory",
    "start_time": "2024-01-01T00:00:00Z",
    "end_time": None,
    "published": False,
    "CCs": ["IT"],
    "ASNs": [30722],
    "domains": ["www.example.org"],
    "tags": ["election"],
    "test_names": ["signal"],
    "links": ["https://www.example.org/report"],
    "themes": ["im"],
}
"""What a form sends."""


class Person:
    """Somebody who asks for findings and changes them."""

    def __init__(self, app: Flask, headers: dict[str, str], email: str = "") -> None:
        """Take the application and the header of the credential."""
        self.client = app.test_client()
        self.headers = headers
        self.email = email

    def post(self, action: str, **members: Any) -> TestResponse:
        """Send an action."""
        return self.client.post(f"/api/v1/incidents/{action}", json=members, headers=self.headers)

    def create(self, **changes: Any) -> str:
        """Create a finding that differs from FINDING; returns its id."""
        response = self.post("create", **{**FINDING, **changes})
        assert response.status_code == 200, response.text
        assert response.json["r"] == 1
        return str(response.json["id"])

    def refused(self, action: str, **members: Any) -> dict[str, Any]:
        """Send what must be refused with 400; returns the reply."""
        response = self.post(action, **members)
        assert response.status_code == 400, response.text
        reply: dict[str, Any] = response.json
        assert isinstance(reply["error"], str)
        return reply

    def get(self, which: str) -> TestResponse:
        """Ask for a finding by id or slug."""
        return self.client.get(f"/api/v1/incidents/show/{which}", headers=self.headers)

    def show(self, which: str) -> dict[str, Any]:
        """Return a finding that has to be there."""
        response = self.get(which)
        assert response.status_code == 200, response.text
        assert response.json["v"] == 1
        incident: dict[str, Any] = response.json["incident"]
        return incident

    def sees(self, which: str) -> bool:
        """Return whether the finding is shown, alone and in the list alike."""
        response = self.get(which)
        listed = which in {each["id"] for each in self.search()}
        if response.status_code == 200:
            assert listed
            return True
        assert response.status_code == 400
        assert response.json["error"] == "Incident not found"
        assert not listed
        return False

    def search(self, query: str = "") -> list[dict[str, Any]]:
        """Return what is listed."""
        response = self.client.get(f"/api/v1/incidents/search?{query}", headers=self.headers)
        assert response.status_code == 200, response.text
        assert set(response.json) == {"incidents", "v"}
        assert response.json["v"] == 1
        found: list[dict[str, Any]] = response.json["incidents"]
        return found


def person(app: Flask, dsn: str, name: str, role: str = "user") -> Person:
    """Return somebody in a session."""
    email = f"{name}@example.org"
    return Person(app, signed_in_headers(app, dsn, role, email), email)


def program_of(app: Flask, dsn: str, account_id: str, scope: str) -> Person:
    """Return a program with an access token of an account that is there."""
    token = new_token()
    with psycopg.connect(dsn) as connection:
        connection.execute(
            """INSERT INTO access_tokens (account_id, token_hash, name, scope, expires_at)
               VALUES (%s, %s, 'test', %s, now() + interval '1 day')""",
            [account_id, hash_of(token), scope],
        )
    return Person(app, {"Authorization": f"Bearer {token}"})


def audit_lines(dsn: str, subject: str) -> list[tuple[str, dict[str, Any]]]:
    """Return actions and details in the audit log of one thing, the oldest first."""
    with psycopg.connect(dsn) as connection:
        return connection.execute(
            "SELECT action, detail FROM audit_log WHERE subject = %s ORDER BY audit_id", [subject]
        ).fetchall()
