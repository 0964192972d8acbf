"""Who has used most of the quotas: for the administrator of the host, by `ooni-api --quotas`.

There is no route for it, because nobody is an administrator to a route yet, and no port, because others would reach it.
The table is read from the memory of the running service, which the kernel gives to root and the service's user only.
"""

import os
import time
from ipaddress import IPv4Address, IPv6Network
from pathlib import Path

from api.quota_store import entries, find
from api.quotas import SECOND, Subject

LINES = 20
"""Number of addresses in a summary."""


class NoQuotas(Exception):
    """There is no table to read; the text says what to do."""


def summary(bind: str, prefix_factor: int) -> list[tuple[str, int]]:
    """Return up to `LINES` pairs of address and seconds left today, lowest first, of the service that runs on `bind`.

    An IPv6 address stands for its /64.

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
        balances = [
            (max(0, balance.left[0]) // SECOND, address_text(subject))
            for subject, balance in entries(descriptor, prefix_factor, time.monotonic_ns())
            if subject.kind == "address"
        ]
    finally:
        os.close(descriptor)
    return [(text, left) for left, text in sorted(balances)[:LINES]]


def address_text(subject: Subject) -> str:
    """Return an IPv4 address, or the /64 of an IPv6 address, as text."""
    if subject.version == 6:
        return str(IPv6Network((subject.packed, 64)))
    return str(IPv4Address(subject.packed))
