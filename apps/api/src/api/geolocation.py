"""Country and network of an address, from databases in MaxMind's format that may be replaced at any time.

An answer is either what the database says or that it is unknown: a file that is missing, broken, of the wrong kind or
still being written gives no answers, the last good one goes on, and the metrics say so. Addresses are neither stored
nor logged, and are no label of a metric. Why so: docs/adr/0010-places-from-a-copy-in-memory.md.
"""

import io
import os
import re
from collections.abc import Callable, Iterable
from functools import lru_cache
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, NamedTuple

import maxminddb
import structlog
from maxminddb.reader import Reader

from api.metrics import GEO_DATABASE_BUILT, GEO_DATABASE_OK, GEO_LOOKUPS
from api.proxies import Address
from api.watched_file import WatchedFile

UNKNOWN_CC = "ZZ"
UNKNOWN_ASN = 0

SETTLE_S = 2.0
"""Seconds for which a file must have rested before it is used: one being written in place may look whole."""

_SAMPLE = 500  # networks of a new file, of each kind, that are looked at before it is used
_KEPT_RECORDS = 4096
_LARGEST_BYTES = 1024**3
_LARGEST_ASN = 2**32 - 1
_MAX_NAME = 500
_SEPARATOR = bytes(16)  # the format has it between the tree and the data
_CC = re.compile(r"[A-Z]{2}", re.ASCII)
_FAILED = object()
_AS = re.compile(r"(?:AS)?([0-9]{1,10})", re.ASCII)

log = structlog.get_logger(__name__)


class Place(NamedTuple):
    """Where an address is, as far as it is known; each part may be unknown by itself."""

    probe_cc: str = UNKNOWN_CC
    """Country code of two upper-case letters."""
    probe_asn: int = UNKNOWN_ASN
    """Number of the network (autonomous system)."""
    network_name: str | None = None
    """Name of the holder of the network."""


NOWHERE = Place()
"""The place of which nothing is known."""


class _Database(Reader):
    """One database: a copy in memory of its own, which no change of the file can touch.

    This is the library's reader in Python. Its fast one, in C, maps the file and ends the process on some damage.
    """

    def __init__(self, data: bytes) -> None:
        """Take the content of a file; see `open_copy`."""
        super().__init__(io.BytesIO(data), maxminddb.MODE_FD)
        # Most of the time goes into decoding a record; a country has one record for all of its networks.
        self._resolve_data_pointer = lru_cache(_KEPT_RECORDS)(super()._resolve_data_pointer)  # type: ignore[method-assign]

    def sample(self) -> list[Any]:
        """Return the records of the first networks, IPv4 and IPv6."""
        records = []
        starts: list[Address] = [IPv4Address(0)]
        if self.metadata().ip_version == 6:
            starts.append(IPv6Address("2000::"))
        for start in starts:
            bits, number = start.max_prefixlen, int(start)
            for _ in range(_SAMPLE):
                record, prefix = self.get_with_prefix_len(type(start)(number))
                records.append(record)
                number += 1 << (bits - prefix)
                if number >> bits:
                    break
        return records


class _Source:
    """One file and what is looked up in it: `country`, `asn` or both."""

    def __init__(self, path: str, kinds: tuple[str, ...]) -> None:
        self.kinds = kinds
        self._damaged: _Database | None = None
        self._file = WatchedFile(Path(path), self._open, settle_s=SETTLE_S, on_change=self._measure)
        self._measure(self._file)

    def refresh(self) -> None:
        self._file.refresh()

    def record(self, address: Address) -> Any:
        """Return what the database holds for an address, None when there is nothing, `_FAILED` when it gives none."""
        database = self._file.current()
        if database is None:
            return _FAILED
        if isinstance(address, IPv6Address) and database.metadata().ip_version == 4:
            return None
        try:
            return database.get(address)
        except Exception as error:  # noqa: BLE001 whatever a damaged file makes the reader raise, the request goes on
            if database is not self._damaged:
                self._damaged = database
                log.error("geolocation database is damaged", path=str(self._file.path), error=type(error).__name__)
                self._measure(self._file)
            return _FAILED

    def _open(self, path: Path) -> _Database:
        database = open_copy(_read(path))
        sample = database.sample()
        for kind in self.kinds:
            if not any(_KNOWN[kind](record) for record in sample):
                raise ValueError(f"none of its first networks has a {kind}. Is it the right kind of database?")
        return database

    def _measure(self, file: WatchedFile[_Database]) -> None:
        database = file.peek()
        good = database is not None and database is not self._damaged and file.problem is None
        for kind in self.kinds:
            GEO_DATABASE_OK.labels(kind).set(1 if good else 0)
            if database is not None:
                GEO_DATABASE_BUILT.labels(kind).set(database.metadata().build_epoch)


