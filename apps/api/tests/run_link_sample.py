"""Two run links of somebody, with the numbers that the examples of the description have."""

import json

import psycopg

from api.openapi.schemas import TIME, URL

CREATOR = "0123456789abcdef0123456789abcdef"
CONTENT = {
    "author": "",
    "description": "What it tests, in *markdown*.",
    "icon": "FaBeer",
    "name": "Messengers",
    "name_intl": {"it": "Messaggistica"},
    "nettests": [{"test_name": "web_connectivity", "inputs": [URL]}],
    "short_description": "Whether messengers work.",
}


def load_run_links(dsn: str) -> None:
    """Write them to a database that has none: 10000 and 10001."""
    text = json.dumps(CONTENT)
    with psycopg.connect(dsn) as connection:
        for number in (10000, 10001):
            row = connection.execute(
                """INSERT INTO oonirun_links (creator_account_id, created_at, expires_at)
                VALUES (%s, %s, '2099-01-01 00:00Z') RETURNING link_id""",
                [CREATOR, TIME],
            ).fetchone()
            assert row == (number,)
            connection.execute(
                """INSERT INTO oonirun_revisions (link_id, revision, content, content_bytes, created_at, edited_at)
                VALUES (%s, 1, %s, %s, %s, %s)""",
                [number, text, len(text), TIME, TIME],
            )
