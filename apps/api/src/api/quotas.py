"""Quotas of server time: what somebody may still use, as pure arithmetic without a clock or a store.

Each address, each network around it, and each account whose access tokens are used, has three buckets. A bucket starts
full, loses what requests cost and refills evenly. All times are whole nanoseconds, so that many small refills add up to
the same as one large one.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from typing import NamedTuple

SECOND = 1_000_000_000
"""One second in nanoseconds."""

DAY = 86_400 * SECOND


class Bucket(NamedTuple):
    """One bucket: what it holds when full, and how long it takes to fill from empty, both in nanoseconds."""

    name: str
    capacity: int
    period: int


BUCKETS = (
    Bucket("day", 4_000 * SECOND, DAY),
    Bucket("week", 20_000 * SECOND, 7 * DAY),
    Bucket("month", 60_000 * SECOND, 30 * DAY),
)
"""The buckets of one address, as in the wire contract."""

MINIMUM_CHARGE = SECOND // 100
"""What a metered request costs at least, in nanoseconds: 10 ms, so that a day's bucket is 400 000 cheap requests.

Without a minimum, requests that cost a fraction of a millisecond would be as good as unlimited. A page of the web
interface takes about ten requests, so an address may open 40 000 of them a day.
"""


class Factors(NamedTuple):
    """How many times the quota of one address others have."""

    prefix: int
    """The network around it."""
    account: int
    """An account, for all requests with its access tokens together."""


class Subject(NamedTuple):
    """Whose quota it is: an address (IPv6: its /64), the network around it (IPv4 /24, IPv6 /48), or an account."""

    kind: str
    """`address`, `prefix` or `account`."""
    version: int
    """4 or 6; 0 for an account."""
    packed: bytes
    """The network's first address, 4 bytes for version 4, 16 for version 6; or the 16 bytes of the account."""


def subjects_of(address: IPv4Address | IPv6Address) -> tuple[Subject, Subject]:
    """Return the two subjects that a request from `address` is charged to: the address and its prefix."""
    if isinstance(address, IPv6Address):
        packed = address.packed
        return (
            Subject("address", 6, packed[:8] + bytes(8)),
            Subject("prefix", 6, packed[:6] + bytes(10)),
        )
    packed = address.packed
    return Subject("address", 4, packed), Subject("prefix", 4, packed[:3] + b"\0")


def subject_of_account(account_id: str) -> Subject:
    """Return the subject that requests with an access token are charged to: all tokens of an account share one quota.

    Otherwise each further token would be a further quota.
    """
    return Subject("account", 0, bytes.fromhex(account_id))


def buckets_of(kind: str, factors: Factors) -> tuple[Bucket, ...]:
    """Return the buckets of a kind of subject."""
    factor = {"address": 1, "prefix": factors.prefix, "account": factors.account}[kind]
    return tuple(bucket._replace(capacity=bucket.capacity * factor) for bucket in BUCKETS)


@dataclass(frozen=True, slots=True)
class Balance:
    """What is left in each bucket at a moment, in nanoseconds; below 0 after a request that cost more than was left."""

    left: tuple[int, ...]
    at: int
    """Moment of the last refill, of the monotonic clock."""


def full(buckets: tuple[Bucket, ...], now: int) -> Balance:
    """Return the balance of somebody who is new."""
    return Balance(tuple(bucket.capacity for bucket in buckets), now)


def refilled(balance: Balance, buckets: tuple[Bucket, ...], now: int) -> Balance:
    """Return the balance at `now`; never above the capacity, and nothing more if the clock went back."""
    elapsed = max(0, now - balance.at)
    left = tuple(
        min(bucket.capacity, amount + elapsed * bucket.capacity // bucket.period)
        for amount, bucket in zip(balance.left, buckets, strict=True)
    )
    return Balance(left, now)


def charged(balance: Balance, buckets: tuple[Bucket, ...], cost: int) -> Balance:
    """Return the balance after a request of `cost`. A debt stays, at most one capacity, and is refilled first.

    Forgiving the debt would let an exhausted client run one expensive request after each instant of waiting.
    """
    left = tuple(max(-bucket.capacity, amount - cost) for amount, bucket in zip(balance.left, buckets, strict=True))
    return Balance(left, balance.at)


def is_full(balance: Balance, buckets: tuple[Bucket, ...]) -> bool:
    """Return whether nothing is missing, so that there is nothing to remember."""
    return all(amount >= bucket.capacity for amount, bucket in zip(balance.left, buckets, strict=True))


def remaining_s(balance: Balance) -> int:
    """Return the whole seconds left in the lowest bucket."""
    return max(0, min(balance.left) // SECOND)


def fullness(balance: Balance, buckets: tuple[Bucket, ...]) -> float:
    """Return how full the emptiest bucket is, 1.0 at most."""
    return min(amount / bucket.capacity for amount, bucket in zip(balance.left, buckets, strict=True))


def exhausted(balance: Balance, buckets: tuple[Bucket, ...]) -> Bucket | None:
    """Return the bucket without a whole second left that takes longest to have one again, None to let requests in."""
    empty = [
        (_wait(amount, bucket), bucket) for amount, bucket in zip(balance.left, buckets, strict=True) if amount < SECOND
    ]
    return max(empty, key=lambda pair: pair[0])[1] if empty else None


def retry_after_s(balance: Balance, buckets: tuple[Bucket, ...]) -> int:
    """Return the whole seconds until every bucket has a second again, 0 when each has."""
    waits = (_wait(amount, bucket) for amount, bucket in zip(balance.left, buckets, strict=True))
    return -(-max(waits) // SECOND)


def _wait(amount: int, bucket: Bucket) -> int:
    """Return the nanoseconds until a whole second is in the bucket."""
    missing = max(0, SECOND - amount)
    return -(-missing * bucket.period // bucket.capacity)