class Geolocation:
    """Looks addresses up; used by all threads of a process."""

    def __init__(self, country_path: str, asn_path: str) -> None:
        """Take the paths of both databases; they may be the same, and empty for none."""
        self._country = self._asn = None
        if country_path and country_path == asn_path:
            self._country = self._asn = _Source(country_path, ("country", "asn"))
        else:
            if country_path:
                self._country = _Source(country_path, ("country",))
            if asn_path:
                self._asn = _Source(asn_path, ("asn",))

    def locate(self, address: Address | None) -> Place:
        """Return where an address is. Never raises; what is not known is `ZZ`, 0 and None."""
        if address is None:
            return NOWHERE
        if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
            address = address.ipv4_mapped
        record = self._country.record(address) if self._country else None
        cc = country_in(record)
        if self._country:
            _count("country", record, found=cc != UNKNOWN_CC)
        if self._asn is not self._country:
            record = self._asn.record(address) if self._asn else None
        asn = asn_in(record)
        if self._asn:
            _count("asn", record, found=asn != UNKNOWN_ASN)
        return Place(cc, asn, name_in(record) if asn else None)

    def refresh(self) -> None:
        """Look whether the files changed, at most once a second, so that the metrics are right without look-ups too."""
        for source in (self._country, self._asn):
            if source is not None:
                source.refresh()


def open_copy(data: bytes) -> _Database:
    """Open the content of a file in MaxMind's format, which stays in memory.

    Raises:
        ValueError: it is not a whole database, or one whose parts do not belong together.
    """
    try:
        database = _Database(data)
    except (maxminddb.InvalidDatabaseError, TypeError) as error:
        raise ValueError("it is not a whole MaxMind database. Fetch it again.") from error
    tree_end = database.metadata().search_tree_size
    if data[tree_end : tree_end + len(_SEPARATOR)] != _SEPARATOR:
        raise ValueError("its parts do not belong together. Fetch it again.")
    return database


def country_in(record: Any) -> str:
    """Return the country of a record, `ZZ` when it has none.

    Only where the address is used counts, not where its network is registered.
    """
    value = _value(record, ("country", "iso_code"), ("country_code",), ("country",))
    text = value.upper() if isinstance(value, str) else ""
    return text if _CC.fullmatch(text) else UNKNOWN_CC


def asn_in(record: Any) -> int:
    """Return the number of the network of a record, 0 when it has none."""
    value = _value(record, ("autonomous_system_number",), ("traits", "autonomous_system_number"), ("asn",))
    if isinstance(value, str) and (match := _AS.fullmatch(value)):
        value = int(match[1])
    if isinstance(value, bool) or not isinstance(value, int):
        return UNKNOWN_ASN
    return value if 0 < value <= _LARGEST_ASN else UNKNOWN_ASN


def name_in(record: Any) -> str | None:
    """Return the name of the network's holder, None when the record has none."""
    value = _value(
        record, ("autonomous_system_organization",), ("traits", "autonomous_system_organization"), ("as_name",)
    )
    return value[:_MAX_NAME] if isinstance(value, str) and value else None


_KNOWN: dict[str, Callable[[Any], bool]] = {
    "country": lambda record: country_in(record) != UNKNOWN_CC,
    "asn": lambda record: asn_in(record) != UNKNOWN_ASN,
}


def _value(record: Any, *paths: Iterable[str]) -> Any:
    """Return the first text or number that one of the paths leads to; providers name things differently."""
    for path in paths:
        value = record
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if isinstance(value, str | int):
            return value
    return None


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        before = os.fstat(file.fileno())
        if before.st_size > _LARGEST_BYTES:
            raise ValueError(f"it is larger than {_LARGEST_BYTES} bytes.")
        data = file.read()
        after = os.fstat(file.fileno())
    if len(data) != after.st_size or before.st_mtime_ns != after.st_mtime_ns:
        raise ValueError("it is being written.")
    return data


def _count(kind: str, record: Any, *, found: bool) -> None:
    GEO_LOOKUPS.labels(kind, "failed" if record is _FAILED else "found" if found else "not_found").inc()
