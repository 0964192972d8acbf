"""Requests from made-up addresses, and a look into the table of quotas of a running API."""

import os
import struct
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import httpx

from api.quota_store import entries
from api.quotas import SECOND, Balance, Factors, Subject, subjects_of

METERED = "/api/v1/measurement/unknown"
"""Answered 400 without any query."""

_KINDS = {"address": 1, "prefix": 2, "account": 3}


def table_of(pid: int) -> int:
    """The table of a running service, for reading and writing."""
    for link in Path(f"/proc/{pid}/fd").iterdir():
        if str(link.readlink()).startswith("/memfd:ooni-api-quotas"):
            return os.open(link, os.O_RDWR)
    raise AssertionError("the master has no table")


def balances(server: Any) -> dict[Subject, Balance]:
    descriptor = table_of(server.process.pid)
    try:
        return dict(entries(descriptor, Factors(10, 5), time.monotonic_ns()))
    finally:
        os.close(descriptor)


def leave(server: Any, subject: Subject, seconds: int) -> None:
    """Leave `seconds` in the bucket of the day of somebody the service knows already."""
    descriptor = table_of(server.process.pid)
    at = _content(descriptor).index(_key(subject))
    os.pwrite(descriptor, struct.pack("<q", seconds * SECOND), at + 24)
    os.close(descriptor)


def was_charged(server: Any, subject: Subject) -> bool:
    """Whether somebody was ever charged, even if all of it is refilled by now."""
    descriptor = table_of(server.process.pid)
    try:
        return _key(subject) in _content(descriptor)
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    return os.pread(descriptor, os.fstat(descriptor).st_size, 0)


def _key(subject: Subject) -> bytes:
    return struct.pack("<16sBB", subject.packed.ljust(16, b"\0"), _KINDS[subject.kind], subject.version)


def spent_ns(server: Any, address: str) -> int:
    balance = balances(server).get(subjects_of(ip_address(address))[0])
    return 0 if balance is None else 20_000 * SECOND - balance.left[1]


def ask(server: Any, address: str, path: str = METERED, token: str = "", **options: Any) -> httpx.Response:
    headers = {"X-Real-IP": address, **({"Authorization": f"Bearer {token}"} if token else {})}
    response: httpx.Response = httpx.request(
        options.pop("method", "GET"), server.url + path, headers=headers, timeout=30, **options
    )
    return response
