"""For tests: people who edit test lists at a real application, with maintainers and a forge of `list_maintainers`."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
from flask import Flask
from list_maintainers import ForgeServer, Maintainers
from people import account_id_of, signed_in_headers
from werkzeug.test import TestResponse

from api import testlist_editing
from api.app import create_app
from api.config import ApiSettings

TOKEN = "token-of-the-forge"


def entry(
    url: str, category: str = "NEWS", date: str = "2024-01-31", source: str = "me", notes: str = ""
) -> dict[str, str]:
    """An entry as it is sent."""
    return {"url": url, "category_code": category, "date_added": date, "source": source, "notes": notes}


class Place:
    """An API host, the maintainers of the lists, and their forge."""

    def __init__(self, directory: Path, dsn: str, *, forge: bool = True, other: "Place | None" = None) -> None:
        """Build it; `other` is a host of the same service, with whom keys, lists and forge are shared."""
        self.dsn = dsn
        self.directory = directory
        (directory / "objects").mkdir(parents=True)
        self.maintainers = other.maintainers if other else Maintainers(directory)
        self.forge = other.forge if other else ForgeServer(self.maintainers)
        self.keys = other.keys if other else directory
        for name in ("session_keys", "account_id_key", "token"):
            if not (self.keys / name).exists():
                (self.keys / name).write_text(TOKEN if name == "token" else "k" * 64)
        self.settings: dict[str, Any] = {
            "db_uri": dsn,
            "spool_directory": str(directory / "spool"),
            "spool_min_free_bytes": 1024,
            "state_directory": str(directory / "state"),
            "store_url": f"file://{directory}/objects",
            "fastpath_url": "http://127.0.0.1:1",
            "session_keys": str(self.keys / "session_keys"),
            "account_id_key": str(self.keys / "account_id_key"),
            "test_lists_repository": str(self.maintainers.origin),
            "test_lists_author": "Lists <lists@example.org>",
            **(
                {"test_lists_forge_api": self.forge.api, "test_lists_forge_token": str(self.keys / "token")}
                if forge
                else {}
            ),
        }
        self.app: Flask = create_app(ApiSettings(**self.settings))

    @property
    def editing(self) -> Any:
        return self.app.extensions["api"].testlist_editing

    def person(self, email: str = "somebody@example.org") -> "Person":
        return Person(self, email)

    def notice(self) -> None:
        """Let this host notice what the maintainers did."""
        self.editing.repository.fresh()

    def an_hour_passes(self) -> None:
        """Let submissions that were cut off, and looks at the forge, be long ago."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute(
                """UPDATE test_list_proposals SET looked_at = looked_at - interval '1 hour',
                       submitting_until = submitting_until - interval '1 hour'"""
            )

    def audit(self, email: str = "somebody@example.org") -> list[tuple[str, str, dict[str, Any]]]:
        with psycopg.connect(self.dsn) as connection:
            return connection.execute(
                "SELECT action, subject, detail FROM audit_log WHERE account_id = %s ORDER BY audit_id",
                [account_id_of(self.app, email)],
            ).fetchall()

    def close(self) -> None:
        self.app.extensions["api"].close()


def edit_lists_at(app: Flask, directory: Path) -> None:
    """Let an application that was built without lists edit those of new maintainers, who have no forge."""
    parts = app.extensions["api"]
    maintainers = Maintainers(directory)
    wanted = ApiSettings(state_directory=parts.settings.state_directory, test_lists_repository=str(maintainers.origin))
    app.extensions["api"] = replace(parts, testlist_editing=testlist_editing.build(wanted))


class Person:
    """Somebody who is signed in."""

    def __init__(self, place: Place, email: str) -> None:
        self.place = place
        self.headers = signed_in_headers(place.app, place.dsn, email=email)
        self.client = place.app.test_client()

    def get(self, cc: str = "it") -> dict[str, Any]:
        response = self.client.get(f"/api/_/url-submission/test-list/{cc}", headers=self.headers)
        assert response.status_code == 200, response.text
        return response.json

    def update(self, cc: str, old: Any, new: Any, **more: Any) -> TestResponse:
        body = {"country_code": cc, "comment": "because", "old_entry": old or {}, "new_entry": new or {}, **more}
        # A client of its own, since these are not for several threads.
        client = self.place.app.test_client()
        return client.post("/api/v1/url-submission/update-url", json=body, headers=self.headers)

    def change(self, cc: str, old: Any, new: Any, **more: Any) -> dict[str, Any]:
        response = self.update(cc, old, new, **more)
        assert response.status_code == 200, response.text
        return response.json["updated_entry"]

    def submit(self) -> TestResponse:
        return self.place.app.test_client().post("/api/v1/url-submission/submit", headers=self.headers)

    def urls(self, cc: str = "it") -> list[str]:
        return [each["url"] for each in self.get(cc)["test_list"]]


def code(response: TestResponse, status: int = 400) -> str:
    """Return the code of a refusal."""
    assert response.status_code == status, response.text
    assert response.json["error"]
    return response.json["err_str"]


def submitted(person: Person) -> str:
    """Let somebody submit; returns the identifier of the proposal."""
    response = person.submit()
    assert response.status_code == 200, response.text
    return response.json["pr_id"]
