"""What is kept of logins: mails of the last hour, links that were followed, sessions that were ended."""

from dataclasses import dataclass

from psycopg import Connection
from psycopg.rows import TupleRow

from api.key_file import LEEWAY_S
from api.sessions import Link, Session
from api.writing import Work, transaction

MOST_MAILS = 5
"""How many links are mailed to one account within an hour."""

MOST_MAILS_TO_ALL = 1_000
"""How many links are mailed within an hour to everybody together: nobody may use this server to mail strangers."""

REPEAT_MINUTES = 10
"""For how long after its first use a link can be used again, in minutes: pages are loaded again, and some ask twice."""

_DAY_S = 86_400

_ONE_AT_A_TIME = "SELECT pg_advisory_xact_lock(hashtextextended(%s, 0))"
_COUNT_MAIL = """INSERT INTO login_mails (account_id)
    SELECT %(account_id)s::text
    WHERE (SELECT count(*) FROM login_mails
           WHERE account_id = %(account_id)s AND sent_at > now() - interval '1 hour') < %(most)s
    RETURNING true"""
_MAILS_TO_ALL = "SELECT count(*) FROM login_mails WHERE sent_at > now() - interval '1 hour'"
_FORGET_LAST_MAIL = """DELETE FROM login_mails WHERE ctid = (
    SELECT ctid FROM login_mails WHERE account_id = %s ORDER BY sent_at DESC LIMIT 1)"""
_FORGET_MAILS = """DELETE FROM login_mails WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM login_mails WHERE sent_at < now() - interval '1 hour' LIMIT 1000 FOR UPDATE SKIP LOCKED))"""

_MAKE_ACCOUNT = "INSERT INTO accounts (account_id) VALUES (%s) ON CONFLICT DO NOTHING"
_ACCOUNT = """SELECT role, session_generation, links_valid_from <= to_timestamp(%s)
    FROM accounts WHERE account_id = %s"""
_USE_LINK = """INSERT INTO used_login_links AS known (link_id, forget_at) VALUES (%s, to_timestamp(%s))
    ON CONFLICT (link_id) DO UPDATE SET forget_at = known.forget_at
    RETURNING known.used_at > now() - make_interval(mins => %s), known.used_at = now()"""
_FORGET_LINKS = """DELETE FROM used_login_links WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM used_login_links WHERE forget_at < now() LIMIT 1000 FOR UPDATE SKIP LOCKED))"""

_END_SESSION = """INSERT INTO ended_sessions (session_id, account_id, forget_at) VALUES (%s, %s, to_timestamp(%s))
    ON CONFLICT DO NOTHING RETURNING true"""
_END_LINKS_UNTIL = """UPDATE accounts SET links_valid_from = greatest(links_valid_from, to_timestamp(%s))
    WHERE account_id = %s"""
_FORGET_SESSIONS = """DELETE FROM ended_sessions WHERE ctid = ANY (ARRAY(
    SELECT ctid FROM ended_sessions WHERE forget_at < now() LIMIT 1000 FOR UPDATE SKIP LOCKED))"""


@dataclass(frozen=True, slots=True)
class SignedIn:
    """The account that a link belongs to."""

    role: str
    generation: int


class TooManyMails(Exception):
    """More links were mailed within the last hour than may be, to whomever."""


class LinkSpent(Exception):
    """A link was used before; the text says how to go on."""


def count_mail(account_id: str) -> bool:
    """Count a mail to an account, known or not; return False when it has had as many as it may in an hour.

    Raises:
        TooManyMails: all together have had as many as they may.
    """
    with transaction() as connection:
        all_together = connection.execute(_MAILS_TO_ALL).fetchone()
        assert all_together is not None
        if all_together[0] >= MOST_MAILS_TO_ALL:
            raise TooManyMails
        connection.execute(_ONE_AT_A_TIME, [account_id])
        counted = connection.execute(_COUNT_MAIL, {"account_id": account_id, "most": MOST_MAILS}).fetchone()
        connection.execute(_FORGET_MAILS)
    return counted is not None


def uncount_mail(account_id: str) -> None:
    """Take back the last mail that was counted, because it could not be sent."""
    with transaction() as connection:
        connection.execute(_FORGET_LAST_MAIL, [account_id])


def follow(link: Link) -> SignedIn:
    """Use a link: make the account if there is none yet, and remember that the link was used.

    Raises:
        LinkSpent: it was used before, longer ago than `REPEAT_MINUTES`, or everything of this account was ended since.
    """
    with transaction() as connection:
        connection.execute(_MAKE_ACCOUNT, [link.account_id])
        row = connection.execute(_ACCOUNT, [link.made_at, link.account_id]).fetchone()
        assert row is not None
        role, generation, is_valid = row
        if not is_valid:
            raise LinkSpent("This link was ended by a logout or by an administrator. Ask for a new one.")
        forget_at = link.expires_at + 2 * LEEWAY_S
        used = connection.execute(_USE_LINK, [link.link_id, forget_at, REPEAT_MINUTES]).fetchone()
        if used is None or not used[0]:
            raise LinkSpent("This link has been used. Each works once: ask for a new one.")
        if used[1]:  # once, however often the link is followed in the next minutes
            Work(connection, link.account_id, role, "session").record("account.login", link.account_id)
        _forget(connection)
    return SignedIn(role, generation)


def end_session(session: Session, work: Work, *, longest_s: float) -> None:
    """End a session, and the links that were mailed before it began: the one that began it could begin another.

    `longest_s` is how long a session may last after its login, in seconds.
    """
    forget_at = max(session.expires_at, session.login_time + longest_s) + _DAY_S
    ended = work.connection.execute(_END_SESSION, [session.session_id, session.account_id, forget_at]).fetchone()
    if ended is None:
        work.nothing_to_record()
        return
    work.connection.execute(_END_LINKS_UNTIL, [session.login_time + 1, session.account_id])
    work.record("account.logout", session.account_id)
    _forget(work.connection)


def _forget(connection: Connection[TupleRow]) -> None:
    connection.execute(_FORGET_LINKS)
    connection.execute(_FORGET_SESSIONS)
