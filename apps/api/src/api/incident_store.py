"""The SQL of findings. Rows are dictionaries with the names of the columns; `shown` gives them those of the wire."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from psycopg import Connection
from psycopg.rows import TupleRow, dict_row

from api.errors import ApiError
from api.reading import Reader, Row

MOST_LISTED = 5_000
"""Findings in one reply; the published ones first, then the latest."""

LISTED_BYTES = 8 * 1024 * 1024
"""Bytes of what is kept of them in one reply; those that come later are left out."""

COLUMNS: Mapping[str, str] = {
    "slug": "slug",
    "title": "title",
    "short_description": "short_description",
    "text": "body",
    "event_type": "event_type",
    "reported_by": "reported_by",
    "start_time": "start_time",
    "end_time": "end_time",
    "published": "published",
    "CCs": "ccs",
    "ASNs": "asns",
    "domains": "domains",
    "tags": "tags",
    "test_names": "test_names",
    "links": "links",
    "themes": "themes",
}
"""Where each field that people set is stored."""

_LISTED = """incident_id, revision, create_time, update_time, slug, title, short_description, event_type, reported_by,
    start_time, end_time, published, ccs, asns, domains, tags, test_names, links, themes,
    creator_account_id IS NOT DISTINCT FROM %(account_id)s AS mine"""

_VISIBLE = "NOT deleted AND (published OR %(everything)s OR creator_account_id = %(account_id)s)"

_SEARCH = f"""SELECT * FROM (
    SELECT found.*, sum(octet_length(row_to_json(found)::text))
        OVER (ORDER BY published DESC, update_time DESC, incident_id) AS bytes
    FROM (SELECT {_LISTED} FROM incidents
    WHERE {_VISIBLE} AND (NOT %(only_mine)s OR creator_account_id = %(account_id)s)
    AND (%(themes)s::text[] IS NULL OR themes && %(themes)s::text[])
    AND (%(ccs)s::text[] IS NULL OR ccs && %(ccs)s::text[])
    AND (%(asns)s::bigint[] IS NULL OR asns && %(asns)s::bigint[])
    AND (%(domains)s::text[] IS NULL OR domains && %(domains)s::text[])
    ORDER BY published DESC, update_time DESC, incident_id LIMIT {MOST_LISTED}) AS found) AS measured
