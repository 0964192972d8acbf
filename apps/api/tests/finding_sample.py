"""The finding and the feedback of the examples in the description, in the database."""

import psycopg

from api.openapi.incidents import SHOWN_EXAMPLE, TEXT_EXAMPLE
from api.openapi.schemas import UID

NUMBER = int(str(SHOWN_EXAMPLE["id"]))
AUTHOR = "f" * 32


def load_findings(dsn: str) -> None:
    """Write the finding, as somebody's, and what three people said of the measurement."""
    with psycopg.connect(dsn) as connection, connection.cursor() as cursor:
        cursor.execute(
            """INSERT INTO incidents (incident_id, revision, creator_account_id, create_time, update_time, published,
                   slug, title, short_description, body, event_type, reported_by, start_time, end_time,
                   ccs, asns, domains, tags, test_names, links, themes)
               VALUES (%(number)s, %(revision)s, %(author)s, %(create_time)s, %(update_time)s, true, %(slug)s,
                   %(title)s, %(short_description)s, %(text)s, %(event_type)s, %(reported_by)s, %(start_time)s,
                   %(end_time)s, %(CCs)s, %(ASNs)s, %(domains)s, %(tags)s, %(test_names)s, %(links)s, %(themes)s)""",
            {**SHOWN_EXAMPLE, "number": NUMBER, "author": AUTHOR, "text": TEXT_EXAMPLE},
        )
        cursor.executemany(
            "INSERT INTO msmt_feedback (measurement_uid, account_id, status) VALUES (%s, %s, %s)",
            [(UID, AUTHOR, "blocked"), (UID, "e" * 32, "ok"), (UID, "d" * 32, "ok")],
        )
