"""Times as documents and uids write them. All are UTC; they are kept without a zone, as the database stores them."""

from datetime import datetime

FORMAT = "%Y-%m-%d %H:%M:%S"
MAX_LENGTH = 64
"""Longest time text looked at, in characters; a valid one has 19, or a few more with additional blanks."""


def parse_time(text: str) -> datetime:
    """Parse `YYYY-MM-DD hh:mm:ss`; single digits and several blanks between date and time are accepted.

    Raises:
        ValueError: any other form (ISO 8601 with T or Z, fractions), or an impossible date.
    """
    if len(text) == 19 and text[4] == text[7] == "-" and text[10] == " " and text[11:13] != "24":
        try:
            return datetime.fromisoformat(text)
        except ValueError:
            pass
    if len(text) > MAX_LENGTH:
        raise ValueError("The time is too long.")
    return datetime.strptime(text, FORMAT)  # noqa: DTZ007 documents write UTC without a zone


def receive_time(uid: str) -> datetime | None:
    """Return the time of receipt that a measurement uid starts with, `YYYYMMDDhhmmss.ffffff_`; None for others.

    Uids of measurements before October 2020 hold none.
    """
    if len(uid) < 22 or not uid.startswith("20") or uid[14] != "." or uid[21] != "_" or uid[8:10] == "24":
        return None
    # The parser below also knows forms with letters and signs. It takes no digits but ASCII ones.
    if not uid[:14].isdigit() or not uid[15:21].isdigit():
        return None
    try:
        return datetime.fromisoformat(f"{uid[:8]}T{uid[8:21]}")
    except ValueError:
        return None
