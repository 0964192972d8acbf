"""All SQL of the API. Values are always parameters; names of columns come from the constants below.

Text columns are indexed by their first 200 characters, hence the pairs of conditions on `left(column, 200)` and the
whole column. Lookups by identifier go through the schema's own functions, which touch the few partitions around the day
that the identifier names.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any

from psycopg.rows import dict_row

from api.read_slots import ReadSlots
from core.db import Pool
from core.testnames import KNOWN_TEST_NAMES

ORDER_COLUMNS = ("measurement_start_time", "input", "probe_cc", "probe_asn", "test_name")

_INDEXED_CHARACTERS = 200
_TEST_NAME = "coalesce(test_name::text, test_name_other, '')"
_LIST_COLUMNS = f"""measurement_uid, report_id, probe_cc, probe_asn, {_TEST_NAME} AS test_name,
    measurement_start_time, input, anomaly, confirmed, msm_failure, scores"""
_META_COLUMNS = f"""measurement_uid, report_id, probe_cc, probe_asn, {_TEST_NAME} AS test_name,
    measurement_start_time, test_start_time, input, anomaly, confirmed, msm_failure, scores::text AS scores"""


@dataclass(frozen=True, slots=True)
class ListFilter:
    """What to list: empty lists and None stand for no condition. `since` is exclusive, `until` inclusive."""

    report_id: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    input: str | None = None
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


class MeasurementQueries:
    """Reads of the measurement tables.

    Every method raises DatabaseUnavailable when the database is away, ApiError 503 when too many readers are at work,
    and psycopg errors when a query fails.
    """

    def __init__(self, pool: Pool, slots: ReadSlots) -> None:
        """Take the pool of this worker process and its slots for readers."""
        self._pool = pool
        self._slots = slots

    def page(self, wanted: ListFilter, *, order_by: str, descending: bool, limit: int, offset: int) -> list[Any]:
        """Return one page of measurements as dictionaries, with a stable order."""
        source, where, values = _conditions(wanted)
        direction = "DESC" if descending else "ASC"
        column = _TEST_NAME if order_by == "test_name" else order_by
        assert order_by in ORDER_COLUMNS
        statement = f"""SELECT {_LIST_COLUMNS} FROM {source} WHERE {" AND ".join(where)}
            ORDER BY {column} {direction}, measurement_uid {direction} LIMIT %s OFFSET %s"""  # noqa: S608 names from constants, values are parameters
        return self._rows(statement, [*values, limit, offset])

    def meta_by_uid(self, uid: str) -> dict[str, Any] | None:
        """Return the row of a measurement uid."""
        return self._first(f"SELECT {_META_COLUMNS} FROM fastpath_by_uid(%s) WHERE probe_asn <> 0 LIMIT 1", [uid])  # noqa: S608 names from constants, values are parameters

    def meta_by_report(self, report_id: str, input_: str | None) -> dict[str, Any] | None:
        """Return the first row of a report with this input; None looks for rows without an input."""
        statement = f"""SELECT {_META_COLUMNS} FROM fastpath_by_report_id(%s) WHERE input = %s AND probe_asn <> 0
            ORDER BY measurement_uid LIMIT 1"""  # noqa: S608 names from constants, values are parameters
        return self._first(statement, [report_id, input_ or ""])

    def _first(self, statement: str, values: list[Any]) -> dict[str, Any] | None:
        rows = self._rows(statement, values)
        return rows[0] if rows else None

    def _rows(self, statement: str, values: list[Any]) -> list[Any]:
        with (
            self._slots.one(),
            self._pool.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            return cursor.execute(statement.encode(), values).fetchall()


def _conditions(wanted: ListFilter) -> tuple[str, list[str], list[Any]]:
    """Return the source of rows, the conditions and the values."""
    source = "fastpath"
    values: list[Any] = []
    where = ["probe_asn <> 0", "probe_cc <> 'ZZ'"]

    def add(condition: str, *parameters: Any) -> None:
        where.append(condition)
        values.extend(parameters)

    if wanted.report_id is not None:
        source = "fastpath_by_report_id(%s)"
        values.append(wanted.report_id)
    if wanted.since is not None:
        add("measurement_start_time > %s", wanted.since)
    if wanted.until is not None:
        add("measurement_start_time <= %s", wanted.until)
    for column, texts in (
        ("input", (wanted.input,) if wanted.input is not None else ()),
        ("domain", wanted.domains),
        ("probe_cc", wanted.countries),
    ):
        if texts:
            add(*_equal_text(column, texts))
    if wanted.networks:
        add(*_equal("probe_asn", wanted.networks))
    if wanted.test_names:
        add(*_equal_test_name(wanted.test_names))
    for column, flag in (
        ("confirmed", wanted.confirmed),
        ("anomaly", wanted.anomaly),
        ("msm_failure", wanted.failure),
    ):
        if flag is not None:
            add(f"{column} = %s", flag)
    for column, versions in (
        ("software_version", wanted.software_versions),
        ("test_version", wanted.test_versions),
        ("engine_version", wanted.engine_versions),
    ):
        if versions:
            add(*_equal(column, versions))
    if wanted.run_link_id is not None:
        add("ooni_run_link_id = %s::numeric", wanted.run_link_id)
    return source, where, values


def _equal(column: str, options: tuple[Any, ...]) -> tuple[Any, ...]:
    # A single value is compared with =, so that an index on it also gives the order.
    if len(options) == 1:
        return f"{column} = %s", options[0]
    return f"{column} = ANY(%s)", list(options)


def _equal_text(column: str, options: tuple[str, ...]) -> tuple[Any, ...]:
    prefix = _equal(f"left({column}, {_INDEXED_CHARACTERS})", tuple(text[:_INDEXED_CHARACTERS] for text in options))
    whole = _equal(column, options)
    return f"{prefix[0]} AND {whole[0]}", prefix[1], whole[1]


def _equal_test_name(names: tuple[str, ...]) -> tuple[Any, ...]:
    known = tuple(name for name in names if name in KNOWN_TEST_NAMES)
    other = tuple(name for name in names if name not in KNOWN_TEST_NAMES)
    parts: list[str] = []
    values: list[Any] = []
    if known:
        marks = ", ".join(["%s::ootest"] * len(known))
        parts.append(f"test_name IN ({marks})" if len(known) > 1 else "test_name = %s::ootest")
        values.extend(known)
    if other:
        condition, *given = _equal_text("test_name_other", other)
        parts.append(f"(test_name IS NULL AND {condition})")
        values.extend(given)
    return f"({' OR '.join(parts)})", *values