WHERE bytes <= {LISTED_BYTES} ORDER BY title COLLATE "C", incident_id"""  # noqa: S608 made of constants

_SHOW = f"""SELECT {_LISTED}, body FROM incidents
    WHERE {_VISIBLE} AND (incident_id = %(number)s OR slug = %(slug)s)"""  # noqa: S608 made of constants

_LOCK = "SELECT * FROM incidents WHERE incident_id = %s AND NOT deleted FOR UPDATE"
_DRAFTS = "SELECT count(*) FROM incidents WHERE creator_account_id = %s AND NOT published AND NOT deleted"

_INSERT = f"""INSERT INTO incidents (incident_id, creator_account_id, {", ".join(COLUMNS.values())})
    VALUES (%(incident_id)s, %(account_id)s, {", ".join(f"%({name})s" for name in COLUMNS)})
    ON CONFLICT DO NOTHING"""  # noqa: S608 made of constants
_SLUG_IS_TAKEN = "SELECT FROM incidents WHERE slug = %s"

_LATER = """revision = revision + 1,
    update_time = greatest((now() AT TIME ZONE 'UTC')::timestamp(0), update_time + interval '1 second')"""
_UPDATE = f"""UPDATE incidents SET {_LATER}, {", ".join(f"{column} = %({name})s" for name, column in COLUMNS.items())}
    WHERE incident_id = %(incident_id)s"""  # noqa: S608 made of constants
_PUBLISH = f"UPDATE incidents SET {_LATER}, published = %s WHERE incident_id = %s"  # noqa: S608 made of constants
_DELETE = f"UPDATE incidents SET {_LATER}, deleted = true WHERE incident_id = %s"  # noqa: S608 made of constants


def search(
    reader: Reader,
    account_id: str | None,
    *,
    everything: bool,
    only_mine: bool,
    filters: Mapping[str, Sequence[str | int] | None],
) -> list[Row]:
    """Return the findings that an account (None for anybody) may see, by title, at most MOST_LISTED and LISTED_BYTES.

    Args:
        reader: where to ask.
        account_id: who asks.
        everything: whether that is an admin.
        only_mine: leave out those of others.
        filters: `themes`, `ccs`, `asns`, `domains`; a finding has one of each, None for no condition.

    Raises: as `Reader.rows`.
    """
    values = {"account_id": account_id, "everything": everything, "only_mine": only_mine, **filters}
    return reader.rows(_SEARCH, values, narrow="Narrow it with theme, country_code, asn or domain.")


def show(
    reader: Reader, account_id: str | None, *, everything: bool, number: int | None, slug: str | None
) -> Row | None:
    """Return a finding by number or slug; None when there is none, or the account may not see it."""
    values = {"account_id": account_id, "everything": everything, "number": number, "slug": slug}
    rows = reader.rows(_SHOW, values, narrow="Try again later.")
    return rows[0] if rows else None


def locked(connection: Connection[TupleRow], number: int) -> Row | None:
    """Return a finding that nobody else changes until the end of the transaction; None when there is none."""
    return connection.cursor(row_factory=dict_row).execute(_LOCK, [number]).fetchone()


def drafts(connection: Connection[TupleRow], account_id: str) -> int:
    """Return how many findings of an account are not published."""
    row = connection.execute(_DRAFTS, [account_id]).fetchone()
    return int(row[0]) if row else 0


def insert(
    connection: Connection[TupleRow],
    account_id: str,
    values: Mapping[str, Any],
    numbers: Iterable[int],
    slugs: Iterable[str],
) -> int | None:
    """Store a new finding under the first of `numbers` and `slugs` that nobody has; returns its number.

    The slug changes only when it is taken. None when all `slugs` are taken.
    """
    choices = iter(slugs)
    slug = next(choices)
    for number in numbers:
        found = connection.execute(
            _INSERT.encode(), {**values, "incident_id": number, "account_id": account_id, "slug": slug}
        )
        if found.rowcount == 1:
            return number
        if connection.execute(_SLUG_IS_TAKEN, [slug]).fetchone() is not None:
            following = next(choices, None)
            if following is None:
                return None
            slug = following
    raise ApiError(503, "There was no free number for it. Send it again.", headers={"Retry-After": "1"})


def update(connection: Connection[TupleRow], number: int, values: Mapping[str, Any]) -> None:
    """Write all fields of a finding. Raises psycopg.errors.UniqueViolation when its slug is another's."""
    connection.execute(_UPDATE.encode(), {**values, "incident_id": number})


def publish(connection: Connection[TupleRow], number: int, *, published: bool) -> None:
    """Publish a finding, or take it back."""
    connection.execute(_PUBLISH.encode(), [published, number])


def delete(connection: Connection[TupleRow], number: int) -> None:
    """Show a finding to nobody any more."""
    connection.execute(_DELETE.encode(), [number])


def fields_of(row: Row) -> dict[str, Any]:
    """Return what people set in a row, under the names of the wire."""
    return {name: row[column] for name, column in COLUMNS.items()}


def shown(row: Row) -> dict[str, Any]:
    """Return a row as it is sent; with the text if it is there.

    There is no e-mail address: none is stored. The number is text, since not every client can hold it as a number.
    """
    found = {name: row[column] for name, column in COLUMNS.items() if column in row}
    return {
        **found,
        "id": str(row["incident_id"]),
        "revision": row["revision"],
        "create_time": row["create_time"],
        "update_time": row["update_time"],
        "mine": int(row["mine"]),
        "email_address": None,
    }
