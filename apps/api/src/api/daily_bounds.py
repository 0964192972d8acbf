"""How often one account may do a thing in a day, counted in the audit log, so that nobody can fill the database."""

from api.errors import ApiError
from api.signed_in import Account
from api.writing import Work, writing

# One write of an account after the other, so that two at once are not both the last one that is allowed.
_ALONE = "SELECT FROM accounts WHERE account_id = %s FOR NO KEY UPDATE"
# The line so many lines ago: found by walking the account's index from its end.
_USED_UP = """SELECT FROM (
        SELECT happened_at FROM audit_log WHERE account_id = %s AND action = %s
        ORDER BY audit_id DESC OFFSET %s LIMIT 1) AS earlier
    WHERE happened_at > clock_timestamp() - interval '1 day'"""


def alone(work: Work, account: Account) -> None:
    """Hold what other writes of the same account have to wait for, until the end of the transaction."""
    work.connection.execute(_ALONE, [account.account_id])


def check_daily(work: Work, account: Account, action: str, most: int) -> None:
    """Check that `action`, as it stands in the audit log, was done less than `most` times in the last 24 hours.

    Raises:
        ApiError: 429.
    """
    alone(work, account)
    if work.connection.execute(_USED_UP, [account.account_id, action, most - 1]).fetchone() is not None:
        text = f"An account may do this {most} times in a day. Go on tomorrow, or ask an admin."
        raise ApiError(429, text, headers={"Retry-After": "3600"})


def refuse_used_up(account: Account, action: str, most: int) -> None:
    """Check the same ahead of what takes long or cannot be undone. Raises ApiError 429."""
    with writing(account) as work:
        check_daily(work, account, action, most)
        work.nothing_to_record()
