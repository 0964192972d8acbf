"""The counters: which tables there are, what each counts by, and the order in which everybody writes them.

A counter table holds one row per day (or month) of measurement start and combination of its `keys`, with five counts.
The four first exclude each other and add up to the last: ok is none of the flags, anomaly is A and not C and not F,
confirmed is C and not F, failure is F (A, C, F: columns anomaly, confirmed, msm_failure of table fastpath).

They are kept in the transaction that writes the rows, so they equal the rows at every moment. Who changes rows changes
every table below, in their order here, and inside a table in the order of `CounterTable.order`: then two writers never
wait for each other in a circle. The statements that do so are in `core.counters_sql`.
"""

from dataclasses import dataclass
from typing import Literal, LiteralString

COUNTS: tuple[LiteralString, ...] = (
    "ok_count",
    "anomaly_count",
    "confirmed_count",
    "failure_count",
    "measurement_count",
)
"""The columns with counts, in every counter table."""

Period = Literal["day", "month"]


@dataclass(frozen=True, slots=True)
class CounterTable:
    """One counter table: `keys` are its columns besides the time and the counts, named as those of table fastpath."""

    name: LiteralString
    period: Period
    keys: tuple[LiteralString, ...]

    @property
    def time_column(self) -> LiteralString:
        """The column with the day, or with the first day of the month."""
        return "measurement_start_day" if self.period == "day" else "measurement_start_month"

    @property
    def start(self) -> LiteralString:
        """SQL of the value of `time_column` for a row of fastpath."""
        if self.period == "day":
            return "measurement_start_time::date"
        return "date_trunc('month', measurement_start_time)::date"

    @property
    def columns(self) -> tuple[LiteralString, ...]:
        """What a row of it is about: the time and the keys."""
        return (self.time_column, *self.keys)

    @property
    def order(self) -> tuple[LiteralString, ...]:
        """SQL of what its rows are locked by: one order for all writers, of every release, whatever the collation."""
        numbers = [key for key in self.keys if key == "probe_asn"]
        texts: list[LiteralString] = [f'{key} COLLATE "C"' for key in self.keys if key != "probe_asn"]
        return (self.time_column, *numbers, *texts)

    @property
    def counts_all_rows(self) -> bool:
        """Whether it counts every row of fastpath; else only those that have a blocking type."""
        return "blocking_type" not in self.keys

    @property
    def source(self) -> "CounterTable | None":
        """The coarsest of the tables of days before it that it is a sum of; None when only rows will do."""
        usable = [
            table
            for table in TABLES[: TABLES.index(self)]
            if table.period == "day" and table.counts_all_rows and set(self.keys) <= set(table.keys)
        ]
        return usable[-1] if usable else None


TABLES: tuple[CounterTable, ...] = (
    CounterTable("counters_input", "day", ("test_name", "probe_cc", "probe_asn", "domain", "input")),
    CounterTable("counters_domain", "day", ("test_name", "probe_cc", "domain")),
    CounterTable("counters_month_input", "month", ("test_name", "probe_cc", "domain", "input")),
    CounterTable("counters_url", "day", ("test_name", "domain", "input")),
    CounterTable("counters_month_url", "month", ("test_name", "domain", "input")),
    CounterTable("counters_network", "day", ("test_name", "probe_cc", "probe_asn")),
    CounterTable("counters_month_network", "month", ("test_name", "probe_cc", "probe_asn")),
    # Only rows that have a blocking type; those without are the rest of counters_country.
    CounterTable("counters_blocking", "day", ("test_name", "probe_cc", "blocking_type")),
    CounterTable("counters_country", "day", ("test_name", "probe_cc")),
    CounterTable("counters_month_country", "month", ("test_name", "probe_cc")),
)
"""All counter tables, in the order in which they are written: coarse rows, which everybody wants, are locked last.

A release before the coarser tables writes its three in the same order.
"""
