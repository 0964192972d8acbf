"""Who has used most of the quotas: for admins over HTTP, and for the administrator of the host by `ooni-api --quotas`.

Addresses of clients are in it, so it goes to an admin's session or to the terminal, and nowhere else: it is neither
stored nor logged. The command reads the memory of the running service, which the kernel gives to root and the service's
user only, and works without the database and without an account.
"""

import os
import time
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

from api.quota_store import entries, find
from api.quotas import SECOND, Factors, Subject

LINES = 20
"""Number of addresses and accounts in a summary."""


class NoQuotas(Exception):
    """There is no table to read; the text says what to do."""


def summary(bind: str, factors: Factors) -> list[tuple[str, int]]:
    """Return what `most_used` does, of the service that runs on `bind`.

    Raises:
        NoQuotas: no such service runs here with quotas, or its memory may not be read.
    """
    for process in sorted(path.name for path in Path("/proc").iterdir() if path.name.isdecimal()):
        descriptor = find(process, bind)
        if descriptor is not None:
            break
    else:
        raise NoQuotas(
            f"No service on {bind} with quotas_enabled is to be seen. Run this as root or as the service's user, on "
            "the host of the service and with its configuration."
        )
    try:
        return most_used(descriptor, factors)
    finally:
        os.close(descriptor)


def most_used(descriptor: int, factors: Factors) -> list[tuple[str, int]]:
    """Return up to `LINES` pairs of address or account and seconds left today, lowest first, of a table.

    An IPv6 address stands for its /64.
    """
    balances = [
        (max(0, balance.left[0]) // SECOND, subject_text(subject))
        for subject, balance in entries(descriptor, factors, time.monotonic_ns())
        if subject.kind != "prefix"
    ]
    return [(text, left) for left, text in sorted(balances)[:LINES]]


def subject_text(subject: Subject) -> str:
    """Return an IPv4 address, the /64 of an IPv6 address, or the 32 digits of an account, as text."""
    if subject.kind == "account":
        return subject.packed.hex()
    if subject.version == 6:
        return str(IPv6Network((subject.packed, 64)))
    return str(IPv4Address(subject.packed))
