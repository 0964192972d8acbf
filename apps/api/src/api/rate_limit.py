"""Rate limiting of readers: each request is charged to its address and to the network around it.

What counts is the processor time of the request's own thread, not its duration, so that nobody pays for a slow database
or for a client that reads slowly. Each request's start is kept with the request. Probes are never limited: many of them
share one address. Replies from the proxy's cache never come here. A 304 is charged what it took without the minimum: it
is found by doing the work, and would otherwise make any question free to whoever names any tag.
Why all this: docs/adr/0012-quotas-count-processor-time.md.
"""

import time
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import NamedTuple

from flask import Flask, Response, g, request

from api import quota_store
from api.client_address import client_address
from api.config import ApiSettings
from api.errors import ApiError
from api.metrics import QUOTA_EVICTIONS, QUOTA_REFUSALS, QUOTA_UNKNOWN_ADDRESSES
from api.quotas import (
    MINIMUM_CHARGE,
    Subject,
    exhausted,
    remaining_s,
    retry_after_s,
    subjects_of,
)

REMAINING = "X-RateLimit-Remaining"

FREE_PATHS = frozenset(
    {
        "/",
        "/health",
        "/invalidpath",
        "/api/v1/check-in",
        "/api/_/check-in",
        "/api/_/check_report_id",
        "/api/v1/collectors",
        "/api/v1/login",
        "/api/v1/manifest",
        "/api/v1/register",
        "/api/v1/sign_credential",
        "/api/v1/submit_measurement",
        "/api/v1/test-helpers",
        # The web interface repeats these with stale tokens every ten minutes, in every tab.
        "/api/_/account_metadata",
        "/api/v1/user_refresh_token",
    }
)
"""Paths that are never limited: what monitoring and probes call, and what costs next to nothing."""

FREE_PREFIXES = ("/report", "/bouncer/", "/api/v1/test-list/", "/api/v1/update/", "/api/v2/ooniprobe/vpn-config/")
"""Beginnings of more such paths."""

Network = IPv4Network | IPv6Network


class _Metered(NamedTuple):
    subjects: tuple[Subject, ...]
    started: int  # processor time of this thread, in nanoseconds


class RateLimit:
    """The limiter of one worker; all workers of a host work on one table."""

    def __init__(self, table: quota_store.QuotaTable, exempt: tuple[Network, ...]) -> None:
        """Take the table and the networks that have no quota."""
        self._table = table
        self._exempt = exempt

    def before(self) -> None:
        """Refuse a request whose address or prefix has used up a bucket, else note when it started.

        Raises:
            ApiError: 429 with Retry-After.
        """
        if is_free(request.path) or _is_old_application():
            return
        address = client_address()
        if address is None:
            QUOTA_UNKNOWN_ADDRESSES.inc()
            return
        if self.is_exempt(address):
            return
        subjects = subjects_of(address)
        now = time.monotonic_ns()
        for subject in subjects:
            balance, buckets = self._table.balance(subject, now), self._table.buckets(subject)
            bucket = exhausted(balance, buckets)
            if bucket is not None:
                QUOTA_REFUSALS.labels(f"{subject.kind}_{bucket.name}").inc()
                raise _refusal(subject, bucket.name, retry_after_s(balance, buckets))
        g.metered = _Metered(subjects, time.thread_time_ns())

    def after(self, response: Response) -> Response:
        """Charge the request and tell the client what is left."""
        metered: _Metered | None = g.pop("metered", None)
        if metered is None:
            return response
        minimum = 0 if response.status_code == 304 else MINIMUM_CHARGE
        cost = max(minimum, time.thread_time_ns() - metered.started)
        now = time.monotonic_ns()
        left = []
        for subject in metered.subjects:
            balance, evicted = self._table.charge(subject, cost, now)
            if evicted:
                QUOTA_EVICTIONS.inc()
            left.append(remaining_s(balance))
        response.headers[REMAINING] = str(min(left))
        return response

    def is_exempt(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether an address is in one of the networks that have no quota."""
        return any(address in network for network in self._exempt)


def _is_old_application() -> bool:
    """Return whether the current request gets the fixed reply that old mobile applications need."""
    return request.path == "/api/v1/measurements" and request.user_agent.string.startswith("okhttp")


def is_free(path: str) -> bool:
    """Return whether requests for `path` are neither limited nor charged."""
    return path in FREE_PATHS or path.startswith(FREE_PREFIXES)


def register(app: Flask, settings: ApiSettings) -> None:
    """Hold the readers of `app` to their quotas, if the settings say so; after the handler of preflights."""
    if not settings.quotas_enabled:
        return
    table = quota_store.shared_or_new(settings.quota_prefix_factor)
    limit = RateLimit(table, tuple(ip_network(text) for text in settings.quota_exempt))
    app.before_request(limit.before)
    app.after_request(limit.after)


def _refusal(subject: Subject, bucket: str, wait_s: int) -> ApiError:
    whose = "this address" if subject.kind == "address" else "the network of this address"
    text = (
        f"Quota exceeded: {whose} has used its server time of the {bucket}. Try again in {wait_s} seconds, with fewer "
        "or smaller requests; whole archives are better taken from the object store."
    )
    return ApiError(429, text, headers={"Retry-After": str(wait_s), REMAINING: "0"})
