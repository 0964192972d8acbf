"""What a rerun reads: the objects of a day in the object store, by the layout of their time (the wire contract, 10.2).

| days | below | objects |
|---|---|---|
| up to 2020-10-21 | `canned/YYYY-MM-DD/` | cans of whole days: `.json.lz4`, `.yaml.lz4`, `.tar.lz4` |
| from 2020-10-20 | `raw/YYYYMMDD/HH/CC/testname/` | postcans (`.tar.gz`), jsonl objects (`.jsonl.gz`) of the same |

A postcan holds the uids and the bodies as they were sent, so one is enough; the lines of a jsonl object get their uids
from the table `jsonl`, or from the entries of the postcan beside it.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from datetime import date, timedelta
from enum import StrEnum
from typing import Literal

import msgspec

from core.objectstore import ObjectInfo, ObjectStore

LAST_CANNED_DAY = date(2020, 10, 21)
FIRST_RAW_DAY = date(2020, 10, 20)

Preference = Literal["auto", "postcan", "jsonl"]
PREFERENCES: tuple[Preference, ...] = ("auto", "postcan", "jsonl")
"""Which of two objects with the same content is read; `auto` is the postcan where there is one."""


class Kind(StrEnum):
    """What an object is, by the end of its name."""

    POSTCAN = "postcan"
    JSONL = "jsonl"
    JSON_CAN = "json_can"
    YAML_CAN = "yaml_can"
    TAR_CAN = "tar_can"
    UNKNOWN = "unknown"


class WorkObject(msgspec.Struct, frozen=True):
    """One object to read; `size` in bytes."""

    key: str
    size: int
    day: date
    kind: Kind

    @property
    def postcan(self) -> str:
        """The key of the postcan that belongs to a jsonl object."""
        return self.key.removesuffix(".jsonl.gz") + ".tar.gz"


class Filters(msgspec.Struct, frozen=True):
    """Which measurements are wanted: country codes in upper case, test names without underscores; empty for all."""

    ccs: frozenset[str] = frozenset()
    testnames: frozenset[str] = frozenset()

    def want(self, cc: str | None, test_name: str | None) -> bool:
        """Whether measurements of this country and test may be wanted; None is not known (yet)."""
        return (not self.ccs or cc is None or cc.upper() in self.ccs) and (
            not self.testnames or test_name is None or short_name(test_name) in self.testnames
        )

    def __bool__(self) -> bool:
        return bool(self.ccs or self.testnames)


def short_name(test_name: str) -> str:
    """Return a test name without underscores and in lower case, as paths have it."""
    return test_name.replace("_", "").lower()


def days(start: date, end: date) -> Iterator[date]:
    """Yield the days from `start` up to, not including, `end`."""
    for number in range((end - start).days):
        yield start + timedelta(days=number)


def list_day(store: ObjectStore, day: date, filters: Filters, preference: Preference) -> list[WorkObject]:
    """Return the objects of a day in a fixed order, without those that the filters rule out by name.

    Raises StoreError.
    """
    found: list[WorkObject] = []
    if day <= LAST_CANNED_DAY:
        found.extend(_cans(store.list(f"canned/{day:%Y-%m-%d}"), day, filters))
    if day >= FIRST_RAW_DAY:
        found.extend(_raw(store.list(f"raw/{day:%Y%m%d}"), day, filters, preference))
    return found


_RAW = re.compile(r"raw/[0-9]{8}/[0-9]{2}/([^/]+)/([^/]+)/[^/]+?(\.tar\.gz|\.jsonl\.gz)")
_REPORT_CAN = re.compile(r"[0-9TZ]+-([A-Z]{2})-AS[0-9]+-([a-z0-9_]+)-.*")


def _raw(objects: Iterable[ObjectInfo], day: date, filters: Filters, preference: Preference) -> Iterator[WorkObject]:
    pairs: dict[str, dict[str, ObjectInfo]] = {}
    for info in objects:
        match = _RAW.fullmatch(info.key)
        if match is not None and info.size and filters.want(match[1], match[2]):
            pairs.setdefault(info.key.removesuffix(match[3]), {})[match[3]] = info
    for pair in pairs.values():
        postcan, jsonl = pair.get(".tar.gz"), pair.get(".jsonl.gz")
        if postcan is not None and (jsonl is None or preference != "jsonl"):
            yield WorkObject(postcan.key, postcan.size, day, Kind.POSTCAN)
        elif jsonl is not None:
            yield WorkObject(jsonl.key, jsonl.size, day, Kind.JSONL)


def _cans(objects: Iterable[ObjectInfo], day: date, filters: Filters) -> Iterator[WorkObject]:
    for info in objects:
        name = info.key.rpartition("/")[2]
        if name == "index.json.gz" or not filters.want(*_facts_of_can(name)):
            continue
        yield WorkObject(info.key, info.size, day, _kind_of_can(name))


def _kind_of_can(name: str) -> Kind:
    kinds = {
        ".tar.lz4": Kind.TAR_CAN,
        ".json.lz4": Kind.JSON_CAN,
        ".yaml.lz4": Kind.YAML_CAN,
        ".tar.gz": Kind.POSTCAN,
    }
    return next((kind for suffix, kind in kinds.items() if name.endswith(suffix)), Kind.UNKNOWN)


def _facts_of_can(name: str) -> tuple[str | None, str | None]:
    """Return country and test that the name of a can tells, as far as it does; YAML names its tests differently."""
    if match := _REPORT_CAN.fullmatch(name):
        return match[1], None if name.endswith(".yaml.lz4") else match[2]
    return None, None  # a bundle may hold YAML as well, and that has other names for its tests


Lister = Callable[[date], list[WorkObject]]
"""Lists the objects of one day."""
