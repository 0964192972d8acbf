"""Run links in the database: one row for each link, and one for each of its revisions.

A link is edited with its row locked, so that two edits at once come one after the other and neither is lost. Moments
are those of the database's clock in whole milliseconds, and those of one link strictly increase: the older routes name
a revision by the moment in which it was made.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import class_row
from psycopg.types.json import Json

from api.errors import bad_request
from api.run_link_fields import Content, size_of
from api.services import services
from api.signed_in import Account
from api.writing import Work

NEVER = datetime(9999, 12, 31)  # noqa: DTZ001 UTC without a zone, as everywhere here
"""When links of the older routes expire, unless somebody archives them."""

MOST_LINKS = 1000
"""Links that an account may have."""

MOST_REVISIONS = 500
"""Revisions that a link may have."""

MOST_BYTES = 64 * 1024 * 1024
"""Bytes that all revisions of all links of an account may take."""

MOST_EDITS = 1_000
"""Edits of an account in a day."""

LISTED_LINKS = 1000
LISTED_BYTES = 8 * 1024 * 1024
"""Most links of a list, and most bytes of what is kept of them; probes and browsers get no more at once."""

_TIMEOUT_S = 5.0
_PROBE_CHECKOUT_S = 2.0
_PROBE_TIMEOUT_MS = 2_000
_NARROW = "Try again in a minute."
_NARROW_LIST = "Ask for your own links, or try again in a minute."

_OF_LINK = """l.link_id, l.creator_account_id AS creator, l.created_at AT TIME ZONE 'UTC' AS created_at,
    l.expires_at AT TIME ZONE 'UTC' AS expires_at, l.expires_at <= statement_timestamp() AS expired"""
_OF_REVISION = (
    """r.revision, r.created_at AT TIME ZONE 'UTC' AS revised_at, r.edited_at AT TIME ZONE 'UTC' AS edited_at"""
)
_LATEST = """oonirun_links l CROSS JOIN LATERAL
    (SELECT * FROM oonirun_revisions WHERE link_id = l.link_id ORDER BY revision DESC LIMIT 1) r"""

_READ_LATEST = f"SELECT {_OF_LINK}, {_OF_REVISION}, r.content FROM {_LATEST} WHERE l.link_id = %s"  # noqa: S608 constants
_READ_REVISION = f"""SELECT {_OF_LINK}, {_OF_REVISION}, r.content
    FROM oonirun_links l JOIN oonirun_revisions r USING (link_id) WHERE link_id = %s AND r.revision = %s"""  # noqa: S608 constants
_READ_MADE_AT = f"""SELECT {_OF_LINK}, {_OF_REVISION}, r.content
    FROM oonirun_links l JOIN oonirun_revisions r USING (link_id)
    WHERE link_id = %s AND r.created_at = %s::timestamp AT TIME ZONE 'UTC'"""  # noqa: S608 constants
_READ_NUMBERS = "SELECT revision FROM oonirun_revisions WHERE link_id = %s ORDER BY revision DESC"

_WANTED = """(%(creator)s::text IS NULL OR l.creator_account_id = %(creator)s)
    AND (%(expired)s::boolean IS NULL OR (l.expires_at <= statement_timestamp()) = %(expired)s)"""
# What is left out of the list for its size is not read: the size is in a column of its own.
_LIST = f"""SELECT link_id, creator, created_at, expires_at, expired, revision, revised_at, edited_at, content
    FROM (
        SELECT *, sum(content_bytes) OVER (ORDER BY link_id DESC) AS bytes
        FROM (
            SELECT {_OF_LINK}, {_OF_REVISION}, r.content, r.content_bytes FROM {_LATEST} WHERE {_WANTED}
            ORDER BY l.link_id DESC LIMIT {LISTED_LINKS} OFFSET %(offset)s
        ) newest
    ) measured WHERE bytes <= {LISTED_BYTES} ORDER BY link_id DESC"""  # noqa: S608 constants
# The tests of what is not in the list are not read either.
_LIST_V1 = f"""SELECT link_id, creator, created_at, expires_at, expired, revision, revised_at, edited_at,
        json_build_object('name', content->>'name', 'short_description', content->>'short_description',
            'icon', content->>'icon', 'author', coalesce(content->>'author', ''), 'nettests', '[]'::json) AS content
    FROM (
        SELECT {_OF_LINK}, {_OF_REVISION}, r.content
        FROM oonirun_links l JOIN oonirun_revisions r USING (link_id)
        WHERE {_WANTED} AND (%(link_id)s::bigint IS NULL OR link_id = %(link_id)s)
            AND (NOT %(only_latest)s OR NOT EXISTS (
                SELECT FROM oonirun_revisions later WHERE later.link_id = l.link_id AND later.revision > r.revision))
        ORDER BY r.created_at DESC, r.edited_at DESC, link_id DESC LIMIT {LISTED_LINKS}
    ) newest ORDER BY revised_at, edited_at, link_id"""  # noqa: S608 constants

_NOW = "date_trunc('milliseconds', clock_timestamp())"
_LOCK_ACCOUNT = "SELECT pg_advisory_xact_lock(hashtextextended('oonirun:' || %s::text, 0))"
_USED = """SELECT count(DISTINCT l.link_id) AS links, coalesce(sum(r.content_bytes), 0)::bigint AS bytes
    FROM oonirun_links l JOIN oonirun_revisions r USING (link_id) WHERE l.creator_account_id = %s"""
_INSERT = f"""INSERT INTO oonirun_links (creator_account_id, created_at, expires_at)
    VALUES (%s, {_NOW}, coalesce(%s::timestamp AT TIME ZONE 'UTC', {_NOW} + interval '180 days')) RETURNING link_id"""  # noqa: S608 constants
_INSERT_FIRST = """INSERT INTO oonirun_revisions (link_id, revision, content, content_bytes, created_at, edited_at)
    SELECT link_id, 1, %s, %s, created_at, created_at FROM oonirun_links WHERE link_id = %s"""
_LOCK = "SELECT link_id FROM oonirun_links WHERE link_id = %s FOR UPDATE"
_NEXT_MOMENT = f"GREATEST({_NOW}, edited_at + interval '1 millisecond')"
_INSERT_NEXT = f"""INSERT INTO oonirun_revisions (link_id, revision, content, content_bytes, created_at, edited_at)
    SELECT link_id, revision + 1, %s, %s, moment, moment
    FROM (SELECT *, {_NEXT_MOMENT} AS moment FROM oonirun_revisions WHERE link_id = %s AND revision = %s) latest"""  # noqa: S608 constants
_REPLACE = f"""UPDATE oonirun_revisions SET content = %s, content_bytes = %s, edited_at = {_NEXT_MOMENT}
    WHERE link_id = %s AND revision = %s"""  # noqa: S608 constants
_EXPIRE = "UPDATE oonirun_links SET expires_at = %s::timestamp AT TIME ZONE 'UTC' WHERE link_id = %s"
_ARCHIVE = """UPDATE oonirun_links SET expires_at = date_trunc('milliseconds', statement_timestamp())
    WHERE link_id = %s AND expires_at > statement_timestamp() AND (creator_account_id = %s OR %s) RETURNING link_id"""


@dataclass(frozen=True, slots=True)
class Link:
    """A run link in one of its revisions. Moments are UTC without a zone."""

    link_id: int
    creator: str
    created_at: datetime
    expires_at: datetime
    expired: bool
    revision: int
    revised_at: datetime
    edited_at: datetime
    content: Content


def newest(link_id: int) -> Link | None:
    """Return a link in its latest revision, None when there is no such link. Raises what `Reader.rows` does."""
    return _one(_READ_LATEST, (link_id,))


def revision(link_id: int, number: int) -> Link | None:
    """Return a link in one of its revisions, None when it has none of this number."""
    return _one(_READ_REVISION, (link_id, number))


def for_probe(link_id: int, number: int | None) -> tuple[Link | None, Link | None]:
    """Return a link in its latest revision, and in revision `number` (None: the latest) if there is one.

    Probes do not wait for readers: they use connections that those leave to others. Raises DatabaseUnavailable, or
    psycopg errors.
    """
    with (
        services().pool.connection(_PROBE_CHECKOUT_S) as connection,
        connection.cursor(row_factory=class_row(Link)) as cursor,
    ):
        cursor.execute(f"SET LOCAL statement_timeout = {_PROBE_TIMEOUT_MS}")
        latest = cursor.execute(_READ_LATEST, [link_id]).fetchone()
        if latest is None or number is None or number == latest.revision:
            return latest, latest
        return latest, cursor.execute(_READ_REVISION, [link_id, number]).fetchone()


def made_at(link_id: int, moment: datetime) -> Link | None:
    """Return a link in the revision that was made at a moment, None when none was."""
    return _one(_READ_MADE_AT, (link_id, moment))


def numbers(link_id: int) -> list[int]:
    """Return the numbers of the revisions of a link, the latest first; none when there is no such link."""
    rows = services().reader.rows(_READ_NUMBERS, (link_id,), timeout_s=_TIMEOUT_S, narrow=_NARROW)
    return [row["revision"] for row in rows]


def listed(*, creator: str | None = None, expired: bool | None = None, offset: int = 0) -> list[Link]:
    """Return links in their latest revisions, the newest link first, as many as a reply may have.

    Args:
        creator: whose links; None for those of everybody.
        expired: whether expired ones or the others; None for both.
        offset: how many to leave out before.
    """
    values = {"creator": creator, "expired": expired, "offset": offset}
    rows = services().reader.rows(_LIST, values, timeout_s=_TIMEOUT_S, narrow=_NARROW_LIST)
    return [Link(**row) for row in rows]


def listed_v1(
    *, creator: str | None = None, expired: bool | None = None, link_id: int | None = None, only_latest: bool = False
) -> list[Link]:
    """Return the newest revisions of links, without their tests, the oldest of them first; parameters as `listed`."""
    values = {"creator": creator, "expired": expired, "link_id": link_id, "only_latest": only_latest}
    rows = services().reader.rows(_LIST_V1, values, timeout_s=_TIMEOUT_S, narrow=_NARROW_LIST)
    return [Link(**row) for row in rows]


def insert(work: Work, account: Account, content: Content, expires_at: datetime | None) -> int:
    """Write a new link; it expires in 180 days unless it is said when. Returns its number.

    Raises:
        ApiError: 400, the account has too many links.
    """
    work.connection.execute(_LOCK_ACCOUNT, [account.account_id])
    if _check_room(work, account.account_id, size_of(content)) >= MOST_LINKS:
        raise bad_request(f"An account may have {MOST_LINKS} run links. Edit one of those that there are.")
    row = work.connection.execute(_INSERT, [account.account_id, expires_at]).fetchone()
    assert row is not None
    link_id = int(row[0])
    work.connection.execute(_INSERT_FIRST, [Json(content), size_of(content), link_id])
    return link_id


def locked(work: Work, link_id: int) -> Link | None:
    """Return a link in its latest revision, which nobody else can edit until the end of the transaction."""
    # Two statements: the first one waits, and the second one sees what whoever was first has written, and whether the
    # link has expired by then.
    if work.connection.execute(_LOCK, [link_id]).fetchone() is None:
        return None
    with work.connection.cursor(row_factory=class_row(Link)) as cursor:
        return cursor.execute(_READ_LATEST, [link_id]).fetchone()


def add_revision(work: Work, link: Link, content: Content) -> None:
    """Write a new revision of a link that is locked. Raises ApiError 400 when it has too many."""
    if link.revision >= MOST_REVISIONS:
        raise bad_request(f"A run link may have {MOST_REVISIONS} revisions. Make a new run link.")
    work.connection.execute(_LOCK_ACCOUNT, [link.creator])
    _check_room(work, link.creator, size_of(content))
    values = [Json(content), size_of(content), link.link_id, link.revision]
    work.connection.execute(_INSERT_NEXT, values)


def replace(work: Work, link: Link, content: Content) -> None:
    """Write other texts into the latest revision of a link that is locked."""
    more = size_of(content) - size_of(link.content)
    if more > 0:
        work.connection.execute(_LOCK_ACCOUNT, [link.creator])
        _check_room(work, link.creator, more)
    values = [Json(content), size_of(content), link.link_id, link.revision]
    work.connection.execute(_REPLACE, values)


def expire(work: Work, link: Link, expires_at: datetime) -> None:
    """Say when a link that is locked expires."""
    work.connection.execute(_EXPIRE, [expires_at, link.link_id])


def archive(work: Work, link_id: int, account: Account) -> bool:
    """Let a link of the account, or any for an admin, expire now. Returns whether there was one to expire."""
    values = [link_id, account.account_id, account.is_admin]
    return work.connection.execute(_ARCHIVE, values).fetchone() is not None


def _one(statement: str, values: Sequence[Any]) -> Link | None:
    rows = services().reader.rows(statement, values, timeout_s=_TIMEOUT_S, narrow=_NARROW)
    return Link(**rows[0]) if rows else None


def _check_room(work: Work, account_id: str, more: int) -> int:
    """Return how many links an account has. Raises ApiError 400 when `more` bytes would be too many."""
    row = work.connection.execute(_USED, [account_id]).fetchone()
    assert row is not None
    links, used = row
    if used + more > MOST_BYTES:
        raise bad_request(
            f"The run links of an account may take {MOST_BYTES} bytes with all their revisions, and there is no room "
            "for this one. Make it smaller."
        )
    return int(links)
