"""What statistics are asked for: country, network, format; and the days that they cover.

Days are those of the UTC clock of this host, and windows are whole days, from the first up to and without the last.
"""

import re
from datetime import UTC, date, datetime, timedelta
from typing import NamedTuple

from dateutil.relativedelta import relativedelta

from api.errors import bad_request
from api.params import Params

WEB_CONNECTIVITY = "web_connectivity"
ONE_DAY = timedelta(days=1)
LATER = "Try again in a few minutes."
"""What to do when a statistic takes too long: there is nothing in it to ask less of."""

_CC = re.compile(r"[0-9A-Za-z]{2}", re.ASCII)
_ASN = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII)
_MAX_ASN = 2**32 - 1


class Days(NamedTuple):
    """Whole days: `since` is the first one, `until` the day after the last."""

    since: date
    until: date

    def each(self) -> list[date]:
        """Return all of them, ascending."""
        return [self.since + n * ONE_DAY for n in range((self.until - self.since).days)]


def today() -> date:
    """Return the current day."""
    return datetime.now(UTC).date()


def last_31_days() -> Days:
    """Return the 31 days before today."""
    return Days(today() - timedelta(days=31), today())


def six_months_ago() -> date:
    """Return the day of six months ago, or the last one of that month if it has no such day."""
    return today() + relativedelta(months=-6)


def last_months(count: int) -> list[date]:
    """Return the first days of the last `count` months, the current one last."""
    current = today().replace(day=1)
    return [current + relativedelta(months=-ago) for ago in range(count - 1, -1, -1)]


def country(params: Params) -> str:
    """Return `probe_cc` in upper case; every code of two letters or digits will do, also ZZ.

    Raises:
        ApiError: 400 when it is missing or none.
    """
    text = params.text("probe_cc") or ""
    if not _CC.fullmatch(text):
        raise bad_request("missing or incorrect probe_cc", hint="Give a country as two letters, such as IT.")
    return text.upper()


def network(params: Params, name: str = "probe_asn") -> int:
    """Return the number of a network, written with or without AS in front; 0 is the unknown one.

    Raises:
        ApiError: 400 when it is missing or none.
    """
    match = _ASN.fullmatch(params.text(name) or "")
    if match is None or int(match[1]) > _MAX_ASN:
        raise bad_request(f"missing or incorrect {name}", hint="Give the number of a network, such as 30722.")
    return int(match[1])


class Page(NamedTuple):
    """Part of a list: at most `limit` items after the first `offset`."""

    limit: int
    offset: int

    @property
    def number(self) -> int:
        """The number of this page, from 1 on."""
        return -(-self.offset // self.limit) + 1


def page(params: Params) -> Page:
    """Return the part that is asked for: 10 items, unless `limit` says otherwise and is above 0.

    Raises:
        ApiError: 400 when `limit` or `offset` is no whole number, or `offset` is below 0.
    """
    limit, offset = params.integer("limit", 10), params.integer("offset", 0)
    if offset < 0:
        raise bad_request("Invalid offset; give 0 or more.")
    return Page(limit if limit > 0 else 10, offset)
