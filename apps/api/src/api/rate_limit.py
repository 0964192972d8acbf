"""Rate limiting of readers: each request is charged to its address and to the network around it.

A request with an access token that counts is charged to the account of the token instead, which has more, and for all
its tokens together: researchers share addresses, and one of them must not pay for the other.

What counts is the processor time of the request's own thread, not its duration, so that nobody pays for a slow database
or for a client that reads slowly. Each request's start is kept with the request. Probes are never limited: many of them
share one address. Replies from the proxy's cache never come here. A 304 is charged what it took without the minimum: it
is found by doing the work, and would otherwise make any question free to whoever names any tag.
Why all this: docs/adr/0012-quotas-count-processor-time.md.
"""

import re
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
    SECOND,
    Factors,
    Subject,
    exhausted,
    remaining_s,
    retry_after_s,
    subject_of_account,
    subjects_of,
)

REMAINING = "X-RateLimit-Remaining"

EXTENSION = "quotas"
"""Where the application keeps its table of balances; absent without quotas."""

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
        # Who has used up a quota can still log in, and out.
        "/api/v1/user_login",
        "/api/v1/user_logout",
        "/api/v2/ooniauth/user-session",
    }
)
"""Paths that are never limited: what monitoring and probes call, and what costs next to nothing."""

FREE_PREFIXES = ("/report", "/bouncer/", "/api/v1/test-list/", "/api/v1/update/", "/api/v2/ooniprobe/vpn-config/")
"""Beginnings of more such paths."""

_ENGINE_DESCRIPTOR = re.compile("/api/v2/oonirun/links/[^/]+/engine-descriptor/")  # what probes ask of a run link

MAILS = frozenset({"login.user_register", "auth_v2.user_login"})
"""Endpoints that mail a login link to whatever address they are given."""

MAIL_CHARGE = 30 * SECOND
"""What such a mail costs who asks for it, in nanoseconds: an address can have 133 of them a day."""

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
        """Refuse a request when a bucket of whoever it is charged to is used up, else note when it started.

        Raises:
            ApiError: 429 with Retry-After.
        """
        if is_free(request.path) or _is_old_application():
            return
        started = time.thread_time_ns()
        subjects = self._charged()
        now = time.monotonic_ns()
        for subject in subjects:
            balance, buckets = self._table.balance(subject, now), self._table.buckets(subject)
            bucket = exhausted(balance, buckets)
            if bucket is not None:
                QUOTA_REFUSALS.labels(f"{subject.kind}_{bucket.name}").inc()
                raise _refusal(subject, bucket.name, retry_after_s(balance, buckets))
        if subjects:
            g.metered = _Metered(subjects, started)

    def after(self, response: Response) -> Response:
        """Charge the request and tell the client what is left."""
        metered: _Metered | None = g.pop("metered", None)
        if metered is None:
            return response
        minimum = 0 if response.status_code == 304 else MINIMUM_CHARGE
        if request.endpoint in MAILS and response.status_code == 200:
            minimum = MAIL_CHARGE
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

    def _charged(self) -> tuple[Subject, ...]:
        """Return who pays for the current request, nobody if its address is exempt or unknown."""
        address = client_address()
        if address is not None and self.is_exempt(address):
            return ()
        account_id = g.get("token_account")
        if account_id is not None:
            return (subject_of_account(account_id),)
        if address is None:
            QUOTA_UNKNOWN_ADDRESSES.inc()
            return ()
        return subjects_of(address)

    def is_exempt(self, address: IPv4Address | IPv6Address) -> bool:
        """Return whether an address is in one of the networks that have no quota."""
        return any(address in network for network in self._exempt)


def _is_old_application() -> bool:
    """Return whether the current request gets the fixed reply that old mobile applications need."""
    return request.path == "/api/v1/measurements" and request.user_agent.string.startswith("okhttp")


def is_free(path: str) -> bool:
    """Return whether requests for `path` are neither limited nor charged."""
    return path in FREE_PATHS or path.startswith(FREE_PREFIXES) or _ENGINE_DESCRIPTOR.match(path) is not None


def register(app: Flask, settings: ApiSettings) -> None:
    """Hold the readers of `app` to their quotas, if the settings say so; after the handler of preflights."""
    if not settings.quotas_enabled:
        return
    table = quota_store.shared_or_new(Factors(settings.quota_prefix_factor, settings.quota_token_factor))
    app.extensions[EXTENSION] = table
    limit = RateLimit(table, tuple(ip_network(text) for text in settings.quota_exempt))
    app.before_request(limit.before)
    app.after_request(limit.after)


_WHOSE = {
    "address": "this address",
    "prefix": "the network of this address",
    "account": "the account of this access token",
}


def _refusal(subject: Subject, bucket: str, wait_s: int) -> ApiError:
    text = (
        f"Quota exceeded: {_WHOSE[subject.kind]} has used its server time of the {bucket}. Try again in {wait_s} "
        "seconds, with fewer or smaller requests; whole archives are better taken from the object store."
    )
    return ApiError(429, text, headers={"Retry-After": str(wait_s), REMAINING: "0"})
