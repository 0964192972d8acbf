"""The one statement that answers a question of `/api/v1/aggregation`: from counters, or rows where only they know.

A question needs some dimensions for its axes and filters. Each piece of its window (see `aggregation_window`) is read
from the coarsest counters that have them. As it is one statement it sees one state of the database, in which counters
and rows agree. Rows alone know hours, run links, and blocking types of networks, domains or inputs.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Literal

from api import aggregation_category as categories
from api.aggregation_question import CATEGORY, TIME, Grain, Question
from api.aggregation_window import Piece, pieces
from api.conditions import TEST_NAME, Condition, added, equal, equal_test_name, equal_text
from core.counters import COUNTS, TABLES, CounterTable

MANY_DAYS = 400
"""Rows of longer windows lie in many partitions, each of which the database locks together with its indexes."""

_BLOCKING = "blocking_type"
_BLOCKING_TABLE = next(table for table in TABLES if not table.counts_all_rows)

_BUCKETS: Mapping[Grain, str] = {
    "hour": "date_trunc('hour', {time})",
    "day": "({time})::date",
    "week": "({time})::date - extract(dow FROM {time})::integer",
    "month": "date_trunc('month', ({time})::timestamp)::date",
    "year": "date_trunc('year', ({time})::timestamp)::date",
}
"""SQL of the bucket of a time; weeks start on Sunday."""

_FLAGS: Mapping[str, str] = {
    "ok_count": "NOT (anomaly OR confirmed OR msm_failure)",
    "anomaly_count": "anomaly AND NOT confirmed AND NOT msm_failure",
    "confirmed_count": "confirmed AND NOT msm_failure",
    "failure_count": "msm_failure",
    "measurement_count": "true",
}
"""What each count counts, of a row of table fastpath."""

TEST_INDEXED = ("counters_country", "counters_month_country", "counters_month_network", "counters_month_url")
"""Tables with an index, and hence with statistics, for names of tests."""

_NO_TEXT = (TIME, "probe_asn")

Form = Literal["JSON", "CSV"]
"""Forms of a result."""


@dataclass(frozen=True, slots=True)
class Statement:
    """SQL with named placeholders, and their values.

    Attributes:
        sql: gives a row per combination, sorted by the axes, with `columns` and `rows_read`, the number of counters
            and rows that went into it.
        columns: the axes and the counts in alphabetical order.
        many_partitions: whether it visits rows of many months.
    """

    sql: str
    values: dict[str, Any]
    columns: tuple[str, ...]
    many_partitions: bool

    def as_lines(self, form: Form, *, most_bytes: int) -> str:
        """Return SQL that gives the same in one row: `lines` in this form, and `combinations` and `rows_read`.

        JSON objects have commas in between, lines of CSV have line ends. `lines` is null when they are longer than
        `most_bytes`; what they have beyond ASCII counts as it is in JSON, escaped.

        The database writes them several times faster than Python, all of whose threads would wait. It keeps no more
        of them than may be sent: their length is added up on the way.
        """
        if form == "JSON":
            members = ", ".join(f"combination.{name}" for name in self.columns)
            line, between = "row_to_json(members)::text", "','"
        else:
            members = ", ".join(f"{_field(name)} AS {name}" for name in self.columns)
            line, between = f"concat_ws(',', {', '.join(f'members.{name}' for name in self.columns)})", r"E'\r\n'"
        # The inner OFFSET keeps each line from being written twice.
        return f"""SELECT CASE WHEN coalesce(max(size), 0) <= {int(most_bytes)}
                THEN coalesce(string_agg(line, {between}) FILTER (WHERE size <= {int(most_bytes)}), '') END AS lines,
            count(*) AS combinations, coalesce(sum(rows_read), 0)::bigint AS rows_read
            FROM (SELECT line, rows_read, sum(octet_length(line) + 4 * (octet_length(line) - length(line)) + 2)
                    OVER (ROWS UNBOUNDED PRECEDING) AS size
                FROM (SELECT {line} AS line, rows_read
                    FROM ({self.sql}) AS combination CROSS JOIN LATERAL (SELECT {members}) AS members OFFSET 0) AS each
            ) AS sized"""  # noqa: S608 constants


def statement(question: Question, *, most: int) -> Statement:
    """Return the statement for a question whose window is not void; it gives at most `most` combinations."""
    return _Builder(question).statement(most)


@dataclass(slots=True)
class _Builder:
    """Puts one statement together; `values` collects what its placeholders stand for."""

    question: Question
    values: dict[str, Any] = field(default_factory=dict)

    def statement(self, most: int) -> Statement:
        axes = self.question.axes
        columns = tuple(sorted((*axes, *COUNTS)))
        members = ", ".join(self._member(name) for name in columns)
        sql = f"SELECT {members}, count(*) AS rows_read FROM ({self._source()}) AS counted"  # noqa: S608 constants
        if axes:
            # While hosts of two releases write counters, some may be below zero for a while. What is not there is not
            # shown then; single counts stay as they are, so that they always add up to measurement_count.
            order = ", ".join(axis if axis in _NO_TEXT else f'counted.{axis} COLLATE "C"' for axis in axes)
            keys = ", ".join(f"counted.{axis}" for axis in axes)
            sql += f" GROUP BY {keys} HAVING {added('measurement_count')} > 0 ORDER BY {order} LIMIT {int(most)}"
        return Statement(sql, self.values, columns, many_partitions=self._by_rows and not self._is_short)

    def _member(self, name: str) -> str:
        if name in COUNTS:
            return f"coalesce({added(name)}, 0)::bigint AS {name}"
        if name == TIME and self.question.grain == "hour":
            return f"""to_char(counted.{name}, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') AS {name}"""
        return f"counted.{name}"

    @property
    def _needed(self) -> set[str]:
        """The dimensions that axes and filters need, apart from time."""
        question = self.question
        given = {
            "probe_cc": question.countries,
            "probe_asn": question.networks,
            "test_name": question.test_names,
            "domain": question.domains,
            "input": question.input is not None or question.category is not None or CATEGORY in question.axes,
        }
        return {name for name, used in given.items() if used} | set(question.axes) - {TIME, CATEGORY}

    @property
    def _by_rows(self) -> bool:
        """Whether only rows know the answer."""
        question = self.question
        if question.run_links or (TIME in question.axes and question.grain == "hour"):
            return True
        return _BLOCKING in self._needed and not self._needed <= set(_BLOCKING_TABLE.keys)

    @property
    def _is_short(self) -> bool:
        since, until = self.question.since, self.question.until
        return since is not None and until is not None and until - since <= timedelta(days=MANY_DAYS)

    def _source(self) -> str:
        """Return SQL of what is counted, with the axes and the counts."""
        axes = self.question.axes
        if self.question.category is not None:
            columns = [*(axis for axis in axes if axis not in {CATEGORY, "input"}), "input"]
            sql, values = categories.filtered(self._pieces(columns), self.question)
            self.values |= values
            return f"SELECT *, %(category)s::text AS {CATEGORY} FROM ({sql}) AS of_category"  # noqa: S608 constants
        if CATEGORY not in axes:
            return self._pieces(axes)
        others = [axis for axis in axes if axis != CATEGORY]
        with_country = sorted({*others, "input", "probe_cc"})
        if self._needed & {"probe_cc", "probe_asn"} or self._by_rows:
            return categories.of_each(self._pieces(with_country), others)
        whole = categories.of_all(self._pieces(sorted({*others, "input"})), others)
        moved = categories.of_exceptions(self._pieces(with_country, categories.OF_MOVED), others)
        return f"WITH {categories.MOVED} {whole} UNION ALL {moved}"

    def _pieces(self, columns: Sequence[str], *only: Condition) -> str:
        """Return SQL of what is counted in the window and by the filters, with these columns and the counts.

        `only` are further conditions.
        """
        wanted = tuple(columns)
        needed = self._needed | set(wanted) - {TIME}
        question = self.question
        if self._by_rows:
            return self._select_rows(Piece("rows", question.since, question.until), wanted, *only)
        coarse = TIME not in question.axes or question.grain in {"month", "year"}
        months = coarse and _coarsest("month", needed - {_BLOCKING}) is not None
        selects: list[str] = []
        for piece in pieces(question.since, question.until, months=months):
            if piece.source == "rows":
                selects.append(self._select_rows(piece, wanted, *only))
                continue
            table = _coarsest(piece.source, needed - {_BLOCKING})
            assert table is not None
            if _BLOCKING in needed:
                selects.append(self._select_counters(_BLOCKING_TABLE, piece, wanted, blocking=_BLOCKING))
                selects.append(self._select_counters(_BLOCKING_TABLE, piece, wanted, sign="-"))
            selects.append(self._select_counters(table, piece, wanted, *only))
        return " UNION ALL ".join(selects)

    def _select_counters(
        self,
        table: CounterTable,
        piece: Piece,
        columns: Sequence[str],
        *only: Condition,
        blocking: str = "''::text",
        sign: str = "",
    ) -> str:
        time = table.time_column
        members = {TIME: _BUCKETS[self.question.grain].format(time=time), _BLOCKING: blocking}
        gives = [f"{members.get(name, name)} AS {name}" for name in columns]
        counts = [f"{sign}{count} AS {count}" for count in COUNTS]
        conditions = [*self._window(time, piece), *self._conditions(), self._tests_of_counters(table), *only]
        return self._select([*gives, *counts], table.name, conditions)

    def _select_rows(self, piece: Piece, columns: Sequence[str], *only: Condition) -> str:
        time = "measurement_start_time"
        members = {
            TIME: _BUCKETS[self.question.grain].format(time=time),
            _BLOCKING: "coalesce(blocking_type, '')",
            "test_name": TEST_NAME,
        }
        gives = [f"{members.get(name, name)} AS {name}" for name in columns]
        counts = [f"CASE WHEN {_FLAGS[count]} THEN {piece.sign} ELSE 0 END AS {count}" for count in COUNTS]
        conditions = [
            *(*self._window(time, piece), *self._conditions()),
            *(self._tests_of_rows(), self._run_links(), *only),
        ]
        return self._select([*gives, *counts], "fastpath", conditions)

    def _select(self, members: list[str], table: str, conditions: Sequence[Condition | None]) -> str:
        given = [condition for condition in conditions if condition is not None]
        for condition in given:
            self.values |= condition.values
        where = f" WHERE {' AND '.join(condition.sql for condition in given)}" if given else ""
        return f"SELECT {', '.join(members)} FROM {table}{where}"  # noqa: S608 constants

    def _window(self, time: str, piece: Piece) -> list[Condition]:
        conditions = []
        for operator, bound in ((">=", piece.start), ("<", piece.end)):
            if bound is not None:
                name = f"bound_{len(self.values)}"
                self.values[name] = bound
                conditions.append(Condition(f"{time} {operator} %({name})s", {}))
        return conditions

    def _conditions(self) -> Iterator[Condition]:
        """Yield the filters that are the same for counters and rows."""
        question = self.question
        if question.countries:
            yield equal_text("probe_cc", "probe_cc", question.countries)
        if question.networks:
            yield equal("probe_asn", "probe_asn", question.networks, cast="::bigint")
        if question.domains:
            yield equal_text("domain", "domain", question.domains)
        if question.input is not None:
            yield equal_text("input", "input", [question.input])

    def _tests_of_counters(self, table: CounterTable) -> Condition | None:
        names = self.question.test_names
        if not names:
            return None
        return (
            equal_text("test_name", "tests", names) if table.name in TEST_INDEXED else equal("test_name", "test", names)
        )

    def _tests_of_rows(self) -> Condition | None:
        names = self.question.test_names
        return equal_test_name("test_of_row", names) if names else None

    def _run_links(self) -> Condition | None:
        links = self.question.run_links
        return equal("ooni_run_link_id", "run_link", links, cast="::numeric") if links else None


def _field(name: str) -> str:
    """Return SQL of a member of a combination as a field of CSV."""
    text = f"combination.{name}"
    if name in COUNTS or name in _NO_TEXT:
        return text
    return f"""CASE WHEN {text} ~ '[",\\r\\n]' THEN '"' || replace({text}, '"', '""') || '"' ELSE {text} END"""


def _coarsest(period: str, needed: set[str]) -> CounterTable | None:
    """Return the coarsest table with these dimensions; tables are written, and listed, from fine to coarse."""
    usable = (table for table in reversed(TABLES) if table.period == period and table.counts_all_rows)
    return next((table for table in usable if needed <= set(table.keys)), None)
