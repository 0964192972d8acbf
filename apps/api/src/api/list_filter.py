"""What readers of the list may ask for, as conditions in SQL: on the rows, and on the counters that say where they are.

Text columns are indexed by their first 200 characters, so conditions are on `left(column, 200)`, and for texts that are
longer also on the whole column.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from api.conditions import INDEXED_CHARACTERS

START = "measurement_start_time"


class Conditions:
    """Conditions that all have to hold, and the values of their placeholders, in their order."""

    def __init__(self) -> None:
        """Begin without any."""
        self.texts: list[str] = []
        self.values: list[Any] = []

    def add(self, text: str, *values: Any) -> None:
        """Add one condition; its text consists of constants."""
        self.texts.append(text)
        self.values.extend(values)

    def equal(self, column: str, options: Sequence[Any]) -> None:
        """Add that a column that is not text has one of these values."""
        # A single value is compared with =, so that an index on it also gives the order.
        if len(options) == 1:
            self.add(f"{column} = %s", options[0])
        else:
            self.add(f"{column} = ANY(%s)", list(options))

    def equal_text(self, column: str, options: Sequence[str]) -> None:
        """Add that a text column has one of these values."""
        self.equal(f"left({column}, {INDEXED_CHARACTERS})", [text[:INDEXED_CHARACTERS] for text in options])
        # What is shorter than the indexed part equals it.
        if any(len(text) >= INDEXED_CHARACTERS for text in options):
            self.equal(column, options)

    def __str__(self) -> str:
        return " AND ".join(self.texts) or "true"


@dataclass(frozen=True, slots=True)
class ListFilter:
    """What to list: empty lists and None stand for no condition. `since` is exclusive, `until` inclusive, both UTC.

    `category` is for categories with many URLs; those of a small one are given as `inputs`.
    """

    report_id: str | None = None
    since: datetime = datetime.min  # noqa: DTZ901 the column has no zone
    until: datetime = datetime.max  # noqa: DTZ901 likewise
    inputs: tuple[str, ...] = ()
    category: str | None = None
    domains: tuple[str, ...] = ()
    countries: tuple[str, ...] = ()
    networks: tuple[int, ...] = ()
    test_names: tuple[str, ...] = ()
    confirmed: bool | None = None
    anomaly: bool | None = None
    failure: bool | None = None
    software_versions: tuple[str, ...] = ()
    test_versions: tuple[str, ...] = ()
    engine_versions: tuple[str, ...] = ()
    run_link_id: int | None = None

    def on_rows(self) -> Conditions:
        """Return the conditions on rows of fastpath, except for time, report, category and test."""
        found = Conditions()
        # Rows without a place are not for readers.
        found.add("probe_asn <> 0 AND probe_cc <> 'ZZ'")
        for column, texts in (("input", self.inputs), ("domain", self.domains), ("probe_cc", self.countries)):
            if texts:
                found.equal_text(column, texts)
        if self.networks:
            found.equal("probe_asn", self.networks)
        for column, flag in (("confirmed", self.confirmed), ("anomaly", self.anomaly), ("msm_failure", self.failure)):
            if flag is not None:
                # Without a placeholder, so that partial indexes come into question.
                found.add(column if flag else f"NOT {column}")
        for column, versions in (
            ("software_version", self.software_versions),
            ("test_version", self.test_versions),
            ("engine_version", self.engine_versions),
        ):
            if versions:
                found.equal_text(column, versions)
        if self.run_link_id is not None:
            found.add("ooni_run_link_id = %s::numeric", self.run_link_id)
        return found

    def on_counters(self, columns: Sequence[str]) -> Conditions:
        """Return the conditions on a counter table that counts by these columns; some filters may be left out."""
        found = Conditions()
        for column, texts in (
            ("input", self.inputs),
            ("domain", self.domains),
            ("probe_cc", self.countries),
            ("test_name", self.test_names),
        ):
            if texts and column in columns:
                found.equal_text(column, texts)
        if self.networks and "probe_asn" in columns:
            found.equal("probe_asn", self.networks)
        if self.category is not None and "input" in columns:
            found.add("left(input, 200) <> ''")
        if "probe_cc" in columns and not self.countries:
            found.add("left(probe_cc, 200) <> 'ZZ'")
        if "probe_asn" in columns and not self.networks:
            found.add("probe_asn <> 0")
        return found

    def counted(self, *, likely: bool = False) -> str:
        """Return SQL for how many of the rows behind a row of counters may match the three flags.

        At most, or with `likely` about. The counts exclude each other: a failed measurement may be anything else as
        well, though it seldom is, and a confirmed one may be an anomaly.
        """
        counts = []
        if not (self.anomaly or self.confirmed or self.failure):
            counts.append("ok_count")
        if self.anomaly is not False and not self.confirmed and not self.failure:
            counts.append("anomaly_count")
        if self.confirmed is not False and not self.failure:
            counts.append("confirmed_count")
        if self.failure is not False and not (likely and (self.anomaly or self.confirmed)):
            counts.append("failure_count")
        return " + ".join(counts) or "0"

    def counted_columns(self) -> set[str]:
        """Return the columns of counters that there is a filter on."""
        filters = {
            "input": self.inputs,
            "domain": self.domains,
            "probe_cc": self.countries,
            "probe_asn": self.networks,
            "test_name": self.test_names,
        }
        return {column for column, options in filters.items() if options}

    def is_selective(self) -> bool:
        """Return whether there is any filter but the time."""
        flags = (self.anomaly, self.confirmed, self.failure)
        return bool(self.counted_columns()) or self.is_loosely_counted() or any(flag is not None for flag in flags)

    def has_versions(self) -> bool:
        """Return whether there is a filter that has an index, but is in no counter table."""
        versions = (self.software_versions, self.test_versions, self.engine_versions)
        return any(versions) or self.run_link_id is not None

    def is_loosely_counted(self) -> bool:
        """Return whether there may be far fewer rows than the counters say, because they do not know some filter."""
        uncounted = self.has_versions() or self.category is not None
        # A failed row may be an anomaly or confirmed or not, and a confirmed one may be an anomaly.
        flags = bool(self.confirmed or self.anomaly) and self.failure is not False
        of_confirmed = self.anomaly is not None and self.confirmed is not False
        both = bool(self.networks) and bool(self.inputs or self.domains)
        return uncounted or flags or of_confirmed or both
